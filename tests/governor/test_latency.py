"""The latency estimate: what it learns from what it is shown, and how fast."""

from __future__ import annotations

import math
import random
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.estimators import latency
from edged.governor.estimators.latency import NOISE_VAR, NOISE_VAR_MAX, VARIANT_FADE_S, Latency, start
from tests.support.governor_script import share_below

FRAME_S = 1 / 30


def shown(known: Latency, variant: int, ratios: list[float], from_s: float = 0.0) -> tuple[Latency, float]:
    """A copy after batches that took so many times what the profile says, 30 a second."""
    known, now_s = deepcopy(known), from_s
    for ratio in ratios:
        now_s += FRAME_S
        known.learn(variant, 0, math.log(ratio), now_s)
    return known, now_s


def factor(known: Latency, variant: int) -> float:
    return math.exp(known.log_factor(variant, 0))


def alone() -> Latency:
    return start(1)


def test_before_anything_ran_the_profile_is_right_with_a_little_tail() -> None:
    known = start(2)
    assert factor(known, 0) == 1.0
    assert known.tail(0.5) == pytest.approx(1.0, abs=0.02)
    assert 1.02 < known.tail(0.99) < 1.3
    assert share_below(known.noise, math.log(1.1)) > 0.9 > share_below(known.noise, math.log(0.9))
    assert share_below(known.noise, -1.0) == 0.0


def test_a_steady_slow_down_is_learnt_and_applies_to_variants_that_do_not_run() -> None:
    known, now_s = shown(start(2), 0, [1.0] * 60)
    known, now_s = shown(known, 1, [1.0] * 60, now_s)
    known, _ = shown(known, 0, [1.5] * 60, now_s)
    assert factor(known, 0) == pytest.approx(1.5, rel=0.03)
    assert 1.3 < factor(known, 1) < 1.55


def test_the_factor_of_one_variant_is_separated_from_the_devices() -> None:
    known, now_s = start(2), 0.0
    for _ in range(200):
        now_s += FRAME_S
        known.learn(0, 0, 0.0, now_s)
        known.learn(1, 0, math.log(1.4), now_s)
    assert factor(known, 0) == pytest.approx(1.0, rel=0.02)
    assert factor(known, 1) == pytest.approx(1.4, rel=0.02)
    assert known.mean[2] - known.mean[1] == pytest.approx(math.log(1.4), abs=0.03)


def test_a_lone_spike_moves_little_and_two_in_a_row_are_believed() -> None:
    known, now_s = shown(alone(), 0, [1.0] * 100)
    spiked, _ = shown(known, 0, [8.0], now_s)
    assert factor(spiked, 0) < 1.15
    regime, _ = shown(known, 0, [2.5] * 2, now_s)
    assert factor(regime, 0) == pytest.approx(2.5, rel=0.1)


def test_of_two_stalls_in_a_row_the_lesser_is_rather_believed() -> None:
    """How long a process is put aside is chance; what slows them all is in both."""
    known, now_s = shown(alone(), 0, [1.0] * 100)
    assert factor(shown(known, 0, [9.0, 3.0], now_s)[0], 0) == pytest.approx(3.0, rel=0.15)
    assert factor(shown(known, 0, [3.0, 9.0], now_s)[0], 0) < 6.0


def test_a_new_regime_does_not_count_as_noise_and_a_spike_does() -> None:
    known, now_s = shown(alone(), 0, [1.0] * 400)
    regime, _ = shown(known, 0, [2.5] * 40, now_s)
    assert regime.tail(0.99) < 1.15
    spiky, _ = shown(known, 0, [2.5 if i % 10 == 0 else 1.0 for i in range(80)], now_s)
    assert spiky.tail(0.99) > 2.0


def test_the_quantile_follows_a_heavy_tail_that_no_bell_curve_has() -> None:
    """2 % of the batches take three times as long."""
    ratios = [3.0 if i % 50 == 49 else 1.0 + 0.02 * (i % 3) for i in range(3000)]
    known, _ = shown(alone(), 0, ratios)
    usual = factor(known, 0)
    assert usual == pytest.approx(1.03, abs=0.05)
    assert 2.5 < usual * known.tail(0.99) < 3.6
    assert usual * known.tail(0.9) < 1.2


@pytest.mark.parametrize("spread", [0.03, 0.1])
def test_the_tail_is_calibrated_on_noise_it_has_not_seen(spread: float) -> None:
    rng = random.Random(4)
    known, now_s, over = alone(), 0.0, 0
    for i in range(6000):
        now_s += FRAME_S
        ratio = math.exp(rng.gauss(0, spread)) * (1.8 if rng.random() < 0.01 else 1.0)
        if i >= 1000 and ratio > factor(known, 0) * known.tail(0.99):
            over += 1
        known.learn(0, 0, math.log(ratio), now_s)
    assert 0.005 < over / 5000 < 0.02


