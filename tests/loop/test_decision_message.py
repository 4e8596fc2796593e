"""A decision as it is published: the governor's facts as sentences, and the numbers behind it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from edged.bus import schema
from edged.governor.messages import Alternative, Decision, Load, Misfit, Unenforceable
from edged.loop.decision_message import decision_message, human, human_ms, numbers, reason
from tests.support.governor_script import GovernorScript

FINE = Alternative("fine", 0.9, None, None, Misfit("power", 9.01, 7.5), 18.7, 0.1805, 9.01)
FAST = Alternative("fast", 0.8, None, None, None, 8.2, share=0.8)
DECISION = Decision(
    "fast",
    2,
    "power",
    "fine",
    Load(2, 60.0, 50.0, 0.99),
    (FINE, FAST),
    clock=1,
    price_per_j=0.5,
    results=24,
    late=1,
    saved=14,
    frame_share=0.62,
    relaxed=("frame_rate",),
    unenforceable=(Unenforceable("heat", 80.0, False),),
)
NUMBERS = [schema.Number("drawn without frames", 3.2, "W", 0.1, 0.4, False)]


def test_everything_is_carried_in_the_units_of_the_wire() -> None:
    reported = decision_message(DECISION, NUMBERS, (306.0, 612.0))
    assert reported.clock_mhz == 612.0 and reported.frame_share == 0.62 and reported.price_per_j == 0.5
    fine, fast = reported.alternatives
    assert fine.energy_mj == 180.5 and fine.power_w == 9.01
    assert fast.energy_mj is None and fast.power_w is None
    assert reported.escalation is None and reported.shares == {"fast": 0.8} and reported.numbers == NUMBERS
    assert reported.yielded == ["frame_rate"]
    assert reported.unheld == ["temperature_c = 80 cannot be held: no temperature has been read"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reported), type=schema.Decision) == reported


def test_a_clock_that_is_given_is_none() -> None:
    assert decision_message(DECISION, NUMBERS, ()).clock_mhz is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "fine would draw 9.01 W with 2 cameras at 60 frames/s, the mean power allows 7.5 W"),
        ({"bound": "pin"}, "pinned by an operator"),
        ({"bound": "none"}, "the most accurate variant fits 50 ms at the 99 % quantile with 2 cameras at 60 frames/s"),
        ({"wanted": "fast"}, "the mean power is limited, a joule must gain 0.5 accurate frames"),
        ({"wanted": "fast", "bound": "load"}, "fast alone would leave later frames too little time"),
        (
            {"bound": "accuracy", "alternatives": (replace(FINE, barred="its accuracy is unknown"), FAST)},
            "fine would fit but its accuracy is unknown",
        ),
        (
            {"alternatives": (replace(FINE, misfit=Misfit("heat", 9.01, -1.0)), FAST)},
            "fine would draw 9.01 W with 2 cameras at 60 frames/s, heat allows nothing",
        ),
        ({"alternatives": (replace(FINE, misfit=Misfit("deadline", None, 50.0)), FAST)}, "fine has no known latency"),
    ],
)
def test_the_reason_says_what_ran_and_why_nothing_better(changes: dict[str, object], why: str) -> None:
    ran = "fast 80% of 24 results in the last second, 14 frames dropped to save energy, 1 dropped as late"
    assert reason(replace(DECISION, **changes)) == f"{ran}: {why}"  # type: ignore[arg-type]


def test_each_variant_has_its_verdict() -> None:
    others = (
        FINE,
        FAST,
        replace(FAST, variant="lost", share=0.0, barred="it stopped working: it broke"),
        replace(FAST, variant="worse", share=0.0, dominated_by="fast"),
    )
    reported = decision_message(replace(DECISION, alternatives=others), NUMBERS, ()).alternatives
    assert [other.verdict for other in reported] == [
        "would draw 9.01 W with 2 cameras at 60 frames/s, the mean power allows 7.5 W, if it ran on all frames",
        "made 80% of the results; fits on all frames with 8.2 ms of 50 ms at the 99 % quantile",
        "may not run: it stopped working: it broke",
        "never runs: fast is as accurate, as fast and as cheap or better",
    ]


def test_numbers_have_errors_and_ages() -> None:
    script = GovernorScript()
    script.run(20)
    by_name = {number.name: number for number in numbers(script.state, script.t_s)}
    assert by_name["drawn without frames"].unit == "W" and (by_name["drawn without frames"].error or 0) > 0
    assert by_name["junction"].value == pytest.approx(50.0, abs=1.0)
    assert by_name["allowed by heat"].value > 0 and "latency of fp16 against its profile" in by_name


@pytest.mark.parametrize(
    ("ms", "text"),
    [(8.238, "8.24 ms"), (312.0, "312 ms"), (2970.0, "2.97 s"), (1_080_000.0, "18 min"), (None, "an unknown time")],
)
def test_times_for_people(ms: float | None, text: str) -> None:
    assert human_ms(ms) == text
    assert human(0.0) == "0" and human(1234.5) == "1234" and human(0.01234) == "0.0123"
