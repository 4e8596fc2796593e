"""What counts as missed by the gate, and when that is proven to be too much."""

from __future__ import annotations

import numpy as np

from edged.accuracy_guard.gate_misses import LIMIT, RETRY_NS, Boxes, GateMisses
from edged.clock import NS_PER_S

A, B = (10, 10, 50, 50), (200, 10, 240, 50)


def boxes(*rows: tuple[int, int, int, int]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def still(misses: GateMisses, at_s: int, *rows: tuple[int, int, int, int]) -> None:
    misses.look(True, boxes(*rows), boxes(*rows), at_s * NS_PER_S)


def moving(misses: GateMisses, *rows: tuple[int, int, int, int]) -> None:
    misses.look(False, boxes(*rows), boxes(*rows), 0)


def test_what_was_there_before_is_not_missed() -> None:
    misses = GateMisses()
    moving(misses, A)
    for n in range(1, 20):
        still(misses, n, A)
    report = misses.report()
    assert (report.looked_at, report.missed) == (19, 0)
    assert report.low == 0 and report.high is not None and report.high < 0.9


def test_something_new_counts_when_two_frames_in_a_row_show_it_and_once() -> None:
    misses = GateMisses()
    moving(misses, A)
    still(misses, 1, A, B)
    assert misses.report().missed == 0  # it may be a blunder of the detector
    still(misses, 2, A, B)
    still(misses, 3, A, B)
    still(misses, 4, A, B)
    assert misses.report().missed == 1


def test_a_detector_that_blunders_now_and_then_is_no_proof() -> None:
    misses = GateMisses()
    moving(misses, A)
    for n in range(1, 40):
        still(misses, n, A, *([B] if n % 2 else []))
    assert misses.report().missed == 0 and not misses.opened


def test_a_gate_that_misses_is_opened_and_tried_again_later() -> None:
    misses = GateMisses()
    at_s = 0
    while not misses.opened:
        moving(misses)  # nothing there when the gate closed
        at_s += 2
        still(misses, at_s - 1, B)
        still(misses, at_s, B)
        assert at_s < 400
    low = misses.report().low
    assert low is not None and low > LIMIT
    misses.look(False, boxes(), boxes(), at_s * NS_PER_S + RETRY_NS + 1)
    assert not misses.opened


def test_frames_faster_than_one_a_second_count_once() -> None:
    misses = GateMisses()
    moving(misses, A)
    for n in range(10):
        misses.look(True, boxes(A), boxes(A), NS_PER_S + n * NS_PER_S // 10)
    assert misses.report().looked_at == 1
