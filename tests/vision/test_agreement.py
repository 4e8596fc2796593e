from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.vision.agreement import of_classes, of_detections
from edged.vision.results import NOTHING, Classes, Detections

THRESHOLD = 0.3


def seen(*objects: tuple[float, float, float, int]) -> Detections:
    """Objects (x, y, score, class): squares of 20 pixels."""
    boxes = np.array([(x, y, x + 20, y + 20) for x, y, _, _ in objects], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score, _ in objects], np.float32)
    return Detections(boxes, scores, np.array([class_id for *_, class_id in objects], np.int64))


def classes(*best: tuple[int, float]) -> Classes:
    return Classes(np.array([c for c, _ in best], np.int64), np.array([s for _, s in best], np.float32))


def test_the_same_objects_agree_wholly_and_different_ones_not_at_all() -> None:
    two = seen((10, 10, 0.9, 0), (100, 50, 0.8, 1))
    assert of_detections(two, two, THRESHOLD) == pytest.approx(1.0)
    elsewhere = seen((40, 10, 0.9, 0), (150, 50, 0.8, 1))
    assert of_detections(two, elsewhere, THRESHOLD) == pytest.approx(0.0)
    other_class = seen((10, 10, 0.9, 1), (100, 50, 0.8, 0))
    assert of_detections(two, other_class, THRESHOLD) == pytest.approx(0.0)


def test_seeing_nothing_together_is_evidence_of_nothing() -> None:
    assert of_detections(NOTHING, NOTHING, THRESHOLD) is None
    assert of_classes(classes(), classes((0, 0.9))) is None


def test_one_of_two_sure_objects_missed_is_half() -> None:
    both, one = seen((10, 10, 1.0, 0), (100, 50, 1.0, 1)), seen((10, 10, 1.0, 0))
    assert of_detections(both, one, THRESHOLD) == pytest.approx(0.5)
    assert of_detections(one, both, THRESHOLD) == pytest.approx(0.5)


def test_an_object_that_flickers_about_the_threshold_costs_next_to_nothing() -> None:
    assert of_detections(seen((10, 10, 0.32, 0)), NOTHING, THRESHOLD) == pytest.approx(1 - 0.02 / 0.7, abs=1e-6)
    sure = seen((100, 50, 0.9, 1))
    flicker = seen((100, 50, 0.9, 1), (10, 10, 0.31, 0))
    assert (of_detections(sure, flicker, THRESHOLD) or 0) > 0.98


def test_a_sure_object_that_only_one_sees_costs_all() -> None:
    assert (of_detections(seen((10, 10, 1.0, 0)), NOTHING, THRESHOLD)) == pytest.approx(0.0)


def test_a_box_half_off_is_another_object_and_a_slightly_moved_one_the_same() -> None:
    assert of_detections(seen((10, 10, 1, 0)), seen((12, 11, 1, 0)), THRESHOLD) == pytest.approx(1.0)
    assert of_detections(seen((10, 10, 1, 0)), seen((20, 10, 1, 0)), THRESHOLD) == pytest.approx(0.0)


def test_an_object_is_matched_once() -> None:
    one, twice = seen((10, 10, 1.0, 0)), seen((10, 10, 1.0, 0), (11, 10, 1.0, 0))
    assert of_detections(one, twice, THRESHOLD) == pytest.approx(0.5)


OBJECTS = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0, 180), st.floats(THRESHOLD, 1), st.integers(0, 3)), max_size=8
)


@settings(max_examples=200, deadline=None)
@given(OBJECTS, OBJECTS)
def test_it_is_a_symmetric_share(first: list[tuple[float, float, float, int]], second: list[tuple]) -> None:  # type: ignore[type-arg]
    a, b = seen(*first), seen(*second)
    there, back = of_detections(a, b, THRESHOLD), of_detections(b, a, THRESHOLD)
    if there is None or back is None:
        assert there is back and not first and not second
    else:
        assert 0 <= there <= 1 and there == pytest.approx(back, abs=1e-9)
        assert of_detections(a, a, THRESHOLD) in (None, pytest.approx(1.0))


def test_classes_agree_on_the_first_or_by_how_little_they_prefer_their_own() -> None:
    assert of_classes(classes((3, 0.6), (1, 0.4)), classes((3, 0.9), (2, 0.1))) == 1.0
    assert of_classes(classes((3, 0.51), (1, 0.49)), classes((1, 0.51), (3, 0.49))) == pytest.approx(0.98)
    assert of_classes(classes((3, 1.0)), classes((1, 1.0))) == pytest.approx(0.0)
