"""What is said of the pictures before anything is calibrated on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged_calibration.recipe.frame_check import check_frames, drift_statistics
from edged_calibration.recipe.frames import Frames, open_frames
from tests.support.calibration import pictures

SPEC = InputSpec(name="image", width=64, height=32)


def opened(base: Path, name: str) -> Frames:
    return open_frames(name, base, SPEC, 1000)


def test_good_sets_raise_no_warning(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 80, seed=1)
    pictures(tmp_path / "b", 40, seed=2)
    reported: list[int] = []
    report = check_frames(opened(tmp_path, "a"), opened(tmp_path, "b"), lambda done, total: reported.append(done))
    assert (report.calibration, report.distinct, report.validation, report.shared) == (80, 80, 40, 0)
    assert report.coverage > 0.9 and not report.warnings
    assert reported[-1] == 120 and reported == sorted(reported)


def test_pictures_that_are_all_alike_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(40):
        cv2.imwrite(str(tmp_path / "a" / f"{number}.png"), np.full((40, 48, 3), number % 2, np.uint8))
    pictures(tmp_path / "b", 5)
    with pytest.raises(UsageError, match="only 1 of 40 calibration pictures differ"):
        check_frames(opened(tmp_path, "a"), opened(tmp_path, "b"))


def test_repeats_are_counted_even_after_compression(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", 30, seed=1)
    for number in range(20):
        image = cv2.imread(str(folder / f"{number:04d}.png"))
        assert image is not None
        cv2.imwrite(str(folder / f"{number:04d}-again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    pictures(tmp_path / "b", 10, seed=2)
    report = check_frames(opened(tmp_path, "a"), opened(tmp_path, "b"))
    assert report.calibration == 50 and 28 <= report.distinct <= 33
    assert any("repeat others" in warning for warning in report.warnings)


def test_pictures_in_both_sets_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 20, seed=1)
    pictures(tmp_path / "b", 20, seed=1)
    with pytest.raises(UsageError, match="20 pictures are in the calibration set and in the validation set"):
        check_frames(opened(tmp_path, "a"), opened(tmp_path, "b"))


def test_a_dark_set_does_not_cover_bright_pictures(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 70, seed=1, brightness=0.1)
    pictures(tmp_path / "b", 20)
    report = check_frames(opened(tmp_path, "a"), opened(tmp_path, "b"))
    assert report.coverage < 0.2
    assert any("look like the calibration set" in warning for warning in report.warnings)


def test_drift_statistics_are_those_of_the_luma() -> None:
    flat = np.full((2, 4, 4, 3), 100, np.uint8)
    flat[1] = 50
    found = drift_statistics(flat)
    assert (found.brightness_mean, found.brightness_std) == (75.0, 25.0)
    assert (found.contrast_mean, found.low_percentile_mean, found.high_percentile_mean) == (0.0, 75.0, 75.0)
    green = np.zeros((1, 4, 4, 3), np.uint8)
    green[..., 1] = 200
    assert drift_statistics(green).brightness_mean == pytest.approx(0.587 * 200, abs=0.01)
