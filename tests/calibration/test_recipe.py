"""Recipes: what is wrong is said with the key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import UsageError
from edged_calibration.recipe.schema import load_recipe

ROOT = Path(__file__).parents[2]
GOOD = """
name = "small"
model = "model.onnx"
[output]
decoder = "classify"
logits = "out"
[calibration]
frames = "scene://1?count=16"
[validation]
frames = "scene://2?count=20"
[[variant]]
name = "fp16"
precision = "fp16"
"""


def written(path: Path, text: str) -> Path:
    file = path / "recipe.toml"
    file.write_text(text)
    return file


def test_defaults_are_the_gate_of_the_documentation(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD)).recipe
    assert (recipe.gate.fp16_points, recipe.gate.int8_points) == (0.5, 1.5)
    assert recipe.targets == ("x86", "arm", "trt") and recipe.quantize.method == "best"


def test_a_variant_is_limited_by_its_precision_or_by_its_own_points(tmp_path: Path) -> None:
    more = '[[variant]]\nname = "a"\nprecision = "int8"\n[[variant]]\nname = "b"\nprecision = "int8"\npoints = 40.0\n'
    recipe = load_recipe(written(tmp_path, GOOD + more)).recipe
    assert [recipe.limit(variant) for variant in recipe.variant] == [0.5, 1.5, 40.0]


@pytest.mark.parametrize("path", sorted((ROOT / "calibration" / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert load_recipe(path).recipe.name.replace("-", "") == path.stem.replace("-", "")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (('model = "model.onnx"', 'modle = "model.onnx"'), "modle is not a known key", "did you mean model?"),
        (("[validation]", "[gate]\nint8_point = 1\n[validation]"), "gate.int8_point is not a known key", "int8_points"),
        (("[validation]", "[gate]\nint8_points = -1\n[validation]"), "gate.int8_points is -1", "correct"),
        (("[validation]", "[gate]\nint8_points = 100\n[validation]"), "gate.int8_points is 100", "correct"),
        (('model = "model.onnx"', ""), "model is missing", "add it"),
        (('precision = "fp16"', 'precision = "fp8"'), "precision", "correct"),
        (('precision = "fp16"', 'precision = "int8"'), "no variant is fp16 or fp32", "add one"),
        (("scene://2?count=20", "scene://1?count=16"), "the same frames", "two sets"),
        (("[validation]", "[input]\nstd = [1.0, 0.0, 1.0]\n[validation]"), "input.std", "above 0"),
        (("[validation]", "[input]\nwidth = 64\n[validation]"), "go together", "give both"),
        (('decoder = "classify"', 'decoder = "magic"'), "output", "correct"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(tmp_path: Path, change: tuple[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_recipe(written(tmp_path, GOOD.replace(*change)))
    assert message in refused.value.message and "recipe.toml" in refused.value.message
    assert hint in f"{refused.value.message} {refused.value.hint}"


def test_two_variants_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="appears twice"):
        load_recipe(written(tmp_path, GOOD + '[[variant]]\nname = "fp16"\nprecision = "fp32"\n'))


def test_what_is_not_there_or_not_toml_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="is not valid TOML"):
        load_recipe(written(tmp_path, "name = "))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_recipe_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError):
        load_recipe(file)
