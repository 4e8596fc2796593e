"""The governor as its callers see it: observations in, decisions and choices out, refusals that change nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.errors import EdgedError, UsageError
from edged.governor.governor import Governor
from edged.governor.messages import (
    BatchDone,
    Budget,
    BudgetChanged,
    Device,
    Observation,
    Pinned,
    Residency,
    Sensed,
    Variant,
    VariantLost,
    Waiting,
    Workload,
)
from edged.simulate.arena import run
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from tests.support.governor_script import BUDGET as CAPPED
from tests.support.governor_script import VARIANTS, GovernorScript, scenario

FP16 = Variant("fp16", 0.90, (30.0,))
MIXED = Variant("mixed", 0.85, (18.0,))
INT8 = Variant("int8-sparse", 0.80, (6.0,))
BUDGET = Budget(deadline_ms=50.0, deadline_quantile=0.99, min_accuracy=0.0)
UNPROFILED = tuple(replace(v, clock_factor=(), active_w=()) for v in VARIANTS)


def script(*variants: Variant, budget: Budget = BUDGET) -> GovernorScript:
    """Without a profile; a second of frames has run."""
    made = GovernorScript(budget, None, variants or (FP16, MIXED, INT8))
    made.run(1, watts=None, celsius=None, fps=20)
    return made


def test_calm_the_most_accurate_runs_and_the_decision_stays_the_same_object() -> None:
    calm = script()
    calm.run(5, watts=None, celsius=None, fps=20)
    first = calm.expect("fp16", "none").decision
    calm.run(30, watts=None, celsius=None, fps=20)
    assert calm.decision is first and first.max_batch == 1 and not first.pinned


def test_contention_moves_frames_to_a_faster_variant_within_a_second_and_back_after_it() -> None:
    busy = script()
    busy.run(20, watts=None, celsius=None, fps=20)
    slowed = busy.run(4, watts=None, celsius=None, fps=20, slow=2.2)
    assert slowed[40:].count("mixed") > 30
    calm = busy.run(30, watts=None, celsius=None, fps=20)
    assert calm[-100:].count("fp16") > 90


def test_a_single_spike_changes_nothing() -> None:
    spiky = script()
    spiky.run(20, watts=None, celsius=None, fps=20)
    spiky.tell(BatchDone("fp16", 1, 900.0, 4.0, 1))
    assert set(spiky.run(20, watts=None, celsius=None, fps=20)[20:]) == {"fp16"}


def test_a_floor_that_no_variant_reaches_is_refused_and_nothing_changes() -> None:
    with pytest.raises(UsageError, match=r"min_accuracy = 0.95 cannot be held: the most accurate variant has 0.9"):
        script(budget=replace(BUDGET, min_accuracy=0.95))
    kept = script()
    before = kept.governor.snapshot()
    with pytest.raises(UsageError, match="cannot be held"):
        kept.tell(BudgetChanged(replace(BUDGET, min_accuracy=0.95)))
    with pytest.raises(UsageError, match="cannot be held"):
        kept.governor.check(replace(BUDGET, min_accuracy=0.95))
    assert repr(kept.state) == repr(before)
    with pytest.raises(UsageError, match="no variant's accuracy is known"):
        script(Variant("x", None, (5.0,)), budget=replace(BUDGET, min_accuracy=0.5))


def test_the_accuracy_floor_forbids_a_variant() -> None:
    floored = script(budget=replace(BUDGET, deadline_ms=15.0, min_accuracy=0.84))
    assert "int8-sparse" not in floored.run(5, watts=None, celsius=None, fps=20)
    verdict = floored.published.alternatives[2].verdict
    assert verdict == "may not run: its accuracy 0.8 is below the floor, min_accuracy is 0.84"


def test_a_new_budget_takes_effect_at_once_both_ways() -> None:
    changed = script()
    changed.run(5, watts=None, celsius=None, fps=20)
    changed.tell(BudgetChanged(replace(BUDGET, deadline_ms=26.0)))
    changed.expect("mixed", "deadline")
    assert set(changed.run(3, watts=None, celsius=None, fps=20)) == {"mixed"}
    changed.tell(BudgetChanged(BUDGET))
    changed.expect("fp16", "none")


def test_a_pin_holds_and_its_end_lets_the_governor_choose_again() -> None:
    pinned = script().at(2, Pinned("mixed")).expect("mixed", "pin")
    assert pinned.decision.pinned and "pinned by an operator" in pinned.published.reason
    assert set(pinned.run(5, watts=None, celsius=None, fps=20)) == {"mixed"}
    pinned.at(pinned.t_s, Pinned(None)).expect("fp16", "none")
    assert not pinned.decision.pinned


def test_what_came_late_under_a_pin_or_another_deadline_does_not_count_against_the_next_choice() -> None:
    def late_price(*message: Observation) -> float:
        overdue = script()
        overdue.tell(*[BatchDone("fp16", 1, 30.0, 200.0, 1)] * 40)
        overdue.tell(*message)
        return overdue.state.late_price

    assert late_price() > 0
    assert late_price(Pinned("mixed")) == late_price(BudgetChanged(replace(BUDGET, deadline_ms=90.0))) == 0.0
    assert late_price(BudgetChanged(replace(BUDGET, power_w=9.0))) > 0


def test_a_pin_that_cannot_be_is_refused() -> None:
    refused = script(budget=replace(BUDGET, min_accuracy=0.84))
    with pytest.raises(UsageError, match="there is no variant 'fp8' to pin") as error:
        refused.tell(Pinned("fp8"))
    assert error.value.hint == "choose one of: fp16, mixed, int8-sparse"
    with pytest.raises(UsageError, match="int8-sparse cannot be pinned"):
        refused.tell(Pinned("int8-sparse"))
    refused.tell(Pinned("mixed"))
    with pytest.raises(UsageError, match="mixed cannot be pinned"):
        refused.tell(BudgetChanged(replace(BUDGET, min_accuracy=0.88)))
    refused.tell(Pinned(None), VariantLost("mixed", "the runtime failed"))
    with pytest.raises(UsageError, match="mixed cannot be pinned: it stopped working: the runtime failed"):
        refused.tell(Pinned("mixed"))


def test_a_lost_variant_never_runs_again_and_the_last_loss_is_an_error() -> None:
    lost = script().at(2, Pinned("fp16"), VariantLost("fp16", "out of memory"))
    assert lost.decision.variant == "mixed" and not lost.decision.pinned
    assert lost.published.alternatives[0].verdict == "may not run: it stopped working: out of memory"
    lost.tell(VariantLost("fp16", "again"))
    assert "fp16" not in lost.run(5, watts=None, celsius=None, fps=20)
    lost.tell(VariantLost("int8-sparse", "x"))
    with pytest.raises(EdgedError, match="the last working variant, mixed, stopped working: gone"):
        lost.tell(VariantLost("mixed", "gone"))
    floored = script(budget=replace(BUDGET, min_accuracy=0.88))
    with pytest.raises(EdgedError, match=r"fp16 stopped working: x; of the others, min_accuracy = 0.88 cannot be held"):
        floored.tell(VariantLost("fp16", "x"))


def test_a_variant_of_unknown_latency_runs_once_a_pin_has_measured_it() -> None:
    new = script(Variant("new", 0.95, ()), INT8)
    assert "new" not in new.run(3, watts=None, celsius=None, fps=20)
    assert new.governor.predict_ms("new") == () and not new.published.alternatives[0].fits
    new.tell(Pinned("new"), *[BatchDone("new", 1, 12.0, 3.0, 0)] * 50, Pinned(None))
    assert new.decision.variant == "new"
    assert new.governor.predict_ms("new")[0] == pytest.approx(12, rel=0.15)


def test_the_schedule_gets_the_times_of_the_fastest_and_the_least_that_any_takes() -> None:
    timed = script(Variant("gpu", 0.9, (8.0, 9.0, 10.0, 11.0)), Variant("fast", 0.8, (4.0, 5.0, 6.0, 7.0)))
    times = timed.governor.schedule_ms()
    assert len(times) == 4 and 3.9 <= times[0] <= 5.0 and times[3] == pytest.approx(times[0] * 7 / 4)
    assert timed.governor.max_batch == 4 and 3.5 < timed.governor.least_ms() <= 4.0
    timed.tell(Pinned("gpu"))
    assert timed.governor.schedule_ms()[0] > 7.5
    assert script(Variant("cpu", 0.9, (10.0, 20.0, 30.0))).governor.max_batch == 1


def test_implausible_observations_change_nothing_learnt() -> None:
    kept = script()
    before = kept.governor.predict_ms("fp16")
    for bad in (math.nan, math.inf, -math.inf, -1.0, 0.0):
        kept.tell(BatchDone("fp16", 1, bad, bad, 0), Workload(1, bad), Sensed(bad or -1.0, bad or 999.0))
    kept.tell(BatchDone("nobody", 1, 5.0, 1.0, 0), BatchDone("fp16", 0, 5.0, 1.0, 0))
    assert kept.governor.predict_ms("fp16") == before
    assert math.isfinite(kept.choose(age_ms=math.nan, weights=(math.nan,)).value)


def test_every_call_is_reported_with_its_answer() -> None:
    calls: list[tuple[str, bool]] = []
    governor = Governor(
        [FP16, INT8],
        BUDGET,
        0,
        None,
        lambda now_ns, request, answer, who: calls.append((type(request).__name__, answer is not None)),
    )
    governor.observe(Workload(1, 20.0), 1)
    governor.choose(Waiting(1, 2.0), 2)
    governor.observe(Pinned("int8-sparse"), 3)
    assert calls == [("Start", True), ("Workload", False), ("Waiting", True), ("Pinned", True)]


def test_a_device_profile_that_is_not_plausible_is_refused() -> None:
    for device in (Device(()), Device((math.nan,))):
        with pytest.raises(UsageError, match="device profile"):
            Governor(VARIANTS, CAPPED, 0, device)


def test_without_profile_and_sensor_the_deadline_is_held_and_what_cannot_be_is_reported() -> None:
    blind = GovernorScript(replace(CAPPED, energy_wh=1.0), None, UNPROFILED)
    assert set(blind.run(5, watts=None, celsius=None)[20:]) == {"fp16"}
    reported = " ".join(blind.published.unheld)
    assert "power_w = 7.5 cannot be held: the device has no power sensor and no profile" in reported
    assert "energy_wh = 1 cannot be held" in reported and "temperature_c = 85 cannot be held" in reported
    assert blind.published.alternatives[0].power_w is None and blind.governor.energy_j("fp16", 1) is None


def test_the_first_reading_of_power_makes_budgets_holdable_and_its_watts_are_marked_assumed() -> None:
    first = GovernorScript(CAPPED, None, UNPROFILED)
    first.run(1, watts=None, celsius=None)
    assert "power" in first.decision.unenforceable
    first.tell(Sensed(6.0, 50.0), BudgetChanged(replace(CAPPED, power_w=7.0)))
    assert first.decision.unenforceable == ()
    assumed = {n.name: n for n in first.published.numbers if n.assumed}
    assert (assumed["energy of fp16 against a guess"].error or 0) > 0.5
    first.run(12, watts=6.0)
    first.tell(BudgetChanged(CAPPED))
    assert not {n.name: n for n in first.published.numbers}["energy of fp16 against a guess"].assumed
    assert first.governor.energy_j("fp16", 1) is not None


@pytest.mark.parametrize(("device", "cap_w"), [("nx", 9.0), ("nano", 6.5), ("agx", 16.0)])
def test_without_a_profile_the_power_is_held_from_the_first_minute_and_frames_run(device: str, cap_w: float) -> None:
    result = run(Truth(scenario(dev=device, cap=cap_w, T=60), 5), GovernorPolicy(True, profiled=False), True)
    assert result.power_violation == 0.0 and result.throttles == 0
    assert result.processed > 0.8 * result.frames


def test_without_a_profile_the_power_is_held_with_a_sensor_that_is_slow_and_noisy() -> None:
    """What the tries of each variant draw shows seconds later, and is more than was guessed."""
    slow = {"hz": 1, "lag": 0.8, "tau": 1.0, "noise": 0.03, "lsb": 0.15, "drop": 0.15}
    loaded = scenario(dev="nx", cap=8.0, W=20, D=45, T=60, sens=slow, co={"k": "markov", "v": [0, 0.8], "d": [60, 40]})
    assert run(Truth(loaded, 20), GovernorPolicy(True, profiled=False), True).power_violation == 0.0


def test_without_a_profile_idle_power_is_that_of_a_quiet_time_not_of_the_first_reading() -> None:
    """Frames ran before the first reading, which shows them. Once a limit counts joules, no frame runs for some
    seconds; a silent sensor ends that."""
    quiet = GovernorScript(BUDGET, None, UNPROFILED)
    quiet.run(3, watts=14.0)
    assert None not in quiet.run(3, watts=14.0), "nothing is limited: no time without frames"
    quiet.tell(BudgetChanged(CAPPED))
    chosen = quiet.run(1, watts=6.0)
    assert chosen[:20] == [None] * 20 and chosen[-1] is not None
    assert quiet.state.device.idle_w == (6.0,) and not quiet.state.is_quiet(quiet.t_s)
    silent = GovernorScript(CAPPED, None, UNPROFILED)
    silent.run(1, watts=14.0)
    silent.run(2, watts=None)
    assert not silent.state.is_quiet(silent.t_s)


def test_without_a_profile_a_variant_that_draws_little_is_found_under_a_tight_limit() -> None:
    """What the others draw makes the accelerator's look dear: at the price of a joule it would never be tried."""
    truth = Truth(scenario(cap=7.5, D=60, T=90), 5)
    policy = GovernorPolicy(True, profiled=False)
    result = run(truth, policy, True)
    assert result.power_violation == 0.0
    state = policy.governor.state
    dla = state.tables.names.index("dla")
    assert state.power.learnt(dla, 0) or state.power.factor(dla, 0) < 0.4
    assert state.latency.runs[dla] > 0.3 * result.frames


