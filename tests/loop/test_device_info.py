"""What the governor begins with: warm latencies, a profile that fits, and a sentence for one that does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import (
    Conditions,
    DeviceProfile,
    ProfiledRun,
    Thermal,
    device_name,
    profile_path,
)
from edged.engines.pool import Pool
from edged.governor.messages import Device, Variant
from edged.loop.device_info import DeviceInfo, from_profile, mode_in_force, read_device_info, with_guessed_clocks
from tests.support.jetson_tree import JetsonTree
from tests.support.models import center_model, write_bundle

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}


def run(variant: str, energy_j: float | None, **changes: Any) -> dict[str, Any]:
    digest = hashlib.sha256(MODELS[variant]).hexdigest()
    entry: dict[str, Any] = {"variant": variant, "sha256": digest, "batch": 1, "clock": 0, "runs": 10}
    latencies = {"latency_p50_ms": 10.0, "latency_p90_ms": 11.0, "latency_p99_ms": 12.0}
    return entry | latencies | {"energy_j": energy_j} | changes


def known_with(directory: Path, profile: dict[str, Any] | str | None) -> DeviceInfo:
    bundle = load_bundle(write_bundle(directory / "bundle", MODELS))
    if profile is not None:
        head = {"version": 2, "device": device_name(), "runtime": "cpu"}
        text = profile if isinstance(profile, str) else json.dumps(head | profile)
        profile_path(bundle.directory, Conditions(device_name(), "cpu")).write_text(text)
    with Pool.open(bundle, EngineConfig(device="cpu")) as pool:
        return read_device_info(pool, bundle)


def test_without_a_profile_there_are_the_warm_latencies(tmp_path: Path) -> None:
    known = known_with(tmp_path, None)
    assert [v.name for v in known.variants] == ["fine", "fast"] and known.device is None and known.refused is None
    assert all(0 < v.latency_ms[0] < 100 and v.active_w == () for v in known.variants)


def test_a_profile_brings_watts(tmp_path: Path) -> None:
    known = known_with(tmp_path, {"runs": [run("fine", 0.05), run("fast", 0.02)], "idle_w": [4.0]})
    assert known.refused is None and known.device is not None and known.device.fixed_clock
    assert known.device.idle_w == (4.0,)
    assert {v.name: v.active_w for v in known.variants} == {"fine": (5.0,), "fast": (2.0,)}
    assert known.clocks_mhz == (), "nothing here can change the clock"


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("{not json", "is not a device profile"),
        ({"runs": [run("fine", 0.05)], "idle_w": [4.0]}, "has no measurement of fast"),
        ({"runs": [run("fine", 0.05, clock=7), run("fast", 0.02)], "idle_w": [4.0]}, "do not fit clocks_mhz"),
        ({"runs": [run("fine", 0.05, sha256="0" * 64), run("fast", 0.02)]}, "measured another file of fine"),
        ('{"version": 1}', "is of an older form"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(profile: dict[str, Any] | str, says: str, tmp_path: Path) -> None:
    known = known_with(tmp_path, profile)
    assert known.device is None and len(known.variants) == 2
    assert (
        known.refused is not None and says in known.refused.message and "edged-calibrate profile" in known.refused.hint
    )


@pytest.mark.parametrize(
    ("power_mode", "threads", "says"),
    [("15W", 1, "was measured in power mode unknown; the mode is 15W"), (None, 2, "was measured with 1 threads")],
)
def test_a_profile_of_another_power_mode_or_of_other_threads_is_refused(
    tmp_path: Path, power_mode: str | None, threads: int, says: str
) -> None:
    known_with(tmp_path, {"runs": [run("fine", 0.05), run("fast", 0.02)], "idle_w": [4.0]})
    bundle = load_bundle(tmp_path / "bundle")
    with Pool.open(bundle, EngineConfig(device="cpu", threads=threads)) as pool:
        known = read_device_info(pool, bundle, power_mode, threads)
    assert known.device is None and known.refused is not None and says in known.refused.message


def test_the_power_mode_is_that_of_the_power_profile_else_the_one_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = JetsonTree(tmp_path)
    assert mode_in_force(None, str(tree.bin)) == "15W" and mode_in_force("25W", str(tree.bin)) == "25W"
    assert mode_in_force(None, str(tmp_path)) is None and not caplog.text, "a machine without nvpmodel"
    tree.make("state/nvpmodel.fail", 1)
    assert mode_in_force(None, f"{tree.bin}:/usr/bin:/bin") is None
    assert "the power mode is unknown: nvpmodel -q failed with exit code 255: NVPM ERROR" in caplog.text


def profiled(variant: str, batch: int, clock: int, ms: float, joules: float | None = None) -> ProfiledRun:
    return ProfiledRun(variant, "0" * 64, batch, clock, ms, 1.1 * ms, 1.3 * ms, 100, joules)


PROFILE = DeviceProfile(
    2,
    "desk",
    "tensorrt",
    [
        profiled("fp16", 1, 0, 40.0, 0.16),
        profiled("fp16", 1, 1, 20.0, 0.24),
        profiled("fp16", 2, 1, 36.0),
        profiled("fp16", 4, 1, 64.0),
        profiled("int8", 1, 1, 10.0, 0.12),
    ],
    clocks_mhz=[400.0, 900.0],
    idle_w=[4.0, 5.0],
    thermal=Thermal(10.0, 80.0, 1.0, 4.0, 0.02),
)
KNOWN_VARIANTS = (Variant("fp16", 0.8, (99.0,)), Variant("int8", 0.7, (99.0,)), Variant("other", 0.6, (5.0,)))


def test_latency_watts_and_clocks_come_from_the_runs() -> None:
    (fp16, int8, other), device = from_profile(KNOWN_VARIANTS, PROFILE)
    assert fp16.latency_ms == (20.0, 36.0, 50.0, 64.0)  # 3 is between 2 and 4
    assert fp16.clock_factor == (2.0, 1.0)
    assert fp16.active_w == pytest.approx((4.0, 12.0))  # 0.16 J in 40 ms, 0.24 J in 20 ms
    assert fp16.accuracy == 0.8
    assert int8.clock_factor == (1.0, 1.0) and int8.active_w == pytest.approx((12.0, 12.0))  # not measured at 400 MHz
    assert other is KNOWN_VARIANTS[2]
    assert device == Device((4.0, 5.0), True, 0.02, 10.0, 80.0, 1.0, 4.0)


def test_without_a_meter_there_is_no_device_and_without_clocks_none_to_choose() -> None:
    runs = [profiled("fp16", 1, 0, 20.0)]
    (fp16, *_), device = from_profile(KNOWN_VARIANTS, DeviceProfile(2, "desk", "cpu", runs))
    assert device is None and fp16.latency_ms == (20.0,) and fp16.active_w == ()
    _, device = from_profile(KNOWN_VARIANTS, DeviceProfile(2, "desk", "cpu", runs, idle_w=[7.0]))
    assert device is not None and device.fixed_clock and device.idle_w == (7.0,)


def test_where_nothing_was_measured_a_few_of_the_gpus_clocks_are_chosen_from(tmp_path: Path) -> None:
    board = JetsonTree(tmp_path / "board")  # 306 to 1020 MHz
    warm = (Variant("fine", 0.8, (10.0,), (1.0,)),)
    known = with_guessed_clocks(DeviceInfo(warm), board.root)
    assert known.clocks_mhz == (306, 510, 714, 816, 1020) and known.clock_matters
    assert known.device is not None and known.device.fixed_clock and known.variants[0].clock_factor == ()
    assert known.device.clock_ratio == pytest.approx([mhz / 1020 for mhz in known.clocks_mhz])

    measured = DeviceInfo(warm, Device((4.0,)))
    assert with_guessed_clocks(measured, board.root) is measured
    bare = DeviceInfo(warm)
    assert with_guessed_clocks(bare, tmp_path / "elsewhere") is bare and not bare.clock_matters
