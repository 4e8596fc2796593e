"""The rolling window's allowance: whoever draws no more than it never overshoots a window."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.governor.estimators import power_history
from edged.governor.limits import power_window
from edged.governor.limits.power_window import BURST, NEAR_SLACK_S

CAP_W, WINDOW_S, REST_W = 8.0, 10, 5.0
MOST_W = CAP_W * (1 + NEAR_SLACK_S / WINDOW_S**0.5) + 1e-9


def drawing(wants_w: list[float], usual_w: float = REST_W) -> tuple[list[float], list[float]]:
    """Of a device that wants so much, second by second, and draws what is allowed: what it drew, each window's mean."""
    history, caps, recent = (
        power_history.start(REST_W, WINDOW_S),
        power_window.start(CAP_W, WINDOW_S),
        deque([REST_W] * WINDOW_S),
    )
    drew, means = [], []
    for second, want_w in enumerate(wants_w):
        watts = 0.0
        for half in (0.5, 1.0):
            now_s = second + half
            allowed_w = power_window.allowed_w(history, caps.noted(CAP_W, now_s - 0.5), usual_w, now_s - 0.5)
            watts = max(REST_W, min(want_w, allowed_w))
            history.add(watts, 0.5, now_s)
        recent.popleft()
        recent.append(history.seconds_j[-1])
        drew.append(recent[-1])
        means.append(sum(recent) / WINDOW_S)
    return drew, means


@given(st.lists(st.floats(5.0, 30.0), min_size=20, max_size=30))
@settings(max_examples=8, deadline=None)
def test_no_window_overshoots_whatever_is_wanted(wants_w: list[float]) -> None:
    _, means = drawing(wants_w)
    assert max(means) <= MOST_W


def test_what_a_quiet_time_saved_is_spent_in_a_burst_and_no_more_than_that() -> None:
    drew, means = drawing([5.0] * 20 + [30.0] * 20)
    assert max(drew[20:24]) == pytest.approx(CAP_W * BURST, rel=0.03)
    assert max(means) <= MOST_W
    assert sum(drew[30:]) / 10 == pytest.approx(CAP_W, rel=0.02)


def test_a_steady_wish_is_given_the_cap_but_for_a_little() -> None:
    drew, _ = drawing([30.0] * 60, usual_w=CAP_W)
    assert sum(drew[20:]) / 40 == pytest.approx(CAP_W, rel=0.02)


@pytest.mark.parametrize("before_w", [CAP_W + 2.0, math.inf])
@pytest.mark.parametrize("into_second_s", [0.0, 0.9])
def test_after_a_step_down_the_new_cap_can_be_drawn_at_once(into_second_s: float, before_w: float) -> None:
    """What was drawn before is no fault of the windows that begin later. Infinite: there was no cap."""
    new_w, busy_w = 6.5, CAP_W + 2.0
    history, caps = power_history.start(REST_W, WINDOW_S), power_window.start(busy_w, WINDOW_S, 20, before_w)
    for second in range(20):
        history.add(busy_w, 1.0, second + 1.0)
    history.add(busy_w, into_second_s, 20.0 + into_second_s)
    now_s, drew_w = 20.0 + into_second_s, []
    while now_s < 20.0 + 2 * WINDOW_S:
        caps = caps.noted(new_w, now_s)
        drew_w.append(power_window.allowed_w(history, caps, CAP_W, now_s))
        now_s += 0.5
        history.add(drew_w[-1], 0.5, now_s)
    assert drew_w == pytest.approx([new_w] * len(drew_w), rel=0.02)


def test_seconds_without_a_reading_count_as_empty() -> None:
    caps = power_window.start(CAP_W, WINDOW_S).noted(CAP_W, 100.0)
    assert power_window.allowed_w(power_history.start(REST_W, WINDOW_S), caps, REST_W, 100.0) == pytest.approx(
        CAP_W * BURST, rel=0.03
    )


def test_what_the_history_may_be_off_by_is_kept_back() -> None:
    history, caps = power_history.start(CAP_W, WINDOW_S), power_window.start(CAP_W, WINDOW_S)
    sure_w = power_window.allowed_w(history, caps, CAP_W, 30.0)
    assert power_window.allowed_w(history, caps, CAP_W, 30.0, 1.0) == pytest.approx(sure_w - 1.0 / WINDOW_S, abs=0.02)
    assert power_window.allowed_w(history, caps, CAP_W, 30.0, 50.0) > 0.9 * CAP_W
