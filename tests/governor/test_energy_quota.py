"""The energy of a horizon: spread evenly over what is left of it, horizon after horizon."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.limits.energy_quota import RESERVE, Horizon, begun
from edged.governor.messages import Budget

BUDGET = Budget(50.0, 0.99, 0.0, energy_wh=24.0, energy_horizon_h=2.0)


def started(budget: Budget = BUDGET) -> Horizon:
    horizon = begun(None, budget, 0.0, 0.0)
    assert horizon is not None
    return horizon


def test_at_the_start_it_is_the_mean_power() -> None:
    assert started().allowed_w(0.0, 0.0) == pytest.approx(12.0 * (1 - RESERVE))


def test_what_was_saved_is_there_later_and_what_was_overdrawn_is_not() -> None:
    horizon = started()
    assert horizon.allowed_w(3600.0, 8 * 3600.0) == pytest.approx(16.0, rel=0.01)
    assert horizon.allowed_w(3600.0, 16 * 3600.0) == pytest.approx(8.0, rel=0.02)
    assert horizon.allowed_w(3600.0, 25 * 3600.0) == 0.0


@given(st.lists(st.floats(0.0, 40.0), min_size=100, max_size=200))
def test_who_draws_no_more_than_allowed_never_overdraws(wanted_w: list[float]) -> None:
    horizon, drawn_j, step_s = started(), 0.0, 7200.0 / len(wanted_w)
    for i, want_w in enumerate(wanted_w):
        drawn_j += min(want_w, horizon.allowed_w(i * step_s, drawn_j)) * step_s
    assert drawn_j <= 24.0 * 3600 + 1e-6


def test_the_next_begins_when_it_ends() -> None:
    horizon = started()
    assert horizon.rolled(7199.0, 1000.0) is horizon
    following = horizon.rolled(7201.0, 80_000.0)
    assert following.begun_s == 7200.0 and following.left_j(80_000.0) == 24.0 * 3600
    assert horizon.rolled(5 * 7200.0 + 1, 1.0).begun_s == 5 * 7200.0


def test_a_changed_amount_counts_what_was_drawn_another_length_begins_anew() -> None:
    more = begun(started(), replace(BUDGET, energy_wh=30.0), 3600.0, 10 * 3600.0)
    assert more is not None and more.left_j(10 * 3600.0) == pytest.approx(20 * 3600.0)
    other = begun(started(), replace(BUDGET, energy_horizon_h=24.0), 3600.0, 10 * 3600.0)
    assert other is not None and other.begun_s == 3600.0 and other.left_j(10 * 3600.0) == 24 * 3600.0
    assert begun(started(), replace(BUDGET, energy_wh=None), 3600.0, 0.0) is None
