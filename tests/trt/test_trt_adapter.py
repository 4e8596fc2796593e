"""The TensorRT adapter under NVIDIA's real bindings, on the stand-in core library and on host memory for the GPU's."""

from __future__ import annotations

import gc
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.config import EngineConfig
from edged.engines import runtimes as runtimes_module
from edged.engines import trt
from edged.engines.bundle import load_bundle
from edged.engines.pool import Pool, VariantError
from edged.engines.trt import TrtEngine, TrtRuntime
from edged.errors import EdgedError, UsageError
from tests.support.host_gpu import HostGpu
from tests.support.models import CLASSES, HEIGHT, WIDTH, file_entry, manifest_for, write_bundle
from tests.support.repeating import repeating
from tests.trt.conftest import CORE, TENSORRT, VERSION

PLAN = f"""EDGED STAND-IN
input image uint8 -1,{HEIGHT},{WIDTH},3
output scores float32 -1,{CLASSES},4,8
output boxes float16 -1,4,4,8
memory 4096
add 7
"""
CONFIG = EngineConfig(max_batch=3)
BUILT = {"tensorrt": trt.version(), "capability": "8.7", "device": "host", "source": "0" * 64, "max_batch": 4}


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    yield
    gc.collect()
    assert CORE.stand_in_faults().decode() == ""


@pytest.fixture
def gpu() -> HostGpu:
    return HostGpu(on_capture=CORE.stand_in_capture)


def bundle(directory: Path, plans: dict[str, str], built: dict[str, Any] | None = None) -> Any:
    contents = {name: text.encode() for name, text in plans.items()}
    manifest = manifest_for(contents)
    for variant in manifest["variants"]:
        content = contents[variant["name"]]
        entry = file_entry(f"{variant['name']}.plan", content, runtime="tensorrt", built=BUILT | (built or {}))
        variant["files"] = [entry]
    write_bundle(directory, {}, manifest)
    for name, content in contents.items():
        (directory / f"{name}.plan").write_bytes(content)
    return load_bundle(directory)


def open_pool(directory: Path, gpu: HostGpu, plans: dict[str, str], built: dict[str, Any] | None = None) -> Pool:
    return Pool(bundle(directory, plans, built), TrtRuntime(gpu), 3)  # type: ignore[arg-type]


def value(plan_add: int, pixels: np.ndarray[Any, Any]) -> float:
    """What the stand-in makes of the pictures, as a float32."""
    byte = (int(pixels.sum(dtype=np.int64)) + plan_add) & 63
    return float(np.frombuffer(bytes([byte] * 4), np.float32)[0])


def test_the_bindings_are_the_real_ones_of_this_version() -> None:
    assert TENSORRT.__version__ == VERSION or str(VERSION).startswith(TENSORRT.__version__)
    assert trt.version() == TENSORRT.__version__


def test_every_lane_batch_and_variant_gives_its_own_results(tmp_path: Path, gpu: HostGpu) -> None:
    with open_pool(tmp_path / "b", gpu, {"a": PLAN, "b": PLAN.replace("add 7", "add 11")}) as pool:
        assert [v.refused for v in pool.variants] == [None, None] and pool.lanes == 2 and pool.device == "tensorrt"
        rng = np.random.default_rng(0)
        for name, add in (("a", 7), ("b", 11), ("a", 7)):
            pool.select(name)
            shown = {}
            for lane, batch in ((0, 3), (1, 1)):
                shown[lane] = rng.integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)
                pool.input_buffer(lane)[:batch] = shown[lane]
                assert pool.submit(lane, batch) == name
            for lane, pixels in shown.items():
                outputs = pool.collect(lane)
                assert outputs["scores"].shape == (len(pixels), CLASSES, 4, 8)
                assert outputs["boxes"].dtype == np.float16
                np.testing.assert_array_equal(outputs["scores"], value(add, pixels))


def test_a_frame_is_one_graph_launch_and_two_events_and_ten_thousand_switches_take_nothing(
    tmp_path: Path, gpu: HostGpu
) -> None:
    with open_pool(tmp_path / "b", gpu, {"a": PLAN, "b": PLAN}) as pool:
        free, held = gpu.free_bytes(), len(gpu.held)
        gpu.calls.clear()
        pool.submit(0, 2)
        pool.collect(0)
        assert gpu.calls == ["record", "copy", "launch", "record", "event wait"]
        for index in range(10_000):
            pool.select("ab"[index % 2])
            pool.submit(index % 2, index % 3 + 1)
            pool.collect(index % 2)
            gpu.calls.clear()
        assert (gpu.free_bytes(), len(gpu.held)) == (free, held)


