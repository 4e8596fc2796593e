"""The energy book: joules by second."""

from __future__ import annotations

import pytest

from edged.governor.energy_meter import fresh


def test_watts_for_a_time_are_booked_in_their_second() -> None:
    book = fresh(5.0, 3)
    for now_s in (0.5, 1.0, 1.5, 2.0, 2.5):
        book = book.drew(8.0, 0.5, now_s)
    assert book.seconds_j == pytest.approx((5.0, 8.0, 8.0, 4.0))
    assert book.at_s == 2 and book.drawn_j == pytest.approx(20.0)


def test_seconds_that_nothing_is_known_of_are_empty_and_the_length_stays() -> None:
    book = fresh(5.0, 3).drew(8.0, 1.0, 1.0).drew(8.0, 1.0, 100.0)
    assert book.seconds_j == pytest.approx((0.0, 0.0, 0.0, 8.0))


def test_a_correction_goes_to_the_last_second_and_to_the_sum() -> None:
    book = fresh(5.0, 2).drew(8.0, 1.0, 1.0).corrected(0.5)
    assert book.seconds_j[-1] == pytest.approx(8.5) and book.drawn_j == pytest.approx(8.5)


def test_another_window_keeps_what_was_booked() -> None:
    book = fresh(5.0, 2).drew(8.0, 1.0, 1.0).drew(6.0, 1.0, 2.0)
    assert book.resized(1).seconds_j == book.seconds_j[1:]
    longer = book.resized(4)
    assert len(longer.seconds_j) == 5 and longer.seconds_j[2:] == book.seconds_j
    assert longer.seconds_j[0] == pytest.approx(book.usual_w)


def test_the_usual_power_is_quick_at_first_and_slow_later() -> None:
    book = fresh(5.0, 2)
    for i in range(1, 2000):
        book = book.drew(10.0, 0.2, i * 0.2)
    assert book.usual_w == pytest.approx(10.0)
    for i in range(2000, 2050):
        book = book.drew(4.0, 0.2, i * 0.2)
    assert 9.0 < book.usual_w < 9.8
