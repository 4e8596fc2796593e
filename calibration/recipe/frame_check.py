"""Whether pictures can be calibrated on: how many, how many of them different, and whether they look like the others.

In: the calibration and the validation frames. Out: a `FrameReport` with warnings and the statistics that the daemon's
drift watch compares live frames with; a UsageError where calibrating on them would be of no use at all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edged.engines.manifest import DriftStatistics
from edged.errors import UsageError
from edged_calibration.progress import Advance, silent
from edged_calibration.recipe.frames import Frames, Image

MIN_DISTINCT: Final = 8
"""Fewer different pictures leave the ranges to chance."""

WISE: Final = 64
_ALIKE_BITS: Final = 3  # of 256 of the difference hash, and the brightness within _ALIKE_LEVELS: one picture, twice
_ALIKE_LEVELS: Final = 2.0
_STEP: Final = 3  # grey levels: less is noise of the camera or of compression
_COVERED: Final = 0.9  # of the validation pictures
_SLACK: Final = 0.1  # of the calibration set's span, beyond its ends
_LUMA: Final = np.array([0.114, 0.587, 0.299], np.float32)


class FrameReport(Struct, frozen=True, forbid_unknown_fields=True):
    """`distinct`: calibration pictures without repeated and nearly repeated ones. `coverage`: share of the validation
    pictures whose brightness, contrast and luma extremes lie within what the calibration pictures span."""

    calibration: int
    distinct: int
    validation: int
    shared: int
    coverage: float
    drift: DriftStatistics
    warnings: list[str]


@dataclass(frozen=True)
class _Looks:
    """Of a set: exact digests, difference hashes [n, 256] and luma figures [n, 4]."""

    digests: list[bytes]
    hashes: NDArray[np.bool_]
    figures: NDArray[np.float64]


def check_frames(calibration: Frames, validation: Frames, progress: Advance = silent) -> FrameReport:
    """The report on both sets. UsageError if there are too few different pictures, or if the sets share some."""
    total = len(calibration) + len(validation)
    first = _looks(calibration, lambda done, _: progress(done, total))
    second = _looks(validation, lambda done, _: progress(len(calibration) + done, total))
    distinct = _distinct(first)
    if distinct < MIN_DISTINCT:
        raise UsageError(
            f"{calibration.name}: only {distinct} of {len(calibration)} calibration pictures differ from each other; "
            f"at least {MIN_DISTINCT} are needed",
            f"give {WISE} or more frames of different moments, places and light",
        )
    shared = len(set(first.digests) & set(second.digests))
    if shared:
        raise UsageError(
            f"{shared} pictures are in the calibration set and in the validation set",
            "accuracy has to be measured on pictures that were not calibrated on: take them out of one set",
        )
    coverage = _coverage(first.figures, second.figures)
    warnings = []
    if distinct < WISE:
        warnings.append(f"only {distinct} different calibration pictures: {WISE} or more give steadier ranges")
    if distinct < 0.8 * len(calibration):
        repeated = len(calibration) - distinct
        warnings.append(f"{repeated} of {len(calibration)} calibration pictures repeat others")
    if coverage < _COVERED:
        warnings.append(
            f"only {coverage:.0%} of the validation pictures look like the calibration set in brightness and "
            "contrast: calibrate on frames of those cameras and hours"
        )
    drift = _drift(first.figures)
    return FrameReport(len(calibration), distinct, len(validation), shared, round(coverage, 3), drift, warnings)


def drift_statistics(images: Image) -> DriftStatistics:
    """Brightness, contrast and luma percentiles of BGR pictures [n, height, width, 3], as a guard compares them."""
    return _drift(np.array([_figures(image) for image in images]))


def _looks(frames: Frames, progress: Advance) -> _Looks:
    digests, hashes, figures = [], [], []
    for number in range(len(frames)):
        image = frames.read(number).image
        digests.append(hashlib.sha256(image.tobytes()).digest())
        hashes.append(_difference_hash(image))
        figures.append(_figures(image))
        progress(number + 1, len(frames))
    return _Looks(digests, np.array(hashes), np.array(figures))


def _figures(image: Image) -> list[float]:
    luma = image.astype(np.float32) @ _LUMA
    low, high = np.percentile(luma, (1, 99))
    return [float(luma.mean()), float(luma.std()), float(low), float(high)]


def _difference_hash(image: Image) -> NDArray[np.bool_]:
    """Where the picture, at 17x16, gets brighter from one pixel to the next: hardly changed by noise or compression."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1] + _STEP).ravel()


def _distinct(looks: _Looks) -> int:
    """How many pictures are unlike all that were counted before them."""
    kept: list[int] = []
    seen: set[bytes] = set()
    for number, found in enumerate(looks.digests):
        if found in seen:
            continue
        seen.add(found)
        if kept:
            bits = (looks.hashes[kept] != looks.hashes[number]).sum(axis=1)
            levels = np.abs(looks.figures[kept, :2] - looks.figures[number, :2]).max(axis=1)
            if ((bits <= _ALIKE_BITS) & (levels <= _ALIKE_LEVELS)).any():
                continue
        kept.append(number)
    return len(kept)


def _coverage(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    low, high = first.min(axis=0), first.max(axis=0)
    slack = _SLACK * np.maximum(high - low, 1.0)
    return float(((second >= low - slack) & (second <= high + slack)).all(axis=1).mean())


def _drift(figures: NDArray[np.float64]) -> DriftStatistics:
    brightness, contrast, low, high = figures.T
    means = [brightness.mean(), brightness.std(), contrast.mean(), contrast.std(), low.mean(), high.mean()]
    return DriftStatistics(*(round(float(value), 3) for value in means))
