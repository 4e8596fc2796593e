"""What the governor begins with: warm latencies, a profile that fits, and a sentence for one that does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import device_name, profile_path
from edged.engines.pool import Pool
from edged.loop.device_info import DeviceInfo, what_is_known
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
        text = profile if isinstance(profile, str) else json.dumps({"version": 1, "device": device_name()} | profile)
        profile_path(bundle.directory, device_name()).write_text(text)
    with Pool.open(bundle, EngineConfig(device="cpu")) as pool:
        return what_is_known(pool, bundle)


def test_without_a_profile_there_are_the_warm_latencies(tmp_path: Path) -> None:
    known = known_with(tmp_path, None)
    assert [v.name for v in known.variants] == ["fine", "fast"] and known.device is None and known.refused is None
    assert all(0 < v.latency_ms[0] < 100 and v.active_w == () for v in known.variants)


def test_a_profile_brings_watts(tmp_path: Path) -> None:
    known = known_with(tmp_path, {"runs": [run("fine", 0.05), run("fast", 0.02)], "idle_w": [4.0]})
    assert known.refused is None and known.device is not None and known.device.held
    assert known.device.idle_w == (4.0,)
    assert {v.name: v.active_w for v in known.variants} == {"fine": (5.0,), "fast": (2.0,)}
    assert known.clocks_mhz == (), "nothing here can change the clock"


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("{not json", "is not a device profile"),
        ({"runs": [run("fine", 0.05)], "idle_w": [4.0]}, "has no measurement of fast"),
        ({"runs": [run("fine", 0.05, clock=7), run("fast", 0.02)], "idle_w": [4.0]}, "do not fit clocks_mhz"),
    ],
)
def test_a_profile_that_is_none_is_done_without(profile: dict[str, Any] | str, says: str, tmp_path: Path) -> None:
    known = known_with(tmp_path, profile)
    assert known.device is None and len(known.variants) == 2
    assert (
        known.refused is not None and says in known.refused.message and "edged-calibrate profile" in known.refused.hint
    )


def test_a_profile_of_other_files_is_none_of_ours(tmp_path: Path) -> None:
    known = known_with(tmp_path, {"runs": [run("fine", 0.05, sha256="0" * 64)], "idle_w": [4.0]})
    assert known.device is None and known.refused is None
