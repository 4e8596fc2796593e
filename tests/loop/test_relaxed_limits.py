"""What gives way is said when it changes, and not more often than a person reads."""

from __future__ import annotations

from dataclasses import replace

from edged.clock import NS_PER_S
from edged.governor.messages import Decision
from edged.governor.messages import Yielding as Name
from edged.loop.relaxed_limits import SAY_EVERY_NS, RelaxedLimits

CALM = Decision("fast", 1, "power", "fine would draw 9 W", (), False)


def yields(*names: Name, share: float = 1.0) -> Decision:
    return replace(CALM, yielded=names, frame_share=share)


def test_a_change_is_said_with_its_reason() -> None:
    yielding = RelaxedLimits()
    begin_ns = 100 * NS_PER_S
    assert yielding.event(CALM, begin_ns) is None, "nothing gives way, as before"
    event = yielding.event(yields("frame_rate", share=0.4), begin_ns)
    assert event is not None and event.kind == "yields"
    assert event.text == "the frame rate gives way, about 40% of the frames run: fine would draw 9 W"
    assert yielding.event(yields("frame_rate", share=0.4), begin_ns + 2 * SAY_EVERY_NS) is None
    over = yielding.event(CALM, begin_ns + 2 * SAY_EVERY_NS)
    assert over is not None and over.text.startswith("nothing gives way any more")


def test_flapping_is_said_once_in_a_while_and_ends_with_the_truth() -> None:
    yielding = RelaxedLimits()
    said = []
    for second in range(60, 90):
        decision = yields("deadline") if second % 2 else CALM
        if yielding.event(decision, second * NS_PER_S) is not None:
            said.append(second)
    assert 2 <= len(said) <= 3
    last = yielding.event(yields("heat"), 200 * NS_PER_S)
    assert last is not None and "temperature limit" in last.text
