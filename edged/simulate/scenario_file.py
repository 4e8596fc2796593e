"""A scenario file: a table of TOML or JSON in, what the arena runs out, with a profile's limits. Pure.

Beside the arena's own keys (`scenario`) a file has `about`, a sentence, and `device.NAME`, keys that hold for one
device alone: a watt means something else on each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, structs

from edged.config import Limits
from edged.errors import UsageError
from edged.governor.messages import Budget
from edged.simulate.governor_policy import NO_CAP_W
from edged.simulate.tables import NAMES
from edged.validate import convert

LIMITS: Final = {"deadline_ms": "D", "power_w": "cap", "power_window_s": "W", "temperature_c": "Tlim"}
"""Limits that the arena's scenario holds itself, since it judges by them."""
NO_LIMIT: Final = {"cap": NO_CAP_W, "Tlim": 97.0}

Shape = float | list[Any] | dict[str, Any]
WattHours = Annotated[float, Meta(ge=1e-3, le=1e6, description="watt-hours, from 0.001 to 1e6")]
Share = Annotated[float, Meta(ge=0, le=1, description="a share from 0 to 1")]
Spread = Annotated[float, Meta(ge=0, le=2, description="a standard deviation from 0 to 2")]


class Battery(Struct, frozen=True, forbid_unknown_fields=True):
    cap_wh: WattHours
    soc0: Share = 1.0


class Sensor(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    hz: Annotated[float, Meta(ge=0.1, le=10, description="readings per second, 0.1 to 10")] = 5.0
    lag: Annotated[float, Meta(ge=0, le=60, description="seconds, 0 to 60")] = 0.2
    tau: Annotated[float, Meta(ge=0, le=60, description="seconds, 0 to 60")] = 0.4
    noise: Share = 0.012
    lsb: Annotated[float, Meta(gt=0, le=10, description="watts, above 0 and at most 10")] = 0.05
    gain: Share = 0.01
    drop: Share = 0.0
    stuck: list[tuple[float, float]] = []


class ScenarioFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The keys of a scenario, for one device."""

    T: Annotated[float, Meta(ge=10, le=172_800, description="seconds, from 10 to 172800")]
    D: Annotated[float, Meta(gt=0, le=60_000, description="the deadline in milliseconds, above 0 and at most 60000")]
    cap: Shape
    fps: Shape = 30.0
    still: Shape | None = None
    """the share of each camera's frames that its motion gate leaves out"""
    n: Annotated[int, Meta(ge=1, le=16, description="cameras, a whole number from 1 to 16")] = 1
    W: Annotated[int, Meta(ge=1, le=3600, description="the power window, whole seconds from 1 to 3600")] = 30
    Tlim: Annotated[float, Meta(gt=30, le=97, description="degrees Celsius, above 30 and at most 97")] = 90.0
    bat: Battery | None = None
    sens: Sensor = Sensor()
    amb: Shape = 25.0
    rsa: Shape = 1.0
    co: Shape = 0.0
    gcont: Shape = 1.0
    mcont: Shape = 1.0
    sun: Shape = 0.0
    diff: Shape = 0.4
    tj0: Annotated[float, Meta(ge=-40, le=104, description="degrees Celsius, from -40 to 104")] | None = None
    mis: Spread = 0.08
    rmis: Spread = 0.10
    lsd: Spread = 0.03
    spike: Share = 0.004
    ptail: Annotated[float, Meta(gt=0, le=100, description="a number above 0 and at most 100")] = 2.0
    drho: Share = 0.95
    dsd: Share = 0.10
    varcorr: Annotated[float, Meta(ge=-1, le=1, description="a number from -1 to 1")] = 0.6
    fcerr: Spread = 0.2
    fcbias: Spread = 0.05


def scenario(data: Mapping[str, Any], device: str, where: str) -> dict[str, Any]:
    """The arena's scenario on `device`. UsageError for what is none."""
    table = dict(data)
    own = table.pop("device", {})
    about, name = table.pop("about", ""), table.pop("name", where)
    table.pop("dev", None)
    table.pop("seeds", None)
    if not isinstance(own, dict) or not isinstance(own.get(device, {}), dict):
        raise UsageError(f"{where}: device must be a table for each device", f"write [device.{device}]")
    if unknown := own.keys() - NAMES.keys():
        raise UsageError(f"{where}: there is no device {sorted(unknown)[0]!r}", f"known are {', '.join(NAMES)}")
    file = convert(table | own.get(device, {}), ScenarioFile, where)
    values = {key: _plain(getattr(file, key)) for key in file.__struct_fields__}
    values = {key: value for key, value in values.items() if value is not None}
    return {"name": str(name), "about": str(about), "dev": NAMES[device], **values}


def with_limits(scenario: Mapping[str, Any], limits: Mapping[str, float | None]) -> dict[str, Any]:
    """With limits that a profile or a person set."""
    changed = dict(scenario)
    for key, arena in LIMITS.items():
        if key in limits:
            value = limits[key]
            changed[arena] = NO_LIMIT[arena] if value is None else min(value, NO_LIMIT.get(arena, value))
    changed["W"] = max(1, round(changed["W"]))
    return changed


def budget(limits: Mapping[str, float | None]) -> Budget:
    """What of these limits the governor alone holds: quantile, accuracy floor and energy."""
    known = structs.replace(Limits(), **{key: value for key, value in limits.items() if key not in LIMITS})
    return replace(
        Budget(known.deadline_ms, known.deadline_quantile, known.min_accuracy),
        energy_wh=known.energy_wh,
        min_fps=known.min_fps,
        energy_horizon_h=known.energy_horizon_h,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Sensor | Battery):
        return {key: _plain(getattr(value, key)) for key in value.__struct_fields__}
    return value
