from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.synthetic.scene import Scene
from edged.vision.letterbox import fit
from edged.vision.luma import Luma, measure
from edged_calibration.recipe.frame_check import drift_statistics

WIDTH, HEIGHT = 320, 192
BOX = fit(1280, 720, WIDTH, HEIGHT)  # 320x180 with 6 rows of padding above and below


def framed(picture: NDArray[np.uint8], pad: int = 114) -> NDArray[np.uint8]:
    image = np.full((HEIGHT, WIDTH, 3), pad, np.uint8)
    image[BOX.top : BOX.top + BOX.scaled_height] = picture
    return image


def test_an_even_picture_has_its_level_and_no_contrast_whatever_the_padding() -> None:
    grey = np.full((BOX.scaled_height, WIDTH, 3), 40, np.uint8)
    assert measure(framed(grey, pad=255), BOX) == Luma(40.0, 0.0, 40.0, 40.0)


def test_colours_weigh_as_they_look() -> None:
    blue = np.zeros((BOX.scaled_height, WIDTH, 3), np.uint8)
    blue[..., 0] = 200
    assert measure(framed(blue), BOX).brightness == pytest.approx(0.114 * 200, abs=1)


def test_half_black_half_white() -> None:
    half = np.zeros((BOX.scaled_height, WIDTH, 3), np.uint8)
    half[:, WIDTH // 2 :] = 200
    luma = measure(framed(half), BOX)
    assert luma.brightness == pytest.approx(100, abs=2)
    assert luma.contrast == pytest.approx(100, abs=2)
    assert (luma.low, luma.high) == (0, 200)


def test_a_few_bright_pixels_are_not_the_range() -> None:
    dark = np.full((BOX.scaled_height, WIDTH, 3), 10, np.uint8)
    dark[::40, ::40] = 255
    assert measure(framed(dark), BOX).high == 10


def test_it_measures_what_the_calibration_wrote() -> None:
    """The manifest's statistics come from whole pictures by other code: the two must mean the same."""
    scene, pictures = Scene(2, WIDTH, BOX.scaled_height, 15.0), []
    for index in range(0, 300, 30):
        picture = np.empty((BOX.scaled_height, WIDTH, 3), np.uint8)
        scene.render(index, picture)
        pictures.append(picture)
    expected = drift_statistics(np.stack(pictures))
    found = [measure(framed(picture), BOX) for picture in pictures]
    assert np.mean([luma.brightness for luma in found]) == pytest.approx(expected.brightness_mean, abs=1)
    assert np.mean([luma.contrast for luma in found]) == pytest.approx(expected.contrast_mean, abs=1)
    assert np.mean([luma.low for luma in found]) == pytest.approx(expected.low_percentile_mean, abs=3)
    assert np.mean([luma.high for luma in found]) == pytest.approx(expected.high_percentile_mean, abs=3)


def test_a_tiny_picture_is_measured_too() -> None:
    box = fit(64, 2, WIDTH, HEIGHT)
    assert 0 <= measure(np.full((HEIGHT, WIDTH, 3), 7, np.uint8), box).brightness <= 255


def test_it_costs_a_fraction_of_looking_at_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def best_ns(step: int) -> int:
        times = []
        for _ in range(40):
            begin = time.perf_counter_ns()
            measure(image, BOX) if step else drift_statistics(image[None])
            times.append(time.perf_counter_ns() - begin)
        return min(times)

    assert best_ns(1) * 10 < best_ns(0)
