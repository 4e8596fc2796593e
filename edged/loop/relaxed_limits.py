"""When a limit begins or ceases to give way, as an event: seldom enough to be read. Pure."""

from __future__ import annotations

from typing import Final

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.governor.messages import Decision

SAY_EVERY_NS: Final = 10 * NS_PER_S

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
        self._told: tuple[str, ...] = ()
        self._told_ns = 0

    def event(self, decision: Decision, now_ns: int) -> schema.Event | None:
        """To be asked now and then: what gives way, if that is not what was said last."""
        if decision.yielded == self._told or now_ns - self._told_ns < SAY_EVERY_NS:
            return None
        self._told, self._told_ns = decision.yielded, now_ns
        if not decision.yielded:
            return schema.Event(kind="yields", text="nothing gives way any more: all limits hold, on all frames")
        what = " and ".join(NAMES.get(name, name) for name in decision.yielded)
        verb = "gives" if len(decision.yielded) == 1 else "give"
        share = f", about {decision.frame_share:.0%} of the frames run" if "frame_rate" in decision.yielded else ""
        return schema.Event(
            kind="yields", text=f"{what} {verb} way{share}: {decision.reason}", variant=decision.variant
        )
