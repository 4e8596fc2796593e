"""The governor of the arena starts from what a daemon has: a device profile's file, or warm latencies alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.engines.device_profile import Conditions, load_profile, profile_path
from edged.governor.messages import Request, Start
from edged.loop.device_info import from_profile
from edged.simulate.arena import NominalProfile, nominal_profile
from edged.simulate.governor_policy import GovernorPolicy, device_profile, warm_variants
from edged.simulate.scenario import Truth

HERE = Conditions("simulated", "tensorrt")


def nominal() -> NominalProfile:
    return nominal_profile(Truth({"name": "short", "dev": "nx", "T": 20, "D": 50, "cap": 9, "n": 2}, 1))


def started(profiled: bool) -> Start:
    calls: list[Request] = []
    GovernorPolicy(profiled=profiled, on_call=lambda _now, request, _answer, _governor: calls.append(request)).start(
        nominal()
    )
    assert isinstance(calls[0], Start)
    return calls[0]


def test_the_profile_is_a_file_that_the_daemon_reads(tmp_path: Path) -> None:
    profile_path(tmp_path, HERE).write_bytes(device_profile(nominal()))
    warm = warm_variants(nominal())
    read = load_profile(tmp_path, HERE, {variant.name: "0" * 64 for variant in warm})
    assert read is not None
    assert (started(True).variants, started(True).device) == from_profile(warm, read)


def test_it_says_what_the_device_is_nominally() -> None:
    known, start = nominal(), started(True)
    device = start.device
    assert device is not None and device.fixed_clock and device.idle_w == tuple(known.idle_w)
    assert device.sink_air_c_per_w == known.table.sink_air_c_per_w and device.leakage_w_per_c > 0
    int8 = start.variants[1]
    assert int8.latency_ms[0] == pytest.approx(1000 * known.latency_s[1, -1]) and len(int8.latency_ms) == 2
    assert int8.clock_factor == pytest.approx(known.latency_s[1] / known.latency_s[1, -1])
    assert int8.active_w == pytest.approx(known.active_w[1])


def test_without_one_only_accuracies_and_warm_latencies_are_known() -> None:
    start = started(False)
    assert start.device is not None and not any(start.device.idle_w) and start.device.clock_ratio[-1] == 1.0
    assert all(v.latency_ms and not v.clock_factor and not v.active_w for v in start.variants)
