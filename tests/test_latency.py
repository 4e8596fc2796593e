"""The latency estimate: what it learns from what it is shown, and how fast."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.latency import Histogram, Latency, Lead, factor, fresh, learn, tail

S = 1_000_000_000


def shown(latency: Latency, variant: int, ratios: list[float], from_s: float = 0.0) -> tuple[Latency, int]:
    """After batches of 10 warm milliseconds that took 10 * ratio, 30 a second."""
    now_ns = int(from_s * S)
    for ratio in ratios:
        now_ns += S // 30
        latency = learn(latency, variant, 10.0, 10.0 * ratio, now_ns)
    return latency, now_ns


def test_before_anything_ran_the_profile_is_right_with_a_tail_of_a_fifth() -> None:
    latency = fresh(2, 0)
    assert factor(latency, 0, 0) == 1.0
    assert 1.1 < tail(latency, 0.99) < 1.3
    assert tail(latency, 0.5) == pytest.approx(1.0, abs=0.05)


def test_a_steady_slow_down_is_learnt_and_applies_to_variants_that_do_not_run() -> None:
    latency, now_ns = shown(fresh(2, 0), 0, [1.5] * 60)
    assert factor(latency, 0, now_ns) == pytest.approx(1.5, rel=0.03)
    assert 1.25 < factor(latency, 1, now_ns) < 1.5


def test_what_is_peculiar_to_one_variant_is_told_apart_from_the_machine() -> None:
    latency, now_ns = fresh(2, 0), 0
    for _ in range(200):
        now_ns += S // 30
        latency = learn(latency, 0, 10.0, 10.0, now_ns)
        latency = learn(latency, 1, 10.0, 14.0, now_ns)
    assert factor(latency, 0, now_ns) == pytest.approx(1.0, rel=0.06)
    assert factor(latency, 1, now_ns) == pytest.approx(1.4, rel=0.06)


def test_a_lone_spike_moves_little_and_three_in_a_row_are_believed() -> None:
    latency, now_ns = shown(fresh(1, 0), 0, [1.0] * 100)
    spiked, _ = shown(latency, 0, [8.0], now_ns / S)
    assert factor(spiked, 0, now_ns) < 1.06
    regime, now_ns = shown(latency, 0, [2.5] * 4, now_ns / S)
    assert factor(regime, 0, now_ns) == pytest.approx(2.5, rel=0.15)


def test_two_spikes_on_opposite_sides_are_no_regime() -> None:
    latency, now_ns = shown(fresh(1, 0), 0, [1.0] * 100 + [2.0, 0.4] * 3)
    assert factor(latency, 0, now_ns) == pytest.approx(1.0, abs=0.1)


def test_the_quantile_follows_a_heavy_tail_that_no_bell_curve_has() -> None:
    """2 % of the batches take three times as long."""
    ratios = [3.0 if i % 50 == 49 else 1.0 + 0.02 * (i % 3) for i in range(3000)]
    latency, now_ns = shown(fresh(1, 0), 0, ratios)
    usual = factor(latency, 0, now_ns)
    assert usual == pytest.approx(1.04, abs=0.06)
    assert 2.5 < usual * tail(latency, 0.99) < 3.6
    assert usual * tail(latency, 0.9) < 1.2


def test_the_tail_is_calibrated_on_noise_it_has_not_seen() -> None:
    rng = random.Random(4)
    latency, now_ns = fresh(1, 0), 0
    over = 0
    for i in range(6000):
        now_ns += S // 30
        ratio = math.exp(rng.gauss(0, 0.1)) * (1.8 if rng.random() < 0.01 else 1.0)
        if i >= 1000 and ratio > factor(latency, 0, now_ns) * tail(latency, 0.99):
            over += 1
        latency = learn(latency, 0, 10.0, 10.0 * ratio, now_ns)
    assert 0.005 < over / 5000 < 0.02


def test_bad_times_are_forgotten_in_the_tail() -> None:
    latency, _ = shown(fresh(1, 0), 0, [1.0, 2.0] * 50 + [1.0] * 3000)
    assert tail(latency, 0.99) < 1.2


def test_what_was_peculiar_fades_while_a_variant_does_not_run() -> None:
    latency, now_ns = fresh(2, 0), 0
    for _ in range(200):
        now_ns += S // 30
        latency = learn(learn(latency, 0, 10.0, 10.0, now_ns), 1, 10.0, 14.0, now_ns)
    now = factor(latency, 1, now_ns)
    later = factor(latency, 1, now_ns + 600 * S)
    assert later < 0.95 * now
    assert factor(latency, 1, now_ns + 6000 * S) == pytest.approx(math.exp(latency.slow), rel=1e-3)


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(st.integers(0, 2), numbers, numbers, st.integers(0, 10**13)), max_size=50))
def test_no_nonsense_gets_in(batches: list[tuple[int, float, float, int]]) -> None:
    latency, lead, last_ns = fresh(3, 0), Lead(), 0
    for variant, warm_ms, measured_ms, now_ns in batches:
        latency = learn(latency, variant, warm_ms, measured_ms, now_ns)
        lead = lead.add(measured_ms, variant)
        last_ns = now_ns
    for variant in range(3):
        assert math.isfinite(factor(latency, variant, last_ns)) and factor(latency, variant, last_ns) > 0
    assert math.isfinite(tail(latency, 0.99))
    assert all(0 < v < 1 for v in (latency.slow_var, *latency.theta_var))
    known = lead.quantile_ms(0.99)
    assert known is None or 0 < known < 1e6


@given(st.lists(st.floats(-1.4, 2.9), min_size=30, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_histogram_quantile_is_within_a_bin_of_the_weighted_quantile(values: list[float], q: float) -> None:
    histogram = Histogram(-1.5, 0.05, (0.0,) * 90)
    weighted = []
    for value in values:
        weighted.append((value, histogram.weight))
        histogram = histogram.add(value)
    above, allowed = 0.0, (1 - q) * sum(w for _, w in weighted)
    for value, weight in sorted(weighted, reverse=True):  # noqa: B007
        above += weight
        if above > allowed:
            break
    found = histogram.quantile(q)
    assert found is not None and abs(found - value) <= 0.0501


def test_counts_do_not_overflow_in_weeks() -> None:
    histogram = Histogram(0.0, 1.0, (0.0,) * 4)
    for i in range(20_000):
        histogram = histogram.add(i % 4)
    assert histogram.weight <= 1.1e9 and histogram.samples == pytest.approx(400, rel=0.01)
    assert histogram.quantile(0.5) == pytest.approx(2.0, abs=0.1)


def test_nothing_is_known_of_an_empty_histogram_or_of_a_short_lead() -> None:
    assert Histogram(0.0, 1.0, (0.0,) * 4).quantile(0.5) is None
    lead = Lead()
    for _ in range(19):
        lead = lead.add(500.0, 1)
    assert lead.quantile_ms(0.99) is None
    assert (lead.add(500.0, 1).add(500.0, 1).quantile_ms(0.99) or 0) == pytest.approx(500, rel=0.11)


def test_the_lead_is_that_of_a_frame_that_did_not_wait_for_other_cameras() -> None:
    lead = Lead()
    for _ in range(100):
        for waited in (0, 10, 20, 30):
            lead = lead.add(5.0 + waited, 4)
    assert lead.quantile_ms(0.9) == pytest.approx(5.0, rel=0.12)
