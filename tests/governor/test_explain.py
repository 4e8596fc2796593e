"""The sentences: what bound, what else would have cost, what gave way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edged.governor import explain
from edged.governor.explain import Scene, View
from edged.governor.messages import SURRENDER, Budget
from edged.governor.planner.pricing import Allowed, Plan

SCENE = Scene(Budget(50.0, 0.99, 0.0), 2, 40.0)
FITS = View("int8", 0.7, 30.0, 0.5, None, True, True, 0.1, 8.0, 9.0, "power")
SLOW = View("fp16", 0.8, 64.0, 0.7, None, False, True, 0.2, 10.0, 9.0, "power")
HUNGRY = FITS._replace(name="fp16", accuracy=0.8, power_w=12.4)
FREE = Plan(0, 0.0, False, 0.0, (0.0,), 0.1, "none", 5.0, Allowed())


def test_the_reason_names_the_better_one_and_the_number_that_forbids_it() -> None:
    assert explain.reason([SLOW, FITS], 1, SCENE, False, None).startswith(
        "int8: fp16 would need 64 ms of 50 ms at the 99 % quantile with 2 cameras at 40 frames/s; int8 needs 30 ms"
    )
    said = explain.reason([HUNGRY, FITS], 1, SCENE, False, None)
    assert "fp16 would draw 12.4 W" in said and "the rolling mean power allows 9 W" in said


def test_alternatives_say_what_they_would_have_cost() -> None:
    fp16, int8 = explain.alternatives([HUNGRY, FITS], 1, SCENE)
    assert fp16.power_w == 12.4 and fp16.energy_j == 0.1 and not fp16.fits and "would draw" in fp16.verdict
    assert int8.fits and int8.verdict.startswith("runs: needs 30 ms")


@pytest.mark.parametrize(("view", "bound"), [(SLOW, "deadline"), (HUNGRY, "power")])
def test_the_bound_is_what_keeps_the_better_one_out(view: View, bound: str) -> None:
    assert explain.bound([view, FITS], 1, False, False) == bound
    assert explain.bound([view, FITS], 1, True, False) == "pin"
    assert explain.bound([FITS], 0, False, False) == "none"


def test_what_gives_way_is_told_in_the_order_of_surrender() -> None:
    assert explain.yielded([FITS], 0, FREE) == ()
    assert explain.yielded([SLOW], 0, FREE) == ("deadline",)
    assert explain.yielded([HUNGRY], 0, FREE) == ("frame_rate",)
    hot = replace(FREE, allowed=Allowed(window_w=4.0, heat_w=3.0))
    assert explain.yielded([SLOW], 0, hot) == ("heat", "deadline", "power", "frame_rate")
    barred = FITS._replace(barred="it is vetoed: it disagrees")
    assert explain.yielded([barred], 0, FREE) == ("accuracy",)
    assert SURRENDER[0] == "heat" and SURRENDER[-1] == "frame_rate"
