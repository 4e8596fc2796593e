"""The long lane's soak, twenty minutes of `scripts/soak`; and how a run is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.soaking.__main__ import soak
from scripts.soaking.measure import Sample, judge

SAMPLES = [Sample(5.0 * n, 130.0 + 0.1 * (n % 3), 200.0, 36 + n % 4, 13, 3, 0) for n in range(730)]


def holds(samples: list[Sample], gap_s: float = 1.0, code: int = 0, stop_s: float = 1.0) -> list[str]:
    """The conditions that do not hold."""
    return [name for name, _, good in judge(samples, gap_s, code, stop_s) if not good]


def test_a_flat_run_passes_and_each_fault_is_seen() -> None:
    assert holds(SAMPLES) == []
    crowded = [replace(one, descriptors=136) if n % 40 == 0 else one for n, one in enumerate(SAMPLES)]
    assert holds(crowded) == []
    leaking = [replace(one, rss_mb=one.rss_mb + one.at_s / 3600) for one in SAMPLES]
    assert holds(leaking) == holds(leaking[:720]) == ["RSS slope, MB an hour; growth, MB"]
    assert holds(leaking[:240]) == [] and holds(
        [replace(one, rss_mb=one.rss_mb + one.at_s / 60) for one in SAMPLES[:240]]
    ) == ["RSS slope, MB an hour; growth, MB"]
    assert holds([replace(one, descriptors=36 + n // 40) for n, one in enumerate(SAMPLES)]) == [
        "descriptors, at first and at last"
    ]
    assert holds([replace(one, unaccounted=int(n == 30)) for n, one in enumerate(SAMPLES)]) == [
        "frames unaccounted for"
    ]
    assert holds(SAMPLES, gap_s=6.0) == ["longest watchdog gap, s"]
    assert holds(SAMPLES, code=-6, stop_s=16.0) == ["exit code", "time to stop, s"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_minutes(tmp_path: Path) -> None:
    assert soak(1200, tmp_path) == 0
    assert (tmp_path / "soak.png").stat().st_size > 10_000
