"""Profiles of a bundle: real engines, a meter whose watts are known, the daemon's path on a GPU, every clock."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edged import clock
from edged.config import EngineConfig
from edged.engines import pool as pool_module
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import Conditions, device_name, load_profile, profile_path
from edged.errors import EdgedError
from edged.power.provider import Sample
from edged_calibration.cache import write_json
from edged_calibration.profile.measure import Plan, measure
from edged_calibration.progress import QUIET, Advance
from tests.support.host_gpu import HostGpu, HostGpuRuntime
from tests.support.models import center_model, write_bundle

SHIPPED = Path("edged/bundles/demo")
MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}


@dataclass
class Meter:
    """Reads `idle_w` until the first busy reading is asked for, then `busy_w`; None has no meter."""

    idle_w: float | None
    busy_w: float | None
    idle_readings: int
    name: str = "scripted"
    readings: int = 0

    def read(self) -> Sample:
        self.readings += 1
        watts = self.idle_w if self.readings <= self.idle_readings else self.busy_w
        return Sample(self.name, clock.mono_ns(), power_w=watts, power_estimated=True)

    def close(self) -> None:
        pass


@dataclass
class Ceiling:
    """Notes what was set; `watts` follow it."""

    clocks_mhz: Sequence[float] = (300.0, 600.0, 900.0)
    asked: list[int] = field(default_factory=list)
    name: str = "by clock"

    def set(self, index: int) -> None:
        self.asked.append(index)

    def read(self) -> Sample:
        return Sample(self.name, clock.mono_ns(), power_w=2.0 + self.asked[-1])

    def close(self) -> None:
        pass


def test_latencies_are_ordered_and_tied_to_what_ran() -> None:
    bundle = load_bundle(SHIPPED)
    found = measure(bundle, Meter(None, None, 0), EngineConfig("cpu", 1, 4), Plan(0.25, (1, 2), power_mode="15W"))
    assert found.conditions == Conditions(device_name(), "cpu", "15W", 1)
    assert not found.idle_w and found.power_provider == "scripted" and found.clocks_mhz == []
    digests = {file.sha256 for variant in bundle.manifest.variants for file in variant.files}
    assert {(run.variant, run.batch) for run in found.runs} == {
        (name, batch) for name in ("fp16", "int8-sparse") for batch in (1, 2)
    }
    for run in found.runs:
        assert run.sha256 in digests and run.runs >= 5 and run.energy_j is None
        assert 0 < run.latency_p50_ms <= run.latency_p90_ms <= run.latency_p99_ms
    times = {(run.variant, run.batch): run.latency_p50_ms for run in found.runs}
    assert times["fp16", 2] > 1.2 * times["fp16", 1]


def test_energy_is_what_is_above_idle() -> None:
    meter = Meter(5.0, 9.0, idle_readings=5)  # one to begin with, three while idle, one at its end
    found = measure(load_bundle(SHIPPED), meter, EngineConfig("cpu", 1, 1), Plan(0.25))
    assert found.idle_w == [pytest.approx(5.0)] and found.estimated
    for run in found.runs:
        assert run.energy_j is not None  # 4 W above idle, for as long as a frame takes on average
        assert 0.4 * run.latency_p50_ms < run.energy_j * 1000 / 4 < 2 * run.latency_p99_ms


def test_all_batches_and_clocks_are_measured_and_the_file_fits_what_the_daemon_runs(tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b", MODELS))
    ceiling = Ceiling()
    found = measure(bundle, ceiling, EngineConfig("cpu", 2, 3), Plan(0.02), ceiling)
    assert ceiling.asked == [0, 1, 2] and found.clocks_mhz == [300.0, 600.0, 900.0]
    assert found.idle_w == [2.0, 3.0, 4.0]
    assert {(run.variant, run.batch, run.clock) for run in found.runs} == {
        (name, batch, index) for name in MODELS for batch in (1, 2, 3) for index in range(3)
    }
    write_json(profile_path(bundle.directory, found.conditions), found)
    here = Conditions(device_name(), "cpu", None, 2)
    assert load_profile(bundle.directory, here, {n: hashlib.sha256(m).hexdigest() for n, m in MODELS.items()}) == found


def test_on_a_gpu_the_pictures_go_through_its_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = HostGpu()
    monkeypatch.setattr(pool_module, "runtimes", lambda config, manifest: [HostGpuRuntime(gpu)])
    bundle = load_bundle(write_bundle(tmp_path / "b", MODELS))
    found = measure(bundle, Meter(None, None, 0), EngineConfig("auto", 1, 2), Plan(0.02))
    assert found.conditions == Conditions("host", "cuda") and "kernel" in gpu.calls
    assert {run.batch for run in found.runs} == {1, 2}


def test_batches_without_the_first_are_refused() -> None:
    with pytest.raises(EdgedError, match="batch 1 is not among the batches") as refused:
        measure(load_bundle(SHIPPED), Meter(None, None, 0), EngineConfig("cpu", 1, 1), Plan(0.1, (2,)))
    assert "from 1 to 1" in refused.value.hint


class Notes:
    """Stages that keep what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        return QUIET.stage(title)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_soak_without_sensors_is_left_out_with_the_reason(tmp_path: Path) -> None:
    bundle, notes = load_bundle(write_bundle(tmp_path / "b", MODELS)), Notes()
    plan = Plan(0.02, (1,), soak_s=3600.0)
    found = measure(bundle, Meter(None, None, 0), EngineConfig("cpu", 1, 1), plan, stages=notes)
    assert found.thermal is None
    assert notes.said == ["no soak: it needs the power and a temperature, which cannot be read here"]
