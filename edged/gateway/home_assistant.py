"""The discovery message of Home Assistant: a node as a device with its entities. Pure, any thread.

Its format: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload (from 2024.11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edged.bus.schema import State

Component = dict[str, Any]

NO_PROFILE: Final = "no profile"
"""Home Assistant takes "none" for unknown."""


def discovery_topic(node: str) -> str:
    return f"homeassistant/device/edged_{node}/config"


def discovery(root: str, state: State, profiles: Sequence[str], commands: bool, snapshots: bool) -> dict[str, Any]:
    """`root`: edged/NODE. `profiles`: the names that can be chosen, if there are `commands`."""
    node = root.rpartition("/")[2]
    components = _device(root, state, profiles, commands)
    for camera in state.cameras:
        components |= _camera(f"{root}/camera/{camera.camera}", camera.camera, snapshots)
    for key, component in components.items():
        component["unique_id"] = f"edged_{node}_{key}"
    return {
        "device": {
            "identifiers": [f"edged_{node}"], "name": node, "manufacturer": "edged", "model": state.bundle,
            "sw_version": state.version,
        },
        "origin": {"name": "edged", "sw_version": state.version},
        "availability_topic": f"{root}/available",
        "state_topic": f"{root}/state",
        "components": components,
    }  # fmt: skip


def _device(root: str, state: State, profiles: Sequence[str], commands: bool) -> dict[str, Component]:
    estimated = " (estimated)" if state.telemetry is not None and state.telemetry.power_estimated else ""
    found = {
        "power": _sensor(f"Power{estimated}", "power_w", "W", "power"),
        "energy": _sensor(f"Energy{estimated}", "energy_kwh", "kWh", "energy", "total_increasing"),
        "temperature": _sensor("Temperature", "temperature_c", "°C", "temperature"),
        "results": _sensor("Results", "results_per_s", "fps"),
        "variant": {"platform": "sensor", "name": "Variant", "value_template": "{{ value_json.variant }}"},
        "problem": {
            "platform": "binary_sensor", "name": "Problem", "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.problems else 'OFF' }}",
            "json_attributes_topic": f"{root}/state",
            "json_attributes_template": "{{ {'problems': value_json.problems} | tojson }}",
        },
    }  # fmt: skip
    profile = {"name": "Profile", "value_template": f"{{{{ value_json.profile or '{NO_PROFILE}' }}}}"}
    if commands:
        found["profile"] = {
            "platform": "select", **profile, "command_topic": f"{root}/command/profile",
            "command_template": f"{{{{ 'none' if value == '{NO_PROFILE}' else value }}}}",
            "options": list(dict.fromkeys([NO_PROFILE, *profiles, state.profile or NO_PROFILE])),
        }  # fmt: skip
    else:
        found["profile"] = {"platform": "sensor", **profile}
    return found


def _camera(topic: str, name: str, snapshots: bool) -> dict[str, Component]:
    found = {
        f"{name}_results": {**_sensor(f"{name} results", "results_per_s", "fps"), "state_topic": f"{topic}/state"},
        f"{name}_problem": {
            "platform": "binary_sensor", "name": f"{name} problem", "device_class": "problem",
            "state_topic": f"{topic}/state", "value_template": "{{ 'OFF' if value_json.state == 'live' else 'ON' }}",
            "json_attributes_topic": f"{topic}/state",
            "json_attributes_template": "{{ {'state': value_json.state, 'reason': value_json.reason} | tojson }}",
        },
        f"{name}_objects": {
            "platform": "sensor", "name": f"{name} objects", "state_topic": f"{topic}/objects",
            "state_class": "measurement", "value_template": "{{ value_json.values() | sum }}",
            "json_attributes_topic": f"{topic}/objects",
        },
    }  # fmt: skip
    if snapshots:
        found[f"{name}_snapshot"] = {"platform": "camera", "name": name, "topic": f"{topic}/snapshot"}
    return found


def _sensor(name: str, key: str, unit: str, kind: str | None = None, state_class: str = "measurement") -> Component:
    found = {
        "platform": "sensor", "name": name, "unit_of_measurement": unit, "state_class": state_class,
        "value_template": f"{{{{ value_json.{key} }}}}",
    }  # fmt: skip
    return found if kind is None else {**found, "device_class": kind}