def test_a_noisy_machine_is_followed_more_slowly() -> None:
    rng = random.Random(1)
    calm, _ = shown(alone(), 0, [1.0] * 1000)
    noisy, _ = shown(alone(), 0, [math.exp(rng.gauss(0, 0.14)) for _ in range(1000)])
    assert calm.noise_var == NOISE_VAR
    assert 0.01 < noisy.noise_var <= NOISE_VAR_MAX
    assert abs(math.log(factor(noisy, 0))) < 0.1


def test_bad_times_are_forgotten_in_the_tail() -> None:
    known, _ = shown(alone(), 0, [1.0, 2.0] * 50 + [1.0] * 4000)
    assert known.tail(0.99) < 1.2


def test_the_device_factor_fades_in_seconds_and_a_variants_in_minutes() -> None:
    known, now_s = start(2), 0.0
    for _ in range(200):
        now_s += FRAME_S
        known.learn(0, 0, math.log(1.5), now_s)
        known.learn(1, 0, math.log(2.1), now_s)
    slow, own = known.mean[0], known.mean[2]
    for _ in range(120):
        now_s += 0.5
        known.fade(now_s, 0.5)
    assert abs(known.mean[0]) < 0.02 * abs(slow)
    assert known.mean[2] == pytest.approx(own * math.exp(-48 / VARIANT_FADE_S), rel=0.01)
    assert known.error(1) > 0.05


def test_a_cold_start_and_a_spike_tell_little_of_a_variant_that_hardly_ran() -> None:
    known, now_s = shown(start(2), 0, [1.0] * 300)
    known, now_s = shown(known, 1, [1.12, 1.0, 1.0], now_s)
    assert factor(known, 1) == pytest.approx(1.0, abs=0.02)
    spiked, _ = shown(known, 1, [1.0, 1.6], now_s + 0.1)
    assert factor(spiked, 1) < 1.06


def test_a_variant_that_is_slow_here_is_learnt_within_its_first_batches() -> None:
    known, now_s = shown(start(2), 0, [1.0] * 300)
    known, _ = shown(known, 1, [1.4] * 6, now_s)
    assert factor(known, 1) == pytest.approx(1.4, rel=0.05)


numbers = st.floats(-11.0, 15.0)


@given(st.lists(st.tuples(st.integers(0, 2), numbers, st.floats(0, 1e5)), max_size=50))
def test_whatever_it_is_shown_it_stays_a_number(batches: list[tuple[int, float, float]]) -> None:
    known = start(3)
    for variant, ratio, now_s in batches:
        known.learn(variant, 0, ratio, now_s)
        known.fade(now_s, 0.5)
    for variant in range(3):
        assert math.isfinite(factor(known, variant)) and factor(known, variant) > 0
        assert math.isfinite(known.error(variant))
        assert known.cov[variant][variant] > -1e-9
    assert math.isfinite(known.tail(0.99)) and 0 <= share_below(known.noise, 0.1) <= 1 + 1e-12


def test_plausible() -> None:
    assert latency.plausible_ms(10.0)
    assert not any(latency.plausible_ms(x) for x in (math.nan, math.inf, 0.0, -1.0, 1e9))


def test_a_steady_machine_is_distinguished_from_its_noise() -> None:
    """Each batch varies by 3 %: the next one is not expected to be what the last one was."""
    chance = random.Random(5)
    known, now_s, factors = alone(), 0.0, []
    for _ in range(1200):
        now_s += 0.1
        known.learn(0, 0, chance.gauss(0.0, 0.03), now_s)
        factors.append(known.log_factor(0, 0))
    assert math.sqrt(sum(x * x for x in factors[200:]) / 1000) < 0.012
    assert known.tail(0.99) < 1.1


@pytest.mark.parametrize("changed", [1.12, 0.9])
def test_a_small_change_is_followed_within_a_few_batches_all_the_same(changed: float) -> None:
    chance = random.Random(6)
    known, now_s = shown(alone(), 0, [math.exp(chance.gauss(0.0, 0.03)) for _ in range(600)])
    known, _ = shown(known, 0, [changed * math.exp(chance.gauss(0.0, 0.03)) for _ in range(6)], now_s)
    assert factor(known, 0) == pytest.approx(changed, rel=0.04)


def test_what_a_guessed_clock_costs_is_learnt_by_variant_and_carried_to_a_clock_that_never_ran() -> None:
    ratios = (0.4, 0.6, 1.0)
    known, exponents = start(2, ratios), (-0.3, 0.4)  # times are off by ratio ** -exponent
    chance, now_s = random.Random(3), 0.0
    for clock in (2, 1, 2):
        for i in range(240):
            now_s += FRAME_S
            variant = i % 2
            known.learn(variant, clock, chance.gauss(-exponents[variant] * math.log(ratios[clock]), 0.03), now_s)
    for variant, exponent in enumerate(exponents):
        assert known.log_factor(variant, 2) == pytest.approx(0.0, abs=0.03)
        assert known.log_factor(variant, 0) == pytest.approx(-exponent * math.log(0.4), abs=0.1)
