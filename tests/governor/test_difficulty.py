"""How difficult the next frame is, camera by camera."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.estimators import difficulty as scene
from edged.governor.estimators.difficulty import CAMERAS, Scene
from edged.governor.messages import TYPICAL


def confident(difficulty: float) -> float:
    return 1.0 - scene.CONFIDENCE_SPAN * difficulty


def test_a_hard_scene_is_learnt_from_doubtful_results() -> None:
    known = scene.fresh(10)
    assert known.predict(None) == pytest.approx(TYPICAL)
    for _ in range(60):
        known = scene.learn(known, None, confident(0.8))
    assert known.predict(None) == pytest.approx(0.8, abs=0.05)
    assert known.quantiles()[2] == pytest.approx(0.8, abs=0.1)


def test_each_camera_has_its_own_scene() -> None:
    known = scene.fresh(10)
    for _ in range(60):
        known = scene.learn(scene.learn(known, None, confident(0.2), "yard"), None, confident(0.7), "gate")
    assert known.predict(None, "gate") - known.predict(None, "yard") > 0.35


@pytest.mark.parametrize("tells", [True, False])
def test_contrast_counts_as_far_as_it_tells_of_difficulty(tells: bool) -> None:
    rng, known = random.Random(2), scene.fresh(10)
    for _ in range(800):
        difficulty = rng.uniform(0.2, 0.8)
        contrast = difficulty if tells else rng.random()
        known = scene.learn(known, contrast, confident(difficulty))
    moved = known.predict(0.7) - known.predict(0.3)
    assert moved > 0.25 if tells else abs(moved) < 0.1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1) | st.none(), st.text(max_size=2)), max_size=120))
def test_it_stays_bounded_whatever_it_sees(results: list[tuple[float, float | None, str]]) -> None:
    known = Scene(recent=(TYPICAL,) * 5)
    for confidence, contrast, camera in results:
        known = scene.learn(known, contrast, confidence, camera)
        assert 0.02 <= known.predict(contrast, camera) <= 0.98
    assert len(known.recent) == 5 and len(known.smooth) <= CAMERAS


def test_the_camera_heard_of_longest_ago_makes_room() -> None:
    known = scene.fresh(4)
    for i in range(CAMERAS + 3):
        known = scene.learn(known, None, 0.1, f"camera-{i}")
        known = scene.learn(known, None, 0.1, "always")
    assert len(known.smooth) == CAMERAS and "camera-0" not in known.smooth and "always" in known.smooth
