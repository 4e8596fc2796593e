"""Building plans: a builder of our own in place of the one that cannot be had, held against the real classes; what it
builds is loaded and inspected by the real bindings on the stand-in core library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from calibration import build
from calibration.build import BuiltVariant, Place, build_bundle, build_plan, check_memory
from edged.engines import trt
from edged.engines.bundle import load_bundle
from edged.engines.manifest import InputSpec, Layers
from edged.errors import EdgedError
from tests.support.host_gpu import HostGpu
from tests.support.models import HEIGHT, WIDTH, center_model, file_entry, manifest_for, write_bundle
from tests.trt.conftest import CORE, TENSORRT
from tests.trt.test_trt_adapter import PLAN

LAYERS = [
    {"Name": "a", "Weights": {"Type": "Int8", "Count": 9}, "HasSparseWeights": 1, "TacticName": "sm80_sparse_int8"},
    {"Name": "b", "Weights": {"Type": "Int8", "Count": 9}, "HasSparseWeights": 1, "TacticName": "sm80_int8"},
    {"Name": "c", "Weights": {"Type": "Half", "Count": 9}, "TacticName": "sm80_f16"},
    {"Name": "d", "LayerType": "Reformat"},
]
SPEC = InputSpec("image", WIDTH, HEIGHT)
MODELS = {"fp16": center_model(1.0), "int8": center_model(2.0)}


class FakeConfig:
    def __init__(self) -> None:
        self.flags: set[Any] = set()
        self.limits: dict[Any, int] = {}
        self.progress_monitor: Any = None
        self.profiling_verbosity: Any = None
        self.avg_timing_iterations = 1
        self.cache = b""

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.cache + b"timed;")

    def add_optimization_profile(self, profile: Any) -> int:
        return 0


class FakeProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes[name] = (least, usual, most)


class FakeBuilder:
    strongly_works = True
    made: list[FakeBuilder]

    def __init__(self, logger: Any) -> None:
        self.logger, self.config, self.profile, self.creation = logger, FakeConfig(), FakeProfile(), -1
        FakeBuilder.made.append(self)

    def create_network(self, flags: int) -> Any:
        self.creation = flags
        return SimpleNamespace()

    def create_builder_config(self) -> FakeConfig:
        return self.config

    def create_optimization_profile(self) -> FakeProfile:
        return self.profile

    def build_serialized_network(self, network: Any, config: FakeConfig) -> bytes | None:
        config.progress_monitor.phase_start("timing", None, 2)
        config.progress_monitor.step_complete("timing", 0)
        config.progress_monitor.phase_finish("timing")
        if self.creation and not FakeBuilder.strongly_works:
            self.logger.log(TENSORRT.ILogger.ERROR, "node conv1: no implementation")
            return None
        return (PLAN + "".join(f"layer {json.dumps(layer)}\n" for layer in LAYERS)).encode()


class FakeParser:
    readable = True

    def __init__(self, network: Any, logger: Any) -> None:
        self.num_errors = 1

    def parse(self, model: bytes) -> bool:
        return FakeParser.readable and model[:1] != b"x"

    def get_error(self, index: int) -> str:
        return "In node 3: unsupported operator Foo"


class Overlay:
    """The real module, with the builder's half in place of what needs the library."""

    Builder, OnnxParser = FakeBuilder, FakeParser

    def __getattr__(self, name: str) -> Any:
        return getattr(TENSORRT, name)


@pytest.fixture(autouse=True)
def overlay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    FakeBuilder.made, FakeBuilder.strongly_works, FakeParser.readable = [], True, True
    monkeypatch.setattr(build, "trt", Overlay())
    monkeypatch.setattr(build, "Gpu", HostGpu)
    monkeypatch.setattr(trt, "why_not", lambda: None)
    monkeypatch.setattr(build, "device_name", lambda: "NVIDIA Jetson Orin Nano")
    yield
    assert CORE.stand_in_faults().decode() == ""


def quiet(phase: str, step: int, steps: int) -> None:
    assert phase == "timing" and 0 <= step <= steps == 2


def bundle(directory: Path) -> Path:
    manifest = manifest_for(MODELS)
    for variant in manifest["variants"]:
        name = variant["name"]
        variant["precision"], variant["sparse"] = name, name == "int8"
        variant["files"].append(file_entry(variant["files"][0]["path"], MODELS[name], runtime="tensorrt"))
    write_bundle(directory, MODELS, manifest)
    return directory


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (FakeBuilder, "Builder"),
        (FakeConfig, "IBuilderConfig"),
        (FakeProfile, "IOptimizationProfile"),
        (FakeParser, "OnnxParser"),
    ],
)
def test_the_builder_s_stand_in_offers_only_what_the_real_one_has(fake: type, real: str) -> None:
    offered = {name for name, value in vars(fake).items() if callable(value) and not name.startswith("_")}
    assert offered and not offered - set(dir(getattr(TENSORRT, real)))
    if real == "IBuilderConfig":
        assert {"progress_monitor", "profiling_verbosity", "avg_timing_iterations"} <= set(dir(TENSORRT.IBuilderConfig))


