"""What is learnt of watts from a lagging, averaging, quantising meter, and what is believed without one."""

from __future__ import annotations

import math
import random
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from edged.governor import profile
from edged.governor.estimators import power
from edged.governor.estimators.power import Power
from edged.governor.messages import Device
from edged.governor.planner.options import Tables, tables
from tests.support.governor_script import FP16, INT8, VARIANTS

DEVICE = Device((6.0,))
QUICK, SLOW = (0.2, 0.4), (0.8, 1.0)
"""Lag and averaging of a meter, in seconds."""
KNOWN = tables([replace(v, clock_factor=(), active_w=v.active_w[-1:]) for v in VARIANTS], DEVICE, 1)
UNKNOWN = tables([replace(v, clock_factor=(), active_w=()) for v in (FP16, INT8)], profile.assumed(6.0), 1)


def meter_of(known: Tables, sensor: tuple[float, float] = QUICK, window_s: int = 10) -> Power:
    made = power.start(known, 0, window_s)
    made.lag_s, made.mean_s = sensor
    return made


def lived(
    known: Tables,
    seconds: int,
    factors: tuple[float, ...],
    other_w: float = 0.0,
    seen: Power | None = None,
    meter: bool = True,
) -> Power:
    """Frames of each variant in turn, 20 a second, told to a meter that rounds to 50 mW and is 0.2 s late."""
    reported = meter_of(known) if seen is None else deepcopy(seen)
    start_s, shown_w, late = reported.sensed_s, 6.0, [6.0]
    for i in range(seconds * 5):
        variant = (i // 25) % len(factors)
        nominal_j = 4 * float(known.active_w[variant, 0] * known.latency_s[variant, 0])
        reported.ran(variant, 0, nominal_j, reported.sensed_s)
        watts = 6.0 + other_w + factors[variant] * nominal_j / 0.2
        late.append(watts)
        shown_w += (1 - math.exp(-0.2 / 0.4)) * (late.pop(0) - shown_w)
        reading_w = round(shown_w / 0.05) * 0.05 if meter else None
        reported.sensed(known, 0, 25.0, reading_w, start_s + (i + 1) * 0.2, False)
    return reported


def test_a_unit_that_draws_more_than_its_profile_is_found_out_variant_by_variant() -> None:
    reported = lived(KNOWN, 120, (1.3, 0.9, 1.1))
    assert [reported.factor(i, 0) for i in range(3)] == pytest.approx([1.3, 0.9, 1.1], abs=0.06)
    assert reported.background_w == pytest.approx(0.0, abs=0.25)


def test_a_co_runner_is_distinguished_from_the_frames_within_seconds() -> None:
    reported = lived(KNOWN, 60, (1.0, 1.0, 1.0))
    reported = lived(KNOWN, 6, (1.0, 1.0, 1.0), 2.0, reported)
    assert reported.background_w == pytest.approx(2.0, abs=0.4)
    assert reported.factor(0, 0) == pytest.approx(1.0, abs=0.1)


def test_without_a_profile_the_common_error_is_learnt_on_one_variant_for_all() -> None:
    reported = lived(UNKNOWN, 20, (3.0,))
    assert reported.factor(0, 0) == pytest.approx(3.0, rel=0.1)
    assert reported.factor(1, 0) > 2.0  # never ran
    assert reported.error(1, 0) < 0.8 * meter_of(UNKNOWN).error(1, 0)


def test_a_silent_meter_leaves_the_profile_and_in_doubt_the_worst_seen() -> None:
    reported = lived(KNOWN, 60, (1.0, 1.0, 1.0), 1.5)
    now_s = reported.sensed_s
    silent = lived(KNOWN, 10, (1.0, 1.0, 1.0), 0.0, reported, meter=False)
    assert silent.factor(0, 0) == reported.factor(0, 0) and silent.valid_s == now_s
    worst_w = max(0.0, reported.peak_w - reported.background_w)
    assert silent.stale_margin_w(now_s + 10) == pytest.approx(worst_w + silent.background_error_w)
    assert not lived(KNOWN, 5, (1.0,), meter=False).metered


def test_the_history_is_what_was_drawn() -> None:
    reported = lived(KNOWN, 100, (1.2, 1.2, 1.2), 1.0)
    mean_w = sum(reported.history.seconds_j[:-1]) / (len(reported.history.seconds_j) - 1)
    drawn_w = [6.0 + 1.0 + 1.2 * 20 * float(KNOWN.active_w[i, 0] * KNOWN.latency_s[i, 0]) for i in range(3)]
    assert min(drawn_w) - 0.3 < mean_w < max(drawn_w) + 0.3


def test_an_estimated_reading_is_trusted_less() -> None:
    reported = lived(KNOWN, 10, (1.0,))
    sure, doubtful = deepcopy(reported), deepcopy(reported)
    sure.sensed(KNOWN, 0, 25.0, 9.0, reported.sensed_s + 0.2, False)
    doubtful.sensed(KNOWN, 0, 25.0, 9.0, reported.sensed_s + 0.2, True)
    assert abs(doubtful.background_w - reported.background_w) < abs(sure.background_w - reported.background_w)


def test_a_meter_that_speaks_once_a_second_teaches_as_much_as_a_quick_one() -> None:
    """Batches of two variants in turn, five a second; every reading is compared with the time that it averaged over."""
    reported, now_s, shown_w, late = meter_of(KNOWN), 0.0, 6.0, [6.0]
    for i in range(1500):
        variant = (i // 3) % 2
        nominal_j = 4 * float(KNOWN.active_w[variant, 0] * KNOWN.latency_s[variant, 0])
        reported.ran(variant, 0, nominal_j, now_s + 0.1)
        now_s += 0.2
        late.append(6.0 + (1.3, 0.8)[variant] * nominal_j / 0.2)
        shown_w += (1 - math.exp(-0.2 / 0.4)) * (late.pop(0) - shown_w)
        if i % 5 == 4:
            reported.sensed(KNOWN, 0, 25.0, round(shown_w / 0.05) * 0.05, now_s, False)
    assert [reported.factor(i, 0) for i in range(2)] == pytest.approx([1.3, 0.8], abs=0.06)


def test_what_runs_while_no_reading_comes_is_kept_in_bounds() -> None:
    reported = meter_of(KNOWN)
    for i in range(1000):
        reported.ran(0, 0, 1.0, 0.5 * i)
    assert len(reported.pending_j) == power.BINS and sum(map(sum, reported.pending_j)) == pytest.approx(1000.0)
    watts = reported.sensed(KNOWN, 0, 25.0, None, 500.0, False)
    assert watts == pytest.approx(6.0 + 2.0) and reported.pending_j == []


def test_what_ran_since_the_last_reading_is_in_the_history_of_now() -> None:
    """A meter that answers once a second must not leave the window blind to the current second."""
    reported = meter_of(KNOWN)
    reported.sensed(KNOWN, 0, 25.0, 6.0, 1.0, False)
    reported.ran(0, 0, 4.0, 1.5)
    now = reported.predicted(KNOWN, 0, 25.0, 1.8)
    rest_w = 6.0 + reported.background_w
    assert now.drawn_j - reported.history.drawn_j == pytest.approx(0.8 * rest_w + 4.0 * reported.factor(0, 0))
    assert reported.predicted(KNOWN, 0, 25.0, 1.0) == reported.history
    reported.sensed(KNOWN, 0, 25.0, None, 1.8, False)
    assert reported.history == now


def test_readings_that_are_no_multiple_of_a_bin_apart_teach_as_much() -> None:
    """Two a second: what ran is read back from the very bins that it went to."""
    reported, now_s, shown_w, late = meter_of(KNOWN), 0.0, 6.0, [6.0] * 2
    nominal_j = 2 * float(KNOWN.active_w[0, 0] * KNOWN.latency_s[0, 0])
    for i in range(1200):
        now_s += 0.1
        reported.ran(0, 0, nominal_j, now_s - 0.05)
        late.append(6.0 + nominal_j / 0.1)
        shown_w += (1 - math.exp(-0.1 / 0.4)) * (late.pop(0) - shown_w)
        if i % 5 == 4:
            reported.sensed(KNOWN, 0, 25.0, shown_w, now_s, False)
    assert reported.background_w + reported.factor(0, 0) * nominal_j / 0.1 == pytest.approx(nominal_j / 0.1, rel=0.01)


def drawn(sensor: tuple[float, float], loads_w: list[float], every: int, silent: range = range(0)) -> Power:
    """A tenth of a second for each load; a reading after `every` of them, none while `silent`."""
    reported, shown_w, late = meter_of(KNOWN, sensor, 20), 6.0, [6.0] * round(sensor[0] / 0.1)
    for i, load_w in enumerate(loads_w):
        late.append(6.0 + load_w)
        shown_w += (1 - math.exp(-0.1 / sensor[1])) * (late.pop(0) - shown_w)
        if i % every == every - 1:
            reading_w = None if i in silent else shown_w
            reported.sensed(KNOWN, 0, 25.0, reading_w, (i + 1) * 0.1, False)
    return reported


@pytest.mark.parametrize(("sensor", "every"), [(QUICK, 2), (SLOW, 10)])
def test_a_load_counts_from_when_it_came_however_late_the_meter(sensor: tuple[float, float], every: int) -> None:
    reported = drawn(sensor, [0.0] * 300 + [0.8] * 150, every)
    assert reported.history.drawn_j == pytest.approx(6.0 * 45 + 0.8 * 15, abs=0.5)
    reported = drawn(sensor, [0.8] * 300 + [0.0] * 150, every)
    assert reported.history.drawn_j == pytest.approx(6.0 * 45 + 0.8 * 30, abs=0.5)


def test_a_lost_reading_is_made_up_for_by_the_next() -> None:
    reported = drawn(SLOW, [0.0] * 300 + [0.8] * 150, 10, silent=range(310, 330))
    assert reported.history.drawn_j == pytest.approx(6.0 * 45 + 0.8 * 15, abs=1.0)


def test_while_the_meter_is_silent_the_history_has_what_the_plan_expects() -> None:
    reported = drawn(QUICK, [1.5] * 300 + [0.0] * 100, 2)
    before_j, silent = reported.history.drawn_j, deepcopy(reported)
    for i in range(50):
        silent.sensed(KNOWN, 0, 25.0, None, reported.sensed_s + (i + 1) * 0.2, False)
    assert silent.stale_margin_w(silent.sensed_s) > 0.8
    assert silent.history.drawn_j - before_j > 10 * 6.0 + 5 * 0.8


def test_the_history_is_doubted_as_far_as_readings_deviate() -> None:
    chance = random.Random(3)

    def doubt_j(noise_w: float, every: int) -> float:
        reported = meter_of(KNOWN, QUICK, 20)
        for i in range(0, 3000, every):
            reading_w = 6.0 + chance.gauss(0.0, noise_w)
            reported.sensed(KNOWN, 0, 25.0, reading_w, (i + every) * 0.1, False)
        return reported.doubt_j(20)

    assert doubt_j(0.08, 2) < 0.3
    assert doubt_j(0.24, 10) == pytest.approx(0.24 * math.sqrt(20), rel=0.5)


def test_without_a_profile_the_watts_are_learnt_clock_by_clock_and_what_they_share_is_carried_over() -> None:
    ratios, idle_w, factors = (0.5, 0.75, 1.0), (5.2, 5.6, 6.0), (0.9, 1.5, 2.0)
    guess = profile.assumed(6.0, Device((0.0,) * 3, clock_ratio=ratios), 2)
    known = tables([replace(v, clock_factor=(), active_w=()) for v in (FP16, INT8)], guess, 1)
    assert known.idle_w[0] == pytest.approx(6.0 * (1 - profile.ASSUMED_IDLE_SHARE * 0.5)) and known.idle_w[2] == 6.0
    assert (np.diff(known.active_w) > 0).all() and (np.diff(known.latency_s) < 0).all()
    seen, now_s, shown_w = power.start(known, 2, 10, quiet=True), 0.0, 6.0
    before = seen.error(1, 0)
    for clock, seconds in ((2, 40), (1, 40), (0, 40), (2, 40), (0, 40)):
        for i in range(seconds * 5):
            variant, share = (i // 25) % 2, 1 + (i // 60) % 3
            nominal_j = share * float(known.nominal_j[variant][clock])
            seen.ran(variant, clock, nominal_j, now_s)
            now_s += 0.2
            shown_w += (1 - math.exp(-0.2 / 0.4)) * (idle_w[clock] + factors[clock] * nominal_j / 0.2 - shown_w)
            seen.sensed(known, clock, 25.0, shown_w, now_s, False)
        if (clock, seconds) == (2, 40):
            assert seen.error(1, 0) < 0.6 * before  # never ran there
    assert [seen.factor(v, c) for v in (0, 1) for c in (0, 2)] == pytest.approx([0.9, 2.0] * 2, rel=0.3)
    assert all(seen.learnt(variant, clock) for variant in (0, 1) for clock in (0, 1, 2))
    drawn_w = [seen.rest_w(known, c, 25.0) + seen.background_w for c in range(3)]
    assert drawn_w == pytest.approx(idle_w, abs=0.35)
