"""Frames through the engine: each is published once, and the governor is told what a batch took and what it waited."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest

from edged import clock
from edged.bus.schema import Result
from edged.client import Client
from edged.clock import NS_PER_MS
from edged.config import CameraConfig, Limits
from edged.engines.pool import Pool
from edged.errors import UsageError
from edged.governor.messages import BatchDone, Observation
from edged.loop.batch_executor import Batch
from edged.loop.build import Loop
from tests.support.bus import served, wait_for
from tests.support.fake_device import FakeDevice
from tests.support.host_gpu import HostGpuRuntime
from tests.support.loop import built, running
from tests.support.models import center_model

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}
GATE = CameraConfig(name="gate", source="test://5?width=128&height=64&fps=60")
YARD = CameraConfig(name="yard", source="test://6?width=64&height=128&fps=60")
PATIENT = Limits(deadline_ms=2000.0)


def results_of(loop: Loop, frames: int) -> list[Result]:
    found: list[Result] = []
    with Client(loop.publisher.endpoint, ["result"], timeout_s=10.0) as client:
        while len(found) < frames:
            message = client.receive(10.0)
            assert isinstance(message, Result)
            found.append(message)
    return found


@pytest.mark.parametrize("cameras", [[GATE], [GATE, YARD]], ids=["one camera", "batches of two shapes"])
def test_each_frame_gives_one_result_and_all_add_up(cameras: list[CameraConfig], tmp_path: Path) -> None:
    device = FakeDevice({"fine": 0.01, "fast": 0.002}, {"fine": 1.0, "fast": 1.0})
    with built(tmp_path, MODELS, PATIENT, provider=device, device_info=device.known) as loop:
        loop.governor.pin("fast", clock.mono_ns())
        with served(loop.publisher), running(loop, cameras):
            results = results_of(loop, 40)
        assert len({(r.camera, r.frame) for r in results}) == len(results), "each frame once"
        assert {r.variant for r in results} == {"fast"} and not any(r.escalated for r in results)
        assert all(r.energy_mj is not None and r.energy_mj > 0 for r in results)
        for camera in cameras:
            status = loop.cameras.status(camera.name, 0)
            assert status.captured == status.results + sum(status.drops.values())
            assert status.results == loop.publisher.last_seq(f"result/{camera.name}")
    assert device.runs["fast"] > 0


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_governor_gets_service_apart_from_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    reported: list[BatchDone] = []
    took_ms = 3.0
    monkeypatch.setattr(Pool, "took_ms", lambda self, lane: took_ms)
    around: dict[str, Any] = {} if lanes == 1 else {"runtime": HostGpuRuntime()}
    with built(tmp_path, MODELS, PATIENT, **around) as loop:
        observe = loop.governor.observe

        def listen(observation: Observation, now_ns: int) -> None:
            if isinstance(observation, BatchDone):
                reported.append(observation)
            observe(observation, now_ns)

        monkeypatch.setattr(loop.governor, "observe", listen)
        with running(loop, [GATE, YARD]):
            wait_for(lambda: len(reported) > 20, 30)
    assert all(took_ms < done.service_ms for done in reported)
    # what a small picture costs beside the engine, however long the engine itself really took
    assert min(done.service_ms for done in reported) < took_ms + 5.0
    assert all(done.wait_ms >= 0 and done.late == 0 for done in reported)


def test_the_engine_is_free_after_what_is_in_flight(tmp_path: Path) -> None:
    with built(tmp_path, MODELS, PATIENT) as loop:
        executor = loop.engine_loop._executor
        now_ns = clock.mono_ns()
        assert executor.free_ns(now_ns) == now_ns
        executor._took_ms = {("fine", 1): 4.0, ("fast", 1): 2.0}
        frames = [None]  # as many as there are places
        executor._in_flight = deque(
            [
                Batch(0, "fine", frames, now_ns, now_ns),  # type: ignore[arg-type]
                Batch(1, "fast", frames, now_ns, now_ns),  # type: ignore[arg-type]
            ]
        )
        assert executor.free_ns(now_ns + NS_PER_MS) == now_ns + 6 * NS_PER_MS
        executor._collected_ns = now_ns + NS_PER_MS  # the batch before was collected later than these were submitted
        assert executor.free_ns(now_ns + NS_PER_MS) == now_ns + 7 * NS_PER_MS
        assert executor.free_ns(now_ns + 9 * NS_PER_MS) == now_ns + 9 * NS_PER_MS
        executor._in_flight.clear()


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("size", ["width=128&height=64", "width=130&height=70"])
def test_a_frame_in_tiles_gives_one_result(tmp_path: Path, lanes: int, size: str) -> None:
    device = FakeDevice({"fine": 0.01, "fast": 0.002}, {"fine": 1.0, "fast": 1.0})
    around: dict[str, Any] = {} if lanes == 1 else {"runtime": HostGpuRuntime()}
    gate = CameraConfig(name="gate", source=f"test://5?{size}&fps=20", tiles="2x2")
    with built(tmp_path, MODELS, PATIENT, provider=device, device_info=device.known, **around) as loop:
        loop.governor.pin("fast", clock.mono_ns())
        with served(loop.publisher), running(loop, [gate, YARD]):
            results = [result for result in results_of(loop, 30) if result.camera == "gate"]
        status = loop.cameras.status("gate", 0)
        assert status.captured == status.results + sum(status.drops.values())
    in_tiles = [result for result in results if result.tiles == "2x2"]
    assert in_tiles and all(result.batch == 4 for result in in_tiles)
    assert len({result.frame for result in results}) == len(results), "each frame once"
    width, height = in_tiles[0].width, in_tiles[0].height
    for result in in_tiles:
        assert isinstance(result.detections, list)
        for seen in result.detections:
            x0, y0, x1, y1 = seen.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert all(isinstance(result.tiles, str) or result.batch < 4 for result in results)


def test_what_the_engines_cannot_look_at_in_tiles_is_refused(tmp_path: Path) -> None:
    gate = CameraConfig(name="gate", source="test://5", tiles="3x2")
    with built(tmp_path, MODELS, PATIENT) as loop, pytest.raises(UsageError, match=r'tiles = "3x2" makes batches of 6'):
        loop.engine_loop.configure([gate])
