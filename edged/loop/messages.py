"""What the engine loop tells people beside its messages: events of the limits, lines of the log.

On the engine loop's thread; nothing here is done per frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.journal import fields

EVERY_NS: Final = 10 * NS_PER_S

NAMES: Final = {
    "heat": "the temperature limit",
    "deadline": "the deadline",
    "power": "the mean power",
    "energy": "the energy that must last",
    "accuracy": "the accuracy floor",
    "frame_rate": "the frame rate",
}

log = logging.getLogger("edged")


class RelaxedLimits:
    def __init__(self) -> None:
        self._relaxed: list[str] = []
        self._unenforceable: list[str] = []
        self._relaxed_ns = 0

    def events(self, decision: schema.Decision, now_ns: int) -> Iterator[schema.Event]:
        """What has changed since the last events."""
        if decision.unheld != self._unenforceable:
            before, self._unenforceable = self._unenforceable, decision.unheld
            for text in decision.unheld:
                if text not in before:
                    yield schema.Event(kind="unenforceable", text=text)
            if not decision.unheld:
                yield schema.Event(kind="unenforceable", text="every limit that is set can be held again")
        if decision.yielded != self._relaxed and now_ns - self._relaxed_ns >= EVERY_NS:
            self._relaxed, self._relaxed_ns = decision.yielded, now_ns
            yield _relaxed(decision)


def _relaxed(decision: schema.Decision) -> schema.Event:
    if not decision.yielded:
        return schema.Event(kind="yields", text="all limits hold again, on all frames")
    what = " and ".join(NAMES[name] for name in decision.yielded)
    verb = "gives" if len(decision.yielded) == 1 else "give"
    share = f", about {decision.frame_share:.0%} of the frames run" if "frame_rate" in decision.yielded else ""
    return schema.Event(kind="yields", text=f"{what} {verb} way{share}: {decision.reason}", variant=decision.variant)


def log_camera(status: schema.Status) -> None:
    well = status.state in ("live", "opening", "ended")
    what = f"{status.state}: {status.reason}" if status.reason not in ("", status.state) else status.state
    extra = fields(camera=status.camera, state=status.state)
    log.log(logging.INFO if well else logging.WARNING, "camera %s is %s", status.camera, what, extra=extra)


def log_event(event: schema.Event) -> None:
    log.warning("%s", event.text, extra=fields(kind=event.kind, camera=event.camera, variant=event.variant))


def log_decision(decision: schema.Decision, before: schema.Decision | None) -> None:
    """A line for each change of the variant; the others are in `edged why`."""
    if before is None or before.variant != decision.variant:
        extra = fields(variant=decision.variant, bound=decision.bound)
        log.info("%s", decision.reason, extra=extra)
