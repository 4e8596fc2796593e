"""The energy of a horizon: spread evenly over what is left of it, horizon after horizon, by the meter's count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.limits.energy_quota import RESERVE, Quota, start
from edged.governor.messages import Budget, EnergyUse

BUDGET = Budget(50.0, 0.99, 0.0, energy_wh=24.0, energy_horizon_h=2.0)


def started(budget: Budget = BUDGET) -> Quota:
    quota = start(None, budget, 0.0, 0.0)
    assert quota is not None
    return quota


def test_at_the_start_it_is_the_mean_power() -> None:
    assert started().allowed_w(0.0, 0.0) == pytest.approx(12.0 * (1 - RESERVE))


def test_what_was_saved_is_there_later_and_what_was_overdrawn_is_not() -> None:
    assert started().allowed_w(3600.0, 8 * 3600.0) == pytest.approx(16.0, rel=0.01)
    assert started().allowed_w(3600.0, 16 * 3600.0) == pytest.approx(8.0, rel=0.02)
    assert started().allowed_w(3600.0, 25 * 3600.0) == 0.0


@given(st.lists(st.floats(0.0, 40.0), min_size=100, max_size=200))
def test_drawing_no_more_than_allowed_never_overdraws(wanted_w: list[float]) -> None:
    quota, drawn_j, step_s = started(), 0.0, 7200.0 / len(wanted_w)
    for i, want_w in enumerate(wanted_w):
        drawn_j += min(want_w, quota.allowed_w(i * step_s, drawn_j)) * step_s
    assert drawn_j <= 24.0 * 3600 + 1e-6


def test_the_next_begins_when_it_ends() -> None:
    quota = started()
    quota.roll(7199.0, 1000.0)
    assert quota.ends_s == 7200.0 and quota.left_j(1000.0) == 24.0 * 3600 - 1000.0
    quota.roll(7201.0, 80_000.0)
    assert quota.ends_s == 14_400.0 and quota.left_j(80_000.0) == 24.0 * 3600
    quota.roll(5 * 7200.0 + 1, 90_000.0)
    assert quota.ends_s == 6 * 7200.0


def test_the_meters_count_takes_the_place_of_the_models() -> None:
    quota = started()
    quota.metered(EnergyUse(10 * 3600.0, 1800.0), 100.0, 500.0)
    assert quota.left_j(500.0) == pytest.approx(14 * 3600.0) and quota.ends_s == 1900.0
    assert quota.left_j(860.0) == pytest.approx(14 * 3600.0 - 360.0), "until the next reading the model counts on"


def test_a_changed_limit_keeps_what_was_spent() -> None:
    more = start(started(), replace(BUDGET, energy_wh=30.0), 3600.0, 10 * 3600.0)
    assert more is not None and more.left_j(10 * 3600.0) == pytest.approx(20 * 3600.0)
    longer = start(started(), replace(BUDGET, energy_horizon_h=24.0), 3600.0, 10 * 3600.0)
    assert longer is not None and longer.left_j(10 * 3600.0) == pytest.approx(14 * 3600.0) and longer.ends_s == 86_400.0
    assert start(started(), replace(BUDGET, energy_wh=None), 3600.0, 0.0) is None
