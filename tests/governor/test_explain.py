"""The published Decision is what ran: shares, what bound it, how each variant stands, what is relaxed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edged.governor import explain
from edged.governor.messages import RELAX_ORDER, Budget, Device, Skipped, Tick, Variant, Workload
from tests.support.governor_script import AT_ONE_CLOCK, BUDGET, GovernorScript

OPEN = Budget(60.0, 0.99, 0.0)


def test_shares_are_those_of_the_batches_that_ran() -> None:
    mixed = GovernorScript(replace(BUDGET, power_w=9.5), Device((5.9,)), AT_ONE_CLOCK)
    ran = [name for name in mixed.run(40, idle_w=5.9)[-150:] if name is not None]
    shares = dict(mixed.decision.shares)
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.01)
    for name, share in shares.items():
        assert share == pytest.approx(ran.count(name) / len(ran), abs=0.35), "as of the last published decision"
    assert mixed.decision.variant == max(shares, key=lambda name: shares[name]) or max(shares.values()) < 0.6
    assert mixed.decision.bound == "power" and mixed.decision.price_per_j > 0
    assert "results in the last second" in mixed.published.reason


def test_before_the_first_result_it_says_what_would_run() -> None:
    first = GovernorScript(OPEN).published
    assert first.variant == "fp16" and first.reason.startswith("fp16 runs next: the most accurate variant fits")
    assert first.shares == {}


def test_a_deadline_that_the_best_variant_misses_is_named_with_its_numbers() -> None:
    tight = GovernorScript(replace(OPEN, deadline_ms=18.0), Device((5.9,)), AT_ONE_CLOCK)
    tight.run(5, watts=None)
    assert tight.decision.bound == "deadline"
    assert (
        "fp16 would need 2" in tight.published.reason
        and "ms of 18 ms at the 99 % quantile with 1 camera" in tight.published.reason
    )
    assert not tight.published.alternatives[0].fits


def test_a_variant_that_the_engine_has_no_room_for_says_so() -> None:
    busy = GovernorScript(
        replace(OPEN, deadline_ms=500.0), None, [Variant("fp16", 0.8, (40.0,)), Variant("fast", 0.7, (5.0,))]
    )
    busy.at(0, Workload(1, 40.0), Tick()).run(3, watts=None, celsius=None, fps=40)
    slow, fast = busy.published.alternatives
    misfit = explain.misfit(busy.state, 0)
    assert misfit is not None and misfit.bound == "load" and misfit.needs == pytest.approx(1.6, abs=0.05)
    assert not slow.fits and fast.fits and "would keep the engine 16" in slow.verdict


def test_dropped_frames_lower_the_frame_share_and_give_way_in_order() -> None:
    saving = GovernorScript(replace(BUDGET, power_w=6.0, min_accuracy=0.75))
    saving.run(40, watts=6.2)
    decision = saving.decision
    assert decision.frame_share < 0.9 and "frame_rate" in decision.relaxed and decision.bound == "power"
    assert "dropped to save energy" in saving.published.reason
    assert list(decision.relaxed) == [limit for limit in RELAX_ORDER if limit in decision.relaxed]


def test_frames_dropped_as_late_are_distinguished() -> None:
    late = GovernorScript(OPEN)
    late.run(2, watts=None)
    for _ in range(4):
        late.at(late.t_s + 0.5, *[Skipped(1, True)] * 8, Tick())
    assert "8 dropped as late" in late.published.reason or "16 dropped as late" in late.published.reason
    assert "frame_rate" in late.decision.relaxed


def test_it_is_the_same_object_while_nothing_is_new_and_soon_a_new_one_when_something_is() -> None:
    steady = GovernorScript(OPEN)
    steady.run(6, watts=None)
    before = steady.decision
    steady.run(20, watts=None)
    assert steady.decision is before
    steady.tell(Workload(2, 60.0))
    assert "with 2 cameras" in steady.published.reason
