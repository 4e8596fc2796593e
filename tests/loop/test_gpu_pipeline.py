"""The engine loop over an engine that reads its pictures late, as a GPU does: what is torn, what is lost, the sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.config import CameraConfig, Limits
from edged.engines.cuda import CudaError
from edged.engines.scaler import Scaler
from edged.errors import EdgedError
from edged.frames.cameras import Cameras, CameraStatus
from tests.support.bus import wait_for
from tests.support.host_gpu import HostGpuRuntime
from tests.support.loop import Loop, built, running
from tests.support.models import center_model

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}
CAMERAS = [CameraConfig(name=name, source=f"test://{name[-1]}?width=128&height=64&fps=60") for name in ("c1", "c2")]
PATIENT = Limits(deadline_ms=5000.0)


def status(house: Loop, camera: str) -> CameraStatus:
    return house.calls.call(lambda: house.cameras.status(camera, 0))


def adds_up(house: Loop) -> None:
    for camera in CAMERAS:
        found = house.cameras.status(camera.name, 0)
        assert found.captured == found.results + sum(found.drops.values()), found


def test_frames_of_several_cameras_go_over_both_lanes_and_add_up(tmp_path: Path) -> None:
    runtime = HostGpuRuntime()
    with built(tmp_path, MODELS, PATIENT, runtime=runtime) as house:
        assert house.pool.lanes == 2
        with running(house, CAMERAS):
            wait_for(lambda: all(status(house, camera.name).results >= 20 for camera in CAMERAS))
        adds_up(house)
    assert runtime.gpu.calls[-1] == "close" and not runtime.gpu.held


def test_a_frame_overwritten_while_the_gpu_read_it_is_never_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intact, torn = Cameras.intact, [True]
    monkeypatch.setattr(
        Cameras, "intact", lambda self, frame: not (torn[0] and frame.camera == "c1") and intact(self, frame)
    )
    with built(tmp_path, MODELS, PATIENT, runtime=HostGpuRuntime()) as house:
        with running(house, CAMERAS):
            wait_for(lambda: status(house, "c1").drops.get("torn", 0) >= 5 and status(house, "c2").results >= 5)
            assert status(house, "c1").results == 0 and house.publisher.last_seq("result/c1") == 0
            torn[0] = False
            wait_for(lambda: status(house, "c1").results >= 3)
        adds_up(house)


@pytest.mark.parametrize("stage", ["put", "run"])
def test_a_gpu_that_fails_costs_the_frames_of_that_batch_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    work, left = getattr(Scaler, stage), [0]

    def failing(self: Scaler, *arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise CudaError("CUDA: out of memory (2)", True)
        return work(self, *arguments)

    monkeypatch.setattr(Scaler, stage, failing)
    with built(tmp_path, MODELS, PATIENT, runtime=HostGpuRuntime()) as house:
        with running(house, CAMERAS):
            wait_for(lambda: status(house, "c1").results >= 3)
            house.calls.call(lambda: left.__setitem__(0, 2))
            wait_for(lambda: sum(status(house, c.name).drops.get("engine", 0) for c in CAMERAS) >= 2)
            before = status(house, "c1").results
            wait_for(lambda: status(house, "c1").results >= before + 3)
            assert all(variant.refused is None for variant in house.pool.variants)
            house.calls.call(lambda: left.__setitem__(0, 3))  # three in a row: the variant is at fault
            wait_for(lambda: any(variant.refused is not None for variant in house.pool.variants))
            before = status(house, "c1").results
            wait_for(lambda: status(house, "c1").results >= before + 3)
        adds_up(house)


def test_an_output_that_is_no_number_costs_only_the_frames_not_yet_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with built(tmp_path, MODELS, PATIENT, runtime=HostGpuRuntime()) as house:
        presenter = house.engine_loop._executor._result_publisher
        decode, calls = presenter.decode, [0]

        def sometimes(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] % 3 == 0:
                raise EdgedError("an output is no number")
            return decode(*arguments)

        monkeypatch.setattr(presenter, "decode", sometimes)
        with running(house, CAMERAS):
            wait_for(lambda: status(house, "c1").results >= 5 and status(house, "c2").drops.get("engine", 0) >= 2)
        adds_up(house)
