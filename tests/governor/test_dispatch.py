"""The fast path: of all options for the frames that wait, the one that earns most after prices."""

from __future__ import annotations

from dataclasses import replace

from edged.governor import dispatch, state
from edged.governor.dispatch import Asked
from edged.governor.messages import Budget
from edged.governor.planner import replan
from edged.governor.state import Economy
from tests.support.desk import DEVICE, VARIANTS

BUDGET = Budget(60.0, 0.99, 0.0)
ROUND_S = 1 / 30


def ready(price: float = 0.0, cameras: int = 1, budget: Budget = BUDGET) -> Economy:
    """Every variant has run often enough to be known; a joule costs `price`."""
    e = state.fresh(VARIANTS, DEVICE, budget, cameras, 30.0)
    e = replan.replan(e, 0.5, 1, False)
    runs = (100,) * len(VARIANTS)
    e = replace(e, latency=replace(e.latency, runs=runs, ran_s=(0.5,) * len(VARIANTS)))
    return replace(e, plan=replace(e.plan, price=price, backlog=(0.0,) * len(e.plan.backlog)))


def asked(age_s: float = 0.0, frames: int = 1, last: int | None = 0, cameras: tuple[str, ...] = ()) -> Asked:
    return Asked(age_s, ROUND_S, frames, None, (), cameras, last, 1, False)


def chosen(e: Economy, waiting: Asked) -> str | None:
    option, *_ = dispatch.choose(e, waiting, 1.0)
    return None if option is None else VARIANTS[option.variant].name


def test_the_dearer_a_joule_the_cheaper_the_variant_until_the_frame_is_given_up() -> None:
    found = [chosen(ready(price), asked(last=None)) for price in (0.0, 0.7, 1.5, 50.0)]
    assert found == ["fp16", "int8", "int8-sparse", None]


def test_a_frame_that_has_waited_gets_what_still_comes_in_time() -> None:
    assert chosen(ready(), asked(0.0)) == "fp16"
    assert chosen(ready(), asked(0.044)) == "int8"
    assert chosen(ready(), asked(0.047)) == "int8-sparse"
    late = replace(ready(), spending=replace(ready().spending, processed=1000.0, late=100.0))
    assert chosen(late, asked(0.0599)) is None


def test_to_give_a_frame_up_is_no_way_to_be_on_time_where_the_deadline_is_of_all_frames() -> None:
    """A frame with poor chances, under a price of lateness: of the results alone it is better not made."""
    poor = asked(0.05)
    for of_all_frames, price, expected in ((False, 0.0, None), (True, 0.0, "int8-sparse"), (True, 0.7, None)):
        e = ready(price, budget=replace(BUDGET, of_all_frames=of_all_frames))
        e = replace(e, spending=replace(e.spending, processed=1000.0, late=20.0))
        assert chosen(e, poor) == expected, (of_all_frames, price)


def test_of_frames_on_several_cameras_none_gets_what_its_camera_may_not_run() -> None:
    e = replace(ready(cameras=2), allowed_apart=(("gate", (False, True, True)),))
    assert chosen(e, asked(cameras=("gate",))) != "fp16"
    assert chosen(e, asked(cameras=("yard",))) == "fp16"


def test_a_variant_that_has_hardly_run_is_tried() -> None:
    e = ready()
    untried = replace(e, latency=replace(e.latency, runs=(100, 100, 0)))
    assert chosen(e, asked()) == "fp16" and chosen(untried, asked()) == "int8-sparse"


def test_a_better_variant_that_was_too_slow_is_tried_with_a_single_frame_as_lateness_allows() -> None:
    e = ready()
    slowed = [0.0] * len(e.latency.mean)
    slowed[e.latency.cores] = 1.0  # fp16 took nearly three times as long when it last ran
    e = replace(e, latency=replace(e.latency, mean=tuple(slowed)))

    def at(now_s: float, quantile: float = 0.5) -> str | None:
        budget = replace(e.budget, deadline_ms=47.0, deadline_quantile=quantile)
        rested = replace(e, latency=replace(e.latency, ran_s=(0.5, now_s, now_s)), budget=budget)
        option, *_ = dispatch.choose(rested, asked(), now_s)
        return None if option is None else VARIANTS[option.variant].name

    assert at(0.5 + 0.9 * dispatch.TRY_AFTER_S) == "int8"
    assert at(30.0) == "fp16"
    assert at(30.0, quantile=0.999) == "int8"  # so few may be late that there is none to spare


def test_a_doubtful_result_is_worth_another_run_while_time_and_joules_allow_it() -> None:
    def again(e: Economy, confidence: float, age_s: float = 0.015) -> int | None:
        return dispatch.escalate(e, 1, confidence, "", 1.0, None, age_s, ROUND_S, 1, 1.0)

    assert again(ready(), 0.3) == 0
    assert again(ready(), 0.3, age_s=0.055) is None  # too late for the better one
    left_s = 0.060 - float(ready().tables.latency_s[0, 1])  # as likely late as not: the result in hand is worth more
    assert again(ready(), 0.3, age_s=left_s) is None
    assert again(ready(5.0), 0.3) is None  # too dear
    assert dispatch.escalate(ready(), 0, 0.3, "", 1.0, None, 0.015, ROUND_S, 1, 1.0) is None  # there is no better one
