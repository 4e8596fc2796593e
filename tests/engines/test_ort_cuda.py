"""The CUDA way of ONNX Runtime without a GPU: its memory, lanes and order of work, on host memory that plays the GPU's;
and what is said where CUDA is not. tests/gpu runs the same on a real one.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from edged.config import EngineConfig
from edged.engines import cuda, ort_cuda
from edged.engines import pool as pool_module
from edged.engines import runtimes as runtimes_module
from edged.engines.bundle import load_bundle
from edged.engines.cuda import CudaError, Event, Gpu, Graph, Kernel
from edged.engines.gpu_memory import LANES, GpuMemory
from edged.engines.manifest import InputSpec
from edged.engines.ort import OrtRuntime, allocate
from edged.engines.ort_cuda import OrtCudaEngine
from edged.engines.pool import Pool
from edged.engines.runtimes import runtimes
from edged.engines.scaler import Scaler, Target
from edged.errors import EdgedError, UsageError
from edged.frames.frame import PixelFormat
from edged.vision.letterbox import GpuLetterboxer, Letterboxer, fit, open_letterboxer
from tests.engines.test_ort import IMAGE, TENSORS, expected
from tests.support.host_gpu import HostEvent, HostGpu, HostGpuRuntime, HostGraph, HostKernel
from tests.support.models import Tensors, center_model, manifest_for, write_bundle

MAX_BATCH = 3
MANIFEST = load_bundle(Path(__file__).parents[2] / "edged/bundles/demo").manifest
SPEC = InputSpec(IMAGE.name, IMAGE.shape[1], IMAGE.shape[0])


def memory(gpu: HostGpu) -> GpuMemory:
    height, width, _ = IMAGE.shape
    return GpuMemory(gpu, Target(width, height, 114), LANES, MAX_BATCH, IMAGE)  # type: ignore[arg-type]


def engine(content: bytes, held: GpuMemory) -> OrtCudaEngine:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return OrtCudaEngine(session, TENSORS.image, TENSORS.outputs, held)


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 128, 3), np.uint8)


@pytest.mark.parametrize(
    ("fake", "real"), [(HostGpu, Gpu), (HostEvent, Event), (HostGraph, Graph), (HostKernel, Kernel)]
)
def test_the_stand_in_has_the_interface_of_the_real_one(fake: type, real: type) -> None:
    def methods(of: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(of).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    assert methods(fake) == methods(real)


def test_pictures_go_through_the_scaler_and_each_lane_keeps_its_own() -> None:
    content, gpu = center_model(3.0), HostGpu()
    held = memory(gpu)
    runs, letterboxer = engine(content, held), GpuLetterboxer(SPEC, held.scaler)
    shown, box = [pictures(2, 1), pictures(3, 2)], fit(128, 96, SPEC.width, SPEC.height)
    for lane, batch in enumerate(shown):
        for index, pixels in enumerate(batch):
            letterboxer.fill(box, pixels, PixelFormat.BGR24, lane, index)
        runs.submit(lane, len(batch))
    for lane, batch in enumerate(shown):
        buffer = allocate((len(batch), *IMAGE.shape), "uint8")
        cpu = Letterboxer(SPEC, [buffer])
        for index, pixels in enumerate(batch):
            cpu.fill(box, pixels, PixelFormat.BGR24, 0, index)
        outputs = runs.collect(lane)
        for name, want in expected(content, buffer).items():
            np.testing.assert_array_equal(outputs[name], want)
        np.testing.assert_array_equal(held.picture(lane, 1), buffer[1])
    with pytest.raises(EdgedError, match="nothing to collect"):
        runs.collect(0)
    runs.close()
    held.close()
    assert not gpu.held


def test_a_batch_is_its_copies_one_kernel_the_outputs_and_two_events() -> None:
    gpu = HostGpu()
    held = memory(gpu)
    runs, letterboxer = engine(center_model(3.0), held), GpuLetterboxer(SPEC, held.scaler)
    box = fit(64, 48, SPEC.width, SPEC.height)
    for _ in range(2):  # the first time memory is made
        gpu.calls.clear()
        for index, pixels in enumerate(np.zeros((2, 48, 64, 3), np.uint8)):
            letterboxer.fill(box, pixels, PixelFormat.BGR24, 0, index)
        runs.submit(0, 2)
        runs.collect(0)
    outputs = ["copy"] * len(TENSORS.outputs)
    assert gpu.calls == ["copy", "copy", "record", "kernel", *outputs, "record", "event wait"]
    assert runs.took_ms(0) > 0


def test_a_second_run_of_a_batch_sees_the_same_pictures() -> None:
    gpu = HostGpu()
    held = memory(gpu)
    one, other = engine(center_model(3.0), held), engine(center_model(5.0), held)
    box = fit(128, 96, SPEC.width, SPEC.height)
    GpuLetterboxer(SPEC, held.scaler).fill(box, pictures(1)[0], PixelFormat.BGR24, 0, 0)
    one.submit(0, 1)
    first = {name: array.copy() for name, array in one.collect(0).items()}
    seen = held.picture(0, 0).copy()
    held.input(0).fill(9)  # what the host has there is not asked for any more
    other.submit(0, 1)
    for name, want in expected(center_model(5.0), seen[None]).items():
        np.testing.assert_array_equal(other.collect(0)[name] if name == TENSORS.outputs[0].name else want, want)
    one.submit(0, 1)
    for name, array in one.collect(0).items():
        np.testing.assert_array_equal(array, first[name])


def test_staging_grows_with_the_picture_and_only_then() -> None:
    gpu = HostGpu()
    scaler = Scaler(gpu, Target(64, 64, 114), 1, 1)  # type: ignore[arg-type]
    sizes = [(64, 64), (96, 72), (64, 64), (96, 72)]
    held = []
    for width, height in sizes:
        pixels = np.zeros((height, width, 3), np.uint8)
        scaler.put(0, 0, pixels, False, fit(width, height, 64, 64))
        held.append(gpu.limit_bytes - gpu.free_bytes() - Target(64, 64, 114).frame_bytes)
    assert held == [64 * 64 * 3, 96 * 72 * 3, 96 * 72 * 3, 96 * 72 * 3]


def test_a_picture_that_is_reduced_much_is_read_where_it_lies() -> None:
    gpu = HostGpu()
    scaler = Scaler(gpu, Target(64, 64, 114), 1, 1)  # type: ignore[arg-type]
    for width, copies in ((127, ["copy"]), (128, [])):
        gpu.calls.clear()
        scaler.put(0, 0, np.zeros((96, width, 3), np.uint8), False, fit(width, 96, 64, 64))
        assert gpu.calls == copies


def test_a_copy_that_finds_no_memory_leaves_no_address_of_memory_that_is_gone() -> None:
    gpu = HostGpu()
    scaler = Scaler(gpu, Target(64, 64, 114), 1, 1)  # type: ignore[arg-type]
    small, large = np.zeros((64, 64, 3), np.uint8), np.zeros((72, 96, 3), np.uint8)
    scaler.put(0, 0, small, False, fit(64, 64, 64, 64))
    gpu.limit_bytes -= gpu.free_bytes()
    with pytest.raises(CudaError, match="out of memory"):
        scaler.put(0, 0, large, False, fit(96, 72, 64, 64))
    scaler.put(0, 0, small, False, fit(64, 64, 64, 64))
    assert scaler._staging[0][0][0] in gpu.held and scaler.run(0)


def test_pictures_of_a_batch_that_never_ran_are_not_part_of_the_next() -> None:
    gpu = HostGpu()
    held = memory(gpu)
    shown, box = pictures(3), fit(128, 96, SPEC.width, SPEC.height)
    letterboxer = GpuLetterboxer(SPEC, held.scaler)
    for index in range(3):  # and then the batch is given up
        letterboxer.fill(box, shown[index], PixelFormat.BGR24, 0, index)
    letterboxer.fill(box, shown[0], PixelFormat.BGR24, 0, 0)
    assert held.scaler._put[0] == 1
    before = held.picture(0, 2).copy()
    held.fill(0, 1)
    np.testing.assert_array_equal(held.picture(0, 2), before)


def test_no_memory_is_reported_with_what_to_do_and_the_gpu_is_closed() -> None:
    gpu = HostGpu(limit_bytes=1000)
    with pytest.raises(CudaError, match="out of memory") as caught:
        memory(gpu)
    assert "max_batch" in caught.value.hint
    assert gpu.calls == ["close"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_an_input_that_is_normalised_before_the_graph(tmp_path: Path, dtype: str, color: str) -> None:
    scale, bias = ((0.5, 0.25, 0.125), (-60.0, 10.0, 3.0)) if dtype == "int8" else ((0.02, 0.017, 0.018), (-2.0, 1, 0))
    kind = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "int8": TensorProto.INT8}[dtype]
    content = center_model(-1.0, tensors=Tensors(nchw=True, input_type=kind))
    manifest = manifest_for({"a": content})
    manifest["input"] |= {"dtype": dtype, "layout": "NCHW", "color": color, "scale": scale, "bias": bias, "pad": 200}
    bundle = load_bundle(write_bundle(tmp_path / "b", {"a": content}, manifest))
    spec, runtime = bundle.manifest.input, HostGpuRuntime()
    with Pool(bundle, runtime, 2) as pool:
        assert pool.scaler is not None and pool.variants[0].refused is None
        letterboxer, shown = open_letterboxer(spec, pool), pictures(2)
        box = letterboxer.geometry(128, 96)
        for index, pixels in enumerate(shown):
            letterboxer.fill(box, pixels, PixelFormat.BGR24, 0, index)
        pool.submit(0, 2)
        outputs = pool.collect(0)
        plain = allocate((2, spec.height, spec.width, 3), "uint8")
        cpu = Letterboxer(InputSpec(spec.name, spec.width, spec.height, spec.pad), [plain])
        for index, pixels in enumerate(shown):
            cpu.fill(box, pixels, PixelFormat.BGR24, 0, index)
        values = (plain[..., ::-1] if color == "RGB" else plain).transpose(0, 3, 1, 2).astype(np.float64)
        values = values * np.reshape(scale, (3, 1, 1)) + np.reshape(bias, (3, 1, 1))
        given = (np.clip(np.rint(values), -128, 127) if dtype == "int8" else values).astype(dtype)
        for name, want in expected(content, given).items():
            np.testing.assert_allclose(outputs[name], want, rtol=1e-2, atol=2e-2)
        seen = pool.picture(0, 1).astype(int)  # as near as the input's steps allow
        assert seen.shape == plain[1].shape
        assert np.abs(seen - plain[1]).max() <= (0.5 / min(scale) + 1 if dtype == "int8" else 2)
    assert runtime.gpu.calls[-1] == "close" and not runtime.gpu.held


def test_such_an_input_is_refused_on_the_cpu_with_a_sentence(tmp_path: Path) -> None:
    content = center_model(tensors=Tensors(nchw=True, input_type=TensorProto.FLOAT16))
    manifest = manifest_for({"a": content})
    manifest["input"] |= {"dtype": "float16", "layout": "NCHW", "scale": (0.1, 0.1, 0.1)}
    bundle = load_bundle(write_bundle(tmp_path / "b", {"a": content}, manifest))
    with pytest.raises(UsageError, match="input is float16, which only a GPU prepares") as caught:
        Pool.open(bundle, EngineConfig(device="cpu"))
    assert "on a GPU" in caught.value.hint


def test_a_gpu_without_room_or_in_a_fault_leaves_auto_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def in_a_fault() -> None:
        raise CudaError("CUDA: an illegal memory access was encountered (700)")

    bundle = load_bundle(write_bundle(tmp_path / "b", {"a": center_model()}))
    full, faulty = HostGpu(limit_bytes=1000), HostGpu()
    monkeypatch.setattr(faulty, "event", in_a_fault)  # no engine can be made
    monkeypatch.setattr(faulty, "close", in_a_fault)  # and nothing freed
    for gpu, why in ((full, "out of memory"), (faulty, "illegal memory access")):
        runtimes = (runtime for runtime in (HostGpuRuntime(gpu), OrtRuntime(1)))
        monkeypatch.setattr(pool_module, "runtimes", lambda *_, them=runtimes: them)
        caplog.clear()
        with Pool.open(bundle, EngineConfig(device="auto")) as pool:
            assert pool.device == "cpu"
        assert "next is cpu, since: " in caplog.text and why in caplog.text
    assert "not freed: CUDA: an illegal" in caplog.text


def test_a_runtime_that_does_not_start_is_reported_and_auto_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(threads: int) -> None:
        raise CudaError("CUDA: initialization error (3)")

    monkeypatch.setattr(ort_cuda, "why_not", lambda: None)
    monkeypatch.setattr(runtimes_module, "OrtCudaRuntime", broken)
    assert [runtime.device for runtime in runtimes(EngineConfig(device="auto"), MANIFEST)] == ["cpu"]
    assert "initialization error" in caplog.text
    with pytest.raises(EdgedError, match="initialization error"):
        list(runtimes(EngineConfig(device="cuda"), MANIFEST))


def test_cuda_that_is_not_here_is_a_sentence_and_auto_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> str:
        return "the NVIDIA driver is not here: libcuda.so.1"

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "why_not", no_driver)
    with pytest.raises(UsageError, match=r"the NVIDIA driver is not here: libcuda\.so\.1"):
        list(runtimes(EngineConfig(device="cuda"), MANIFEST))
    assert [runtime.device for runtime in runtimes(EngineConfig(device="auto"), MANIFEST)] == ["cpu"]


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA is here")
def test_a_wheel_without_cuda_is_a_sentence_and_auto_takes_the_cpu() -> None:
    with pytest.raises(UsageError, match="built without CUDA") as caught:
        list(runtimes(EngineConfig(device="cuda"), MANIFEST))
    assert "edged[cuda]" in caught.value.hint
    assert [runtime.device for runtime in runtimes(EngineConfig(device="auto"), MANIFEST)] == ["cpu"]


def test_tensorrt_that_is_not_here_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"TensorRT's Python package is not here .* python3-libnvinfer"):
        list(runtimes(EngineConfig(device="tensorrt"), MANIFEST))


def test_bindings_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "runtime", cuda._Bindings("nothing_of_this_name"))
    why = cuda.why_not()
    assert why is not None and why.startswith(
        "the CUDA bindings for Python are not installed: pip install 'edged[cuda]'"
    )
    assert "'edged[jetpack6]'" in why


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (0, "there is no NVIDIA driver here"),
        (12060, "the NVIDIA driver is for CUDA 12.6, older than the CUDA bindings"),
    ],
)
def test_a_driver_that_is_not_there_or_too_old_is_distinguished(
    monkeypatch: pytest.MonkeyPatch, version: int, why: str
) -> None:
    status = cuda.runtime.cudaError_t.cudaErrorInsufficientDriver
    monkeypatch.setattr(cuda.runtime, "cudaGetDeviceCount", lambda: (status, None))
    monkeypatch.setattr(cuda.runtime, "cudaDriverGetVersion", lambda: (cuda.runtime.cudaError_t.cudaSuccess, version))
    reported = cuda.why_not()
    assert reported is not None and reported.startswith(why)


def test_a_driver_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        @staticmethod
        def cudaGetDeviceCount() -> None:  # noqa: N802 - CUDA's name
            raise RuntimeError("Failed to dlopen libcuda.so.1\nmore")

    monkeypatch.setattr(cuda, "runtime", Runtime)
    assert cuda.why_not() == "the NVIDIA driver is not here: Failed to dlopen libcuda.so.1"


def test_a_compiler_that_is_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise RuntimeError('Failure finding "libnvrtc.so.13"\nmore')

    monkeypatch.setattr(cuda.runtime, "cudaGetDeviceCount", lambda: (cuda.runtime.cudaError_t.cudaSuccess, 1))
    monkeypatch.setattr(cuda.nvrtc, "nvrtcVersion", nothing)
    why = cuda.why_not()
    assert why is not None
    assert why.startswith(
        'CUDA\'s compiler for kernels (NVRTC) is not here: Failure finding "libnvrtc.so.13"; pip install'
    )


def test_the_bindings_are_loaded_by_the_first_call_alone() -> None:
    """They cost a machine without a GPU a tenth of a second and 8 MB."""
    code = "import sys; from edged.engines import cuda; print('cuda.bindings' in sys.modules); cuda.runtime.cudaError_t"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_the_kernel_is_part_of_the_package() -> None:
    root = Path(inspect.getfile(Scaler)).parent
    assert "__global__" in (root / "kernels/letterbox.cu").read_text()
