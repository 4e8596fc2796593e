"""Sensitivity: the layer that was made to hurt comes first, and the set that is kept is small and passes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edged_calibration.evaluate.sensitivity import Score, Sensitivity, keep_to_pass, sensitivity
from edged_calibration.graph.index import session
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.write import calibrate, quantize


@pytest.fixture(scope="module")
def spoilt(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> dict[str, Range]:
    """Ranges of which one, that of what `down` reads and `concat` joins, is a hundred times too wide."""
    known = ranges(calibrate(network, feeds))
    return known | {"e": Range(-100 * known["e"].high, 100 * known["e"].high)}


@pytest.fixture(scope="module")
def score(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> Score:
    wanted = session(network).run(None, feeds[0])[0]

    def agreement(model: onnx.ModelProto) -> float:
        found = session(model, exact=True).run(None, feeds[0])[0]
        return float(1 - ((wanted - found) ** 2).mean() / (wanted**2).mean())

    return agreement


@pytest.fixture(scope="module")
def found(network: onnx.ModelProto, spoilt: dict[str, Range], score: Score) -> Sensitivity:
    return sensitivity(network, spoilt, score, "trt")


def test_the_layers_behind_the_bad_range_come_first(found: Sensitivity) -> None:
    drops = {layer.node: layer.drop for layer in found.layers}
    assert set(drops) == {"first", "second", "down", "last"}
    assert found.baseline == pytest.approx(1) and found.all_int8 < 0.9
    assert {layer.node for layer in found.layers[:2]} == {"down", "last"}
    assert drops["first"] < 0.01 and drops["second"] < 0.01
    assert all(layer.cost > 0 for layer in found.layers)


def test_the_smallest_set_that_passes_is_kept(
    network: onnx.ModelProto, spoilt: dict[str, Range], score: Score, found: Sensitivity
) -> None:
    kept = keep_to_pass(network, spoilt, score, 0.98, found, target="trt")
    assert kept is not None and 1 <= len(kept) <= 2
    assert score(quantize(network, spoilt, "trt", kept)) >= 0.98
    for name in kept:  # none of them is kept for nothing
        assert score(quantize(network, spoilt, "trt", [other for other in kept if other != name])) < 0.98


def test_nothing_is_kept_where_int8_passes_and_none_where_nothing_helps(
    network: onnx.ModelProto, spoilt: dict[str, Range], score: Score, found: Sensitivity
) -> None:
    assert keep_to_pass(network, spoilt, score, found.all_int8 - 0.01, found, target="trt") == []
    assert keep_to_pass(network, spoilt, score, 1.5, found, target="trt") is None


def test_progress_reaches_its_total(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], score: Score) -> None:
    seen: list[tuple[int, int]] = []
    known = ranges(calibrate(network, feeds))
    sensitivity(network, known, score, progress=lambda *step: seen.append(step))
    assert seen[-1] == (6, 6) and [done for done, _ in seen] == list(range(1, 7))
    assert np.all([total == 6 for _, total in seen])
