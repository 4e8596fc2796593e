"""The preprocessing kernel on a real GPU, pixel for pixel against the CPU's letterbox; rings read where they lie."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.engines import cuda
from edged.engines.cuda import CudaError, Gpu
from edged.engines.manifest import InputSpec
from edged.engines.scaler import Scaler, Target
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingReader, RingSpec, RingWriter, create, unlink
from edged.vision.letterbox import Letterbox, Letterboxer, fit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(cuda.why_not() is not None, reason=str(cuda.why_not()))]

SIZES = [(1280, 720), (1920, 1080), (640, 480), (320, 192), (322, 194), (3840, 2160), (96, 960), (16, 16), (2, 2)]


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    opened = Gpu()
    print(opened.name, opened.capability, "integrated" if opened.integrated else "discrete")
    yield opened
    opened.close()


def picture(format_: PixelFormat, width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Smooth shapes and hard noise, so that both a wrong place and a wrong weight show."""
    rng = np.random.default_rng(seed)
    shape = RingSpec(width, height, format_).shape
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    wave = 100 + 80 * np.sin(columns / 17 + seed) * np.cos(rows / 11)
    noisy = wave[..., None] + rng.normal(0, 30, (*shape[:2], 3 if len(shape) == 3 else 1))
    return np.clip(noisy, 0, 255).astype(np.uint8).reshape(shape)


def on_gpu(
    gpu: Gpu, target: Target, pictures: list[tuple[NDArray[np.uint8], PixelFormat, Letterbox]]
) -> NDArray[np.uint8]:
    scaler = Scaler(gpu, target, 1, len(pictures))
    for index, (pixels, format_, box) in enumerate(pictures):
        scaler.put(0, index, pixels, format_.nv12_kind, box)
    assert scaler.run(0)
    host, address = gpu.pinned((len(pictures), target.frame_bytes), "uint8")
    gpu.copy(address, scaler.inputs[0], host.nbytes)
    gpu.wait()
    assert not scaler.run(0)  # nothing was put since
    scaler.close()
    return host


def on_cpu(spec: InputSpec, pictures: list[tuple[NDArray[np.uint8], PixelFormat, Letterbox]]) -> NDArray[np.uint8]:
    buffer = np.zeros((len(pictures), spec.height, spec.width, 3), np.uint8)
    letterboxer = Letterboxer(spec, [buffer])
    for index, (pixels, format_, box) in enumerate(pictures):
        letterboxer.fill(box, pixels, format_, 0, index)
    return buffer


@pytest.mark.parametrize("format_", list(PixelFormat))
@pytest.mark.parametrize("model", [(320, 192), (640, 640), (224, 224), (221, 131)])
def test_the_kernel_gives_the_pixels_of_the_cpu(gpu: Gpu, format_: PixelFormat, model: tuple[int, int]) -> None:
    spec = InputSpec("images", *model)
    pictures = [(picture(format_, *size, n), format_, fit(*size, *model)) for n, size in enumerate(SIZES)]
    want = on_cpu(spec, pictures).astype(int)
    have = on_gpu(gpu, Target(*model, spec.pad), pictures).reshape(want.shape).astype(int)
    for size, difference in zip(SIZES, np.abs(have - want), strict=True):
        # OpenCV's vector code rounds an intermediate; NV12 then multiplies luma and chroma by up to 2
        print(format_.name, model, size, f"max {difference.max()}, mean {difference.mean():.4f}")
        assert difference.max() <= (1 if format_ is PixelFormat.BGR24 else 4)
        assert difference.mean() < 0.4


