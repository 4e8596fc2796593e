"""What holds of the governor with a device profile, whatever it is put through: heat, vetoes, switching, budgets."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.errors import UsageError
from edged.governor import governor
from edged.governor.decision import (
    BatchDone,
    Budget,
    BudgetChanged,
    Device,
    Observation,
    Pinned,
    Sensed,
    Skipped,
    Tick,
    Unvetoed,
    Variant,
    VariantLost,
    Vetoed,
    Waiting,
    Workload,
)
from edged.simulate.arena import run
from edged.simulate.scenario import Truth
from scripts.benches.contestant import Contestant

FP16 = Variant("fp16", 0.80, (20.0, 37.0), (2.0, 1.0), (5.0, 14.0), 0.3)
INT8 = Variant("int8", 0.73, (13.0, 24.0), (2.0, 1.0), (4.6, 13.0), 0.42)
SPARSE = Variant("int8-sparse", 0.70, (10.0, 18.0), (2.0, 1.0), (4.7, 13.0), 0.48)
VARIANTS = (FP16, INT8, SPARSE)
DEVICE = Device((4.6, 5.9), held=False, leakage_w_per_c=0.015)
BUDGET = Budget(60.0, 0.99, 0.0, 7.5, 10.0, temperature_c=85.0)


class Desk:
    """A governor with a profile, told things at times; frames run as the profile says unless told otherwise."""

    def __init__(self, budget: Budget = BUDGET, device: Device = DEVICE) -> None:
        self.t_s = 0.0
        self.state, self.decision = governor.start(VARIANTS, budget, 0, device)
        self.tell(Workload(1, 30.0, 0))

    def tell(self, observation: Observation) -> None:
        self.state, self.decision = governor.step(self.state, observation, int(self.t_s * NS_PER_S))

    def choose(self, age_ms: float = 2.0) -> governor.Choice:
        waiting = Waiting(1, age_ms, 33.0, 0.5, may_switch_clock=True)
        return governor.choose(self.state, waiting, int(self.t_s * NS_PER_S))

    def run(self, seconds: float, watts: float | None = 7.0, slow: float = 1.0) -> list[str | None]:
        """Frames at 30 a second for a while; what was chosen."""
        chosen: list[str | None] = []
        for i in range(int(seconds * 30)):
            self.t_s += 1 / 30
            if i % 6 == 0:
                self.tell(Sensed(watts, 50.0))
            if i % 15 == 0:
                self.tell(Tick())
            choice = self.choose()
            chosen.append(choice.variant)
            if choice.variant is None:
                self.tell(Skipped(1, False))
                continue
            variant = next(v for v in VARIANTS if v.name == choice.variant)
            clock = 1 if choice.clock is None else choice.clock
            ms = variant.latency_ms[0] * variant.clock_factor[clock] * slow
            self.tell(BatchDone(choice.variant, 1, ms, 2.0, int(ms > 58), (0.7,), 0.5, clock))
        return chosen


def scenario(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "dev": "nx", "T": 90, "fps": 30, "D": 50, "cap": 9.0, "diff": 0.5, **changes}


@given(st.floats(20, 45), st.floats(1.0, 1.4), st.floats(70, 88), st.integers(0, 1000), st.sampled_from(["nx", "nano"]))
@settings(max_examples=8, deadline=None)
def test_never_above_the_temperature_limit_if_any_action_avoids_it(
    ambient_c: float, resistance: float, limit_c: float, seed: int, device: str
) -> None:
    hot = scenario(dev=device, T=60, cap=30.0, amb=ambient_c, rsa=resistance, Tlim=limit_c, tj0=limit_c - 1.0)
    truth = Truth(hot, seed)
    resistance_c_per_w = truth.sink_air[0] + truth.junction_sink
    idles_at_c = ambient_c + resistance_c_per_w * (truth.idle_w[0] + 0.015 * (limit_c - 25))
    result = run(truth, Contestant())
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
    for i in range(60):
        desk.tell(BudgetChanged(replace(BUDGET, power_w=caps_w[i // 10 % len(caps_w)])) if i % 10 == 0 else Tick())
        desk.run(1, slow=slows[i % len(slows)])
        now = (desk.decision.variant, desk.state.economy.plan.clock)
        changes += now[0] != before[0]
        clocks += now[1] != before[1]
        before = now
    assert changes <= 20 and clocks <= 16, (changes, clocks)


@pytest.mark.parametrize("seed", [1, 2])
def test_more_power_never_gives_less_accuracy(seed: int) -> None:
    worths = [run(Truth(scenario(cap=cap_w), seed), Contestant()).score for cap_w in (6.0, 7.0, 8.0, 10.0, 14.0)]
    for less, more in pairwise(worths):
        assert more >= 0.995 * less, worths


def test_more_charge_never_gives_less_accuracy() -> None:
    stores = [{"cap_wh": 0.3, "soc0": soc} for soc in (0.4, 0.6, 0.9)]
    worths = [run(Truth(scenario(T=120, cap=30.0, bat=store), 3), Contestant()).score for store in stores]
    assert worths[0] <= 1.005 * worths[1] and worths[1] <= 1.005 * worths[2], worths


def test_absent_budgets_cost_nothing_and_present_ones_do() -> None:
    free = Desk(Budget(60.0, 0.99, 0.0))
    assert set(free.run(20)[-200:]) == {"fp16"}
    assert free.decision.variant == "fp16" and free.decision.price_per_j == 0.0 and free.decision.bound == "none"
    tight = Desk(replace(BUDGET, power_w=6.3))
    tight.run(40, watts=6.4)
    assert tight.decision.price_per_j > 0
    assert tight.decision.bound == "power" and "the rolling mean power allows" in tight.decision.reason


def test_a_budget_that_falls_below_idle_gives_up_frames_and_says_so() -> None:
    desk = Desk()
    desk.run(20)
    desk.tell(BudgetChanged(replace(BUDGET, power_w=4.0)))
    chosen = desk.run(30, watts=5.5)[-300:]
    assert chosen.count(None) > 250
    assert desk.decision.yielded == ("power", "frame_rate") and desk.decision.bound == "power"


def test_the_floor_is_held_by_giving_up_frames_not_by_a_cheaper_variant() -> None:
    desk = Desk(replace(BUDGET, power_w=6.0, min_accuracy=0.75))
    chosen = desk.run(40, watts=6.2)
    assert set(chosen) == {"fp16", None}


def test_silent_sensors_leave_the_profile() -> None:
    desk = Desk(replace(BUDGET, power_w=6.6))
    chosen = desk.run(40, watts=None)[-600:]
    assert chosen.count(None) < 600 and len(set(chosen)) >= 2
    numbers = {n.name: n for n in desk.decision.numbers}
    assert numbers["of that, another load"].error is not None


def test_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="device profile"):
        governor.start(VARIANTS, BUDGET, 0, Device(()))
    with pytest.raises(UsageError, match="device profile"):
        governor.start(VARIANTS, BUDGET, 0, Device((math.nan,)))
