"""The generated models: the public shapes, sane values inside, the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from edged.errors import UsageError
from edged_calibration import zoo
from edged_calibration.graph.index import Graph, Tap
from edged_calibration.zoo.writer import IMAGENET, INPUT, UNIT, probe

SMALL = {"mobilenet-v2": 64, "resnet-50": 64, "yolo-nano": 96, "vit-tiny": 64}
PARAMETERS_M = {"mobilenet-v2": 3.5, "resnet-50": 25.5, "yolo-nano": 3.15, "vit-tiny": 5.7}  # as published


@pytest.mark.parametrize("name", zoo.NAMES)
def test_models_have_the_published_size_and_sane_activations(name: str) -> None:
    model = zoo.build(name, SMALL[name])
    graph = Graph(model)
    constants = {key: graph.array(key) for key in graph.constants}
    parameters = sum(value.size for value in constants.values() if value.dtype == np.float32)
    assert parameters / 1e6 == pytest.approx(PARAMETERS_M[name], rel=0.02)
    assert all(np.isfinite(value).all() for value in constants.values())
    weighted = graph.weighted()
    values = Tap(model, [node.output[0] for node in weighted])(
        {INPUT: probe(SMALL[name], UNIT if name == "yolo-nano" else IMAGENET)[:4]}
    )
    spreads = [float(value.std()) for value in values.values()]
    assert len(spreads) == {"mobilenet-v2": 53, "resnet-50": 54, "yolo-nano": 64, "vit-tiny": 50}[name]
    assert min(spreads) > 0.05 and max(spreads) < 10


def test_a_seed_is_a_model() -> None:
    first, again, other = (zoo.build("mobilenet-v2", 32, seed).SerializeToString() for seed in (0, 0, 1))
    assert first == again != other


def test_what_is_not_there_is_reported() -> None:
    with pytest.raises(UsageError, match="no generated model 'vgg'"):
        zoo.build("vgg", 224)
    with pytest.raises(UsageError, match="size 100"):
        zoo.build("resnet-50", 100)