def test_energy_over_a_horizon_is_held_without_a_meter() -> None:
    """0.55 Wh for six minutes is 5.5 W: below what the cheapest variant draws on all frames."""
    saving = GovernorScript(Budget(60.0, 0.99, 0.0, energy_wh=0.55, energy_horizon_h=0.1))
    chosen = saving.run(120, watts=None)
    assert saving.state.power.history.drawn_j <= 1.05 * 0.55 * 3600 * 120 / 360
    assert None in chosen and set(chosen) & {"int8", "int8-sparse", "fp16"}
    assert saving.decision.bound == "energy"


def test_a_heavy_frame_gets_the_better_variant_sooner() -> None:
    tight = GovernorScript(replace(CAPPED, power_w=6.6))
    tight.run(40, watts=6.6)
    accuracy = {None: 0.0} | {v.name: v.accuracy or 0.0 for v in VARIANTS}
    light, heavy = (tight.choose(weights=(w,)).variant for w in (0.2, 5.0))
    assert accuracy[heavy] > accuracy[light]


def test_a_reading_of_temperature_alone_lets_heat_be_held() -> None:
    hot = GovernorScript(replace(CAPPED, power_w=None), None, UNPROFILED)
    hot.run(20, watts=None, celsius=60.0)
    assert hot.decision.unenforceable == ()
    chosen = hot.run(15, watts=None, celsius=86.0)[-200:]
    assert chosen.count("fp16") < 100


def test_a_profile_of_several_clocks_that_reads_nothing_at_rest_is_a_profile_all_the_same() -> None:
    measured = GovernorScript(CAPPED, Device((0.0, 0.0), fixed_clock=False))
    measured.run(2, watts=6.0)
    assert measured.state.profiled and measured.state.device.idle_w == (0.0, 0.0)


def test_a_first_latency_at_a_lower_clock_is_told_from_that_at_the_highest() -> None:
    guessed = Device((0.0,) * 3, clock_ratio=(0.4, 0.7, 1.0))
    begun = GovernorScript(BUDGET, guessed, [FP16, Variant("int8", 0.73, ())])
    begun.at(1, Sensed(clock=0), Residency("int8", None, (44.0, 88.0)))
    assert begun.state.service_s(1, 0) == pytest.approx(0.044)
    assert begun.state.service_s(1, 2) == pytest.approx(0.044 / (0.25 + 0.75 / 0.4))
