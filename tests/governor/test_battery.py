"""The battery's allowance: never empty, never overflowing, and even between."""

from __future__ import annotations

import pytest

from edged.governor.limits.battery import RESERVE, Store
from edged.governor.messages import Battery, BatteryBudget

NIGHT = BatteryBudget(36_000.0)
SUNNY = BatteryBudget(36_000.0, (12.0,) * 1200)
CAPACITY_J = 20.0 * 3600


def gauge(charge: float, harvest_w: float | None = 0.0, capacity_j: float = CAPACITY_J) -> Battery:
    return Battery(charge * capacity_j, capacity_j, harvest_w)


def reported(
    budget: BatteryBudget, charge: float, harvest_w: float = 0.0, now_s: float = 0.0, begun_s: float = 0.0
) -> Store:
    """The device idles at 1 W and serves at 3 W."""
    store = Store(budget, begun_s)
    store.sensed(gauge(charge, harvest_w), 5.0, 1.0, now_s)
    store.plan(1.0, 2.0, now_s)
    return store


def test_without_a_gauge_nothing_is_limited() -> None:
    store = Store(NIGHT, 0.0)
    store.plan(1.0, 2.0, 0.0)
    assert store.allowed_w == float("inf")
    store.sensed(Battery(-5.0, CAPACITY_J), 5.0, 1.0, 0.0)
    store.sensed(Battery(5.0, 0.0), 5.0, 1.0, 0.0)
    assert store.charge is None


def test_the_charge_is_spread_evenly_over_what_is_left_of_the_time() -> None:
    assert reported(NIGHT, 0.5).allowed_w == pytest.approx((0.5 - RESERVE) * 20.0 / 10.0, rel=0.01)
    assert reported(NIGHT, 0.5, now_s=18_000.0).allowed_w == pytest.approx((0.5 - RESERVE) * 20.0 / 5.0, rel=0.01)
    again = reported(NIGHT, 0.5, now_s=36_001.0)
    assert again.allowed_w == pytest.approx(reported(NIGHT, 0.5).allowed_w, rel=0.01), "the next night has begun"
    late = reported(NIGHT, 0.5, now_s=18_000.0, begun_s=18_000.0)
    assert late.allowed_w == pytest.approx(reported(NIGHT, 0.5).allowed_w, rel=0.01)


def test_what_would_overflow_is_spent() -> None:
    assert reported(SUNNY, 0.98, 12.0).allowed_w > 8.0
    assert reported(SUNNY, 0.1, 12.0).allowed_w < reported(SUNNY, 0.98, 12.0).allowed_w


def test_a_forecast_by_the_hour_counts_when_it_comes() -> None:
    later, first = (BatteryBudget(36_000.0, hours) for hours in ((0.0,) * 5 + (10.0,) * 5, (10.0,) * 5 + (0.0,) * 5))
    assert reported(later, 0.5).allowed_w < reported(first, 0.5, 10.0).allowed_w


@pytest.mark.parametrize(("harvest_w", "seconds", "believed"), [(3.0, 3000, False), (6.0, 600, True)])
def test_a_forecast_that_promises_too_much_is_believed_less_but_not_for_ten_minutes_of_clouds(
    harvest_w: float, seconds: int, believed: bool
) -> None:
    def allowed_w(harvest_w: float) -> float:
        store = Store(SUNNY, 0.0)
        for second in range(0, seconds, 3):
            store.sensed(gauge(0.3, harvest_w), 4.0, 3.0, float(second))
        store.harvest_w = 12.0
        store.plan(1.0, 2.0, float(seconds))
        return store.allowed_w

    assert (allowed_w(harvest_w) > 0.8 * allowed_w(12.0)) == believed


def test_safe_says_whether_the_cheapest_service_can_go_on() -> None:
    assert reported(NIGHT, 0.6).safe
    assert not reported(NIGHT, 0.5).safe
    assert not reported(NIGHT, RESERVE + 0.001).safe
    morning = BatteryBudget(36_000.0, (0.0,) * 5 + (3.0,) * 5)
    assert reported(morning, 0.5).safe and not reported(morning, RESERVE + 0.001).safe


def test_a_long_horizon_is_divided_into_bounded_steps() -> None:
    assert reported(BatteryBudget(7 * 86_400.0, (10.0,) * 20_160), 0.5, 10.0).allowed_w > 0


def test_another_load_that_comes_and_goes_counts_with_its_mean() -> None:
    store = reported(NIGHT, 0.5)
    store.plan(9.0, 2.0, 4.0)
    assert store.rest_w == pytest.approx(1.0, abs=0.3)


def test_an_unmeasured_harvest_counts_as_none() -> None:
    store = Store(NIGHT, 0.0)
    store.sensed(gauge(0.5, None), 5.0, 1.0, 0.0)
    assert store.harvest_w == 0.0