def test_a_plan_is_strongly_typed_sparse_detailed_and_timed_from_a_kept_cache(tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    for known in (b"", b"timed;"):
        plan, warnings = build_plan(b"onnx", SPEC, 4, cache, quiet)
        config = FakeBuilder.made[-1].config
        assert config.cache == known and warnings == ()
    assert cache.read_bytes() == b"timed;timed;"
    assert FakeBuilder.made[-1].creation == 1 << int(TENSORRT.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert config.flags == {TENSORRT.BuilderFlag.SPARSE_WEIGHTS}
    assert config.profiling_verbosity == TENSORRT.ProfilingVerbosity.DETAILED
    assert config.limits == {TENSORRT.MemoryPoolType.WORKSPACE: build.WORKSPACE_BYTES}
    side = (HEIGHT, WIDTH, 3)
    assert FakeBuilder.made[-1].profile.shapes == {"image": ((1, *side), (1, *side), (4, *side))}
    assert build.inspect(plan) == Layers(weighted=3, int8=2, sparse_eligible=2, sparse_used=1)


def test_a_tensorrt_that_refuses_strong_types_builds_weakly_where_it_can(tmp_path: Path) -> None:
    FakeBuilder.strongly_works = False
    has_flags = hasattr(TENSORRT.BuilderFlag, "INT8")
    if has_flags:
        plan, warnings = build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)
        assert "built weakly typed, since this TensorRT refuses it strongly typed: node conv1" in warnings[0]
        wanted = {TENSORRT.BuilderFlag.FP16, TENSORRT.BuilderFlag.INT8, TENSORRT.BuilderFlag.SPARSE_WEIGHTS}
        assert FakeBuilder.made[-1].config.flags >= wanted and plan
    else:
        with pytest.raises(EdgedError, match="cannot build it: node conv1: no implementation"):
            build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)


def test_a_bundle_gets_a_plan_for_each_variant_once_and_again_when_something_changed(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b")
    before = (directory / "manifest.json").read_bytes()
    done = build_bundle(directory, 4, quiet)
    assert [(d.name, d.why) for d in done] == [("fp16", None), ("int8", None)]
    manifest = load_bundle(directory).manifest
    for variant, result in zip(manifest.variants, done, strict=True):
        file = variant.files[-1]
        assert file == result.file and file.built is not None
        assert (file.built.tensorrt, file.built.capability) == (trt.version(), "8.7")
        source = variant.files[1]
        assert file.built.source == source.sha256 and file.accuracy == source.accuracy
        assert (directory / file.path).stat().st_size == file.bytes
        assert file.built.layers == Layers(3, 2, 2, 1)
    assert before != (directory / "manifest.json").read_bytes()
    built = len(FakeBuilder.made)
    assert [d.file for d in build_bundle(directory, 4, quiet)] == [d.file for d in done] and len(
        FakeBuilder.made
    ) == built
    plan = directory / done[0].file.path if done[0].file else directory
    plan.write_bytes(b"damaged")
    assert build_bundle(directory, 4, quiet)[0].file == done[0].file and len(FakeBuilder.made) == built + 1
    assert plan.read_bytes() != b"damaged"
    build_bundle(directory, 4, quiet, again=True)
    assert len(FakeBuilder.made) == built + 3
    assert not [path for path in directory.iterdir() if path.name.endswith(".part")]
    assert len(list(directory.glob("*.plan"))) == 2


def test_a_variant_that_fails_costs_only_itself_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = bundle(tmp_path / "b")
    content = b"x" + MODELS["int8"]
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["variants"][1]["files"][1] = file_entry("broken.onnx", content, runtime="tensorrt")
    (directory / "broken.onnx").write_bytes(content)
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    fp16, int8 = build_bundle(directory, 4, quiet)
    assert fp16.why is None and int8.file is None
    assert int8.why == "TensorRT cannot read the graph: In node 3: unsupported operator Foo"
    assert fp16 == BuiltVariant("fp16", fp16.file)


def test_a_full_disk_leaves_the_bundle_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = bundle(tmp_path / "b")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.os, "fsync", full)
    done = build_bundle(directory, 4, quiet)
    assert all(d.why is not None and "cannot be written: No space left on device" in d.why for d in done)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_too_little_memory_is_told_before_anything_is_begun() -> None:
    with pytest.raises(EdgedError, match=r"needs about 2048 MiB of free memory; 700 MiB are free") as caught:
        check_memory(700 << 20, 2 << 30)
    assert "systemctl stop edged" in caught.value.hint
    check_memory(None, 2 << 30)


def test_a_builder_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "trt", TENSORRT)  # the real one, whose library has no builder here
    with pytest.raises(EdgedError, match="TensorRT's builder does not start"):
        build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)


def test_plans_of_other_devices_stay_in_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = bundle(tmp_path / "b")
    build_bundle(directory, 4, quiet)
    monkeypatch.setattr(build, "device_name", lambda: "NVIDIA Jetson AGX Orin")
    build_bundle(directory, 4, quiet)
    devices = [f.built.device for f in load_bundle(directory).manifest.variants[0].files if f.built is not None]
    assert devices == ["NVIDIA Jetson Orin Nano", "NVIDIA Jetson AGX Orin"]
    assert Place("10.3.0", "8.7", "a").slug != Place("10.3.0", "8.7", "b").slug
