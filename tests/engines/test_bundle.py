from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.engines import bundle as bundles
from edged.engines.bundle import Bundle, load_bundle, model_tensors, select_file, verify_file
from edged.engines.engine import TensorSpec
from edged.engines.manifest import EngineFile
from edged.errors import EdgedError, UsageError
from tests.support.models import CLASSES, center_model, file_entry, manifest_for, write_bundle

MODELS = {"fp32": center_model(), "int8": center_model(1.0)}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_bundle(tmp_path / "b", MODELS))


def refused(tmp_path: Path, manifest: dict[str, Any], *needles: str) -> None:
    """The manifest is refused in one sentence that names the file and every needle, with a hint."""
    with pytest.raises(UsageError) as caught:
        load_bundle(write_bundle(tmp_path / "b", MODELS, manifest))
    for needle in (str(tmp_path / "b" / "manifest.json"), *needles):
        assert needle in caught.value.message
    assert caught.value.hint and "\n" not in caught.value.message


def test_a_valid_bundle_loads_and_its_files_verify(bundle: Bundle) -> None:
    assert bundle.manifest.name == "small"
    for name, content in MODELS.items():
        assert verify_file(bundle, select_file(bundle.variant(name), "onnxruntime", "x86_64")) == content


def test_an_unknown_variant_is_named_with_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"no variant 'fp8'.*fp32, int8"):
        bundle.variant("fp8")


BUILT = {"tensorrt": "10.3.0", "capability": "8.7", "device": "a Jetson", "source": "0" * 64, "max_batch": 4}


def test_only_a_plan_is_built_somewhere(tmp_path: Path) -> None:
    manifest = manifest_for(MODELS)
    manifest["variants"][0]["files"] = [file_entry("a.bin", MODELS["fp32"], built=BUILT)]
    with pytest.raises(UsageError, match="only a plan of TensorRT is built somewhere"):
        load_bundle(write_bundle(tmp_path / "b", MODELS, manifest))


