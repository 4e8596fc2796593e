"""What holds of the governor whatever it is put through: heat, vetoes, the accuracy floor, switching, budgets."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.errors import UsageError
from edged.governor import governor
from edged.governor.limits import switch_rate
from edged.governor.messages import (
    BatchDone,
    Budget,
    BudgetChanged,
    Observation,
    Pinned,
    Sensed,
    Skipped,
    Tick,
    Unvetoed,
    VariantLost,
    Vetoed,
    Waiting,
    Workload,
)
from edged.simulate.arena import run
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from tests.support.desk import BUDGET, DEVICE, VARIANTS, Desk, scenario


@given(st.floats(20, 45), st.floats(1.0, 1.4), st.floats(70, 88), st.integers(0, 1000), st.sampled_from(["nx", "nano"]))
@settings(max_examples=4, deadline=None)
def test_never_above_the_temperature_limit_if_any_action_avoids_it(
    ambient_c: float, resistance: float, limit_c: float, seed: int, device: str
) -> None:
    # the first temperature is told after 1.1 s, in which a device flat out gains 1.5 C
    hot = scenario(dev=device, T=30, cap=30.0, amb=ambient_c, rsa=resistance, Tlim=limit_c, tj0=limit_c - 2.0)
    truth = Truth(hot, seed)
    resistance_c_per_w = truth.sink_air[0] + truth.junction_sink
    idles_at_c = ambient_c + resistance_c_per_w * (truth.idle_w[0] + 0.015 * (limit_c - 25))
    result = run(truth, GovernorPolicy())
    assert result.throttles == 0
    if idles_at_c < limit_c - 3:
        assert result.heat_violation == 0.0, (result.hottest_c, idles_at_c)


names = st.sampled_from(["fp16", "int8", "int8-sparse", "nobody"])
numbers = st.one_of(st.floats(0.1, 400), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e12]))
maybe = st.one_of(st.none(), numbers)
budgets = st.builds(
    Budget,
    st.floats(10, 200),
    st.just(0.99),
    st.sampled_from([0.0, 0.0, 0.72]),
    st.one_of(st.none(), st.floats(4, 30)),
    st.sampled_from([1.0, 10.0, 60.0]),
    temperature_c=st.one_of(st.none(), st.floats(50, 90)),
)
observations: st.SearchStrategy[Observation] = st.one_of(
    st.builds(
        BatchDone, names, st.integers(-1, 5), numbers, numbers, st.integers(-1, 4),
        st.lists(numbers, max_size=2).map(tuple), maybe,
        st.one_of(st.none(), st.integers(-1, 5)), st.integers(0, 3), st.booleans(), st.booleans(),
    ),
    st.builds(BatchDone, names, st.just(1), st.floats(5, 80), st.floats(0.5, 20), st.just(0), st.just((0.6,))),
    st.builds(Sensed, maybe, maybe, maybe, maybe, st.one_of(st.none(), st.integers(-1, 5)), st.booleans()),
    st.builds(Skipped, st.integers(-2, 5), st.booleans()),
    st.builds(Workload, st.integers(-1, 8), numbers, st.integers(0, 50)),
    st.builds(BudgetChanged, budgets),
    st.builds(Pinned, st.none() | names),
    st.builds(VariantLost, st.just("int8"), st.just("broken")),
    st.builds(Vetoed, names, st.just("disagrees")),
    st.builds(Unvetoed, names, st.just("agrees")),
    st.just(Tick()),
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 3000), observations), max_size=50))
@settings(max_examples=80, deadline=None)
def test_never_a_vetoed_or_lost_variant_no_nonsense_and_the_same_again(script: list[tuple[int, Observation]]) -> None:
    first, second = Desk(), Desk()
    lost, vetoed = set[str](), set[str]()
    for pause_ms, observation in script:
        for desk in (first, second):
            desk.t_s += pause_ms / 1000
            try:
                desk.tell(observation)
            except UsageError:
                continue
        if isinstance(observation, VariantLost):
            lost.add(observation.variant)
        elif isinstance(observation, Vetoed):
            vetoed.add(observation.variant)
        elif isinstance(observation, Unvetoed):
            vetoed.discard(observation.variant)
        choice = first.choose()
        assert choice == second.choose()
        for name in (choice.variant, first.decision.variant):
            assert name not in lost
            assert name not in vetoed or {"fp16", "int8", "int8-sparse"} <= vetoed | lost
            floor = first.state.budget.min_accuracy
            known = {v.name: v.accuracy or 0.0 for v in VARIANTS}
            able = [n for n in known if n not in vetoed | lost and known[n] >= floor]
            assert name is None or known[name] >= floor or not able
        assert math.isfinite(choice.value) and math.isfinite(choice.skip_value)
        told = first.decision
        assert all(math.isfinite(n.value) and (n.error is None or math.isfinite(n.error)) for n in told.numbers)
        assert math.isfinite(told.price_per_j) and 0 <= told.frame_share <= 1
    assert repr(first.decision) == repr(second.decision)


@given(st.lists(st.floats(4.0, 16.0), min_size=1, max_size=6), st.lists(st.floats(0.5, 3.0), min_size=1, max_size=6))
@settings(max_examples=10, deadline=None)
def test_the_standing_choice_and_the_clock_change_a_bounded_number_of_times(
    caps_w: list[float], slows: list[float]
) -> None:
    desk, changes, clocks, before = Desk(), 0, 0, ("", -1)
    for i in range(40):
        desk.tell(BudgetChanged(replace(BUDGET, power_w=caps_w[i // 10 % len(caps_w)])) if i % 10 == 0 else Tick())
        desk.run(1, slow=slows[i % len(slows)])
        now = (desk.decision.variant, desk.state.economy.plan.clock)
        changes += now[0] != before[0]
        clocks += now[1] != before[1]
        before = now
    assert changes <= 24 and clocks <= 16, (changes, clocks)


@given(
    st.lists(st.tuples(st.floats(1.0, 80.0), st.floats(0.0, 1.0), st.floats(0.4, 3.0)), min_size=50, max_size=300),
    st.sampled_from([0.0, 1.5, 20.0, 300.0]),
)
@settings(max_examples=15, deadline=None)
def test_per_frame_choices_change_within_the_stated_bound(
    frames: list[tuple[float, float, float]], switch_ms: float
) -> None:
    """Frames of any difficulty, at any pace, under any contention: it obeys its own bucket."""
    device = replace(DEVICE, switch_ms=switch_ms)
    state, _ = governor.start(VARIANTS, replace(BUDGET, power_w=6.8), 0, device)
    now_s, last, changes = 0.0, None, 0
    for i, (pause_ms, confidence, slow) in enumerate(frames):
        now_s += pause_ms / 1000
        now_ns = int(now_s * NS_PER_S)
        if i % 10 == 0:
            state, _ = governor.step(state, Sensed(6.5, 50.0), now_ns)
            state, _ = governor.step(state, Tick(), now_ns)
        choice = governor.choose(state, Waiting(1, 2.0, pause_ms, confidence, last=last), now_ns)
        if choice.variant is None:
            state, _ = governor.step(state, Skipped(1, False), now_ns)
            continue
        changes += last is not None and choice.variant != last
        last = choice.variant
        done = BatchDone(last, 1, 12.0 * slow, 2.0, 0, (confidence,), confidence, 1)
        state, _ = governor.step(state, done, now_ns)
    assert changes <= switch_rate.per_minute(switch_ms) / 60 * (now_s + switch_rate.BURST_S) + 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_more_power_never_gives_less_accuracy(seed: int) -> None:
    worths = [run(Truth(scenario(cap=cap_w), seed), GovernorPolicy()).score for cap_w in (6.0, 7.0, 8.0, 10.0, 14.0)]
    for less, more in pairwise(worths):
        assert more >= 0.995 * less, worths


@pytest.mark.slow
def test_more_charge_never_gives_less_accuracy() -> None:
    stores = [{"cap_wh": 0.3, "soc0": soc} for soc in (0.4, 0.6, 0.9)]
    worths = [run(Truth(scenario(T=90, cap=30.0, bat=store), 3), GovernorPolicy()).score for store in stores]
    assert worths[0] <= 1.005 * worths[1] and worths[1] <= 1.005 * worths[2], worths
