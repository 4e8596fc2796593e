"""How often the variant may change from one batch to the next: a bucket of changes that refills steadily. Pure.

Per-frame choices may mix variants, since that is how a joule earns most; but each change costs, so they are bounded:
changes take at most CHANGES_SHARE of the engine's time, and where a change is as good as free there are never more than
MOST_PER_MIN. A burst of BURST_S at that rate is kept for when it matters. Within the bound a change is dearer the fewer
are left, so that they go where they earn most. An escalation counts twice: there and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edged.governor.fast_replace import replace

CHANGES_SHARE: Final = 0.05
MOST_PER_MIN: Final = 1500.0
BURST_S: Final = 10.0
PRICE: Final = 0.0015
"""Accuracy that a change must gain while the bucket is full: it keeps ties from flapping."""
SCARCE: Final = 6.0
"""How many times that more as the bucket runs empty."""


@dataclass(frozen=True)
class Switching:
    """`left`: changes that were left at `at_s`; `last`: the variant that ran last, None before the first."""

    per_s: float
    left: float
    at_s: float = 0.0
    last: int | None = None

    def available(self, now_s: float) -> float:
        return min(self.per_s * BURST_S, self.left + self.per_s * max(0.0, now_s - self.at_s))

    def price(self, now_s: float) -> float:
        """Accuracy that a change must gain now."""
        return PRICE * (1.0 + SCARCE * (1.0 - self.available(now_s) / (self.per_s * BURST_S)))


def fresh(switch_ms: float) -> Switching:
    per_s = per_minute(switch_ms) / 60
    return Switching(per_s, per_s * BURST_S)


def per_minute(switch_ms: float) -> float:
    """The bound: changes a minute in the long run where one costs `switch_ms`."""
    return min(MOST_PER_MIN, CHANGES_SHARE * 60_000 / switch_ms) if switch_ms > 0 else MOST_PER_MIN


def ran(switching: Switching, variant: int, now_s: float) -> Switching:
    """After a batch of `variant`."""
    changed = switching.last is not None and switching.last != variant
    if not changed:
        return switching if switching.last == variant else replace(switching, last=variant)
    left = max(0.0, switching.available(now_s) - 1.0)
    return replace(switching, left=left, at_s=max(switching.at_s, now_s), last=variant)
