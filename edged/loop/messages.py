"""What the engine loop tells people: decisions as the bus carries them, events of the limits, lines of the log.

On the engine loop's thread; nothing here is done per frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.governor.messages import Decision
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


def decision_message(decision: Decision, clocks_mhz: Sequence[float]) -> schema.Decision:
    """`clocks_mhz`: what the numbers of the clocks mean; empty where there is but one."""
    clock = decision.clock
    return schema.Decision(
        variant=decision.variant,
        max_batch=decision.max_batch,
        bound=decision.bound,
        reason=decision.reason,
        alternatives=[
            schema.Alternative(
                variant=other.variant,
                accuracy=other.accuracy,
                predicted_ms=other.predicted_ms,
                fits=other.fits,
                verdict=other.verdict,
                energy_mj=None if other.energy_j is None else round(1000 * other.energy_j, 3),
                power_w=other.power_w,
            )
            for other in decision.alternatives
        ],
        pinned=decision.pinned,
        clock_mhz=clocks_mhz[clock] if clock is not None and clock < len(clocks_mhz) else None,
        price_per_j=decision.price_per_j,
        frame_share=decision.frame_share,
        yielded=list(decision.relaxed),
        unheld=list(decision.unenforceable),
        shares={other.variant: other.share for other in decision.alternatives if other.share > 0},
        numbers=[schema.Number(n.name, n.value, n.unit, n.error, n.age_s, n.assumed) for n in decision.numbers],
    )


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
