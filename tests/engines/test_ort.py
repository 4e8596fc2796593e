from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from edged.engines.engine import HostMemory, ModelTensors, TensorSpec
from edged.engines.ort import OrtEngine, OrtRuntime, allocate, first_line, session_options
from edged.errors import EdgedError
from tests.support.heap import allocated_bytes, python_bytes
from tests.support.models import (
    CLASSES,
    HEIGHT,
    STRIDE,
    WIDTH,
    Tensors,
    center_model,
    lying_model,
    model_with_external_weights,
)

MAX_BATCH = 4
IMAGE = TensorSpec("image", "uint8", (HEIGHT, WIDTH, 3))
TENSORS = ModelTensors(
    IMAGE, (TensorSpec("scores", "float32", (CLASSES, 4, 8)), TensorSpec("boxes", "float32", (4, 4, 8)))
)


def runtime() -> OrtRuntime:
    return OrtRuntime(threads=1)


def host(max_batch: int = MAX_BATCH) -> HostMemory:
    return HostMemory(allocate, 1, max_batch, IMAGE)


def load(content: bytes, memory: HostMemory | None = None, tensors: ModelTensors = TENSORS) -> OrtEngine:
    return runtime().load(content, "m.onnx", tensors, memory or host())


def random_batch(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (MAX_BATCH, HEIGHT, WIDTH, 3), np.uint8)


