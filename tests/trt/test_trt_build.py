"""Building plans: a builder of our own in place of the one that cannot be had, held against the real classes; what it
builds is loaded and inspected by the real bindings on the stand-in core library.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edged.engines import cuda, trt
from edged.engines.bundle import load_bundle
from edged.engines.manifest import InputSpec, Layers
from edged.engines.trt import TrtRuntime
from edged.errors import EdgedError, UsageError
from edged_calibration.commands import build as command
from edged_calibration.tensorrt import build, timing
from edged_calibration.tensorrt import build_plan as plan
from edged_calibration.tensorrt.build import BuiltVariant, Place, build_bundle, check_memory
from edged_calibration.tensorrt.build_plan import WORKSPACE_BYTES, build_plan
from edged_calibration.tensorrt.lock import LOCK_NAME
from edged_calibration.tensorrt.timing import Stopwatch
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


CONFIG = """
bundle = "b"
[engine]
max_batch = 2
[[camera]]
name = "gate"
source = "test://7"
"""


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

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return None if content.startswith(b"damaged") else content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache = cache
        return not cache.startswith(b"of another version")

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
    slow = 0  # so many builds do not end by themselves
    deaf = False  # nor when they are cancelled
    released: threading.Event  # ends them all the same
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
        go_on = config.progress_monitor.step_complete("timing", 0)
        while FakeBuilder.slow > 0 and (go_on or FakeBuilder.deaf):
            if FakeBuilder.released.wait(0.005):
                break
            go_on = config.progress_monitor.step_complete("timing", 0)
        if not go_on:
            FakeBuilder.slow -= 1
            return None
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


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder that cannot be had, from now on in this process."""
    FakeBuilder.made, FakeBuilder.strongly_works, FakeParser.readable = [], True, True
    FakeBuilder.slow, FakeBuilder.deaf, FakeBuilder.released = 0, False, threading.Event()
    monkeypatch.setattr(plan, "trt", Overlay())
    monkeypatch.setattr(build, "Gpu", HostGpu)
    monkeypatch.setattr(HostGpu, "integrated", True)
    monkeypatch.setattr(trt, "why_not", lambda: None)
    monkeypatch.setattr(cuda, "device_name", lambda: "NVIDIA Jetson Orin Nano")


@pytest.fixture(autouse=True)
def overlay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stand_in(monkeypatch)
    yield
    assert CORE.stand_in_faults().decode() == ""


def quiet(phase: str, step: int, steps: int) -> bool:
    assert phase == "timing" and 0 <= step <= steps == 2
    return True


class Silent:
    """Nobody watches."""

    def waits(self, pid: str) -> None:
        pytest.fail(f"{pid} builds, but nobody else does")

    def begins(self, variant: str, number: int, count: int, stopwatch: Stopwatch) -> None:
        assert 1 <= number <= count == 2

    def advance(self, phase: str, step: int, steps: int) -> None:
        quiet(phase, step, steps)

    def ends(self) -> None:
        pass


SILENT = Silent()


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
        content, warnings = build_plan(b"onnx", SPEC, 4, cache, quiet)
        config = FakeBuilder.made[-1].config
        assert config.cache == known and warnings == ()
    assert cache.read_bytes() == b"timed;timed;"
    assert FakeBuilder.made[-1].creation == 1 << int(TENSORRT.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert config.flags == {TENSORRT.BuilderFlag.SPARSE_WEIGHTS}
    assert config.profiling_verbosity == TENSORRT.ProfilingVerbosity.DETAILED
    assert config.limits == {TENSORRT.MemoryPoolType.WORKSPACE: WORKSPACE_BYTES}
    side = (HEIGHT, WIDTH, 3)
    assert FakeBuilder.made[-1].profile.shapes == {"image": ((1, *side), (1, *side), (4, *side))}
    assert plan.inspect(content) == Layers(weighted=3, int8=2, sparse_eligible=2, sparse_used=1)


def test_a_tensorrt_that_refuses_strong_types_builds_weakly_where_it_can(tmp_path: Path) -> None:
    FakeBuilder.strongly_works = False
    has_flags = hasattr(TENSORRT.BuilderFlag, "INT8")
    if has_flags:
        content, warnings = build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)
        assert "built weakly typed, since this TensorRT refuses it strongly typed: node conv1" in warnings[0]
        wanted = {TENSORRT.BuilderFlag.FP16, TENSORRT.BuilderFlag.INT8, TENSORRT.BuilderFlag.SPARSE_WEIGHTS}
        assert FakeBuilder.made[-1].config.flags >= wanted and content
    else:
        with pytest.raises(EdgedError, match="cannot build it: node conv1: no implementation"):
            build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)


