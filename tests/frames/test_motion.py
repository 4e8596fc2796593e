"""The rendered belt that runs and stops, under noise, rain and steps of light: what moves is seen, the rest is not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edged.frames.motion import MotionDetector
from edged.frames.motion_gate import MotionGate, Verdict
from edged.regions import CameraMotion
from edged.synthetic.scene import Scene

Image = NDArray[np.uint8]
FPS, RUN_S, PAUSE_S = 15.0, 4.0, 6.0
WIDTH, HEIGHT = 640, 360


def plain(luma: Image, index: int) -> Image:
    return luma


def noisy(luma: Image, index: int) -> Image:
    noise = np.random.default_rng(index).normal(0, 5, luma.shape)
    return np.clip(luma + noise, 0, 255).astype(np.uint8)


def rainy(luma: Image, index: int) -> Image:
    chance, wet = np.random.default_rng(index), luma.copy()
    for x, y in zip(chance.integers(0, WIDTH - 4, 10), chance.integers(0, HEIGHT - 20, 10), strict=True):
        cv2.line(wet, (int(x), int(y)), (int(x) + 2, int(y) + 14), 190, 1)
    return wet


def stepping(luma: Image, index: int) -> Image:
    """The exposure changes by a third every five seconds."""
    gain = 0.7 if int(index / FPS / 5) % 2 else 1.0
    return np.clip(luma * gain + 8, 0, 255).astype(np.uint8)


def pictures(
    change: Callable[[Image, int], Image], seconds: float, width: int = WIDTH, height: int = HEIGHT
) -> list[tuple[bool, Image]]:
    scene = Scene(5, width, height, FPS, RUN_S, PAUSE_S)
    picture = np.empty((height, width, 3), np.uint8)
    made = []
    for index in range(int(seconds * FPS)):
        scene.render(index, picture)
        made.append((scene.moves(index), change(picture[:, :, 1].copy(), index)))
    return made


@pytest.mark.parametrize("change, still_error", [(plain, 0.06), (noisy, 0.06), (stepping, 0.08), (rainy, 0.15)])
def test_a_belt_that_runs_and_stops(change: Callable[[Image, int], Image], still_error: float) -> None:
    detector = MotionDetector(WIDTH, HEIGHT)
    frames = pictures(change, 30.0)
    seen = [detector.look(luma, index / FPS) for index, (_, luma) in enumerate(frames)]
    truth = [moves for moves, _ in frames]
    for index in range(1, len(frames)):
        if truth[index] and not truth[index - 1]:  # it starts: seen within 0.3 s
            assert any(seen[index : index + 5]), f"the start at {index / FPS:.1f} s"
    running = [a for a, b in zip(seen, truth, strict=True) if b]
    assert sum(running) / len(running) > 0.95
    assert abs((1 - np.mean(seen)) - (1 - np.mean(truth))) < still_error


@pytest.mark.parametrize("width, height", [(64, 48), (96, 54), (128, 64), (160, 120), (256, 144), (120, 320)])
def test_a_belt_in_a_small_picture_is_seen_as_in_a_large_one(width: int, height: int) -> None:
    gate = MotionGate(CameraMotion())
    gate.enabled = True
    seen = {True: 0, False: 0}
    frames = pictures(plain, 40.0, width, height)
    for index, (moves, luma) in enumerate(frames):
        seen[moves] += gate.judge(luma, index / FPS) is Verdict.MOTION
    running = sum(moves for moves, _ in frames)
    assert seen[True] >= 0.9 * running
    assert seen[False] <= 0.15 * (len(frames) - running)


def ground(shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Image:
    noise = np.random.default_rng(3).integers(60, 120, (shape[0] // 8, shape[1] // 8)).astype(np.uint8)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def with_box(x: float, side: int = 40, level: int = 210) -> Image:
    picture = ground()
    picture[150 : 150 + side, int(x) : int(x) + side] = level
    return picture


def looks(detector: MotionDetector, made: Callable[[float], Image], seconds: float, from_s: float) -> list[bool]:
    return [detector.look(made(n / FPS), from_s + n / FPS) for n in range(int(seconds * FPS))]


def test_a_parked_car_is_motion_for_seconds_and_not_for_ever() -> None:
    detector = MotionDetector(WIDTH, HEIGHT)
    looks(detector, lambda t: ground(), 3.0, 0.0)
    assert any(looks(detector, lambda t: with_box(100 + 60 * min(t, 2.0)), 2.0, 3.0))
    parked = looks(detector, lambda t: with_box(220), 8.0, 5.0)
    assert parked[0] and not any(parked[int(4 * FPS) :])
    assert any(looks(detector, lambda t: ground(), 0.3, 13.0)), "it leaves"


def test_a_slow_object_is_seen_again_and_again() -> None:
    detector = MotionDetector(WIDTH, HEIGHT)
    looks(detector, lambda t: ground(), 3.0, 0.0)
    creeping = looks(detector, lambda t: with_box(100 + 4 * t), 20.0, 3.0)
    for second in range(0, 20, 4):
        assert any(creeping[int(second * FPS) : int((second + 4) * FPS)]), f"in the 4 s after {second} s"


def test_a_switch_to_infrared_is_no_lasting_motion() -> None:
    detector = MotionDetector(WIDTH, HEIGHT)
    looks(detector, lambda t: ground(), 3.0, 0.0)
    other = 255 - ground()
    after = looks(detector, lambda t: other, 3.0, 3.0)
    assert not any(after[int(1.0 * FPS) :])


def test_a_step_of_light_soon_after_a_stop_is_no_lasting_motion() -> None:
    scene = Scene(40, 1280, 720, FPS, run_s=2.0, pause_s=1000.0)
    belt = np.empty((720, 1280, 3), np.uint8)
    detector = MotionDetector(1280, 720)
    seen = []
    for index in range(int(8 * FPS)):
        scene.render(index, belt)
        seen.append(detector.look((belt[:, :, 1] * (1.0 if index < 3 * FPS else 0.7)).astype(np.uint8), index / FPS))
    assert all(seen[2 : int(2 * FPS)]) and not any(seen[int(5.5 * FPS) :])


def test_what_is_masked_does_not_move() -> None:
    left = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]
    detector = MotionDetector(WIDTH, HEIGHT, ignore=[left])
    looks(detector, lambda t: ground(), 3.0, 0.0)
    assert not any(looks(detector, lambda t: with_box(60 + 60 * t), 2.0, 3.0))
    assert any(looks(detector, lambda t: with_box(400 + 60 * t), 1.0, 5.0))


def test_more_sensitivity_sees_weaker_motion() -> None:
    def faint(sensitivity: float) -> bool:
        detector = MotionDetector(WIDTH, HEIGHT, sensitivity)
        flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
        looks(detector, lambda t: flat, 3.0, 0.0)

        def moving(t: float) -> Image:
            picture = flat.copy()
            picture[150:200, 100 + int(60 * t) : 150 + int(60 * t)] = 93
            return picture

        return any(looks(detector, moving, 1.0, 3.0))

    assert faint(4.0) and not faint(1.0)
