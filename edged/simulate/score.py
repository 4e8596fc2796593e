"""What a run was worth: the device's log and the frames' results in, one score with its violations out. Pure.

The sum of the accuracies of on-time frames, without those that finished in a second in which the rolling power (1.5 %
tolerance), the temperature (0.5 C) or the throttle was violated, minus MISS_PENALTY mean accuracies for each late frame
beyond MISS_FREE. After a step down of the cap the window has its own length of grace, since the past cannot be changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edged.simulate.device import Log
from edged.simulate.scenario import Truth
from edged.simulate.shapes import Array
from edged.simulate.tables import STEP_S

POWER_TOLERANCE: Final = 1.015
HEAT_TOLERANCE_C: Final = 0.5
SETTLED_S: Final = 120
"""After so long a governor that began without a profile should have learnt what a profile says."""
MISS_FREE: Final = 0.01
MISS_PENALTY: Final = 5.0


@dataclass
class Tally:
    """The frames' side of a run, by frame. `accuracy`: delivered on time, times the camera's weight; `finished_s`:
    when, in whole seconds. `on_time`: results on time; `accuracies`: the sum of theirs, without weights."""

    accuracy: Array
    finished_s: np.ndarray[tuple[int], np.dtype[np.int64]]
    on_time: int = 0
    accuracies: float = 0.0
    processed: int = 0
    late: int = 0
    skipped: int = 0
    dropped: int = 0
    clock_changes: int = 0
    engine_changes: int = 0

    @classmethod
    def of(cls, frames: int) -> Tally:
        return cls(np.zeros(frames), np.zeros(frames, dtype=int))

    def add(self, frame: int, finished_s: int, counts: bool, accuracy: float, weight: float) -> None:
        """A result; `counts`: it came on time, from a variant that may run there."""
        self.finished_s[frame] = finished_s
        if counts:
            self.accuracy[frame] = accuracy * weight
            self.accuracies += accuracy
            self.on_time += 1


@dataclass(frozen=True)
class Score:
    """Shares are of seconds (violations) and of processed frames (late). `settled`: of `score`, what came after
    SETTLED_S, before the penalty of late frames."""

    score: float
    raw: float
    settled: float
    frames: int
    processed: int
    late: float
    power_violation: float
    heat_violation: float
    throttled: float
    throttles: int
    mean_w: float
    hottest_c: float
    accuracy: float
    clock_changes: int
    engine_changes: int
    brownouts: int


def score(truth: Truth, log: Log, tally: Tally) -> Score:
    seconds, per_s = int(truth.duration_s), round(1 / STEP_S)

    def by_second(values: Array) -> Array:
        return np.asarray(values[: seconds * per_s].reshape(seconds, per_s))

    power_w, cap_w = by_second(log.power_w).mean(1), by_second(truth.cap_w).mean(1)
    hottest_c = by_second(log.junction_c).max(1)
    window = truth.window_s
    idle_w = np.full(window, truth.table.idle_w[0], float)  # before the run the device idled
    sums = np.cumsum(np.concatenate([[0.0], idle_w, power_w]))
    rolling_w = (sums[window + 1 :] - sums[1:-window]) / window
    allowed_w = np.array([cap_w[max(0, i - window) : i + 1].max() for i in range(seconds)])
    over_power = rolling_w > allowed_w * POWER_TOLERANCE
    over_heat = hottest_c > truth.limit_c + HEAT_TOLERANCE_C
    throttled = by_second(log.throttled.astype(float)).any(1)
    good = ~(over_power | over_heat | throttled)
    raw = float(tally.accuracy.sum())
    valid = tally.accuracy * good[np.minimum(tally.finished_s, seconds - 1)]
    mean_accuracy = tally.accuracies / tally.on_time if tally.on_time else 0.5
    excess = max(0.0, tally.late - MISS_FREE * tally.processed)
    return Score(
        score=max(0.0, float(valid.sum()) - MISS_PENALTY * excess * mean_accuracy),
        raw=raw,
        settled=float(valid[tally.finished_s >= SETTLED_S].sum()),
        frames=truth.frames,
        processed=tally.processed,
        late=tally.late / max(1, tally.processed),
        power_violation=float(over_power.mean()),
        heat_violation=float(over_heat.mean()),
        throttled=float(throttled.mean()),
        throttles=log.counts.throttles,
        mean_w=float(log.power_w.mean()),
        hottest_c=float(log.junction_c.max()),
        accuracy=mean_accuracy,
        clock_changes=tally.clock_changes,
        engine_changes=tally.engine_changes,
        brownouts=log.counts.brownouts,
    )