def expected(content: bytes, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What a bare session says."""
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip(["scores", "boxes"], session.run(["scores", "boxes"], {"image": batch}), strict=True))


def check_every_batch(engine: OrtEngine, content: bytes) -> None:
    for seed, batch in enumerate((1, 4, 2, 3, 1)):
        pixels = random_batch(seed)
        engine.input_buffer(0)[:] = pixels
        engine.submit(0, batch)
        outputs = engine.collect(0)
        for name, want in expected(content, pixels[:batch]).items():
            assert outputs[name].shape == want.shape
            np.testing.assert_array_equal(outputs[name], want)


def test_every_batch_size_gives_what_a_bare_session_gives() -> None:
    content = center_model(3.0)
    engine = load(content)
    assert engine.inputs == (IMAGE,)
    assert engine.outputs == TENSORS.outputs
    assert (engine.lanes, engine.max_batch) == (1, MAX_BATCH) and engine.memory_bytes is not None
    check_every_batch(engine, content)
    engine.close()


def test_an_engine_at_rest_gives_back_what_a_large_batch_took() -> None:
    height, width = 512, 1024  # 6 MB a frame as float
    content = center_model(height=height, width=width)
    image = TensorSpec("image", "uint8", (height, width, 3))
    cells = (height // STRIDE, width // STRIDE)
    tensors = ModelTensors(
        image, (TensorSpec("scores", "float32", (CLASSES, *cells)), TensorSpec("boxes", "float32", (4, *cells)))
    )
    engine = load(content, HostMemory(allocate, 1, MAX_BATCH, image), tensors)
    pixels = np.random.default_rng(0).integers(0, 256, (MAX_BATCH, *image.shape), np.uint8)
    engine.input_buffer(0)[:] = pixels
    engine.submit(0, MAX_BATCH)
    engine.collect(0)
    before = allocated_bytes()
    engine.rest()
    assert before - allocated_bytes() > 12 << 20
    engine.submit(0, MAX_BATCH)
    np.testing.assert_array_equal(engine.collect(0)["scores"], expected(content, pixels)["scores"])
    engine.close()


def test_bound_memory_is_the_memory_itself() -> None:
    memory = host()
    assert ort.OrtValue.ortvalue_from_numpy(memory.input(0)[:2]).data_ptr() == memory.input(0).ctypes.data
    assert memory.input(0).ctypes.data % 64 == 0
    engine = load(center_model(), memory)
    assert engine.input_buffer(0) is memory.input(0)
    memory.input(0).fill(7)
    engine.submit(0, 2)
    scores = engine.collect(0)["scores"]
    whole = memory.output(0, TENSORS.outputs[0])
    assert scores.base is not None and np.shares_memory(scores, whole)
    np.testing.assert_allclose(whole[:2], 7.0)
    memory.input(0).fill(9)  # written without telling anybody: only shared memory carries it
    engine.submit(0, 3)
    np.testing.assert_allclose(whole[:3], 9.0)


def test_two_variants_share_input_and_output() -> None:
    memory = host()
    first, second = load(center_model(0.0), memory), load(center_model(100.0), memory)
    memory.input(0).fill(5)
    first.submit(0, 1)
    a = first.collect(0)["scores"]
    assert a[0, 0, 0, 0] == pytest.approx(5)
    second.submit(0, 1)
    b = second.collect(0)["scores"]
    assert np.shares_memory(a, b) and b[0, 0, 0, 0] == pytest.approx(105)


def test_thousands_of_runs_allocate_nothing() -> None:
    engine = load(center_model())

    def run(times: int) -> None:
        for index in range(times):
            engine.submit(0, index % MAX_BATCH + 1)
            engine.collect(0)

    run(500)
    held = allocated_bytes()
    kept, in_passing = python_bytes(lambda: run(500))
    frame_bytes = HEIGHT * WIDTH * 3
    assert kept < 1 << 10 and in_passing < frame_bytes
    assert allocated_bytes() - held < 256 << 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ONNX Runtime refuses it"),
        (b"not a model at all" * 10, "it is not an ONNX file"),
        (center_model()[:-200], "it is not an ONNX file, or cut short"),
        (
            center_model(tensors=Tensors(input_name="picture")),
            "its inputs are picture; the manifest's only input is image",
        ),
        (center_model(tensors=Tensors(input_type=TensorProto.FLOAT)), "input image is float32; expected uint8"),
        (center_model(width=128), r"input image is \[N, 32, 128, 3\]; expected \[N, 32, 64, 3\]"),
        (
            center_model(tensors=Tensors(scores_name="cls")),
            "it has no output scores, which the decoder reads; it has cls, boxes",
        ),
        (center_model(classes=5), r"output scores is \[N, 5, 4, 8\]; expected \[N, 3, 4, 8\]"),
        (center_model(tensors=Tensors(batch=2)), "the fixed batch 2; expected any batch up to 4"),
        (center_model(tensors=Tensors(batch=MAX_BATCH)), "the fixed batch 4; expected any batch up to 4"),
        (lying_model(), r"output scores comes out as \[4, 2, 2, 2\]; expected \[4, 3, 4, 8\]"),
    ],
)
def test_a_model_that_is_not_the_manifest_s_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(EdgedError, match=message) as caught:
        load(content)
    assert caught.value.message.startswith("m.onnx: ")
    assert caught.value.hint and "\n" not in caught.value.message


def test_weights_outside_of_the_verified_bytes_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    for directory in (tmp_path, tmp_path / "cwd"):
        (directory / "w.bin").write_bytes(bytes(4 * CLASSES * 3))
    monkeypatch.chdir(tmp_path / "cwd")
    for location in ("w.bin", "./w.bin", "../w.bin", "../../w.bin", str(tmp_path / "w.bin"), "../../zero"):
        with pytest.raises(EdgedError, match="weights lie in another file"):
            load(model_with_external_weights(location))


def test_a_fixed_batch_of_one_is_fine_if_no_more_is_asked() -> None:
    engine = load(center_model(tensors=Tensors(batch=1)), host(1))
    engine.submit(0, 1)
    assert engine.collect(0)["scores"].shape == (1, CLASSES, 4, 8)


def test_a_side_left_open_is_reported_by_the_engine() -> None:
    open_side = ModelTensors(IMAGE, (TensorSpec("boxes", "float32", (4, -1, 8)),))
    assert load(center_model(), tensors=open_side).outputs == (TensorSpec("boxes", "float32", (4, 4, 8)),)


def test_a_failure_at_run_time_is_reported_in_one_line() -> None:
    engine = load(center_model(spoil="gather"))
    engine.input_buffer(0).fill(255)
    with pytest.raises(EdgedError, match=r"ONNX Runtime: .*Gather") as caught:
        engine.submit(0, 1)
    assert "\n" not in caught.value.message
    with pytest.raises(EdgedError, match="submit first"):
        engine.collect(0)
    engine.input_buffer(0).fill(3)  # and the engine still works
    engine.submit(0, 1)
    assert engine.collect(0)["scores"][0, 0, 0, 0] == pytest.approx(3)


def test_nothing_is_printed_by_the_library(capfd: pytest.CaptureFixture[str]) -> None:
    for content in (b"garbage", center_model(spoil="gather")):
        with pytest.raises(EdgedError):
            engine = load(content)
            engine.input_buffer(0).fill(255)
            engine.submit(0, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : It cannot.\nMore of it.", "It cannot."),
        ("/src/arena.cc:360 void* Arena::Allocate(size_t, bool) Failed to allocate 8", "Failed to allocate 8"),
        ("/src/call.cc:154 T CudaCall(E) [with E = e] CUDA failure 2: no room ; GPU=0", "CUDA failure 2: no room"),
        ("", "RuntimeError"),
    ],
)
def test_the_library_s_messages_are_reported_without_its_source_places(text: str, reported: str) -> None:
    assert first_line(RuntimeError(text)) == reported


def test_sessions_do_not_spin_and_keep_to_their_threads() -> None:
    options = session_options(1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_the_runtime_tells_nobody_of_this_device(tmp_path: Path) -> None:
    """Left alone, ONNX Runtime keeps a number for the device below HOME and reports to its maker."""
    environment = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", "import edged.engines.ort"]
    subprocess.run(command, env={**environment, "HOME": str(tmp_path)}, timeout=60, check=True)
    assert not list(tmp_path.iterdir())
