"""Which limits give way, and which cannot be held at all, as events: seldom enough to be read. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.governor.messages import Decision

EVERY_NS: Final = 10 * NS_PER_S

NAMES: Final = {
    "heat": "the temperature limit",
    "deadline": "the deadline",
    "power": "the mean power",
    "energy": "the energy that must last",
    "accuracy": "the accuracy floor",
    "frame_rate": "the frame rate",
}


class RelaxedLimits:
    def __init__(self) -> None:
        self._relaxed: tuple[str, ...] = ()
        self._unenforceable: tuple[str, ...] = ()
        self._relaxed_ns = 0

    def events(self, decision: Decision, now_ns: int) -> Iterator[schema.Event]:
        """What has changed since the last events."""
        if decision.unenforceable != self._unenforceable:
            before, self._unenforceable = self._unenforceable, decision.unenforceable
            for text in decision.unenforceable:
                if text not in before:
                    yield schema.Event(kind="unenforceable", text=text)
            if not decision.unenforceable:
                yield schema.Event(kind="unenforceable", text="every limit that is set can be held again")
        if decision.relaxed != self._relaxed and now_ns - self._relaxed_ns >= EVERY_NS:
            self._relaxed, self._relaxed_ns = decision.relaxed, now_ns
            yield _relaxed(decision)


def _relaxed(decision: Decision) -> schema.Event:
    if not decision.relaxed:
        return schema.Event(kind="yields", text="all limits hold again, on all frames")
    what = " and ".join(NAMES[name] for name in decision.relaxed)
    verb = "gives" if len(decision.relaxed) == 1 else "give"
    share = f", about {decision.frame_share:.0%} of the frames run" if "frame_rate" in decision.relaxed else ""
    return schema.Event(kind="yields", text=f"{what} {verb} way{share}: {decision.reason}", variant=decision.variant)
