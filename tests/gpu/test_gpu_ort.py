"""The CUDA way of ONNX Runtime, on a real GPU with the shipped bundle: what runs where, the figures, the refusals.

Run by `scripts/test-gpu`, which prints the figures. Skipped where ONNX Runtime is built without CUDA; fails where it is
built with CUDA and the GPU does not work.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edged.config import EngineConfig
from edged.engines import ort as ort_module
from edged.engines import ort_cuda as engine_module
from edged.engines.bundle import Bundle, load_bundle, model_tensors
from edged.engines.engine import TensorSpec
from edged.engines.gpu_memory import GpuMemory
from edged.engines.ort_cuda import OrtCudaEngine, OrtCudaRuntime
from edged.engines.pool import Pool
from edged.errors import EdgedError, UsageError
from edged.synthetic.scene import Scene
from tests.support.models import center_model, lying_model, manifest_for, write_bundle

PROVIDER = "CUDAExecutionProvider"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        PROVIDER not in ort.get_available_providers(),
        reason="ONNX Runtime is built without CUDA: install onnxruntime-gpu in place of onnxruntime",
    ),
]

ROOT = Path(__file__).parent.parent.parent
CUDA = EngineConfig(device="cuda")
VARIANTS = ("fp16", "int8-sparse")
BATCHES = (1, 2, 3, 4)
MIB = 1 << 20

# The CPU computes fp16 models in float32, CUDA in fp16; and it rounds ties of int8 activations in another order.
SCORE_TOLERANCE = {"fp16": 0.01, "int8-sparse": 0.10}  # of a probability, any cell and class
BOX_TOLERANCE_PX = {"fp16": 0.25, "int8-sparse": 2.0}  # of a side, in cells that hold an object
SEEN = 0.3  # the score of such a cell: the bundle's threshold
STRIDE_PX = 8


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(ROOT / "edged/bundles/demo")


@pytest.fixture(scope="module")
def pool(bundle: Bundle) -> Iterator[Pool]:
    start = time.perf_counter()
    with Pool.open(bundle, CUDA) as opened:
        print(f"pool open and warm: {time.perf_counter() - start:.1f} s")
        for variant in opened.variants:
            print(variant.name, variant.refused or " ".join(f"{ms:.3f}" for ms in variant.latency_ms) + " ms")
        yield opened


@pytest.fixture(scope="module")
def pictures(bundle: Bundle) -> NDArray[np.uint8]:
    spec = bundle.manifest.input
    scene, frames = Scene(5, spec.width, spec.height), np.empty((16, spec.height, spec.width, 3), np.uint8)
    for index, frame in enumerate(frames):
        scene.render(index * 40, frame)
    return frames


def run(pool: Pool, variant: str, frames: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    pool.select(variant)
    pool.input_buffer(0)[: len(frames)] = frames
    pool.submit(0, len(frames))
    return {name: array.copy() for name, array in pool.collect(0).items()}


def load(bundle: Bundle, variant: str) -> OrtCudaEngine:
    """An engine of the bundle outside of any pool, with memory of its own."""
    runtime = OrtCudaRuntime(1)
    tensors = model_tensors(bundle.manifest)
    file = next(f for f in bundle.variant(variant).files if f.runtime == runtime.name and f.arch in ("any", machine()))
    memory = runtime.memory(bundle.manifest.input, tensors.image, len(BATCHES))
    return runtime.load((bundle.directory / file.path).read_bytes(), file.path, tensors, memory)


def machine() -> str:
    return os.uname().machine


def device_free_bytes() -> int:
    """Free memory of GPU 0, asked of the driver itself."""
    driver = ctypes.CDLL("libcuda.so.1")
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    for status in (
        driver.cuInit(0),
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
        driver.cuCtxSetCurrent(context),
        driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)),
    ):
        assert status == 0, f"CUDA driver error {status}"
    return free.value


def rss_bytes() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def growth_bytes(work: Callable[[int], None], times: int) -> tuple[int, int]:
    """What `work(times)` adds to the memory of device and host, after a tenth of it to warm up."""
    work(times // 10)
    gc.collect()
    free, rss = device_free_bytes(), rss_bytes()
    work(times)
    return free - device_free_bytes(), rss_bytes() - rss


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_node_computes_on_cuda(
    bundle: Bundle, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Profiled(ort.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.enable_profiling, self.profile_file_prefix = True, str(tmp_path / "profile")

    monkeypatch.setattr(ort, "SessionOptions", Profiled)
    engine = load(bundle, variant)  # its probe is one run without a graph: every node is in the profile
    events = json.loads(Path(engine._session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]
    ran = Counter((args["provider"], args["op_name"]) for args in nodes)
    print(variant, dict(ran))
    assert {provider for provider, _ in ran} == {PROVIDER}
    assert sum(count for (_, op), count in ran.items() if "Conv" in op) == 30
    assert not any("Memcpy" in op for _, op in ran)
    engine.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_gives_what_the_cpu_gives(bundle: Bundle, pool: Pool, pictures: NDArray[np.uint8], variant: str) -> None:
    with Pool.open(bundle, EngineConfig(device="cpu")) as cpu:
        for batch in BATCHES:
            worst_score = worst_box_px = 0.0
            seen = 0
            for start in range(0, len(pictures) - batch + 1, batch):
                frames = pictures[start : start + batch]
                want, have = run(cpu, variant, frames), run(pool, variant, frames)
                assert [(k, v.shape, v.dtype) for k, v in have.items()] == [
                    (k, v.shape, v.dtype) for k, v in want.items()
                ]
                probability = 1 / (1 + np.exp(-want["cls"]))
                worst_score = max(worst_score, float(np.abs(1 / (1 + np.exp(-have["cls"])) - probability).max()))
                objects = (probability.max(axis=1) > SEEN)[:, None] & np.ones((1, 4, 1, 1), bool)
                seen += int(objects.sum()) // 4
                difference = np.abs(have["box"] - want["box"])[objects] * STRIDE_PX
                worst_box_px = max(worst_box_px, float(difference.max(initial=0.0)))
            print(f"{variant} batch {batch}: score {worst_score:.4f}, box {worst_box_px:.3f} px, {seen} cells")
            assert seen > 20
            assert worst_score < SCORE_TOLERANCE[variant]
            assert worst_box_px < BOX_TOLERANCE_PX[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_batch_size_is_captured_once_and_then_only_replayed(
    bundle: Bundle, variant: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in (ort_module, engine_module):
        monkeypatch.setattr(module, "FATAL", 1)  # ONNX Runtime tells of its graphs at this level
    engine = load(bundle, variant)
    for batch in BATCHES:
        engine.submit(0, batch)
        engine.collect(0)
    before = capfd.readouterr().err
    for batch in BATCHES * 5:
        engine.submit(0, batch)
        engine.collect(0)
    after = capfd.readouterr().err
    captured, recaptured = before.count("Capturing the cuda graph"), after.count("Capturing the cuda graph")
    replayed = after.count("Replaying the captured")
    print(f"{variant}: {captured} graphs captured, then {len(BATCHES) * 5} runs: {replayed} replays, {recaptured} more")
    assert (captured, recaptured, replayed) == (len(BATCHES), 0, len(BATCHES) * 5)
    engine.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_is_faster_than_its_kernels_one_by_one(pool: Pool, variant: str) -> None:
    engine = pool._engines[variant]
    assert isinstance(engine, OrtCudaEngine)
    for batch, bound in enumerate(engine._bound[0], start=1):
        times_us: dict[str, list[float]] = {"graph": [], "kernels": []}
        ways = {"graph": bound.options, "kernels": engine_module._run_options(graph=-1)}
        for _ in range(10):  # side by side, alternating
            for way, options in ways.items():
                for _ in range(20):
                    start = time.perf_counter_ns()
                    engine._session.run_with_iobinding(bound.binding, options)
                    engine._gpu.wait()
                    times_us[way].append((time.perf_counter_ns() - start) / 1000)
        graph, kernels = median(times_us["graph"]), median(times_us["kernels"])
        print(f"{variant} batch {batch}: graph {graph:.0f} us, kernels {kernels:.0f} us")
        assert graph < 0.8 * kernels


def test_submit_returns_at_once_and_collect_sleeps(pool: Pool) -> None:
    """So that the host prepares the next batch while the GPU computes this one."""
    assert pool.lanes == 2
    for variant in VARIANTS:
        pool.select(variant)
        times_us: list[tuple[float, float]] = []
        cpu_ns, wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        for index in range(300):
            start = time.perf_counter_ns()
            pool.submit(index % 2, 4)
            submitted = time.perf_counter_ns()
            pool.collect(index % 2)
            times_us.append(((submitted - start) / 1000, (time.perf_counter_ns() - submitted) / 1000))
        busy = (time.thread_time_ns() - cpu_ns) / (time.perf_counter_ns() - wall_ns)
        submit, collect = median(s for s, _ in times_us), median(c for _, c in times_us)
        print(f"{variant} batch 4: submit {submit:.0f} us, collect {collect:.1f} us, host thread {busy:.0%} busy")
        assert submit < collect


def test_two_lanes_keep_their_batches_apart_and_overlap(pool: Pool, pictures: NDArray[np.uint8]) -> None:
    alone = [run(pool, "fp16", pictures[index : index + 4])["cls"] for index in (0, 4)]
    for lane in (0, 1):
        pool.input_buffer(lane)[:4] = pictures[4 * lane : 4 * lane + 4]

    def one_by_one() -> None:
        for lane in (0, 1):
            pool.submit(lane, 4)
            pool.collect(lane)

    def both() -> None:
        for lane in (0, 1):
            pool.submit(lane, 4)
        for lane in (0, 1):
            np.testing.assert_array_equal(pool.collect(lane)["cls"], alone[lane])

    both()
    times_us: dict[str, list[float]] = {"one by one": [], "both": []}
    for _ in range(100):
        for name, way in (("one by one", one_by_one), ("both", both)):
            start = time.perf_counter_ns()
            way()
            times_us[name].append((time.perf_counter_ns() - start) / 1000)
    print({name: round(median(times)) for name, times in times_us.items()}, "us for two batches of 4")


@pytest.mark.parametrize("variant", VARIANTS)
def test_five_thousand_runs_take_no_memory(pool: Pool, variant: str) -> None:
    pool.select(variant)

    def work(times: int) -> None:
        for index in range(times):
            pool.submit(0, index % 4 + 1)
            pool.collect(0)

    device, host = growth_bytes(work, 5000)
    print(f"{variant}, 5000 runs: device {device} bytes, host {host / MIB:.2f} MiB")
    assert device <= 0
    assert host < 2 * MIB


def test_two_thousand_switches_take_no_memory_and_each_batch_is_its_variants(
    pool: Pool, pictures: NDArray[np.uint8]
) -> None:
    alone = {(v, b): run(pool, v, pictures[:b])["cls"] for v in VARIANTS for b in BATCHES}
    pool.input_buffer(0)[:] = pictures[:4]
    times_us: dict[bool, list[float]] = {True: [], False: []}

    def work(times: int) -> None:
        for index in range(times):
            variant, batch = VARIANTS[index // 2 % 2], index // 4 % 4 + 1  # every other run is a switch
            start = time.perf_counter_ns()
            pool.select(variant)
            assert pool.submit(0, batch) == variant
            outputs = pool.collect(0)
            times_us[index % 2 == 0].append((time.perf_counter_ns() - start) / 1000)
            np.testing.assert_array_equal(outputs["cls"], alone[variant, batch])

    device, host = growth_bytes(work, 4000)
    switch, stay = median(times_us[True]), median(times_us[False])
    print(
        f"2000 switches: device {device} bytes, host {host / MIB:.2f} MiB; {switch:.0f} us with, {stay:.0f} us without"
    )
    assert device <= 0
    assert host < 2 * MIB


def test_a_pool_gives_back_what_it_took(bundle: Bundle) -> None:
    def open_and_close() -> None:
        Pool.open(bundle, CUDA).close()
        gc.collect()

    open_and_close()
    free = device_free_bytes()
    for _ in range(3):
        open_and_close()
    print(f"three pools opened and closed: device {(free - device_free_bytes()) / MIB:.1f} MiB")
    assert free - device_free_bytes() < 8 * MIB


def model_with_a_node_that_cuda_lacks() -> bytes:
    model = onnx.load_from_string(center_model())
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(onnx.helper.make_node("Atan", ["raw"], ["scores"]))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("content", [model_with_a_node_that_cuda_lacks(), lying_model()], ids=["no kernel", "copies"])
def test_a_model_that_cannot_run_on_cuda_alone_is_refused(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    models = {"good": center_model(3.0), "bad": content}
    with Pool.open(load_bundle(write_bundle(tmp_path / "b", models)), CUDA) as pool:
        good, bad = pool.variants
        assert good.refused is None and pool.device == "cuda"
        assert bad.refused == "bad.onnx: not every node of it can compute on CUDA"
        pool.input_buffer(0).fill(7)
        pool.submit(0, 2)
        np.testing.assert_allclose(pool.collect(0)["scores"], 10.0, rtol=1e-3)
        assert capfd.readouterr() == ("", "")


def test_auto_takes_cuda_and_the_cpu_for_a_bundle_that_cuda_cannot_run(
    tmp_path: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with Pool.open(bundle, EngineConfig(device="auto")) as pool:
        assert pool.device == "cuda" and not caplog.records
    models = {"bad": model_with_a_node_that_cuda_lacks()}
    lone = load_bundle(write_bundle(tmp_path / "b", models, manifest_for(models)))
    with Pool.open(lone, EngineConfig(device="auto")) as pool:
        assert pool.device == "cpu" and "bad.onnx" in caplog.text
    with pytest.raises(UsageError, match=r"bad\.onnx: not every node of it can compute on CUDA"):
        Pool.open(lone, CUDA)


def test_a_gpu_that_is_not_there_is_a_sentence_for_cuda_and_the_cpu_for_auto() -> None:
    script = """
from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.runtimes import runtimes
from edged.errors import UsageError
manifest = load_bundle("edged/bundles/demo").manifest
print(next(runtimes(EngineConfig(device="auto"), manifest)).device)
try:
    list(runtimes(EngineConfig(device="cuda"), manifest))
except UsageError as error:
    print(error.message, error.hint, sep=" | ")
"""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    print(done.stdout, done.stderr)
    device, reported = done.stdout.splitlines()
    assert device == "cpu" and done.returncode == 0
    assert reported.startswith('[engine] device = "cuda": the NVIDIA driver says: no CUDA-capable device is detected')
    assert "install the NVIDIA driver" in reported


def test_a_failure_while_binding_is_a_refusal(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(memory: GpuMemory, lane: int, spec: TensorSpec) -> int:
        return memory.gpu.device(1 << 46)  # more than any GPU has

    monkeypatch.setattr(GpuMemory, "device_output", no_room)
    with pytest.raises(
        EdgedError, match=r"fp16\.onnx: no memory on cuda for its batches: CUDA: out of memory"
    ) as caught:
        load(bundle, "fp16")
    print(caught.value)
