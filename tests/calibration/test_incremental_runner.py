"""A walk gives what a full run gives, sees layers changed on the way, and keeps to its memory."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edged_calibration.graph.incremental_runner import IncrementalRunner
from edged_calibration.graph.index import Graph, Tap, copy_of


def test_values_are_those_of_a_full_run(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    names = ["pixels", "b", "e", "i", "out"]
    expected = [Tap(network, names)(feed) for feed in feeds]
    walk = IncrementalRunner(copy_of(network), feeds)
    for name in names:
        for found, values in zip(walk.until(name), expected, strict=True):
            np.testing.assert_allclose(found, values[name], rtol=1e-5, atol=1e-5)


def test_a_layer_changed_on_the_way_is_seen_behind_it(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    model = copy_of(network)
    walk = IncrementalRunner(model, feeds)
    before = walk.until("e")[0].copy()
    graph = Graph(model)
    zeros = np.zeros_like(graph.array("down.weight"))
    graph.constants["down.weight"].CopyFrom(numpy_helper.from_array(zeros, "down.weight"))
    joined = walk.until("i")[0]
    np.testing.assert_array_equal(joined[:, :16], before)
    assert np.unique(joined[:, 16:]).size <= 33  # the bias behind a ReLU is all that is left


def test_frames_beyond_the_memory_are_left_out(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    walk = IncrementalRunner(copy_of(network), feeds, memory_bytes=100_000)
    frames = sum(len(batch) for batch in walk.until("e"))
    assert 1 <= frames < 8