def test_all_variants_share_one_activation_memory_as_large_as_the_largest_wants(tmp_path: Path, gpu: HostGpu) -> None:
    large = PLAN.replace("memory 4096", "memory 65536")
    with open_pool(tmp_path / "b", gpu, {"a": PLAN, "b": large, "c": PLAN}) as pool:
        scratch = {engine._plans.scratch for engine in pool._engines.values() if isinstance(engine, TrtEngine)}
        assert len(scratch) == 1 and scratch.pop()[1] == 65536
        engine = pool._engines["a"]
        assert isinstance(engine, TrtEngine) and engine.memory_bytes == len(PLAN)
        engine._plans.reserve(1 << 20)  # for a plan that is loaded while others run, whose graphs hold the address
        assert engine._plans.scratch[1] == 1 << 20 and engine._scratch is not None and engine._scratch[1] == 65536


@pytest.mark.parametrize(
    ("built", "why"),
    [
        ({"tensorrt": "8.6.1"}, r"was built by TensorRT 8\.6\.1; here is "),
        ({"capability": "11.0"}, r"was built for compute capability 11\.0 \(host\); here is 8\.7"),
        ({"device": "NVIDIA Jetson Orin Nano"}, "was built on NVIDIA Jetson Orin Nano; this is host"),
        ({"max_batch": 2}, r"was built for batches up to 2; \[engine\] max_batch is 3"),
    ],
)
def test_a_plan_from_elsewhere_is_refused_before_a_byte_is_read(
    tmp_path: Path, gpu: HostGpu, built: dict[str, Any], why: str
) -> None:
    held = bundle(tmp_path / "b", {"a": PLAN}, built)
    (tmp_path / "b" / "a.plan").unlink()  # who reads it fails
    with pytest.raises(UsageError, match=why):
        Pool(held, TrtRuntime(gpu), 3)  # type: ignore[arg-type]