def test_what_a_runtime_cannot_take_is_named_with_its_reason(tmp_path: Path) -> None:
    manifest = manifest_for(MODELS)
    plans = [
        file_entry(f"{n}.plan", MODELS["fp32"], runtime="tensorrt", built=BUILT | {"tensorrt": version})
        for n, version in enumerate(("10.3.0", "10.16.2"))
    ]
    manifest["variants"][0]["files"] = plans
    variant = load_bundle(write_bundle(tmp_path / "b", MODELS, manifest)).variant("fp32")

    def newer(file: EngineFile) -> str | None:
        return None if file.built is not None and file.built.tensorrt == "10.16.2" else "is old"

    assert select_file(variant, "tensorrt", "aarch64", newer).path == "1.plan"
    with pytest.raises(UsageError, match=r"fp32: 0\.plan is bad; 1\.plan is bad \(build it here"):
        select_file(variant, "tensorrt", "aarch64", lambda file: "is bad")


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "NCHW"},
        {"color": "RGB"},
        {"scale": [2, 2, 2]},
        {"dtype": "float16"},
        {"dtype": "int8", "scale": [1, 1, 1]},
    ],
)
def test_an_input_is_the_picture_or_normalised_planes_and_nothing_between(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    manifest = manifest_for(MODELS)
    manifest["input"] |= changes
    with pytest.raises(UsageError, match="uint8 is NHWC, BGR, without scale and bias; every other dtype is NCHW"):
        load_bundle(write_bundle(tmp_path / "b", MODELS, manifest))
    manifest["input"] |= {"dtype": "float16", "layout": "NCHW", "scale": [2, 2, 2]}
    tensors = model_tensors(load_bundle(write_bundle(tmp_path / "c", MODELS, manifest)).manifest)
    assert (tensors.image.dtype, tensors.image.shape) == ("float16", (3, 32, 64))


def test_the_file_made_for_the_machine_beats_the_one_for_any(bundle: Bundle, tmp_path: Path) -> None:
    manifest = manifest_for(MODELS)
    content = MODELS["fp32"]
    manifest["variants"][0]["files"] = [
        file_entry("any.onnx", content),
        file_entry("arm.onnx", content, arch="aarch64"),
        file_entry("plan.bin", content, runtime="tensorrt", arch="aarch64", built=BUILT),
    ]
    variant = load_bundle(write_bundle(tmp_path / "c", MODELS, manifest)).variant("fp32")
    assert select_file(variant, "onnxruntime", "aarch64").path == "arm.onnx"
    assert select_file(variant, "onnxruntime", "x86_64").path == "any.onnx"
    assert select_file(variant, "tensorrt", "aarch64").path == "plan.bin"
    with pytest.raises(UsageError, match="fp32 has no file for tensorrt on x86_64"):
        select_file(variant, "tensorrt", "x86_64")


def test_the_tensors_follow_from_labels_input_and_decoder(tmp_path: Path, bundle: Bundle) -> None:
    tensors = model_tensors(bundle.manifest)
    assert tensors.image == TensorSpec("image", "uint8", (32, 64, 3))
    assert [spec.shape for spec in tensors.outputs] == [(CLASSES, 4, 8), (4, 4, 8)]
    yolo = manifest_for(MODELS, output={"decoder": "yolo", "predictions": "p"})
    assert model_tensors(load_bundle(write_bundle(tmp_path / "y", MODELS, yolo)).manifest).outputs == (
        TensorSpec("p", "float32", (4 + CLASSES, -1)),
    )
    classify = manifest_for(MODELS, task="classify", output={"decoder": "classify", "logits": "l"})
    assert model_tensors(load_bundle(write_bundle(tmp_path / "l", MODELS, classify)).manifest).outputs == (
        TensorSpec("l", "float32", (CLASSES,)),
    )


def test_what_does_not_hold_together_is_refused_by_its_key(tmp_path: Path) -> None:
    good = manifest_for(MODELS)
    refused(tmp_path, good | {"colour": "red"}, "colour")
    refused(tmp_path, good | {"new\n\x1b[31mline": 1}, "new??[31mline")
    refused(tmp_path, good | {"version": 2}, "version")
    refused(tmp_path, good | {"labels": ["a", "b", "a"]}, "labels", "'a' appears twice")
    refused(tmp_path, good | {"labels": ["a", " ", "c"]}, "labels[1]")
    refused(tmp_path, good | {"labels": ["a", "b\x1b[31m", "c"]}, "labels[1]")
    refused(tmp_path, good | {"reference": "fp16"}, "reference", "fp32, int8")
    refused(tmp_path, good | {"task": "classify"}, "task")
    refused(tmp_path, good | {"metric": "map75"}, "variants[0].files[0].accuracy", "map75")
    refused(tmp_path, good | {"max_batch": 0}, "max_batch")
    refused(tmp_path, good | {"input": good["input"] | {"width": 60}}, "output.stride")
    refused(tmp_path, good | {"input": good["input"] | {"width": 8192, "height": 8192}}, "input", "MiB")
    refused(tmp_path, good | {"output": good["output"] | {"boxes": "scores"}}, "tensors", "'scores' appears twice")
    refused(tmp_path, good | {"output": good["output"] | {"boxes": ""}}, "tensors", "empty")
    refused(tmp_path, good | {"output": good["output"] | {"boxes": "a\nb"}}, "tensors", "not printable")
    refused(tmp_path, good | {"variants": [good["variants"][0]] * 2}, "variants[].name", "'fp32' appears twice")


def changed_file(**changes: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(manifest_for(MODELS))
    manifest["variants"][1]["files"][0] |= changes
    return manifest


def test_a_file_entry_that_lies_is_refused_by_its_key(tmp_path: Path) -> None:
    for path in ("../up.onnx", "/etc/passwd", "a/b.onnx", "..", ".hidden", "", "a\n"):
        refused(tmp_path, changed_file(path=path), "path")
    refused(tmp_path, changed_file(sha256="0" * 63), "sha256")
    refused(tmp_path, changed_file(bytes=1 << 40), "variants[1].files[0].bytes")
    refused(tmp_path, changed_file(accuracy={"map50": 1.5}), "accuracy")
    refused(tmp_path, changed_file(images=0), "variants[1].files[0].accuracy", "0 images")
    twice = manifest_for(MODELS)
    twice["variants"][0]["files"] *= 2
    refused(tmp_path, twice, "variants[0].files[]", "onnxruntime/any")


def test_an_unmeasured_file_is_allowed_but_not_as_the_reference(tmp_path: Path) -> None:
    load_bundle(write_bundle(tmp_path / "b", MODELS, changed_file(accuracy={}, images=0)))
    refused(tmp_path, changed_file(accuracy={}) | {"reference": "int8"}, "variants[1].files[0].accuracy")


def test_the_digest_and_the_size_are_those_of_the_manifest(bundle: Bundle) -> None:
    file = bundle.manifest.variants[0].files[0]
    path = bundle.directory / file.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="SHA-256"):
        verify_file(bundle, file)
    path.write_bytes(content + b"x")
    with pytest.raises(UsageError, match="bytes, the manifest says"):
        verify_file(bundle, file)
    path.unlink()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        verify_file(bundle, file)


def test_a_link_a_pipe_and_a_directory_are_no_engine_files(bundle: Bundle, tmp_path: Path) -> None:
    file = bundle.manifest.variants[0].files[0]
    path = bundle.directory / file.path
    outside = tmp_path / "outside.onnx"
    shutil.move(path, outside)
    path.symlink_to(outside)  # the right bytes, at a place that the bundle does not own
    with pytest.raises(UsageError, match="symbolic link"):
        verify_file(bundle, file)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="not a regular file"):
        verify_file(bundle, file)  # nobody writes to it: to open it would block forever
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="not a regular file"):
        verify_file(bundle, file)


