"""Whether a camera's pictures are like those that the engines were calibrated on. Pure.

In: brightness, contrast and range of a picture now and then. Out: when the camera has drifted away, when it has come
back, and in which respect. What counts is the median of the last two minutes: headlights, a hand before the lens or a
flash do not change the scene. Drift is a reason to compare the variants more often, not to forbid one.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import Final

REMEMBERED: Final = 120
"""Pictures that the medians are taken over; one a second."""
ENOUGH: Final = 15
"""Fewer prove nothing."""
AWAY, BACK = 2.5, 2.0
"""Standard deviations of the calibration's pictures: further off is drift, nearer again its end."""
AWAY_RANGE, BACK_RANGE = 2.5, 2.0
"""The same for the range between dark and bright: how many times narrower or wider than the calibration's."""
LEAST_BRIGHTNESS_STD, LEAST_CONTRAST_STD = 5.0, 2.0
"""A calibration set of almost equal pictures is no reason to call any other one a drift. Luma, 0..255."""


@dataclass(frozen=True)
class ImageStats:
    """Of one picture, or the median of several: luma 0..255; `low` and `high` are its 1st and 99th percentile."""

    brightness: float
    contrast: float
    low: float
    high: float


@dataclass(frozen=True)
class Norm:
    """The calibration set: mean and spread across its pictures."""

    brightness_mean: float
    brightness_std: float
    contrast_mean: float
    contrast_std: float
    low_percentile_mean: float
    high_percentile_mean: float


@dataclass(frozen=True)
class InputDrift:
    """Of one camera. `reason` says how its pictures differ; empty while they do not."""

    pictures: tuple[ImageStats, ...] = ()
    drifted: bool = False
    reason: str = ""

    @property
    def median(self) -> ImageStats | None:
        """None before the first picture."""
        if not self.pictures:
            return None
        columns = zip(
            *((stats.brightness, stats.contrast, stats.low, stats.high) for stats in self.pictures), strict=True
        )
        return ImageStats(*(statistics.median_low(column) for column in columns))


def updated(drift: InputDrift, stats: ImageStats, norm: Norm | None) -> InputDrift:
    """After one more picture. Without a norm nothing ever drifts: it is only measured."""
    drift = replace(drift, pictures=(*drift.pictures[-REMEMBERED + 1 :], stats))
    median = drift.median
    if norm is None or median is None or len(drift.pictures) < ENOUGH:
        return drift
    away = differences(median, norm, AWAY, AWAY_RANGE)
    if away:
        return replace(drift, drifted=True, reason="; ".join(away))
    if drift.drifted:
        near = differences(median, norm, BACK, BACK_RANGE)
        return replace(drift, drifted=bool(near), reason="; ".join(near))
    return drift


def differences(stats: ImageStats, norm: Norm, deviations: float, times: float) -> list[str]:
    """In what a picture differs from the norm by more than that, one phrase each."""
    found = []
    brightness_std = max(norm.brightness_std, LEAST_BRIGHTNESS_STD)
    contrast_std = max(norm.contrast_std, LEAST_CONTRAST_STD)
    if abs(stats.brightness - norm.brightness_mean) > deviations * brightness_std:
        word = "darker" if stats.brightness < norm.brightness_mean else "brighter"
        found.append(
            f"{word}: brightness {stats.brightness:.0f}, calibrated {_spread(norm.brightness_mean, brightness_std)}"
        )
    if abs(stats.contrast - norm.contrast_mean) > deviations * contrast_std:
        word = "flatter" if stats.contrast < norm.contrast_mean else "harsher"
        found.append(f"{word}: contrast {stats.contrast:.0f}, calibrated {_spread(norm.contrast_mean, contrast_std)}")
    span, normal = max(stats.high - stats.low, 1.0), max(norm.high_percentile_mean - norm.low_percentile_mean, 1.0)
    if span * times < normal or span > normal * times:
        word = "narrower" if span < normal else "wider"
        found.append(
            f"{word}: luma from {stats.low:.0f} to {stats.high:.0f}, "
            f"calibrated {norm.low_percentile_mean:.0f} to {norm.high_percentile_mean:.0f}"
        )
    return found


def _spread(mean: float, std: float) -> str:
    return f"{mean:.0f} +- {std:.0f}"
