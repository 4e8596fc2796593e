"""A second run in the same work directory gives what a run in a fresh one gives, whatever was changed in between."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edged_calibration.cache import StepCache, as_json
from edged_calibration.digest import digest_of
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.job import Job
from edged_calibration.progress import Advance, silent
from edged_calibration.recipe.inputs import Inputs
from edged_calibration.recipe.schema import load_recipe
from tests.support.calibration import RECIPE, pictures, recipe

SPARSE = (
    RECIPE.replace('targets = ["x86", "trt"]', 'targets = ["x86"]')
    + """
[[variant]]
name = "int8-sparse"
precision = "int8"
sparse = true
[sparsify]
layers = "all"
method = "wanda"
rows = 512
"""
)


class Quiet:
    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        yield silent

    def say(self, text: str) -> None:
        self.said = [*getattr(self, "said", []), text]


def results(file: Path, work: Path) -> dict[str, str]:
    """Every result of the job, by name."""
    with StepCache(work) as cache:
        job = Job(load_recipe(file), cache, Quiet())
        found: dict[str, Any] = {
            "frames": job.frames, "analysis": job.analysis, "sparsity": job.sparsity, "float": job.baseline,
            "ranges": [job.ranges("dense"), job.ranges("sparse")], "verdicts": job.verdicts,
        }  # fmt: skip
        for variant in job.recipe.variant:
            for name, file_ in job.files(variant).items():
                found[name] = digest_of(file_.model)
                found[f"evaluation {name}"] = job.evaluation(variant, name)
            found[f"errors {variant.name}"] = job.errors(variant)
        int8 = next(variant for variant in job.recipe.variant if variant.precision == "int8")
        found["sensitivity"] = job.sensitivity(int8)
    return {name: as_json(msgspec.to_builtins(value)).decode() for name, value in found.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its files, a work directory that knows all results, and those results."""
    folder = tmp_path_factory.mktemp("base")
    file = recipe(folder, SPARSE, calibration=10, validation=16)
    (folder / "expected").write_bytes(as_json(results(file, folder / "work")))
    return folder


def edit(key: str, value: str) -> Callable[[Path], None]:
    """Replace a line of the recipe, or add it to a table that is not there yet."""

    def change(folder: Path) -> None:
        file = folder / "small.toml"
        text = file.read_text()
        changed = text.replace(key, value) if key in text else f"{text}\n{key}\n{value}\n"
        assert changed != text
        file.write_text(changed)

    return change


def weights(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "a.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), "a.weight"))
    onnx.save(model, folder / "model.onnx")


def some_pictures(of: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        pictures(folder / of, 6, seed=77)  # in place of the first, by the same names

    return change


CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": weights,
    "calibration pictures": some_pictures("calibration"),
    "validation pictures": some_pictures("validation"),
    "mean": edit("mean = [120.0, 118.0, 110.0]", "mean = [121.0, 118.0, 110.0]"),
    "std": edit("std = [60.0, 58.0, 59.0]", "std = [60.0, 58.0, 50.0]"),
    "colour": edit("std = [60.0, 58.0, 59.0]", 'std = [60.0, 58.0, 59.0]\ncolor = "BGR"'),
    "letterbox": edit("std = [60.0, 58.0, 59.0]", "std = [60.0, 58.0, 59.0]\npad = 3"),
    "limit": edit("int8_points = 12", "int8_points = 5"),
    "targets": edit('targets = ["x86"]', 'targets = ["arm"]'),
    "pruning": edit('method = "wanda"', 'method = "magnitude"'),
    "seed": edit("rows = 512", "rows = 512\nseed = 1"),
    "which layers": edit('layers = "all"', 'layers = "all"\ndense = ["b"]'),
    "method": edit("[quantize]", 'method = "mse"'),
    "percentile": edit("[quantize]", "percentile = 90.0"),
    "nodes in float, of INT8": edit("[quantize]", 'keep_float = ["head"]'),
    "nodes in float, of FP16": edit("[halve]", 'keep_float = ["head"]'),
    "how many frames": edit('frames = "calibration"', 'frames = "calibration"\ncount = 8'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_an_input_is_noticed(base: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "job"
    shutil.copytree(base, folder)
    CHANGES[name](folder)
    before = {path.name for path in (folder / "work").iterdir()}
    again = results(folder / "small.toml", folder / "work")
    assert again == results(folder / "small.toml", folder / "fresh")
    assert {path.name for path in (folder / "work").iterdir()} - before


def test_what_did_not_change_is_not_made_again(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    shutil.copytree(base, folder)
    before = {path.name for path in (folder / "work").iterdir()}
    assert results(folder / "small.toml", folder / "work") == msgspec.json.decode((base / "expected").read_bytes())
    edit("int8_points = 12", "int8_points = 5")(folder)
    results(folder / "small.toml", folder / "work")
    after = {path.name for path in (folder / "work").iterdir()}
    assert {name.rpartition("-")[0] for name in after - before} == {"sensitivity-dense"}


def test_ranges_of_a_model_quantised_in_training_are_an_input(tmp_path: Path) -> None:
    """The weights, and so the float model inside, stay: only the scales of activations change."""
    text = RECIPE.replace('targets = ["x86", "trt"]', 'targets = ["trt"]') + '[quantize]\nmodel = "qat.onnx"\n'
    file = recipe(tmp_path, text, calibration=10, validation=16)
    model = Inputs(load_recipe(file)).model
    table = ranges(calibrate(model, Inputs(load_recipe(file)).feeds), "max")

    def export(factor: float) -> None:
        wider = {name: Range(found.low * factor, found.high * factor) for name, found in table.items()}
        onnx.save(quantize(model, wider, "trt"), tmp_path / "qat.onnx")

    def largest_scale(work: str) -> float:
        with StepCache(tmp_path / work) as cache:
            job = Job(load_recipe(file), cache, Quiet())
            variant = job.recipe.variant[1]
            (made,) = job.files(variant).values()
            job.errors(variant)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer}
        quantisers = [node for node in made.model.graph.node if node.op_type == "QuantizeLinear"]
        return max(float(constants[node.input[1]]) for node in quantisers)

    export(1.0)
    first = largest_scale("work")
    export(2.0)
    assert largest_scale("work") == largest_scale("fresh") == pytest.approx(2 * first, rel=1e-3)


def test_what_pruning_costs_is_reported_before_a_file_is_made(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    shutil.copytree(base, folder)
    edit('layers = "all"', 'layers = "all"\nmodel = "spoilt.onnx"')(folder)
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, folder / "spoilt.onnx")
    quiet = Quiet()
    with StepCache(folder / "work") as cache:
        job = Job(load_recipe(folder / "small.toml"), cache, quiet)
        points = job.sparse_points
        job.files(job.recipe.variant[2])
    assert points > 12
    assert [text.split(", of")[0] for text in quiet.said] == [f"2:4 alone: expect {-points:+.1f} points"]
    assert "fine_tune_steps = 200" in quiet.said[0]
