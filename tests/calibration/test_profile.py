"""Profiles of a bundle: real engines, and a meter whose watts are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edged import clock
from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import device_name
from edged.errors import EdgedError
from edged.power.telemetry import Sample
from edged_calibration.profile.measure import measure

SHIPPED = Path("edged/bundles/demo")


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


def test_latencies_are_ordered_and_tied_to_the_digests() -> None:
    bundle = load_bundle(SHIPPED)
    found = measure(bundle, Meter(None, None, 0), EngineConfig("cpu", 1, 4), (1, 2), 0.25, idle_s=0.1)
    assert found.device == device_name() and not found.idle_w and found.power_provider == "scripted"
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
    meter = Meter(5.0, 9.0, idle_readings=4)  # one to begin with, two while idle, one at its end
    found = measure(load_bundle(SHIPPED), meter, EngineConfig("cpu", 1, 1), (1,), 0.25, idle_s=0.15)
    assert found.idle_w == [pytest.approx(5.0)] and found.estimated
    for run in found.runs:
        assert run.energy_j is not None  # 4 W above idle, for as long as a frame takes on average
        assert 0.4 * run.latency_p50_ms < run.energy_j * 1000 / 4 < 2 * run.latency_p99_ms


def test_batches_that_the_bundle_does_not_take_are_refused() -> None:
    with pytest.raises(EdgedError, match="batches up to 1"):
        measure(load_bundle(SHIPPED), Meter(None, None, 0), EngineConfig("cpu", 1, 1), (2,), 0.1, idle_s=0.1)
