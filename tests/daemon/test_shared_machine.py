"""Deadlines held on a machine that others use too: where single inferences stall, no frame is dropped unnecessarily."""

from __future__ import annotations

import pytest

from edged.config import Limits
from tests.support.shared_machine import Outcome, SharedMachine

ROOMY = (6, 30.0, Limits(deadline_ms=25.0, deadline_quantile=0.95), (2.6, 1.6))
TIGHT = (2, 20.0, Limits(deadline_ms=12.3, deadline_quantile=0.95), (3.2, 2.0))
STRICT = (4, 30.0, Limits(deadline_ms=33.0, deadline_quantile=0.99), (4.0, 2.2))


def under_load(cameras: int, fps: float, limits: Limits, latency_ms: tuple[float, float], alone: str | None) -> Outcome:
    machine = SharedMachine(cameras, fps, limits, latency_ms, alone)
    machine.run(20, loaded=False)
    machine.run(30, loaded=True)
    return machine.under_load


@pytest.mark.parametrize("case", [ROOMY, TIGHT, STRICT], ids=["roomy", "tight", "strict"])
def test_no_frame_is_dropped_unnecessarily(case: tuple[int, float, Limits, tuple[float, float]]) -> None:
    """A frame counts as missed whether it comes late or not at all: to drop frames must not be a way to be on time."""
    governed, fastest = under_load(*case, alone=None), under_load(*case, alone="faster")
    assert governed.share > min(case[2].deadline_quantile, fastest.share) - 0.02
    assert governed.late + governed.dropped > 0, "the load was none"


def test_the_better_variant_runs_as_often_as_its_frames_are_on_time() -> None:
    governed, best = under_load(*ROOMY, alone=None), under_load(*ROOMY, alone="better")
    assert best.share < ROOMY[2].deadline_quantile < governed.share
    assert governed.of("better") > 0.15
