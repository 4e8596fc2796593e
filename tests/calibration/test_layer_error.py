"""Layer errors name the layer that quantisation hurts."""

from __future__ import annotations

import numpy as np
import onnx

from edged_calibration.evaluate.layer_error import measure_errors
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.write import calibrate, quantize


def test_every_layer_has_a_figure_and_the_worst_is_first(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), "x86")
    found = measure_errors(network, quantised, feeds).layers
    assert {error.node for error in found} == {"first", "second", "down", "last", "add"}
    figures = [error.sqnr_db for error in found]
    assert figures == sorted(figures) and all(20 < figure < 60 for figure in figures)


def test_damage_shows_where_it_is_done_and_after_it(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    measured = ranges(calibrate(network, feeds))
    clipped = measured | {"g": Range(0, measured["g"].high / 50)}
    good, bad = (
        {error.node: error.sqnr_db for error in measure_errors(network, quantize(network, table, "x86"), feeds).layers}
        for table in (measured, clipped)
    )
    assert bad["last"] < good["last"] - 10
    assert bad["first"] == good["first"] and bad["add"] == good["add"]


def test_a_model_does_not_differ_from_itself(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    assert measure_errors(network, network, feeds).outputs == {"out": 200}


def test_the_output_is_reported_in_decibels(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), "x86")
    errors = measure_errors(network, quantised, feeds)
    assert errors.outputs == {"out": next(error.sqnr_db for error in errors.layers if error.tensor == "out")}
    assert np.isfinite(errors.outputs["out"])
