"""The fast path: of all options for the frames that wait, the one of greatest value after prices."""

from __future__ import annotations

from dataclasses import replace

from edged.governor import dispatch
from edged.governor.dispatch import EXPLORE_RUNS
from edged.governor.estimators.latency import EXPLORE_AGAIN_S
from edged.governor.governor import Governor
from edged.governor.messages import Budget, Choice, Tick, Vetoed, Waiting, Workload
from edged.governor.planner.value_iteration import GRID
from edged.governor.state import State
from tests.support.governor_script import DEVICE, VARIANTS

BUDGET = Budget(60.0, 0.99, 0.0)


def ready(price: float = 0.0, cameras: int = 1) -> Governor:
    """Every variant has run often enough to be known; a joule costs `price`; no backlog is to be feared."""
    governor = Governor(VARIANTS, BUDGET, 0, replace(DEVICE, fixed_clock=True))
    governor.observe(Workload(cameras, 30.0 * cameras), 0)
    governor.observe(Tick(), 500_000_000)
    state = governor.state
    state.latency.runs, state.latency.ran_s = [100] * 3, [0.5] * 3
    state.plan = replace(state.plan, price=price, relative_value=(0.0,) * GRID)
    return governor


def choice(
    state: State, age_s: float = 0.0, frames: int = 1, required: int = 0, cameras: tuple[str, ...] = ()
) -> Choice:
    waiting = Waiting(frames, 1000 * age_s, cameras=cameras, last="fp16", clock=1, required=required)
    return dispatch.choose(state, waiting, 1.0)


def test_the_dearer_a_joule_the_cheaper_the_variant_until_the_frame_is_dropped() -> None:
    found = [choice(ready(price).state).variant for price in (0.0, 0.7, 1.5, 50.0)]
    assert found == ["fp16", "int8", "int8-sparse", None]


def test_a_frame_that_has_waited_gets_what_still_comes_in_time() -> None:
    state = ready().state
    assert [choice(state, age_s).variant for age_s in (0.0, 0.044, 0.047)] == ["fp16", "int8", "int8-sparse"]


def test_a_variant_that_hardly_ran_is_tried_and_again_after_a_long_time_unless_it_cannot_be_in_time() -> None:
    state = ready(1.5).state
    state.latency.runs[0] = EXPLORE_RUNS - 1
    assert choice(state).variant == "fp16", "for the knowledge, dear as it is"
    state.latency.learn(0, 0, 0.0, 0.9)
    assert choice(state).variant == "int8-sparse"
    state.latency.ran_s[0] = -EXPLORE_AGAIN_S
    assert choice(state).variant == "fp16"
    state.latency.learn(0, 0, 0.0, 1.0)
    assert choice(state).variant == "fp16", "and more than once: the first batch was a cold start"
    assert choice(state, 0.05).variant != "fp16", "10 ms are left of 20"


def test_each_drop_has_its_cause() -> None:
    late = ready().state
    late.plan = replace(late.plan, relative_value=tuple(-0.2 * k for k in range(GRID)))
    assert choice(late, 0.0599).cause == "late", "no variant takes so little"
    assert choice(ready(50.0).state).cause == "budget"
    crowded = ready().state
    crowded.plan = replace(crowded.plan, relative_value=(0.0,) + (-5.0,) * (GRID - 1))
    busy = choice(crowded, 0.03)
    assert (busy.variant, busy.cause) == (None, "overload"), "in time, but too many others would not be"


def test_to_drop_a_frame_is_no_way_to_be_on_time() -> None:
    """A frame with poor chances, under a price of lateness: dropped it would be late all the same."""
    for price, expected in ((0.0, "int8-sparse"), (0.7, None)):
        state = ready(price).state
        state.feedback.count(1000, 20)
        assert choice(state, 0.05).variant == expected, price


def test_a_required_frame_runs_whatever_a_joule_costs() -> None:
    state = ready(50.0).state
    assert choice(state).variant is None
    assert choice(state, required=1).variant == "int8-sparse"


def test_a_frame_gets_nothing_that_its_camera_may_not_run() -> None:
    governor = ready(cameras=2)
    governor.observe(Vetoed("fp16", "blind", "gate"), 600_000_000)
    assert choice(governor.state, cameras=("gate",)).variant != "fp16"
    assert choice(governor.state, cameras=("yard",)).variant == "fp16"


def test_a_variant_that_has_hardly_run_is_tried() -> None:
    state = ready().state
    assert choice(state).variant == "fp16"
    state.latency.runs = [100, 100, 0]
    assert choice(state).variant == "int8-sparse"


def test_a_change_must_gain_something() -> None:
    state = ready().state
    state.tables = replace(state.tables, accuracy=(0.70005, 0.7, 0.7))
    assert choice(state).variant == "fp16"
    waiting = Waiting(1, 0.0, last="int8-sparse", clock=1)
    assert dispatch.choose(state, waiting, 1.0).variant == "int8-sparse"
