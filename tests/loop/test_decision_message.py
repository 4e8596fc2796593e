"""A decision as it is published: what the governor decided as sentences, how each variant stands, the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edged.bus import schema
from edged.governor.messages import Budget, Decision, Device, Misfit, Variant, Workload
from edged.governor.state import State
from edged.loop.decision_message import clause, decision_message, human, human_ms, numbers, reason
from tests.support.governor_script import GovernorScript

FINE = Variant("fine", 0.9, (20.0,), active_w=(9.0,))
FAST = Variant("fast", 0.8, (8.0,), active_w=(3.0,))
WORSE = Variant("worse", 0.7, (9.0,), active_w=(4.0,))
DECISION = Decision(
    "fast",
    2,
    "power",
    "fine",
    clock=1,
    price_per_j=0.5,
    results=24,
    late=1,
    saved=14,
    frame_share=0.62,
    shares=(("fine", 0.2), ("fast", 0.8)),
    relaxed=("frame_rate",),
    unenforceable=("heat",),
)
AT = "with 2 cameras at 40 frames/s"


def state(power_w: float | None = None) -> State:
    budget = Budget(50.0, 0.99, 0.0, power_w, temperature_c=80.0)
    script = GovernorScript(budget, Device((4.0,)), (FINE, FAST, WORSE))
    script.tell(Workload(2, 40.0))
    return script.state


def test_everything_is_carried_in_the_units_of_the_wire() -> None:
    reported = decision_message(DECISION, state(), 1.0, (306.0, 612.0))
    assert reported.clock_mhz == 612.0 and reported.frame_share == 0.62 and reported.price_per_j == 0.5
    fine, fast, _ = reported.alternatives
    assert fine.energy_mj == 180.0 and fine.power_w == pytest.approx(4.0 + 0.18 * 40) and fast.fits
    assert reported.escalation is None and reported.shares == {"fine": 0.2, "fast": 0.8}
    assert reported.yielded == ["frame_rate"]
    assert reported.unheld == ["temperature_c = 80 cannot be held: no temperature has been read"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reported), type=schema.Decision) == reported


def test_a_clock_that_is_given_is_none() -> None:
    assert decision_message(DECISION, state(), 1.0, ()).clock_mhz is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bound": "pin"}, "pinned by an operator"),
        ({"bound": "none"}, f"the most accurate variant fits 50 ms at the 99 % quantile {AT}"),
        ({}, "the mean power is limited, a joule must gain 0.5 accurate frames"),
        ({"bound": "load"}, "fine alone would leave later frames too little time"),
    ],
)
def test_the_reason_says_what_ran_and_why_nothing_better(changes: dict[str, Any], why: str) -> None:
    ran = "fast 80%, fine 20% of 24 results in the last second, 14 frames dropped to save energy, 1 dropped as late"
    assert reason(replace(DECISION, **changes), state()) == f"{ran}: {why}"


def test_a_floor_that_bars_a_better_variant_is_named() -> None:
    floored = state()
    floored.budget = replace(floored.budget, min_accuracy=0.85)
    named = reason(replace(DECISION, bound="accuracy", wanted="fast"), floored)
    assert named.endswith("fast would fit but its accuracy 0.8 is below the floor, min_accuracy is 0.85")


@pytest.mark.parametrize(
    ("misfit", "text"),
    [
        (Misfit("power", 9.01, 7.5), f"would draw 9.01 W {AT}, the mean power allows 7.5 W"),
        (Misfit("heat", 9.01, -1.0), f"would draw 9.01 W {AT}, heat allows nothing"),
        (Misfit("load", 1.6, 1.0), f"would keep the engine 160% busy {AT}"),
        (Misfit("deadline", 61.2, 50.0), f"would need 61.2 ms of 50 ms at the 99 % quantile {AT}"),
        (Misfit("deadline", None, 50.0), "has no known latency"),
    ],
)
def test_what_a_variant_does_not_fit_is_said_with_its_numbers(misfit: Misfit, text: str) -> None:
    assert clause(misfit, state()) == text


def test_each_variant_has_its_verdict() -> None:
    broken = state()
    broken.lost[0] = "it broke"
    lost, fast, worse = decision_message(DECISION, broken, 1.0, ()).alternatives
    assert lost.verdict == "made 20% of the results; may not run: it stopped working: it broke"
    assert fast.verdict.startswith("made 80% of the results; fits on all frames with ")
    assert worse.verdict == "never runs: fast is as accurate, as fast and as cheap or better"


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
