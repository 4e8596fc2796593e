"""The one energy meter: what is known is integrated, what is not is a gap, and a horizon keeps what it used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.power.energy_meter import EnergyHorizon, EnergyMeter, HorizonUse, PowerWindow, Total

S = NS_PER_S
HOUR_S = 3600.0


def test_energy_is_the_trapezoid_and_what_is_not_known_is_a_gap() -> None:
    meter = EnergyMeter(longest_s=3.0)
    readings = [(0, 4.0), (1, 6.0), (2, None), (3, 8.0), (4, 10.0), (14, 10.0), (14.5, 10.0)]
    totals = [meter.add(int(at_s * S), power_w) for at_s, power_w in readings]
    assert [(total.energy_j, total.gap_s) for total in totals] == [
        (0.0, 0.0),
        (5.0, 0.0),
        (5.0, 1.0),
        (5.0, 2.0),
        (14.0, 2.0),
        (14.0, 12.0),  # ten seconds without a reading are not guessed
        (19.0, 12.0),
    ]


def test_energy_does_not_run_backwards_with_a_stuck_clock() -> None:
    meter = EnergyMeter(3.0)
    assert [meter.add(at * S, 5.0).energy_j for at in (10, 11, 11, 9, 10)] == [0.0, 5.0, 5.0, 5.0, 10.0]


def test_nothing_is_metered_before_two_readings() -> None:
    meter = EnergyMeter(3.0)
    for at, power_w in ((0, None), (1, 5.0)):
        meter.add(at * S, power_w)
        assert not meter.metered
    meter.add(2 * S, 5.0)
    assert meter.metered


def window(seconds: int, watts_at: dict[int, float | None], window_s: float = 10.0) -> PowerWindow:
    """Read once a second; `watts_at`: from that second on."""
    meter, found, watts = EnergyMeter(3.0), PowerWindow(), None
    for second in range(seconds + 1):
        watts = watts_at.get(second, watts)
        found.add(meter.add(second * S, watts), window_s)
    return found


def test_the_mean_is_that_of_the_window() -> None:
    assert window(40, {0: 2.0, 21: 6.0}).mean_w(10.0, 40 * S) == (pytest.approx(6.0), pytest.approx(10.0))


def test_a_mean_of_which_half_is_not_known_is_not_known() -> None:
    assert window(20, {0: 4.0, 14: None}).mean_w(10.0, 20 * S) is None
    known = window(20, {0: 4.0, 17: None}).mean_w(10.0, 20 * S)
    assert known == (pytest.approx(4.0), pytest.approx(6.0))
    assert PowerWindow().mean_w(10.0, S) is None


def test_a_window_of_an_hour_keeps_few_points() -> None:
    meter, hour = EnergyMeter(3.0), PowerWindow()
    for tenths in range(36_000):
        hour.add(meter.add(tenths * S // 10, 5.0), HOUR_S)
    assert len(hour._points) <= 120
    mean = hour.mean_w(HOUR_S, 3600 * S)
    assert mean is not None and mean[0] == pytest.approx(5.0)


def used(horizon: EnergyHorizon) -> float:
    assert horizon.use is not None
    return horizon.use.spent_j


def metered(horizon: EnergyHorizon, from_s: int, to_s: int, power_w: float = 10.0) -> None:
    """Read once a second, the energy counted from second 0 of the meter."""
    for second in range(from_s, to_s + 1):
        horizon.add(Total(second * S, power_w * second, 0.0))


def test_horizons_follow_one_another() -> None:
    horizon = EnergyHorizon()
    horizon.set_length(HOUR_S, 0)
    metered(horizon, 0, 100)
    assert used(horizon) == 1000.0 and not horizon.rolled(100 * S)
    assert horizon.rolled(3700 * S) and used(horizon) == 0.0
    assert horizon.use == HorizonUse(3600 * S, HOUR_S)
    assert not horizon.rolled(3701 * S)


def test_another_length_keeps_what_was_used() -> None:
    horizon = EnergyHorizon()
    horizon.set_length(24 * HOUR_S, 0)
    metered(horizon, 0, 500)
    for hours in (12, 1, 48):
        horizon.set_length(hours * HOUR_S, 500 * S)
        assert horizon.use == HorizonUse(0, hours * HOUR_S, 5000.0, 500.0)


def test_a_length_that_is_over_keeps_the_share_of_the_present_horizon() -> None:
    use = HorizonUse(0, 24 * HOUR_S, spent_j=1300.0, metered_s=13 * HOUR_S)
    resized = use.resized(12 * HOUR_S, int(13 * HOUR_S * S))
    assert resized.begun_ns == int(12 * HOUR_S * S)
    assert resized.spent_j == pytest.approx(100.0) and resized.metered_s == pytest.approx(HOUR_S)


def test_removing_the_limit_ends_its_horizon() -> None:
    horizon = EnergyHorizon()
    horizon.set_length(HOUR_S, 0)
    metered(horizon, 0, 100)
    horizon.set_length(None, 100 * S)
    assert horizon.use is None
    metered(horizon, 101, 200)
    horizon.set_length(HOUR_S, 200 * S)
    assert used(horizon) == 0.0


def test_a_restored_horizon_waits_for_the_first_limit_and_goes_on() -> None:
    horizon = EnergyHorizon(HorizonUse(-100 * S, HOUR_S, spent_j=70.0, metered_s=90.0))
    horizon.set_length(None, 0)
    metered(horizon, 0, 5)
    assert used(horizon) == 70.0, "without a limit nothing is used of it"
    horizon.set_length(HOUR_S, 5 * S)
    metered(horizon, 5, 10)
    assert used(horizon) == 120.0 and horizon.use is not None and horizon.use.left_s(10 * S) == HOUR_S - 110


def test_a_restored_horizon_that_is_over_has_used_nothing() -> None:
    horizon = EnergyHorizon(HorizonUse(-7300 * S, HOUR_S, spent_j=70.0))
    horizon.set_length(HOUR_S, 0)
    assert horizon.use == HorizonUse(-100 * S, HOUR_S)


lengths = st.floats(0.01, 48).map(lambda hours: hours * HOUR_S)
steps = st.lists(st.tuples(st.integers(1, 100_000), lengths), max_size=10)


@given(steps)
def test_no_change_of_length_counts_more_than_was_drawn(steps: list[tuple[int, float]]) -> None:
    horizon, now_s = EnergyHorizon(), 0
    horizon.set_length(HOUR_S, 0)
    horizon.add(Total(0, 0.0, 0.0))
    for seconds, length_s in steps:
        now_s += seconds
        horizon.add(Total(now_s * S, 5.0 * now_s, 0.0))
        horizon.rolled(now_s * S)
        horizon.set_length(length_s, now_s * S)
        assert horizon.use is not None and 0 <= horizon.use.spent_j <= 5.0 * now_s + 1e-6
        assert horizon.use.passed_s(now_s * S) <= length_s * (1 + 1e-6)
