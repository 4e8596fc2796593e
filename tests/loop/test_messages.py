"""A Decision on the bus says all that the governor said, in the units of the wire."""

from __future__ import annotations

import msgspec

from edged.bus import schema
from edged.governor.messages import Alternative, Decision, Number
from edged.loop.messages import decision_message

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
    told = decision_message(DECISION, (306.0, 612.0))
    assert told.clock_mhz == 612.0 and told.frame_share == 0.62 and told.price_per_j == 0.5
    fine, fast = told.alternatives
    assert fine.energy_mj == 180.5 and fine.power_w == 9.01
    assert fast.energy_mj is None and fast.power_w is None
    assert told.escalation is None and told.shares == {"fast": 0.8}
    assert told.yielded == ["frame_rate"] and told.unheld == ["temperature_c = 80 cannot be held"]
    assert told.numbers[0] == schema.Number("without frames", 3.2, "W", 0.1, 0.4, False)
    assert told.numbers[1].assumed and told.numbers[1].age_s is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=schema.Decision) == told


def test_a_clock_that_is_given_is_none() -> None:
    assert decision_message(DECISION, ()).clock_mhz is None
