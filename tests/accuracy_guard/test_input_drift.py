from __future__ import annotations

import pytest

from edged.accuracy_guard.input_drift import ENOUGH, REMEMBERED, ImageStats, InputDrift, Norm, updated

NORM = Norm(
    brightness_mean=90.0,
    brightness_std=39.0,
    contrast_mean=22.0,
    contrast_std=9.2,
    low_percentile_mean=42.0,
    high_percentile_mean=153.0,
)
DAY = ImageStats(100.0, 20.0, 50.0, 150.0)
NIGHT = ImageStats(12.0, 3.0, 6.0, 20.0)
GLARE = ImageStats(245.0, 15.0, 190.0, 255.0)


def after(drift: InputDrift, look: ImageStats, times: int, norm: Norm | None = NORM) -> InputDrift:
    for _ in range(times):
        drift = updated(drift, look, norm)
    return drift


def test_a_day_like_the_calibrations_is_no_drift() -> None:
    drift = after(InputDrift(), DAY, 300)
    assert not drift.drifted and drift.reason == "" and drift.median == DAY
    assert len(drift.pictures) == REMEMBERED


@pytest.mark.parametrize(
    ("look", "says"),
    [
        (NIGHT, "narrower: luma from 6 to 20, calibrated 42 to 153"),
        (GLARE, "brighter: brightness 245, calibrated 90 +- 39"),
    ],
)
def test_another_scene_is_a_drift_that_says_how(look: ImageStats, says: str) -> None:
    assert not after(InputDrift(), look, ENOUGH - 1).drifted
    drift = after(InputDrift(), look, ENOUGH)
    assert drift.drifted and says in drift.reason


def test_a_minute_of_headlights_is_none_and_the_dusk_is_one_until_the_morning() -> None:
    drift = after(after(InputDrift(), DAY, 200), GLARE, REMEMBERED // 2 - 2)
    assert not drift.drifted
    drift = after(drift, NIGHT, REMEMBERED)
    assert drift.drifted
    assert after(drift, DAY, REMEMBERED // 2 - 2).drifted
    morning = after(drift, DAY, REMEMBERED // 2 + 2)
    assert not morning.drifted and morning.reason == ""


def test_at_the_boundary_it_does_not_flap() -> None:
    beyond, within = (ImageStats(90 + k * 39.0, 22.0, 42.0, 153.0) for k in (2.6, 2.3))
    drift = after(after(InputDrift(), DAY, 10), beyond, REMEMBERED)
    assert drift.drifted
    for _ in range(5):
        drift = after(drift, within, REMEMBERED)
        assert drift.drifted
        drift = after(drift, beyond, REMEMBERED)
    assert not after(drift, ImageStats(90 + 1.9 * 39.0, 22.0, 42.0, 153.0), REMEMBERED).drifted


def test_without_statistics_it_is_measured_and_never_judged() -> None:
    drift = after(InputDrift(), NIGHT, 100, norm=None)
    assert not drift.drifted and drift.median == NIGHT


def test_a_calibration_set_of_equal_pictures_does_not_call_every_other_a_drift() -> None:
    same = Norm(90.0, 0.0, 22.0, 0.0, 42.0, 153.0)
    assert not after(InputDrift(), ImageStats(95.0, 24.0, 45.0, 155.0), 50, same).drifted