def test_a_bundle_gets_a_plan_for_each_variant_once_and_again_when_something_changed(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b")
    before = (directory / "manifest.json").read_bytes()
    done = build_bundle(directory, 4, SILENT)
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
    assert [d.file for d in build_bundle(directory, 4, SILENT)] == [d.file for d in done] and len(
        FakeBuilder.made
    ) == built
    held = directory / done[0].file.path if done[0].file else directory
    held.write_bytes(b"damaged")
    (directory / f"{held.name.rpartition('.')[0][:-8]}deadbeef.plan").write_bytes(b"left by a build that was cut off")
    assert build_bundle(directory, 4, SILENT)[0].file == done[0].file and len(FakeBuilder.made) == built + 1
    assert held.read_bytes() != b"damaged"
    build_bundle(directory, 4, SILENT, again=True)
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
    fp16, int8 = build_bundle(directory, 4, SILENT)
    assert fp16.why is None and int8.file is None
    assert int8.why == "TensorRT cannot read the graph: In node 3: unsupported operator Foo"
    assert fp16 == BuiltVariant("fp16", "built", fp16.file) and int8.outcome == "failed"


def test_a_build_that_takes_too_long_is_cancelled_and_the_rest_is_built(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b")
    FakeBuilder.slow = 1
    fp16, int8 = build_bundle(directory, 4, SILENT, limit_s=3.0)
    assert fp16.outcome == "failed" and fp16.why == "TensorRT did not finish in 0.05 min: it was cancelled"
    assert int8.outcome == "built"
    assert [variant.outcome for variant in build_bundle(directory, 4, SILENT)] == ["built", "current"]


def test_a_build_that_hangs_is_left_alone_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, cancelled = threading.Event(), threading.Event()
    with pytest.raises(EdgedError, match=r"did not finish in 0\.000167 min: it hangs") as reported:
        build.within(0.01, lambda: released.wait(60), cancelled, grace_s=0.01)
    assert cancelled.is_set() and "build again" in reported.value.hint
    released.set()
    with pytest.raises(ZeroDivisionError):
        build.within(60, lambda: 1 // 0, threading.Event())
    assert build.within(60, lambda: "done", threading.Event()) == "done"


def test_the_life_of_a_bundle_on_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built, upgraded, copied to another module, cut off, and asked for larger batches: each time what does not fit is
    refused in a sentence before it is read, built once, and what still fits stays."""
    directory = bundle(tmp_path / "b")

    def outcomes(max_batch: int = 2) -> list[str]:
        return [variant.outcome for variant in build_bundle(directory, max_batch, SILENT)]

    def refusals(max_batch: int = 2) -> set[str | None]:
        runtime = TrtRuntime(HostGpu())  # type: ignore[arg-type]
        files = [variant.files[-1] for variant in load_bundle(directory).manifest.variants]
        return {runtime.refuses(file, max_batch) for file in files}

    assert refusals() == {"is not built for this device yet"}
    assert outcomes() == ["built", "built"] and refusals() == {None} and outcomes() == ["current", "current"]
    before = trt.version()
    monkeypatch.setattr(trt, "version", lambda: "99.1.0")  # a JetPack upgrade
    assert refusals() == {f"was built by TensorRT {before}; here is 99.1.0"}
    assert outcomes() == ["built", "built"] and refusals() == {None}
    monkeypatch.setattr(cuda, "device_name", lambda: "NVIDIA Jetson AGX Orin")  # its card in another module
    assert refusals() == {"was built on NVIDIA Jetson Orin Nano; this is NVIDIA Jetson AGX Orin"}
    assert outcomes() == ["built", "built"] and refusals() == {None}
    plan_file = directory / load_bundle(directory).manifest.variants[0].files[-1].path
    plan_file.write_bytes(plan_file.read_bytes()[:40])  # the power went while it was copied
    assert outcomes() == ["built", "current"]
    assert refusals(4) == {"was built for batches up to 2; [engine] max_batch is 4"}
    assert outcomes(4) == ["built", "built"] and refusals(4) == {None} and outcomes(2) == ["current", "current"]


def test_a_full_disk_leaves_the_bundle_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = bundle(tmp_path / "b")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = build_bundle(directory, 4, SILENT)
    assert all(d.why is not None and "cannot be written: No space left on device" in d.why for d in done)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_too_little_memory_is_reported_before_anything_is_begun() -> None:
    with pytest.raises(EdgedError, match=r"needs about 2048 MiB of free memory; 700 MiB are free") as caught:
        check_memory(700 << 20, 2 << 30)
    assert "systemctl stop edged" in caught.value.hint
    check_memory(None, 2 << 30)


def test_a_builder_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "trt", TENSORRT)  # the real one, whose library has no builder here
    with pytest.raises(EdgedError, match="TensorRT's builder does not start"):
        build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)


def test_plans_of_other_devices_stay_in_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = bundle(tmp_path / "b")
    build_bundle(directory, 4, SILENT)
    monkeypatch.setattr(cuda, "device_name", lambda: "NVIDIA Jetson AGX Orin")
    build_bundle(directory, 4, SILENT)
    devices = [f.built.device for f in load_bundle(directory).manifest.variants[0].files if f.built is not None]
    assert devices == ["NVIDIA Jetson Orin Nano", "NVIDIA Jetson AGX Orin"]
    assert Place("10.3.0", "8.7", "a").slug != Place("10.3.0", "8.7", "b").slug


@pytest.mark.parametrize("known", [b"damaged", b"of another version"])
def test_times_that_this_tensorrt_does_not_take_are_begun_anew(tmp_path: Path, known: bytes) -> None:
    (tmp_path / "c").write_bytes(known)
    build_plan(b"onnx", SPEC, 4, tmp_path / "c", quiet)
    assert FakeBuilder.made[-1].config.cache == b"" and (tmp_path / "c").read_bytes() == b"timed;"


def test_a_build_keeps_its_times_for_the_next(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b")
    watches: list[Stopwatch] = []

    class Watcher(Silent):
        def begins(self, variant: str, number: int, count: int, stopwatch: Stopwatch) -> None:
            watches.append(stopwatch)

    build_bundle(directory, 4, Watcher())
    (record,) = directory.glob("timing.*.json")
    known = timing.load(record)
    assert set(known) == {"fp16", "int8"} and list(known["int8"].marks) == ["timing 0/2", "timing 1/2", "timing 2/2"]
    build_bundle(directory, 4, Watcher(), again=True)
    assert [watch.left_s() is None for watch in watches] == [True, True, False, False]


def arguments(directory: Path | None, **more: Any) -> Any:
    given = {"bundle": directory, "config": None, "max_batch": None, "again": False, "json": False}
    return SimpleNamespace(**given | more)


def test_the_command_tells_what_was_built_and_what_it_really_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = bundle(tmp_path / "b")
    assert command.run(arguments(directory)) == 0
    reported = capsys.readouterr()
    assert re.search(r"^int8 +built +3 +2 +1 +2 +0\.0$", reported.out, re.MULTILINE), reported.out
    assert "fp16, 1 of 2: how long is not known, the first time here" in reported.err
    assert command.run(arguments(directory)) == 0
    reported = capsys.readouterr()
    assert re.search(r"^int8 +up to date", reported.out, re.MULTILINE) and not reported.err
    assert command.run(arguments(directory, again=True, json=True)) == 0
    reported = capsys.readouterr()
    assert [entry["outcome"] for entry in json.loads(reported.out)] == ["built", "built"]
    assert "int8, 2 of 2: about 0 s left" in reported.err


def test_the_command_fails_if_a_variant_does_and_warns_in_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = bundle(tmp_path / "b")
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["variants"][1]["sparse"] = True
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    monkeypatch.setattr(sys.modules[__name__], "LAYERS", [LAYERS[1], LAYERS[2]])
    assert command.run(arguments(directory)) == 0
    assert "warning: int8 is not what it is called on this device" in capsys.readouterr().out
    FakeParser.readable = False
    assert command.run(arguments(directory, again=True)) == 1
    assert "int8: TensorRT cannot read the graph: In node 3: unsupported operator Foo" in capsys.readouterr().out


def test_the_command_takes_bundle_and_batch_from_the_configuration(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b")
    (tmp_path / "edged.toml").write_text(CONFIG)
    assert command.run(arguments(None, config=str(tmp_path / "edged.toml"))) == 0
    built = [file.built for file in load_bundle(directory).manifest.variants[0].files if file.built is not None]
    assert [one.max_batch for one in built] == [2]
    with pytest.raises(UsageError, match="that would name a bundle") as caught:
        command.run(arguments(None, config=str(tmp_path / "none.toml")))
    assert "give the directory of one: BUNDLE" in caught.value.hint


BUILD = """
import tests.trt.conftest  # loads the bindings
import sys
import threading
from pathlib import Path
import pytest
from edged import clock
from tests.trt import test_trt_build as ours
ours.stand_in(pytest.MonkeyPatch())
serialize = ours.FakeBuilder.build_serialized_network
def slowly(*given):
    while not Path(sys.argv[2]).exists():
        clock.sleep_s(0.02)
    return serialize(*given)
ours.FakeBuilder.build_serialized_network = slowly
sys.exit(ours.command.run(ours.arguments(Path(sys.argv[1]), json=True)))
"""


def test_of_two_builds_at_once_the_second_waits_and_finds_the_plans_of_the_first(tmp_path: Path) -> None:
    directory, go = bundle(tmp_path / "b"), tmp_path / "go"
    before = (directory / "manifest.json").read_bytes()

    def start() -> subprocess.Popen[str]:
        command_line = [sys.executable, "-c", BUILD, str(directory), str(go)]
        return subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start() as first, contextlib.ExitStack() as ending:
        ending.callback(first.kill)
        assert first.stderr is not None and first.stderr.readline().startswith("fp16, 1 of 2: ")
        with start() as second:
            ending.callback(second.kill)
            assert second.stderr is not None
            reported = f"another build of this bundle (pid {first.pid}) is under way: waiting for it to end\n"
            assert second.stderr.readline() == reported
            assert (directory / "manifest.json").read_bytes() == before
            go.touch()
            done = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert [[entry["outcome"] for entry in one] for one in done] == [["built"] * 2, ["current"] * 2]
    assert [entry["file"] for entry in done[0]] == [entry["file"] for entry in done[1]]
    assert (first.returncode, second.returncode) == (0, 0)
    assert not (directory / LOCK_NAME).exists()
