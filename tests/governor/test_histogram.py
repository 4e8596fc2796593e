"""The forgetting histogram: quantiles and shares against what they should be, for weeks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.estimators.histogram import CUMULATE_EVERY, Histogram, start
from tests.support.governor_script import share_below


def filled(values: list[float], bins: int = 90, low: float = -1.5, step: float = 0.05) -> Histogram:
    histogram = start(low, step, 400.0, [1e-9] * bins)
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(st.floats(-1.4, 2.9), min_size=16, max_size=160), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_within_a_bin_of_the_weighted_one(values: list[float], q: float) -> None:
    values = values[: len(values) // CUMULATE_EVERY * CUMULATE_EVERY]
    weights = [(1 + 1 / 400) ** i for i in range(len(values))]

    def below(value: float) -> float:
        """As counted, or by the rule of three since the last that was greater."""
        counted = sum(w for w, x in zip(weights, values, strict=True) if x <= value) / sum(weights)
        unseen = len(values) - max((i + 1 for i, x in enumerate(values) if bin_of(x) > bin_of(value)), default=0)
        return max(counted, 1 - 3 / max(3, unseen))

    expected = next(value for value in sorted(values) if below(value) >= q * (1 - 1e-9))
    found = filled(values).quantile(q)
    assert abs(found - expected) <= 0.0501


def bin_of(value: float) -> int:
    return int((value + 1.5) / 0.05)


def test_a_tail_that_is_gone_is_forgotten_by_the_rule_of_three_long_before_its_counts_fade() -> None:
    loaded = [0.0, 0.0, 0.0, 0.0, 1.0] * 80
    assert share_below(filled(loaded), 0.5) == pytest.approx(0.8, abs=0.02)
    for calm in (40, 80, 240):
        assert share_below(filled(loaded + [0.0] * calm), 0.5) == pytest.approx(1 - 3 / calm, abs=0.01)
    again = filled(loaded + [0.0] * 240 + [1.0] * 8)
    assert share_below(again, 0.5) < 0.9  # what was counted is not lost


@given(st.lists(st.floats(-1.4, 2.9), min_size=8, max_size=80), st.floats(-2, 3.5), st.floats(-2, 3.5))
def test_the_share_below_never_falls(values: list[float], a: float, b: float) -> None:
    histogram = filled(values)
    low, high = share_below(histogram, min(a, b)), share_below(histogram, max(a, b))
    assert 0.0 <= low <= high <= 1.0 + 1e-12


def test_shares_and_quantiles_agree() -> None:
    histogram = filled([i / 100 for i in range(-100, 200)] * 4)
    for q in (0.1, 0.5, 0.9):
        at = histogram.quantile(q)
        assert share_below(histogram, at) == pytest.approx(q, abs=0.01)


def test_counts_do_not_overflow_in_weeks() -> None:
    histogram = filled([i % 4 + 0.5 for i in range(20_000)], bins=4, low=0.0, step=1.0)
    assert histogram.weight <= 1.1e9 and all(math.isfinite(c) for c in histogram.counts)
    assert histogram.quantile(0.5) == pytest.approx(2.0, abs=0.1)


def test_what_lies_outside_counts_at_the_edge() -> None:
    assert filled([99.0] * 8).quantile(0.5) == pytest.approx(3.0, abs=0.05)
    assert filled([-99.0] * 8).quantile(0.5) == pytest.approx(-1.5, abs=0.05)
