"""Every public architecture through every pass: 2:4 counted on INT8 values, placement by the rules, answers kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import structs

import edged_calibration
from edged_calibration import zoo
from edged_calibration.fp16 import halve
from edged_calibration.graph.index import Graph, session
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import Target, calibrate, quantize
from edged_calibration.recipe.schema import Recipe, load_recipe
from edged_calibration.sparsity.apply import SparsityReport, sparse_layers, sparsify
from edged_calibration.zoo.writer import IMAGENET, INPUT, UNIT, probe

pytestmark = pytest.mark.timeout(600)  # the models are pruned whole, which a busy machine does slowly
SIZES = {"mobilenet-v2": 64, "resnet-50": 64, "yolo-nano": 96, "vit-tiny": 64}
ELIGIBLE = {"mobilenet-v2": 35, "resnet-50": 53, "yolo-nano": 62, "vit-tiny": 49}  # layers that can carry the pattern
RECIPES = Path(edged_calibration.__file__).parent / "recipes"
LEAST_DB = {"mobilenet-v2": 20.0, "resnet-50": 18.0, "yolo-nano": 28.0, "vit-tiny": 26.0}  # of INT8 against float


def recipe_of(name: str) -> Recipe:
    """The shipped one."""
    return next(found for path in RECIPES.glob("*.toml") if (found := load_recipe(path).recipe).name == name)


class Passed:
    """A model, its sparse form and the ranges of that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model = zoo.build(name, SIZES[name])
        pictures = probe(SIZES[name], UNIT if name == "yolo-nano" else IMAGENET)[:8]
        self.feeds = [{INPUT: pictures[i : i + 4]} for i in (0, 4)]
        options = structs.replace(recipe_of(name).sparsify, rows=512)
        made: tuple[onnx.ModelProto, SparsityReport] = sparsify(self.model, self.feeds, options)
        self.sparse, self.report = made
        self.known: dict[str, Range] = ranges(calibrate(self.sparse, self.feeds))

    def answers(self, model: onnx.ModelProto) -> np.ndarray:
        running = session(model, exact=True)
        return np.concatenate([running.run(None, feed)[0] for feed in self.feeds])


_LANES = [pytest.param(name, marks=pytest.mark.slow) if name == "resnet-50" else name for name in zoo.NAMES]


@pytest.fixture(scope="module", params=_LANES)
def passed(request: pytest.FixtureRequest) -> Passed:
    return Passed(request.param)


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    return float(10 * np.log10((wanted**2).sum() / max(((wanted - found) ** 2).sum(), 1e-30)))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_recipe_leaves_no_layer_dense_and_can_refuse(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.sparsify.layers == "all" and recipe.sparsify.dense == []
    assert max(recipe.limit(variant) for variant in recipe.variant) < 100


def test_all_eligible_layers_are_sparse(passed: Passed) -> None:
    assert passed.report.pruned == passed.report.eligible == ELIGIBLE[passed.name]
    assert sum(sparse_layers(passed.sparse).values()) == ELIGIBLE[passed.name]
    assert not any(sparse_layers(passed.model).values())


@pytest.mark.parametrize("target", ["trt", "x86", "arm"])
def test_int8_is_placed_by_the_rules_and_keeps_answers_and_pattern(passed: Passed, target: Target) -> None:
    quantised = quantize(passed.sparse, passed.known, target)
    assert verify_qdq(quantised, target) == []
    sparse = sparse_layers(quantised)
    assert sum(sparse.values()) == len(sparse) == ELIGIBLE[passed.name]  # counted on the INT8 values
    graph = Graph(quantised)
    last = 6 if passed.name == "yolo-nano" and target != "trt" else 0  # of its heads, in float on processors
    assert sum(graph.array(name).dtype == np.int8 for name in sparse) == len(sparse) - last
    ratio = decibels(passed.answers(passed.sparse), passed.answers(quantised))
    print(f"{passed.name} {target}: INT8 against float {ratio:.1f} dB")
    assert ratio > LEAST_DB[passed.name]


def test_fp16_goes_around_the_int8(passed: Passed) -> None:
    halved = halve(quantize(passed.sparse, passed.known, "trt"))
    assert verify_qdq(halved) == []
    assert sum(sparse_layers(halved).values()) == ELIGIBLE[passed.name]
    assert decibels(passed.answers(passed.sparse), passed.answers(halved)) > LEAST_DB[passed.name]


def test_what_is_no_matrix_product_stays_float(passed: Passed) -> None:
    graph = Graph(quantize(passed.sparse, passed.known, "trt"))
    floats = {"Softmax", "LayerNormalization", "Erf", "Sigmoid", "Gather", "Expand"}
    for node in graph.nodes:
        if node.op_type in floats:
            makers = [graph.producers[name] for name in node.input if name in graph.producers]
            assert all(maker.op_type != "DequantizeLinear" for maker in makers), node.name