@pytest.mark.parametrize("kind", ["float16", "float32", "int8"])
def test_normalisation_layout_and_type(gpu: Gpu, kind: str) -> None:
    model, scale, bias = (320, 192), (0.02, 0.017, 0.018), (-2.1, -2.0, -1.8)
    if kind == "int8":
        scale, bias = (0.5, 0.25, 0.375), (-64.0, -50.0, -40.0)  # exact: no tie falls otherwise
    shown = picture(PixelFormat.BGR24, 1280, 720, 3)
    pictures = [(shown, PixelFormat.BGR24, fit(1280, 720, *model))] * 2
    plain = on_gpu(gpu, Target(*model, 114), pictures).reshape(2, 192, 320, 3)
    target = Target(*model, 114, kind, True, scale, bias)  # type: ignore[arg-type]
    have = on_gpu(gpu, target, pictures).view(kind).reshape(2, 3, 192, 320)
    rgb = plain[..., ::-1].transpose(0, 3, 1, 2).astype(np.float64)
    want = rgb * np.array(scale, np.float32)[:, None, None] + np.array(bias, np.float32)[:, None, None]
    if kind == "int8":
        want = np.clip(np.rint(want), -128, 127)
    np.testing.assert_allclose(have.astype(np.float32), want, rtol=2e-3 if kind == "float16" else 1e-6, atol=1e-6)


def test_a_ring_is_read_where_it_lies_and_let_go_with_its_mapping(gpu: Gpu) -> None:
    name, model = "edged-test-gpu-ring", (320, 192)
    unlink(name)
    create(name, RingSpec(1280, 720, PixelFormat.NV12))
    try:
        writer, reader = RingWriter(name), RingReader(name)
        shown = picture(PixelFormat.NV12, 1280, 720, 9)
        writer.begin()[:] = shown
        writer.commit(1, 1, 1, "arrival")
        frame = reader.latest()
        assert frame is not None
        address = gpu.reach(reader.pixels(frame.slot))
        print("a read-only shared mapping:", "reachable" if address is not None else "NOT reachable, pixels are copied")
        box = fit(1280, 720, *model)
        pictures = [(reader.pixels(frame.slot), PixelFormat.NV12, box)]
        have, want = (
            on_gpu(gpu, Target(*model, 114), pictures),
            on_gpu(gpu, Target(*model, 114), [(shown, PixelFormat.NV12, box)]),
        )
        np.testing.assert_array_equal(have, want)
        held = len(gpu._rings)
        del reader, pictures, frame
        gc.collect()
        assert len(gpu._rings) < held
    finally:
        unlink(name)


def test_memory_that_cannot_be_registered_is_copied_by_the_host(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_registers", False)
    anonymous = np.frombuffer(mmap.mmap(-1, 1280 * 720 * 3), np.uint8).reshape(720, 1280, 3)
    assert gpu.reach(anonymous) is None
    box = fit(1280, 720, 320, 192)
    have = on_gpu(gpu, Target(320, 192, 114), [(anonymous, PixelFormat.BGR24, box)]).reshape(192, 320, 3)
    assert have[6:186].max() == 0 and have[0, 0, 0] == 114


def test_graphs_events_and_failures(gpu: Gpu) -> None:
    host, address = gpu.pinned((64,), "uint8")
    memory = gpu.device(64)
    host[:] = 7
    begun, event = gpu.event(), gpu.event()
    graph = gpu.capture(lambda: gpu.copy(memory, address, 64))
    back, back_address = gpu.pinned((64,), "uint8")
    gpu.copy(back_address, memory, 64)
    gpu.wait()
    assert back.max() == 0  # captured, not run
    begun.record()
    graph.launch()
    gpu.copy(back_address, memory, 64)
    event.record()
    event.wait()
    assert back.min() == 7 and 0 < event.since_ms(begun) < 1000
    graph.close()
    begun.close()
    event.close()
    with pytest.raises(CudaError) as caught:
        gpu.device(1 << 46)
    assert caught.value.out_of_memory and "memory" in caught.value.message
    print(caught.value)
    with pytest.raises(ZeroDivisionError):
        gpu.capture(lambda: print(1 / 0))
    gpu.copy(memory, address, 64)  # the stream is whole again
    gpu.wait()
    with pytest.raises(CudaError, match=r"does not compile here: .*no storage class"):
        gpu.kernel("nonsense", "letterbox", ())