def test_a_bundle_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a directory"):
        load_bundle(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="loop"):
        load_bundle(tmp_path / "loop")
    with pytest.raises(UsageError):
        load_bundle("nul\0byte")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"manifest\.json cannot be read"):
        load_bundle(tmp_path / "empty")


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path / "b", MODELS)
    with (directory / "manifest.json").open("r+b") as stream:
        stream.truncate(bundles.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(UsageError, match="at most"):
        load_bundle(directory)


def test_the_directory_is_resolved_once(tmp_path: Path) -> None:
    write_bundle(tmp_path / "v1", MODELS)
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    bundle = load_bundle(tmp_path / "current")
    (tmp_path / "current").unlink()
    assert bundle.directory == tmp_path / "v1"
    verify_file(bundle, bundle.manifest.variants[0].files[0])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["fp32", "map50"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, inner in items for place in places(inner, (*at, key)))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_manifest_is_refused_or_holds_together(tmp_path: Path, data: st.DataObject) -> None:
    manifest = copy.deepcopy(manifest_for(MODELS))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([place for place in places(manifest) if place]))
        holder: Any = manifest
        for key in way:
            holder = holder[key]
        if data.draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = data.draw(JSON)
    directory = write_bundle(tmp_path / "b", MODELS, manifest)
    try:
        bundle = load_bundle(directory)
        for variant in bundle.manifest.variants:
            verify_file(bundle, select_file(variant, "onnxruntime", "x86_64"))
        model_tensors(bundle.manifest)
    except EdgedError as error:
        assert "\n" not in error.message


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b'{"labels": ["\xff"]}'))
def test_bytes_that_are_no_manifest_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        load_bundle(tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1500), value=st.integers(0, 255))
def test_a_manifest_with_a_flipped_byte_raises_nothing_else(tmp_path: Path, at: int, value: int) -> None:
    content = bytearray(json.dumps(manifest_for(MODELS)).encode())
    content[at % len(content)] = value
    (tmp_path / "manifest.json").write_bytes(content)
    with contextlib.suppress(UsageError):
        load_bundle(tmp_path)
