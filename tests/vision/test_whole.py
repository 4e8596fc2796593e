from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engines.decoder_spec import ClassifyDecoder
from edged.engines.manifest import InputSpec
from edged.errors import EdgedError
from edged.vision.decoders.whole import BestClasses
from edged.vision.letterbox import fit

IMAGE = InputSpec("image", 32, 32)
BOX = fit(64, 48, 32, 32)
LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30)


@settings(deadline=None)
@given(LOGITS, st.integers(1, 40))
def test_the_best_of_a_softmax_by_plain_python(logits: list[float], top: int) -> None:
    outputs = {"l": np.array([[0.0] * len(logits), logits], np.float32)}
    got = BestClasses(ClassifyDecoder("l", top=top), IMAGE, len(logits))(outputs, 1, BOX)
    total = sum(math.exp(value) for value in logits)
    want = sorted(enumerate(logits), key=lambda item: -item[1])[:top]
    assert [logits[i] for i in got.class_ids] == [value for _, value in want]
    assert got.scores == pytest.approx([math.exp(value) / total for _, value in want], rel=1e-4)
    assert (got.scores.dtype, got.class_ids.dtype) == (np.float32, np.int64)


def test_equal_scores_come_in_the_order_of_the_labels() -> None:
    got = BestClasses(ClassifyDecoder("l", top=3), IMAGE, 4)({"l": np.array([[1, 2, 2, 1]], np.float32)}, 0, BOX)
    assert got.class_ids.tolist() == [1, 2, 0]


def test_extreme_but_finite_logits_do_not_overflow() -> None:
    got = BestClasses(ClassifyDecoder("l", top=2), IMAGE, 3)({"l": np.array([[3e38, -3e38, 0]], np.float32)}, 0, BOX)
    assert got.scores.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_never_published(bad: float) -> None:
    with pytest.raises(EdgedError, match="output l holds values that are not finite"):
        BestClasses(ClassifyDecoder("l"), IMAGE, 3)({"l": np.array([[0, bad, 0]], np.float32)}, 0, BOX)
