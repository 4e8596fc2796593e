"""Joules by second, as predicted and corrected."""

from __future__ import annotations

import pytest

from edged.governor.estimators.power_history import PowerHistory, start


def drawn(window_s: int, *seconds_w: float) -> PowerHistory:
    history = start(5.0, window_s)
    for second, watts in enumerate(seconds_w, 1):
        history.add(watts, 1.0, float(second))
    return history


def test_watts_count_in_their_second() -> None:
    history = start(5.0, 3)
    for now_s in (0.5, 1.0, 1.5, 2.0, 2.5):
        history.add(8.0, 0.5, now_s)
    assert history.seconds_j == pytest.approx((5.0, 8.0, 8.0, 4.0))
    assert history.at_s == 2 and history.drawn_j == pytest.approx(20.0)


def test_seconds_that_nothing_is_known_of_are_empty_and_the_length_stays() -> None:
    history = drawn(3, 8.0)
    history.add(8.0, 1.0, 100.0)
    assert history.seconds_j == pytest.approx((0.0, 0.0, 0.0, 8.0))


def test_a_correction_goes_to_the_last_second_and_to_the_sum() -> None:
    history = drawn(2, 8.0)
    history.correct(0.5)
    assert history.seconds_j[-1] == pytest.approx(8.5) and history.drawn_j == pytest.approx(8.5)


def test_another_window_keeps_what_was_counted() -> None:
    before, shorter, longer = drawn(2, 8.0, 6.0), drawn(2, 8.0, 6.0), drawn(2, 8.0, 6.0)
    shorter.resize(1)
    assert shorter.seconds_j == before.seconds_j[1:]
    longer.resize(4)
    assert len(longer.seconds_j) == 5 and longer.seconds_j[2:] == before.seconds_j
    assert longer.seconds_j[0] == pytest.approx(before.mean_w)


def test_the_mean_power_is_quick_at_first_and_slow_later() -> None:
    history = start(5.0, 2)
    for i in range(1, 2000):
        history.add(10.0, 0.2, i * 0.2)
    assert history.mean_w == pytest.approx(10.0)
    for i in range(2000, 2050):
        history.add(4.0, 0.2, i * 0.2)
    assert 9.0 < history.mean_w < 9.8
