"""The CUDA way of ONNX Runtime without a GPU: its memory, lanes and order of work, on host memory that plays the GPU's;
and what is said where CUDA is not. tests/gpu runs the same on a real one.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edged.config import EngineConfig
from edged.engines import cuda, ort_cuda
from edged.engines.bundle import load_bundle
from edged.engines.cuda import CudaError, Event, Gpu, Graph, Kernel
from edged.engines.gpu_memory import GpuMemory
from edged.engines.manifest import InputSpec
from edged.engines.ort import allocate
from edged.engines.ort_cuda import OrtCudaEngine
from edged.engines.runtimes import runtimes
from edged.engines.scaler import Scaler, Target
from edged.errors import EdgedError, UsageError
from edged.frames.frame import PixelFormat
from edged.vision.letterbox import GpuLetterboxer, Letterboxer, fit
from tests.support.host_gpu import HostEvent, HostGpu, HostGraph, HostKernel
from tests.support.models import center_model
from tests.test_ort import IMAGE, TENSORS, expected

MAX_BATCH = 3
MANIFEST = load_bundle(Path(__file__).parent.parent / "edged/bundles/demo").manifest
SPEC = InputSpec(IMAGE.name, IMAGE.shape[1], IMAGE.shape[0])


def memory(gpu: HostGpu) -> GpuMemory:
    height, width, _ = IMAGE.shape
    return GpuMemory(gpu, Target(width, height, 114), ort_cuda.LANES, MAX_BATCH, IMAGE)  # type: ignore[arg-type]


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


def test_a_batch_is_its_copies_one_kernel_the_outputs_and_one_event() -> None:
    gpu = HostGpu()
    held = memory(gpu)
    runs, letterboxer = engine(center_model(3.0), held), GpuLetterboxer(SPEC, held.scaler)
    box = fit(128, 96, SPEC.width, SPEC.height)
    for _ in range(2):  # the first time memory is made
        gpu.calls.clear()
        for index, pixels in enumerate(pictures(2)):
            letterboxer.fill(box, pixels, PixelFormat.BGR24, 0, index)
        runs.submit(0, 2)
        runs.collect(0)
    assert gpu.calls == ["copy", "copy", "kernel", *["copy"] * len(TENSORS.outputs), "record", "event wait"]


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
    sizes = [(64, 64), (128, 96), (64, 64), (128, 96)]
    held = []
    for width, height in sizes:
        pixels = np.zeros((height, width, 3), np.uint8)
        scaler.put(0, 0, pixels, False, fit(width, height, 64, 64))
        held.append(gpu.limit_bytes - gpu.free_bytes() - Target(64, 64, 114).frame_bytes)
    assert held == [64 * 64 * 3, 128 * 96 * 3, 128 * 96 * 3, 128 * 96 * 3]


def test_no_memory_is_told_with_what_to_do() -> None:
    with pytest.raises(CudaError, match="out of memory") as caught:
        memory(HostGpu(limit_bytes=1000))
    assert "max_batch" in caught.value.hint


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
    monkeypatch.setattr(cuda, "runtime", None)
    assert cuda.why_not() == "the CUDA bindings for Python are not installed; install them: pip install 'edged[cuda]'"


def test_a_driver_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        @staticmethod
        def cudaGetDeviceCount() -> None:  # noqa: N802 - CUDA's name
            raise RuntimeError("Failed to dlopen libcuda.so.1\nmore")

    monkeypatch.setattr(cuda, "runtime", Runtime)
    assert cuda.why_not() == "the NVIDIA driver is not here: Failed to dlopen libcuda.so.1"


def test_the_kernel_is_part_of_the_package() -> None:
    root = Path(inspect.getfile(Scaler)).parent
    assert "__global__" in (root / "kernels/letterbox.cu").read_text()
