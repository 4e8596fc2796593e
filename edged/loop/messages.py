"""A governor's Decision as the bus carries it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edged.bus import schema
from edged.governor.messages import Decision


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
