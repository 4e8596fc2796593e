"""What holds of the governor whatever it is put through: heat, vetoes, the accuracy floor, budgets, replay."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import EdgedError, UsageError
from edged.governor.messages import (
    BatchDone,
    Battery,
    BatteryBudget,
    Budget,
    BudgetChanged,
    EnergyUse,
    Observation,
    Pinned,
    Sensed,
    Skipped,
    Tick,
    Unvetoed,
    VariantLost,
    Vetoed,
    Workload,
)
from edged.simulate.arena import run
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from tests.support.governor_script import VARIANTS, GovernorScript, scenario


@given(st.floats(20, 45), st.floats(1.0, 1.4), st.floats(70, 88), st.integers(0, 1000), st.sampled_from(["nx", "nano"]))
@settings(max_examples=4, deadline=None)
def test_never_above_the_temperature_limit_if_any_action_avoids_it(
    ambient_c: float, resistance: float, limit_c: float, seed: int, device: str
) -> None:
    # the first temperature comes after 1.1 s, in which a device flat out gains 1.5 C
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
    st.one_of(st.none(), st.floats(0.1, 30)),
    temperature_c=st.one_of(st.none(), st.floats(50, 90)),
    min_fps=st.sampled_from([0.0, 0.2]),
    battery=st.one_of(st.none(), st.builds(BatteryBudget, st.floats(60, 36_000), st.sampled_from([(), (3.0, 0.0)]))),
)
batteries = st.one_of(st.none(), st.builds(Battery, numbers, numbers, maybe))
energies = st.one_of(st.none(), st.builds(EnergyUse, st.floats(0, 1e6), st.floats(0, 1e5)))
observations: st.SearchStrategy[Observation] = st.one_of(
    st.builds(
        BatchDone, names, st.integers(-1, 5), numbers, numbers, st.integers(-1, 4), st.none() | st.integers(-1, 5)
    ),
    st.builds(BatchDone, names, st.just(1), st.floats(5, 80), st.floats(0.5, 20), st.just(0)),
    st.builds(Sensed, maybe, maybe, st.none() | st.integers(-1, 5), st.booleans(), st.booleans(), batteries, energies),
    st.builds(Skipped, st.integers(-2, 5), st.booleans()),
    st.builds(Workload, st.integers(-1, 8), numbers),
    st.builds(BudgetChanged, budgets),
    st.builds(Pinned, st.none() | names),
    st.builds(VariantLost, st.just("int8"), st.just("broken")),
    st.builds(Vetoed, names, st.just("disagrees")),
    st.builds(Unvetoed, names, st.just("agrees")),
    st.just(Tick()),
)


@given(st.lists(st.tuples(st.integers(0, 3000), observations), max_size=50))
@settings(max_examples=80, deadline=None)
def test_never_a_vetoed_or_lost_variant_only_numbers_and_the_same_again(script: list[tuple[int, Observation]]) -> None:
    first, second = GovernorScript(), GovernorScript()
    lost, vetoed = set[str](), set[str]()
    for pause_ms, observation in script:
        for one in (first, second):
            one.t_s += pause_ms / 1000
            try:
                one.tell(observation)
            except UsageError:
                continue
            except EdgedError:
                return
        if isinstance(observation, VariantLost):
            lost.add(observation.variant)
        elif isinstance(observation, Vetoed):
            vetoed.add(observation.variant)
        elif isinstance(observation, Unvetoed):
            vetoed.discard(observation.variant)
        choice, state, reported = first.choose(), first.state, first.decision
        assert choice == second.choose()
        assert choice.variant not in lost
        assert choice.variant not in vetoed or {"fp16", "int8", "int8-sparse"} <= vetoed | lost
        known = {v.name: v.accuracy or 0.0 for v in VARIANTS}
        able = [n for n in known if n not in vetoed | lost and known[n] >= state.budget.min_accuracy]
        assert choice.variant is None or known[choice.variant] >= state.budget.min_accuracy or not able
        assert math.isfinite(choice.value) and math.isfinite(choice.skip_value)
        assert reported.pinned == (reported.bound == "pin") == (state.pinned is not None)
        assert all(
            math.isfinite(n.value) and (n.error is None or math.isfinite(n.error)) for n in first.published.numbers
        )
        assert all(a.predicted_ms is None or math.isfinite(a.predicted_ms) for a in first.published.alternatives)
        assert math.isfinite(reported.price_per_j) and 0 <= reported.frame_share <= 1
        assert all(math.isfinite(ms) and ms > 0 for ms in first.governor.schedule_ms())
    assert repr(first.decision) == repr(second.decision)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_more_power_never_gives_less_accuracy(seed: int) -> None:
    scores = [run(Truth(scenario(cap=cap_w), seed), GovernorPolicy()).score for cap_w in (6.0, 7.0, 8.0, 10.0, 14.0)]
    for less, more in pairwise(scores):
        assert more >= 0.995 * less, scores


@pytest.mark.slow
def test_more_charge_never_gives_less_accuracy() -> None:
    stores = [{"cap_wh": 0.3, "soc0": soc} for soc in (0.4, 0.6, 0.9)]
    scores = [run(Truth(scenario(T=90, cap=30.0, bat=store), 3), GovernorPolicy()).score for store in stores]
    assert scores[0] <= 1.005 * scores[1] and scores[1] <= 1.005 * scores[2], scores