def test_a_plan_whose_digest_differs_never_reaches_tensorrt(tmp_path: Path, gpu: HostGpu) -> None:
    held = bundle(tmp_path / "b", {"a": PLAN})
    (tmp_path / "b" / "a.plan").write_text(PLAN.replace("add 7", "add 8"))
    with pytest.raises(UsageError, match="its SHA-256 is"):
        Pool(held, TrtRuntime(gpu), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ("garbage", "bad.plan: TensorRT refuses the plan: .*magic tag does not match"),
        (PLAN + "fail load\n", "TensorRT refuses the plan: .*of another version"),
        (PLAN + "fail context\n", "TensorRT cannot make a context: .*out of memory"),
        (PLAN + "fail shape\n", "TensorRT does not take a batch of 1: .*profile does not allow it"),
        (PLAN + "fail run\n", "TensorRT cannot run it: .*illegal memory access"),
        (PLAN.replace("image uint8", "picture uint8"), "its inputs are picture; expected image"),
        (PLAN.replace("image uint8", "image float16"), r"image is float16 .*; expected uint8"),
        (PLAN.replace("output scores", "output points"), "it has no output scores"),
        (PLAN.replace("boxes float16", "boxes int8"), "boxes is int8 .*; expected float32 or float16"),
        (PLAN.replace("boxes float16 -1,4,4,8", "boxes float16 -1,4,4,9"), r"boxes is float16 .*9\]; expected"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_costs_one_variant(
    tmp_path: Path, gpu: HostGpu, plan: str, why: str
) -> None:
    with open_pool(tmp_path / "b", gpu, {"good": PLAN, "bad": plan}) as pool:
        good, bad = pool.variants
        assert good.refused is None and bad.refused is not None
        assert re.search(why, bad.refused), bad.refused
        pool.submit(0, 1)
        pool.collect(0)


def test_a_failure_at_run_time_names_the_variant_and_what_tensorrt_reported(tmp_path: Path, gpu: HostGpu) -> None:
    with open_pool(tmp_path / "b", gpu, {"a": PLAN, "b": PLAN}) as pool:
        engine = pool._engines["a"]
        assert isinstance(engine, TrtEngine)
        for slot in engine._slots.values():
            slot._graph = None  # as where a plan cannot be captured
        engine._slots[0, 1]._context.set_device_memory(0, 0)
        with pytest.raises(VariantError, match=r"cannot run it: .*not enough activation memory"):
            pool.submit(0, 1)
        pool.select("b")
        pool.submit(0, 1)
        pool.collect(0)


def test_a_plan_that_cannot_be_captured_runs_without_a_graph(
    tmp_path: Path, gpu: HostGpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(work: Callable[[], None]) -> None:
        raise EdgedError("CUDA: operation not permitted when stream is capturing (900)")

    monkeypatch.setattr(gpu, "capture", refuse)
    with caplog.at_level(logging.WARNING), open_pool(tmp_path / "b", gpu, {"a": PLAN}) as pool:
        assert "a.plan runs without a CUDA graph" in caplog.text
        pool.input_buffer(0)[:1] = 3
        pool.submit(0, 1)
        np.testing.assert_array_equal(pool.collect(0)["scores"], value(7, pool.input_buffer(0)[:1]))


def test_loading_lets_other_threads_run(tmp_path: Path, gpu: HostGpu) -> None:
    slow = PLAN + "slow load 500\nslow context 500\n"
    ticks = [time.perf_counter()]
    with repeating(lambda n: ticks.append(time.perf_counter()), 0.002):
        open_pool(tmp_path / "b", gpu, {"a": slow}).close()
    longest = max(b - a for a, b in pairwise(ticks))
    assert longest < 0.45, f"another thread stood still for {longest * 1000:.0f} ms"


def test_nothing_is_freed_while_frames_run_not_even_a_retired_variant(tmp_path: Path, gpu: HostGpu) -> None:
    slow = PLAN + "slow free 200\n"
    with open_pool(tmp_path / "b", gpu, {"a": slow, "b": PLAN}) as pool:
        begun = time.perf_counter()
        pool.retire("a", "it failed")
        for _ in range(20):
            pool.submit(0, 1)
            pool.collect(0)
        assert time.perf_counter() - begun < 0.2
    # the faults of the fixture would tell of an engine that was freed before its contexts


def test_misuse_of_the_shared_memory_would_be_seen(gpu: HostGpu) -> None:
    """The stand-in itself: two threads in one activation memory are a fault."""
    runtime = TENSORRT.Runtime(TENSORRT.Logger(TENSORRT.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine((PLAN + "slow run 50\n").encode())
    memory, image, out = gpu.device(4096), gpu.device(1 << 16), gpu.device(1 << 16)
    contexts = []
    for _ in range(2):
        context = engine.create_execution_context(TENSORRT.ExecutionContextAllocationStrategy.USER_MANAGED)
        context.set_device_memory(memory, 4096)
        context.set_input_shape("image", (1, HEIGHT, WIDTH, 3))
        for name, address in (("image", image), ("scores", out), ("boxes", out + 4096)):
            assert context.set_tensor_address(name, address)
        contexts.append(context)
    threads = [threading.Thread(target=context.execute_async_v3, args=(0,)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "in the same memory at once" in CORE.stand_in_faults().decode()
    del context
    contexts.clear()


def test_a_library_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch, gpu: HostGpu) -> None:
    monkeypatch.setenv("STAND_IN_NO_RUNTIME", "1")  # also in C's environment
    with pytest.raises(EdgedError, match="TensorRT does not start: CUDA initialization failure"):
        TrtRuntime(gpu)  # type: ignore[arg-type]
    assert gpu.calls == ["close"]


def test_memory_that_does_not_suffice_refuses_that_variant_alone(tmp_path: Path) -> None:
    gpu = HostGpu(limit_bytes=1 << 20, on_capture=CORE.stand_in_capture)
    plans = {"good": PLAN, "large": PLAN.replace("memory 4096", f"memory {1 << 30}"), "other": PLAN}
    with open_pool(tmp_path / "b", gpu, plans) as pool:
        good, large, other = pool.variants
        assert good.refused is None and other.refused is None
        assert large.refused == "large.plan: no memory for what it computes in: CUDA: out of memory (2)"
        pool.submit(0, 1)
        pool.collect(0)
    assert not gpu.held


def test_the_pool_opens_it_where_the_bundle_has_plans(
    tmp_path: Path, gpu: HostGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "why_not", lambda: None)
    monkeypatch.setattr(runtimes_module, "TrtRuntime", lambda: TrtRuntime(gpu))  # type: ignore[arg-type]
    held = bundle(tmp_path / "b", {"a": PLAN})
    with Pool.open(held, CONFIG) as pool:
        assert pool.device == "tensorrt" and pool.variants[0].runtime == "tensorrt"
    (tmp_path / "b" / "a.plan").write_text("another")  # then nothing of this bundle runs anywhere, and auto says why
    with pytest.raises(UsageError, match="has no file for onnxruntime"):
        Pool.open(held, CONFIG)
