"""The standing choice: down at once, up with a margin and a hold, and never onto what may not run."""

from __future__ import annotations

from edged.clock import NS_PER_S
from edged.governor import governor, standing
from edged.governor.messages import Budget, Pinned, Variant, Vetoed, Workload
from edged.governor.standing import State

BEST, FAST = Variant("best", 0.8, (30.0,)), Variant("fast", 0.7, (10.0,))
BUDGET = Budget(deadline_ms=100.0, deadline_quantile=0.99, min_accuracy=0.0)


def started(cameras: int = 1) -> State:
    state, _ = governor.start([BEST, FAST], BUDGET, 0)
    return governor.step(state, Workload(cameras, 10.0 * cameras, 0), 0)[0]


def after(state: State, cameras: int, seconds: float) -> State:
    now_ns = state.changed_ns + int(seconds * NS_PER_S)
    return governor.step(state, Workload(cameras, 10.0 * cameras, 0), now_ns)[0]


def test_the_index_of_a_name_is_none_for_a_stranger() -> None:
    assert standing.index(started(), "fast") == 1 and standing.index(started(), "nobody") is None


def test_down_at_once_and_up_only_after_it_has_fitted_for_its_hold() -> None:
    state = started()
    assert state.decision.variant == "best"
    crowded = after(state, 5, 10.0)
    assert crowded.decision.variant == "fast"
    calm = after(crowded, 1, 1.0)
    assert calm.decision.variant == "fast"
    assert after(calm, 1, standing.HOLD_S + 2.0).decision.variant == "best"


def test_a_choice_afresh_knows_no_hold_but_keeps_to_the_pin_and_the_veto() -> None:
    crowded = after(started(), 5, 10.0)
    calm = after(crowded, 1, 0.1)
    assert standing.afresh(calm, calm.changed_ns + NS_PER_S)[1].variant == "best"
    pinned, _ = governor.step(calm, Pinned("fast"), NS_PER_S)
    assert standing.afresh(pinned, 2 * NS_PER_S)[1].variant == "fast"
    vetoed, _ = governor.step(started(), Vetoed("best", "blind"), NS_PER_S)
    assert standing.afresh(vetoed, 2 * NS_PER_S)[1].variant == "fast"


def test_nothing_new_to_say_is_the_same_decision() -> None:
    state = started()
    assert standing.reconsider(state, 10 * NS_PER_S)[1] is state.decision
