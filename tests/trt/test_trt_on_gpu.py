"""The adapter on a real GPU: the stand-in library puts its work on the real stream, and real graphs capture it. What it
computes is a pattern of bytes that depends on the plan alone. Run by tests/gpu/test_gpu_trt.py.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from edged.engines.cuda import CudaError, Gpu, device_of
from edged.engines.pool import Pool
from edged.engines.trt import TrtEngine, TrtRuntime
from edged.frames.frame import PixelFormat
from edged.vision.letterbox import Letterboxer, open_letterboxer
from tests.support.models import CLASSES, HEIGHT, WIDTH
from tests.trt.conftest import CORE, VERSION
from tests.trt.test_trt_adapter import PLAN, bundle

ADDS = {"a": 7, "b": 11}
PLANS = {
    name: PLAN.replace("add 7", f"add {add}").replace("memory 4096", "memory 33554432") for name, add in ADDS.items()
}


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    yield
    gc.collect()
    assert CORE.stand_in_faults().decode() == ""


def open_pool(directory: Path, plans: dict[str, str]) -> tuple[Pool, Gpu]:
    gpu = Gpu()
    print(VERSION, gpu.name, gpu.capability)
    built: dict[str, Any] = {"capability": ".".join(map(str, gpu.capability)), "device": device_of(gpu)}
    return Pool(bundle(directory, plans, built), TrtRuntime(gpu), 3), gpu


def pattern(add: int, dtype: str) -> float:
    return float(np.frombuffer(bytes([add] * np.dtype(dtype).itemsize), dtype)[0])


def check(pool: Pool, lane: int, batch: int, name: str) -> None:
    outputs = pool.collect(lane)
    assert outputs["scores"].shape == (batch, CLASSES, 4, 8)
    np.testing.assert_array_equal(outputs["scores"], np.float32(pattern(ADDS[name], "float32")))
    np.testing.assert_array_equal(outputs["boxes"], np.float16(pattern(ADDS[name], "float16")))


def test_every_lane_batch_and_variant_is_captured_and_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pool, _ = open_pool(tmp_path / "b", PLANS)
    with pool:
        assert not caplog.records and [variant.refused for variant in pool.variants] == [None, None]
        for engine in pool._engines.values():
            assert isinstance(engine, TrtEngine)
            assert len(engine._slots) == 6 and all(slot._graph is not None for slot in engine._slots.values())
        for name in ("a", "b", "a"):
            pool.select(name)
            for batch in (1, 2, 3):
                for lane in (0, 1):
                    assert pool.submit(lane, batch) == name
                for lane in (0, 1):
                    check(pool, lane, batch, name)


def test_ten_thousand_switches_take_no_memory_and_each_batch_is_its_variants(tmp_path: Path) -> None:
    pool, gpu = open_pool(tmp_path / "b", PLANS)
    with pool:
        free, taken_us = gpu.free_bytes(), []
        for index in range(10_000):
            name, lane, batch = "ab"[index % 2], index % 2, index % 3 + 1
            begun = time.perf_counter_ns()
            pool.select(name)
            pool.submit(lane, batch)
            taken_us.append((time.perf_counter_ns() - begun) / 1000)
            if index % 100 < 2:
                check(pool, lane, batch, name)
            else:
                pool.collect(lane)
        print(f"10,000 switches: {free - gpu.free_bytes()} bytes, select and submit {median(taken_us):.1f} us")
        assert free - gpu.free_bytes() <= 0


def test_pictures_reach_the_plan_s_input_through_the_kernel(tmp_path: Path) -> None:
    pool, _ = open_pool(tmp_path / "b", PLANS)
    with pool:
        spec = bundle(tmp_path / "c", PLANS).manifest.input
        letterboxer, want = open_letterboxer(spec, pool), np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
        cpu = Letterboxer(spec, [want])
        box = cpu.geometry(320, 240)
        shown = np.random.default_rng(0).integers(0, 256, (2, 240, 320, 3), np.uint8)
        for index, pixels in enumerate(shown):
            letterboxer.fill(box, pixels, PixelFormat.BGR24, 1, index)
            cpu.fill(box, pixels, PixelFormat.BGR24, 0, index)
        pool.submit(1, 2)
        check(pool, 1, 2, "a")
        for index in range(2):
            assert np.abs(pool.picture(1, index).astype(int) - want[index]).max() <= 1


def test_a_plan_that_finds_no_memory_costs_itself_alone(tmp_path: Path) -> None:
    pool, _ = open_pool(tmp_path / "b", PLANS | {"large": PLAN.replace("memory 4096", f"memory {1 << 46}")})
    with pool:
        refused = {variant.name: variant.refused for variant in pool.variants}
        print(refused)
        assert refused["a"] is None and refused["b"] is None and "out of memory" in str(refused["large"])
        pool.select("b")
        pool.submit(0, 3)
        check(pool, 0, 3, "b")


def test_results_stay_readable_after_the_pool_is_closed(tmp_path: Path) -> None:
    pool, _ = open_pool(tmp_path / "b", PLANS)
    pool.submit(0, 2)
    outputs = pool.collect(0)
    pool.close()
    del pool
    gc.collect()
    np.testing.assert_array_equal(outputs["scores"], np.float32(pattern(7, "float32")))


def test_what_cannot_be_captured_leaves_the_stream_whole(tmp_path: Path) -> None:
    pool, gpu = open_pool(tmp_path / "b", PLANS)
    with pool:
        with pytest.raises(CudaError):
            gpu.capture(gpu.wait)  # waiting is not allowed meanwhile, and spoils the capture
        pool.submit(0, 1)
        check(pool, 0, 1, "a")
        graph = gpu.capture(lambda: None)
        graph.launch()
        gpu.wait()
        graph.close()
