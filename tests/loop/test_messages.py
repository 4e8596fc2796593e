"""Decisions as the bus carries them; what is relaxed or cannot be held as events that a person can read."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.governor.messages import Alternative, Decision, Limit, Number
from edged.loop.messages import EVERY_NS, RelaxedLimits, decision_message

DECISION = Decision(
    "fast",
    2,
    "power",
    "because",
    (
        Alternative("fine", 0.9, 18.7, False, "would draw 9 W", 0.1805, 9.01),
        Alternative("fast", 0.8, 8.2, True, "made 80% of the results", share=0.8),
    ),
    False,
    clock=1,
    price_per_j=0.5,
    frame_share=0.62,
    relaxed=("frame_rate",),
    numbers=(Number("without frames", 3.2, "W", 0.1, 0.4), Number("fast", 0.02, "J", assumed=True)),
    unenforceable=("temperature_c = 80 cannot be held",),
)


def test_everything_is_carried_in_the_units_of_the_wire() -> None:
    reported = decision_message(DECISION, (306.0, 612.0))
    assert reported.clock_mhz == 612.0 and reported.frame_share == 0.62 and reported.price_per_j == 0.5
    fine, fast = reported.alternatives
    assert fine.energy_mj == 180.5 and fine.power_w == 9.01
    assert fast.energy_mj is None and fast.power_w is None
    assert reported.escalation is None and reported.shares == {"fast": 0.8}
    assert reported.yielded == ["frame_rate"] and reported.unheld == ["temperature_c = 80 cannot be held"]
    assert reported.numbers[0] == schema.Number("without frames", 3.2, "W", 0.1, 0.4, False)
    assert reported.numbers[1].assumed and reported.numbers[1].age_s is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reported), type=schema.Decision) == reported


def test_a_clock_that_is_given_is_none() -> None:
    assert decision_message(DECISION, ()).clock_mhz is None


CALM = Decision("fast", 1, "power", "fine would draw 9 W", (), False)
BEGIN_NS = 100 * NS_PER_S


def relaxed(*names: Limit, share: float = 1.0) -> Decision:
    return replace(CALM, relaxed=names, frame_share=share)


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
    assert texts(limits, replace(CALM, unenforceable=(sentence,)), BEGIN_NS) == [f"unenforceable: {sentence}"]
    assert texts(limits, replace(CALM, unenforceable=(sentence,)), BEGIN_NS + 1) == []
    assert texts(limits, CALM, BEGIN_NS + 2) == ["unenforceable: every limit that is set can be held again"]
