"""The demo's three acts, run through the control socket as an operator would: what to set when, and the captions.

In: the time, and the daemon's own predictions. Out: `set` requests and captions. The limits are chosen from what this
machine measured, so the governor has a real reason to change; nothing is pinned or faked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edged.bus.schema import Alternative, Decision

COMFORT: Final = 2.0
"""The deadline of act 1, as a multiple of the time that the most accurate variant is predicted to need."""
CLEAR_GAP: Final = 0.9
"""Below this ratio of predicted times a deadline fits between two variants."""

Request = Callable[..., dict[str, Any]]
"""`request(op, **arguments)`: the daemon's reply; raises EdgedError when it refuses."""


@dataclass(frozen=True)
class Act:
    number: int
    name: str
    caption: str
    deadline_ms: float


class Script:
    """`advance` until `seconds` are over; one act each third."""

    def __init__(self, seconds: float, deadline_ms: float, request: Request) -> None:
        self._third_s = seconds / 3
        self._request = request
        self._first_ms = deadline_ms
        self.act = Act(0, "start", "the daemon starts: it loads and warms every variant of the bundle", deadline_ms)

    def advance(self, now_s: float) -> Act | None:
        """The act that begins now, or None while one continues."""
        number = min(3, 1 + int(now_s / self._third_s))
        if number == self.act.number:
            return None
        self.act = (self._normal, self._pressure, self._relief)[number - 1]()
        return self.act

    def _normal(self) -> Act:
        best = self._predictions()[0]
        if best.predicted_ms is not None:
            self._first_ms = _rounded_up(best.predicted_ms * COMFORT)
            self._set(self._first_ms)
        caption = (
            f"results are due {self._first_ms:g} ms after capture. {best.variant}, the most accurate variant, "
            f"needs {_ms(best)} (99 in 100 frames): accuracy comes first"
        )
        return Act(1, "normal", caption, self._first_ms)

    def _pressure(self) -> Act:
        """A deadline between what the most accurate and the fastest variant are predicted to need right now."""
        known = [other for other in self._predictions() if other.predicted_ms is not None]
        best, fast = known[0], min(known, key=lambda other: other.predicted_ms or math.inf)
        slow_ms, fast_ms = best.predicted_ms or 0.0, fast.predicted_ms or 0.0
        if fast_ms > CLEAR_GAP * slow_ms:
            caption = (
                f"on this machine no variant is clearly faster than {best.variant}, so no deadline forces a change"
            )
            return Act(2, "pressure", caption, self._first_ms)
        tight_ms = _between(fast_ms, slow_ms)
        self._set(tight_ms)
        caption = (
            f"the deadline is set to {tight_ms:g} ms. For 99 in 100 frames {best.variant} needs {_ms(best)} here and "
            f"{fast.variant} {_ms(fast)}: each frame gets the better one that still meets the deadline"
        )
        return Act(2, "pressure", caption, tight_ms)

    def _relief(self) -> Act:
        self._set(self._first_ms)
        caption = f"the deadline is {self._first_ms:g} ms again: the most accurate variant comes back if it fits"
        return Act(3, "relief", caption, self._first_ms)

    def _predictions(self) -> list[Alternative]:
        """Every variant's predicted time now, the most accurate first. Setting the limit causes a new decision."""
        self._set(self.act.deadline_ms)
        (decision,) = msgspec.convert(self._request("why", n=1)["decisions"], list[Decision])
        return decision.alternatives

    def _set(self, deadline_ms: float) -> None:
        self._request("set", deadline_ms=deadline_ms)


def _between(fast_ms: float, slow_ms: float) -> float:
    """Nearer to the slow one, so that the fast one fits; far enough below it that it does not fit every frame."""
    return round(max(math.sqrt(fast_ms * slow_ms), min(1.5 * fast_ms, 0.9 * slow_ms)), 1)


def _rounded_up(ms: float) -> float:
    return float(math.ceil(ms / 10) * 10)


def _ms(other: Alternative) -> str:
    return "an unknown time" if other.predicted_ms is None else f"{other.predicted_ms:.1f} ms"
