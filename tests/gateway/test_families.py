"""A state as metric families: each number once, unknown absent, and names that promtool accepts."""

from __future__ import annotations

import msgspec
import pytest

from edged.bus.schema import Agreement, Battery, Guard, InputDrift, Recording, State
from edged.gateway.families import LIMITS, families
from edged.governor.messages import RELAX_ORDER
from tests.support import messages


def samples(state: State) -> dict[str, dict[tuple[str, ...], float]]:
    """name -> values of the labels -> value"""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families(state):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            key = tuple(sample.labels.values())
            assert key not in series, f"{sample.name} twice"
            series[key] = sample.value
    return found


def test_the_cameras_counts_are_the_daemons() -> None:
    found = samples(messages.state())
    assert found["edged_camera_frames_captured_total"] == {("gate",): 10}
    assert found["edged_camera_results_total"] == {("gate",): 8}
    assert found["edged_camera_drops_total"] == {("gate", "superseded"): 1}
    assert found["edged_camera_last_frame_age_seconds"] == {("gate",): 0.005}
    states = found["edged_camera_state"]
    assert [key for key, value in states.items() if value] == [("gate", "live")] and len(states) == 6
    assert found["edged_build_info"] == {("0.1.0", "demo", "map50"): 1}
    assert found["edged_limit"] == {("deadline_ms",): 50}, "a limit that is not set is absent"


def test_unknown_is_absent() -> None:
    found = samples(messages.state())
    unknown = (
        "power_watts",
        "rail_power_watts",
        "battery_charge_joules",
        "variant_share_ratio",
        "recording_dropped_total",
    )
    for name in (*unknown, "variant_agreement_ratio"):
        assert f"edged_{name}" not in found, name
    assert found["edged_throttle_events_total"] == {("under_voltage",): 0, ("average_over_current",): 1}
    bare = samples(msgspec.structs.replace(messages.state(), telemetry=None, decision=None, cameras=[], variants=[]))
    assert set(bare) == {"edged_build_info", "edged_uptime_seconds", "edged_healthy", "edged_limit"}


@pytest.mark.parametrize("estimated", [False, True])
def test_watts_and_joules_say_whether_they_are_estimated(estimated: bool) -> None:
    telemetry = msgspec.structs.replace(
        messages.telemetry(),
        power_w=7.5,
        power_estimated=estimated,
        rails_w={"cpu": 2.0, "gpu": None},
        battery=Battery(100.0, 200.0, None),
    )
    found = samples(msgspec.structs.replace(messages.state(), telemetry=telemetry))
    assert found["edged_power_watts"] == {(str(estimated).lower(),): 7.5}
    assert found["edged_energy_joules_total"] == {(str(estimated).lower(),): 1234.5}
    assert found["edged_rail_power_watts"] == {("cpu",): 2}
    assert found["edged_battery_charge_joules"] == {(): 100}
    assert found["edged_memory_available_bytes"] == {(): 1.024e9}
    assert found["edged_gpu_usage_ratio"] == {(): 0.375} and found["edged_gpu_clock_hertz"] == {(): 6.12e8}


def test_shares_and_limits_that_gave_way() -> None:
    decision = msgspec.structs.replace(messages.decision(), shares={"fp32": 0.75}, yielded=["power"], unheld=["heat"])
    found = samples(msgspec.structs.replace(messages.state(), decision=decision))
    assert found["edged_variant_share_ratio"] == {("fp32",): 0.75}
    assert {key for (key,), value in found["edged_limit_relaxed"].items() if value} == {"power"}
    assert found["edged_limits_unenforceable"] == {(): 1}


def test_the_limits_are_the_governors() -> None:
    assert LIMITS == RELAX_ORDER


def test_the_guard() -> None:
    guard = Guard(
        "fp32",
        5,
        0.01,
        12.0,
        {"busy": 2},
        [
            Agreement("gate", "int8", 0.4, 0.3, 0.5, 9, 0.9, True),
            Agreement("gate", "fp16", None, None, None, 0, 0.9, False),
        ],
        [
            InputDrift("gate", True, "dark", 10.0, 5.0, 40.0, 200.0),
            InputDrift("yard", False, "", None, None, 40.0, 200.0),
        ],
    )
    recording = Recording("/x", 1.0, 3, None)
    found = samples(msgspec.structs.replace(messages.state(), guard=guard, recording=recording))
    assert found["edged_variant_agreement_ratio"] == {("gate", "int8"): 0.4}
    assert found["edged_variant_vetoed"] == {("gate", "int8"): 1, ("gate", "fp16"): 0}
    assert found["edged_input_drifted"] == {("gate",): 1}, "no picture of yard has been seen yet"
    assert found["edged_shadow_runs_skipped_total"] == {("busy",): 2}
    assert found["edged_recording_dropped_total"] == {(): 3}
