"""What is relaxed or cannot be held, as events that a person can read."""

from __future__ import annotations

import msgspec

from edged.bus.schema import Decision
from edged.clock import NS_PER_S
from edged.governor.messages import Limit
from edged.loop.messages import EVERY_NS, RelaxedLimits

CALM = Decision(variant="fast", max_batch=1, bound="power", reason="fine would draw 9 W", alternatives=[], pinned=False)
BEGIN_NS = 100 * NS_PER_S


def relaxed(*names: Limit, share: float = 1.0) -> Decision:
    return msgspec.structs.replace(CALM, yielded=list(names), frame_share=share)


def texts(limits: RelaxedLimits, decision: Decision, now_ns: int) -> list[str]:
    return [f"{event.kind}: {event.text}" for event in limits.events(decision, now_ns)]


def test_a_change_is_an_event_with_its_reason() -> None:
    limits = RelaxedLimits()
    assert texts(limits, CALM, BEGIN_NS) == [], "nothing is relaxed, as before"
    assert texts(limits, relaxed("frame_rate", share=0.4), BEGIN_NS) == [
        "yields: the frame rate gives way, about 40% of the frames run: fine would draw 9 W"
    ]
    assert texts(limits, relaxed("frame_rate", share=0.4), BEGIN_NS + 2 * EVERY_NS) == []
    assert texts(limits, CALM, BEGIN_NS + 2 * EVERY_NS) == ["yields: all limits hold again, on all frames"]


def test_quick_changes_give_few_events_and_the_last_is_true() -> None:
    limits = RelaxedLimits()
    seconds = [
        second
        for second in range(60, 90)
        if texts(limits, relaxed("deadline") if second % 2 else CALM, second * NS_PER_S)
    ]
    assert 2 <= len(seconds) <= 3
    assert "temperature limit" in texts(limits, relaxed("heat"), 200 * NS_PER_S)[0]


def test_an_unenforceable_limit_is_an_event_at_once_and_so_is_its_end() -> None:
    limits, sentence = RelaxedLimits(), "power_w = 4 cannot be held: the device draws more with no frame at all"
    unheld = msgspec.structs.replace(CALM, unheld=[sentence])
    assert texts(limits, unheld, BEGIN_NS) == [f"unenforceable: {sentence}"]
    assert texts(limits, unheld, BEGIN_NS + 1) == []
    assert texts(limits, CALM, BEGIN_NS + 2) == ["unenforceable: every limit that is set can be held again"]
