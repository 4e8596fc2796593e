from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.config import EngineConfig
from edged.engines import pool as pool_module
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import RuntimeName
from edged.engines.engine import Engine, HostMemory, ModelTensors, Outputs, TensorSpec
from edged.engines.manifest import EngineFile, InputSpec, Manifest
from edged.engines.ort import OrtEngine, OrtRuntime
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError, UsageError
from tests.support.heap import allocated_bytes, python_bytes
from tests.support.models import CLASSES, HEIGHT, WIDTH, center_model, file_entry, manifest_for, write_bundle

CPU = EngineConfig(device="cpu")
BIAS = {"fp32": 0.0, "int8": 1000.0, "tiny": 2000.0}
MODELS = {name: center_model(bias) for name, bias in BIAS.items()}


def open_pool(
    tmp_path: Path, models: dict[str, bytes], manifest: dict[str, Any] | None = None, config: EngineConfig = CPU
) -> Pool:
    return Pool.open(load_bundle(write_bundle(tmp_path / "b", models, manifest)), config)


def who_ran(outputs: Outputs) -> list[str]:
    """Every model adds its own bias, so that the outputs themselves tell which variant made each frame."""
    names = {bias: name for name, bias in BIAS.items()}
    return [names[float(score) // 1000 * 1000] for score in outputs["scores"][:, 0, 0, 0]]


def test_all_variants_are_resident_warm_and_described(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS) as pool:
        assert [(v.name, v.accuracy, v.runtime, v.refused) for v in pool.variants] == [
            ("fp32", 0.9, "onnxruntime", None),
            ("int8", pytest.approx(0.8), "onnxruntime", None),
            ("tiny", pytest.approx(0.7), "onnxruntime", None),
        ]
        for variant in pool.variants:
            assert len(variant.latency_ms) == pool.max_batch == 4
            assert all(0 < latency < 1000 for latency in variant.latency_ms)
        assert (pool.active, pool.lanes, pool.device) == ("fp32", 1, "cpu")
        assert pool.input_buffer(0).shape == (4, HEIGHT, WIDTH, 3)


def test_the_smaller_batch_of_configuration_and_manifest_holds(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS, config=EngineConfig(device="cpu", max_batch=2)) as pool:
        assert pool.max_batch == 2
        with pytest.raises(EdgedError, match=r"batch of 3 does not fit in 1\.\.2"):
            pool.submit(0, 3)
    with open_pool(tmp_path, MODELS, manifest_for(MODELS, max_batch=1)) as pool:
        assert pool.max_batch == 1 and pool.input_buffer(0).shape[0] == 1


def test_a_selection_takes_effect_between_two_batches_never_inside_one(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS) as pool:
        pool.input_buffer(0).fill(5)
        assert pool.submit(0, 4) == "fp32"
        pool.select("int8")
        assert pool.active == "int8"
        assert who_ran(pool.collect(0)) == ["fp32"] * 4
        assert pool.submit(0, 3) == "int8"
        pool.select("tiny")
        pool.select("fp32")
        assert who_ran(pool.collect(0)) == ["int8"] * 3
        assert pool.submit(0, 1) == "fp32"
        assert who_ran(pool.collect(0)) == ["fp32"]


def test_one_batch_may_run_on_another_variant_than_the_selected_one(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS) as pool:
        pool.input_buffer(0).fill(5)
        assert pool.submit(0, 2, "tiny") == "tiny"
        assert pool.active == "fp32"
        assert who_ran(pool.collect(0)) == ["tiny"] * 2
        assert pool.submit(0, 1) == "fp32"
        pool.collect(0)
        pool.retire("int8", "it broke")
        for name, why in (("int8", "is refused: it broke"), ("none", "is not in the bundle")):
            with pytest.raises(UsageError, match=why):
                pool.submit(0, 1, name)
        pool.submit(0, 1)  # a refusal leaves the lane free
        pool.collect(0)


def test_variants_share_their_memory(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS) as pool:
        pool.input_buffer(0).fill(7)  # written once, read by every variant
        seen: list[NDArray[Any]] = []
        for name in MODELS:
            pool.select(name)
            pool.submit(0, 2)
            outputs = pool.collect(0)
            assert outputs["scores"][1, 0, 0, 0] == pytest.approx(7 + BIAS[name])
            seen.append(outputs["scores"])
        assert np.shares_memory(seen[0], seen[1]) and np.shares_memory(seen[1], seen[2])


def test_two_thousand_switches_create_and_free_nothing(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS) as pool:
        names = list(MODELS)

        def switch(times: int) -> None:
            for index in range(times):
                pool.select(names[index % 3])
                pool.submit(0, index % 4 + 1)
                pool.collect(0)

        switch(300)
        held = allocated_bytes()
        kept, _ = python_bytes(lambda: switch(200))
        assert kept < 1 << 10
        assert allocated_bytes() - held < 256 << 10


def test_memory_is_given_back_once_the_last_variant_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[OrtEngine] = []
    monkeypatch.setattr(OrtEngine, "rest", lambda engine: rests.append(engine))
    with Pool(load_bundle(write_bundle(tmp_path / "one", MODELS)), OrtRuntime(1), 4, 0.0) as pool:
        for left in (2, 1):
            assert rests == []
            (name, *others) = [variant.name for variant in pool.variants if not variant.resident]
            assert len(others) == left - 1
            loaded = pool.load(name)
            pool.adopt(loaded, loaded.latency_ms)
        assert rests == [loaded.engine]
    with open_pool(tmp_path / "all", MODELS):
        assert len(rests) == 2


def test_calls_out_of_order_are_refused(tmp_path: Path) -> None:
    with open_pool(tmp_path, MODELS) as pool:
        with pytest.raises(EdgedError, match="nothing to collect"):
            pool.collect(0)
        pool.submit(0, 1)
        with pytest.raises(EdgedError, match="still in flight"):
            pool.submit(0, 1)
        pool.collect(0)
        with pytest.raises(EdgedError, match="does not fit"):
            pool.submit(0, 0)
        with pytest.raises(UsageError, match=r"'fp16' is not in the bundle \(select one of: fp32, int8, tiny"):
            pool.select("fp16")


def bad_bundle(tmp_path: Path) -> dict[str, Any]:
    """One variant of every sort that cannot run, and one that can."""
    models = {
        "good": center_model(),
        "corrupt": b"\x08\x08 this is no model",
        "shape": center_model(classes=CLASSES + 1),
        "digest": center_model(1.0),
        "missing": center_model(2.0),
        "link": center_model(3.0),
        "elsewhere": center_model(4.0),
        "nan": center_model(spoil="nan"),
    }
    manifest = manifest_for(models, reference="corrupt")
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    manifest["variants"][6]["files"] = [file_entry("elsewhere.onnx", models["elsewhere"], arch=other)]
    directory = write_bundle(tmp_path / "b", models, manifest)
    (directory / "digest.onnx").write_bytes(center_model(9.0))
    (directory / "missing.onnx").unlink()
    (directory / "link.onnx").unlink()
    (directory / "link.onnx").symlink_to(directory / "good.onnx")
    return manifest


def test_the_bundle_runs_on_what_is_valid_and_says_what_is_not(tmp_path: Path) -> None:
    bad_bundle(tmp_path)
    with Pool.open(load_bundle(tmp_path / "b"), CPU) as pool:
        reasons = {v.name: v.refused for v in pool.variants}
        assert reasons.pop("good") is None
        for name, reason in {
            "corrupt": "corrupt.onnx: it is not an ONNX file",
            "shape": r"output scores is [N, 4, 4, 8]; expected [N, 3, 4, 8]",
            "digest": "SHA-256",
            "missing": "No such file",
            "link": "symbolic link",
            "elsewhere": "has no file for onnxruntime on",
            "nan": "output scores is not finite",
        }.items():
            assert reason in str(reasons.pop(name))
        assert not reasons
        assert pool.active == "good"  # the reference is not there
        pool.submit(0, 1)
        pool.collect(0)
        with pytest.raises(UsageError, match=r"'digest' is refused: .*SHA-256"):
            pool.select("digest")


def test_a_bundle_without_a_single_valid_variant_is_refused(tmp_path: Path) -> None:
    models = {"a": b"nothing", "b": b"to see"}
    with pytest.raises(UsageError, match=r"no variant of bundle .* runs here: a: .*; b: ") as caught:
        open_pool(tmp_path, models)
    assert caught.value.exit_code == 2


def test_a_variant_that_fails_at_run_time_is_named_and_can_be_retired(tmp_path: Path) -> None:
    models = {"frail": center_model(spoil="gather"), "slow": center_model(1.0), "fast": center_model(2.0)}
    with open_pool(tmp_path, models) as pool:
        pool.input_buffer(0).fill(255)
        with pytest.raises(VariantError, match="variant frail failed: ONNX Runtime") as caught:
            pool.submit(0, 2)
        assert caught.value.variant == "frail"
        fastest = min(pool.variants[1:], key=lambda variant: variant.latency_ms[0]).name
        assert pool.retire("frail", caught.value.why) == pool.active == fastest
        assert "Gather" in str(pool.variants[0].refused)
        with pytest.raises(UsageError, match="'frail' is refused"):
            pool.select("frail")
        assert pool.submit(0, 2) == fastest  # the lane is free again
        pool.collect(0)
        other = ({"slow", "fast"} - {fastest}).pop()
        assert pool.retire(other, "by hand") == fastest
        with pytest.raises(EdgedError, match="no variant is left"):
            pool.retire(fastest, "by hand")


class FakeEngine:
    """Two lanes: work begun in submit is there in collect, as on a GPU."""

    def __init__(self, tensors: ModelTensors, memory: HostMemory, fill: float, log: list[str]) -> None:
        self.inputs, self.outputs = (tensors.image,), tensors.outputs
        self.lanes, self.max_batch, self.memory_bytes = 2, memory.max_batch, None
        self._memory, self._fill, self._log = memory, fill, log
        self._batch = [0, 0]
        self.broken = False

    def bind(self, memory: HostMemory) -> None:
        assert memory is self._memory

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        return self._memory.input(lane)

    def submit(self, lane: int, batch: int) -> None:
        self._batch[lane] = batch

    def collect(self, lane: int) -> Outputs:
        if self.broken:
            raise EdgedError("the device is gone")
        for spec in self.outputs:
            self._memory.output(lane, spec).fill(self._fill)
        return {spec.name: self._memory.output(lane, spec)[: self._batch[lane]] for spec in self.outputs}

    def took_ms(self, lane: int) -> float:
        return 1.0 + lane

    def rest(self) -> None:
        """It keeps what it has, as on a GPU."""

    def close(self) -> None:
        self._log.append("closed")


class FakeRuntime:
    name: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    device: RuntimeName = "cuda"
    machine = "a fake GPU"
    lanes = 2
    concurrent = False

    def __init__(self) -> None:
        self.log: list[str] = []
        self.engines: list[FakeEngine] = []

    def refuses(self, file: EngineFile, max_batch: int) -> str | None:
        return None

    def memory(self, spec: InputSpec, image: TensorSpec, max_batch: int) -> HostMemory:
        return HostMemory(np.zeros, self.lanes, max_batch, image)

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> Engine:
        engine = FakeEngine(tensors, memory, float(len(self.engines)) * 1000, self.log)
        self.engines.append(engine)
        return engine


class UselessGpu(FakeRuntime):
    """Gives memory and loads nothing: a GPU without cuDNN, say."""

    device = "cuda"

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> Engine:
        raise EdgedError(f"{file}: cuDNN is not here")


def test_auto_goes_to_the_cpu_if_nothing_runs_on_the_gpu_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "b", MODELS))

    def tried(config: EngineConfig, manifest: Manifest) -> list[Any]:
        return [UselessGpu(), OrtRuntime(1)] if config.device == "auto" else [UselessGpu()]

    monkeypatch.setattr(pool_module, "runtimes", tried)
    with Pool.open(bundle, EngineConfig(device="auto")) as pool:
        assert pool.device == "cpu" and [v.refused for v in pool.variants] == [None] * 3
    assert "cuDNN is not here" in caplog.text
    with pytest.raises(UsageError, match="cuDNN is not here"):
        Pool.open(bundle, EngineConfig(device="cuda"))


def test_two_lanes_may_be_in_flight_on_two_variants(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    pool = Pool(load_bundle(write_bundle(tmp_path / "b", MODELS)), runtime, 4)
    assert pool.lanes == 2 and pool.input_buffer(0) is not pool.input_buffer(1)
    pool.submit(0, 1)
    pool.select("int8")
    pool.submit(1, 2)
    pool.select("tiny")
    assert who_ran(pool.collect(0)) == ["fp32"]
    assert who_ran(pool.collect(1)) == ["int8", "int8"]
    pool.submit(0, 1)
    runtime.engines[2].broken = True
    with pytest.raises(VariantError, match="variant tiny failed: the device is gone"):
        pool.collect(0)
    assert runtime.log == []
    pool.retire("tiny", "gone")
    assert runtime.log == []  # nothing is freed on the way
    pool.close()
    assert runtime.log == ["closed"] * 3
