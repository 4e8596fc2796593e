"""Histograms of fixed size, and the ranges that each method takes from them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edged.errors import UsageError
from edged_calibration.int8.calibrate import METHODS, Histogram, Method, Range, collect, ranges


def test_histogram_counts_across_growing_spans() -> None:
    histogram = Histogram()
    batches = [np.array([0.1, -0.2]), np.array([3.0, 0.0]), np.array([-7.0])]
    for batch in batches:
        histogram.add(batch)
    assert histogram.range() == Range(-7.0, 3.0)
    assert histogram.counts.sum() == 5 and histogram.span >= 7
    values = np.sort(np.abs(np.concatenate(batches)))
    width = histogram.span / len(histogram.counts)
    assert np.allclose(np.flatnonzero(histogram.counts) * width, values, atol=1.5 * width)


def test_least_squares_clips_a_lone_outlier() -> None:
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 60.0)
    histogram = Histogram()
    histogram.add(values)

    def error(high: float) -> float:
        step = high / 127
        return float(((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2).sum())

    most, best = histogram.range("max").high, histogram.range("mse").high
    assert most == 60 and 4 < best < 50
    assert error(best) < 0.8 * error(most) and error(best) <= 1.02 * min(map(error, np.linspace(4, 60, 50)))


@pytest.mark.parametrize("method", METHODS)
def test_no_method_goes_beyond_what_was_seen_and_zeros_alone_are_fine(method: Method) -> None:
    rng = np.random.default_rng(1)
    histogram = Histogram()
    for _ in range(3):
        histogram.add(np.maximum(rng.standard_normal((4, 50, 50)), 0).astype(np.float32))
    found = histogram.range(method)
    assert found.low == 0 and 2 < found.high <= histogram.high
    empty = Histogram()
    empty.add(np.zeros(10, np.float32))
    assert empty.range(method) == Range(0, 0)


def test_a_percentile_clips_that_share_of_what_is_not_zero() -> None:
    histogram = Histogram()
    histogram.add(np.concatenate([np.zeros(100_000), np.linspace(0.01, 10, 10_000)]).astype(np.float32))
    assert histogram.range("percentile", 90).high == pytest.approx(9, abs=0.01)
    assert histogram.range("percentile", 100).high == pytest.approx(10)


def test_entropy_is_not_led_astray_by_the_zeros_of_a_relu() -> None:
    """With the zeros counted, the least divergence would be at the smallest threshold of all."""
    values = np.maximum(np.random.default_rng(2).standard_normal(200_000), 0).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    assert histogram.range("entropy").high > np.percentile(values, 99)


def test_values_that_are_not_finite_are_refused_by_name(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    broken = {"pixels": feeds[0]["pixels"].copy()}
    broken["pixels"][0, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match=r"not finite.*pixels"):
        collect(network, [broken], ["pixels", "b"])


def test_every_tensor_asked_for_has_a_range(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    reported: list[tuple[int, int]] = []
    found = ranges(collect(network, feeds, ["pixels", "b", "i"], lambda done, total: reported.append((done, total))))
    assert found.keys() == {"pixels", "b", "i"}
    assert found["b"].low == 0 and found["pixels"].low < 0
    assert reported == [(n, 4) for n in range(1, 5)]
