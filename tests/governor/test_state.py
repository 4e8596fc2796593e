"""The economy at a desk: budgets absent, tight, impossible and unknown; weights, horizons, the assumed device."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.clock import NS_PER_S
from edged.errors import UsageError
from edged.governor import governor
from edged.governor.messages import BatchDone, Budget, BudgetChanged, Device, Sensed, Tick, Waiting, Workload
from edged.simulate.arena import run
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from tests.support.desk import BUDGET, VARIANTS, Desk, scenario

UNPROFILED = tuple(replace(v, clock_factor=(), active_w=()) for v in VARIANTS)


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


def test_without_profile_and_sensor_the_deadline_is_held_and_what_cannot_be_is_said() -> None:
    desk = Desk(replace(BUDGET, energy_wh=1.0), None, UNPROFILED)
    chosen = desk.run(5, watts=None, celsius=math.nan)
    assert set(chosen[20:]) == {"fp16"}
    told = " ".join(desk.decision.unheld)
    assert "power_w = 7.5 cannot be held: the device has no power sensor and no profile" in told
    assert "energy_wh = 1 cannot be held" in told and "temperature_c = 85 cannot be held" in told
    assert desk.decision.alternatives[0].power_w is None
    assert governor.energy_j(desk.state, "fp16", 1) is None


def test_the_first_reading_of_power_makes_budgets_holdable_and_its_watts_are_marked_assumed() -> None:
    desk = Desk(BUDGET, None, UNPROFILED)
    desk.run(1, watts=None, celsius=math.nan)
    assert any("power_w" in sentence for sentence in desk.decision.unheld)
    desk.tell(Sensed(6.0, 50.0))
    desk.tell(BudgetChanged(replace(BUDGET, power_w=7.0)))
    assert desk.decision.unheld == ()
    assumed = {n.name: n for n in desk.decision.numbers if n.assumed}
    assert (assumed["energy of fp16 against a guess"].error or 0) > 0.5
    desk.run(12, watts=6.0)
    desk.tell(BudgetChanged(BUDGET))
    learnt = {n.name: n for n in desk.decision.numbers}
    assert not learnt["energy of fp16 against a guess"].assumed
    assert governor.energy_j(desk.state, "fp16", 1) is not None


@pytest.mark.parametrize(("device", "cap_w"), [("nx", 9.0), ("nano", 6.5), ("agx", 16.0)])
def test_without_a_profile_the_power_is_held_from_the_first_minute_and_frames_run(device: str, cap_w: float) -> None:
    truth = Truth(scenario(dev=device, cap=cap_w, T=60), 5)
    result = run(truth, GovernorPolicy(fixed_clock=True, profiled=False), fixed_clock=True)
    assert result.power_violation == 0.0 and result.throttles == 0
    assert result.processed > 0.8 * result.frames


def test_energy_over_a_horizon_is_held_without_a_gauge() -> None:
    """Half a watt-hour for six minutes is 5 W: below what the cheapest variant draws on all frames."""
    budget = Budget(60.0, 0.99, 0.0, energy_wh=0.55, energy_horizon_h=0.1)
    desk = Desk(budget)
    drawn_j, chosen = 0.0, list[str | None]()
    for _ in range(120):
        chosen += desk.run(1, watts=None)
        drawn_j = desk.state.economy.energy.book.drawn_j
    assert drawn_j <= 1.05 * 0.55 * 3600 * 120 / 360
    assert None in chosen and set(chosen) & {"int8", "int8-sparse", "fp16"}
    assert any(n.name == "left of the horizon's energy" for n in desk.decision.numbers)
    assert desk.decision.bound == "energy"


def test_a_heavy_frame_gets_the_better_variant_sooner() -> None:
    desk = Desk(replace(BUDGET, power_w=6.6))
    desk.run(40, watts=6.6)
    light, heavy = (desk.choose(weights=(w,)) for w in (0.2, 5.0))
    accuracy = {None: 0.0} | {v.name: v.accuracy or 0.0 for v in VARIANTS}
    assert accuracy[heavy.variant] > accuracy[light.variant]


def test_a_camera_of_doubtful_results_gets_the_better_variant() -> None:
    desk = Desk(replace(BUDGET, power_w=6.8))
    desk.run(30, watts=6.8)
    for _ in range(40):
        for camera, confidence in (("easy", 0.95), ("hard", 0.35)):
            desk.t_s += 0.02
            desk.tell(BatchDone("int8", 1, 26.0, 2.0, 0, (confidence,), 0.5, 0, cameras=(camera,)))
    values = {c: desk.choose(cameras=(c,)) for c in ("easy", "hard")}
    accuracy = {None: 0.0} | {v.name: v.accuracy or 0.0 for v in VARIANTS}
    assert accuracy[values["hard"].variant] >= accuracy[values["easy"].variant]
    assert values["hard"].value < values["easy"].value  # less is to be had of a hard scene


def test_a_limit_may_come_and_go_while_running() -> None:
    desk = Desk(Budget(60.0, 0.99, 0.0))
    desk.run(5)
    assert desk.state.economy.caps is None
    desk.tell(BudgetChanged(BUDGET))
    desk.run(30, watts=7.6)
    assert desk.decision.price_per_j > 0
    desk.tell(BudgetChanged(Budget(60.0, 0.99, 0.0)))
    assert set(desk.run(20)[-200:]) == {"fp16"}
    assert desk.decision.price_per_j == 0 and desk.decision.bound == "none"


def test_frames_that_come_one_by_one_load_the_engine_as_much_as_all_at_once() -> None:
    """Eight cameras at 10 frames/s, 20 ms each on the best: 1.6 times what the engine can do."""
    state, _ = governor.start(VARIANTS, Budget(100.0, 0.99, 0.0), 0, Device((5.9,)))
    state, _ = governor.step(state, Workload(8, 80.0, 0), 0)
    now_s, free_s, last, late, ran = 0.0, 0.0, None, 0, 0
    for i in range(1600):
        now_s = i / 80
        if i % 40 == 0:
            state, _ = governor.step(state, Tick(), int(now_s * NS_PER_S))
        begin_s = max(now_s, free_s)
        if begin_s - now_s > 0.1:
            late += 1
            continue
        waiting = Waiting(1, 1000 * (begin_s - now_s), 100.0, last=last)
        choice = governor.choose(state, waiting, int(begin_s * NS_PER_S))
        if choice.variant is None:
            continue
        last, ms = choice.variant, {v.name: v.latency_ms[0] for v in VARIANTS}[choice.variant]
        free_s, ran = begin_s + ms / 1000, ran + 1
        late += free_s - now_s > 0.1
        done = BatchDone(last, 1, ms, 1000 * (begin_s - now_s), int(free_s - now_s > 0.1))
        state, _ = governor.step(state, done, int(free_s * NS_PER_S))
    assert late <= 0.02 * 1600 and ran > 0.9 * 1600, (late, ran)


def test_a_reading_of_temperature_alone_lets_heat_be_held() -> None:
    desk = Desk(replace(BUDGET, power_w=None), None, UNPROFILED)
    desk.run(20, watts=None, celsius=60.0)
    assert desk.decision.unheld == ()
    chosen = desk.run(30, watts=None, celsius=86.0)[-300:]
    assert chosen.count("fp16") < 150
    assert desk.decision.bound == "heat"
    desk.tell(Sensed(None, 60.0))
