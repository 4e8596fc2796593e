"""The store's allowance: never empty, never overflowing, and even between."""

from __future__ import annotations

import pytest

from edged.governor.limits import battery
from edged.governor.limits.battery import RESERVE, Store
from edged.governor.messages import Battery

NIGHT = Battery(capacity_wh=20.0, until_s=36_000.0)


def told(store: Store, of: Battery, charge: float, sun_w: float = 0.0, now_s: float = 0.0) -> Store:
    store = battery.sensed(store, of, charge, sun_w, 5.0, 1.0, now_s)
    return battery.plan(store, of, idle_w=1.0, service_w=2.0, now_s=now_s)


def test_without_a_gauge_nothing_is_said() -> None:
    assert battery.plan(Store(), NIGHT, 1.0, 2.0, 0.0).allowed_w == float("inf")


def test_through_a_night_the_charge_is_spread_evenly() -> None:
    assert told(Store(), NIGHT, 0.5).allowed_w == pytest.approx((0.5 - RESERVE) * 20.0 / 10.0, rel=0.01)
    assert told(Store(), NIGHT, 0.5, now_s=18_000.0).allowed_w == pytest.approx((0.5 - RESERVE) * 20.0 / 5.0, rel=0.01)


def test_its_times_count_from_when_it_was_told() -> None:
    late = told(Store(begun_s=18_000.0), NIGHT, 0.5, now_s=18_000.0)
    assert late.allowed_w == pytest.approx(told(Store(), NIGHT, 0.5).allowed_w, rel=0.01)


def test_what_the_sun_would_spill_is_spent() -> None:
    sunny = Battery(20.0, 36_000.0, (12.0,) * 1200)
    assert told(Store(), sunny, 0.98, 12.0).allowed_w > 8.0
    assert told(Store(), sunny, 0.1, 12.0).allowed_w < told(Store(), sunny, 0.98, 12.0).allowed_w


def test_a_schedule_of_mains_by_the_hour_is_a_supply_like_the_sun() -> None:
    mains_later = Battery(20.0, 36_000.0, (0.0,) * 5 + (10.0,) * 5, 3600.0)
    mains_first = Battery(20.0, 36_000.0, (10.0,) * 5 + (0.0,) * 5, 3600.0)
    before = told(Store(), mains_later, 0.5).allowed_w
    assert before < told(Store(), mains_first, 0.5, 10.0).allowed_w


def test_a_forecast_that_promises_too_much_is_believed_less() -> None:
    sunny = Battery(20.0, 36_000.0, (10.0,) * 1200)
    store = Store()
    for second in range(0, 3000, 3):
        store = battery.sensed(store, sunny, 0.5, 4.0, 4.0, 3.0, float(second))
    assert store.ratio < 0.75


def test_safe_says_whether_the_cheapest_service_can_go_on() -> None:
    """The device rests at 1 W and serves at 3 W, for ten hours."""
    assert told(Store(), NIGHT, 0.6).safe
    assert not told(Store(), NIGHT, 0.5).safe
    assert not told(Store(), NIGHT, RESERVE + 0.001).safe


def test_under_a_sun_the_cheapest_service_goes_on_while_a_rest_would_be_survived() -> None:
    morning = Battery(20.0, 36_000.0, (0.0,) * 5 + (3.0,) * 5, 3600.0)
    assert told(Store(), morning, 0.5).safe
    assert not told(Store(), morning, RESERVE + 0.001).safe


def test_a_long_horizon_is_looked_at_in_bounded_steps() -> None:
    week = Battery(500.0, 7 * 86_400.0, (10.0,) * 20_160)
    assert told(Store(), week, 0.5, 10.0).allowed_w > 0


def test_ten_minutes_of_clouds_are_no_reason_to_believe_the_forecast_less() -> None:
    """Ten minutes at half of what was foretold tell of those ten minutes; a bias takes longer to show."""
    sunny = Battery(20.0, 36_000.0, (10.0,) * 1200)
    store = Store()
    for second in range(0, 600, 3):
        store = battery.sensed(store, sunny, 0.5, 5.0, 4.0, 3.0, float(second))
    assert store.ratio > 0.75


def test_another_load_that_comes_and_goes_counts_with_its_mean() -> None:
    store = battery.plan(told(Store(), NIGHT, 0.5), NIGHT, 9.0, 2.0, 4.0)
    assert store.rest_w == pytest.approx(1.0, abs=0.3)
