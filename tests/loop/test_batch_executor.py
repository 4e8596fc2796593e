"""Frames through the engine: a second look is published once, says so, and costs what both runs cost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edged import clock
from edged.bus.schema import Result
from edged.client import Client
from edged.config import CameraConfig, Limits
from edged.errors import EdgedError
from edged.governor.messages import BatchDone, Observation
from tests.support.bus import served, wait_for
from tests.support.loop import Loop, built, running
from tests.support.models import center_model
from tests.support.plant import Plant

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}
GATE = CameraConfig(name="gate", source="test://5?width=128&height=64&fps=60")
YARD = CameraConfig(name="yard", source="test://6?width=64&height=128&fps=60")
PATIENT = Limits(deadline_ms=2000.0)


def plant() -> Plant:
    return Plant({"fine": 0.01, "fast": 0.002, "broken": 0.01}, {"fine": 1.0, "fast": 1.0, "broken": 1.0})


def results_of(house: Loop, frames: int) -> list[Result]:
    found: list[Result] = []
    with Client(house.publisher.endpoint, ["result"], timeout_s=10.0) as client:
        while len(found) < frames:
            message = client.receive(10.0)
            assert isinstance(message, Result)
            found.append(message)
    return found


@pytest.mark.parametrize("cameras", [[GATE], [GATE, YARD]], ids=["one camera", "batches of two shapes"])
def test_a_second_look_replaces_the_first_result(
    cameras: list[CameraConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = plant()
    told: list[BatchDone] = []
    with built(tmp_path, MODELS, PATIENT, provider=device, device_info=device.known) as house:
        house.governor.pin("fast", clock.mono_ns())

        def again(done: BatchDone, frame: int, age_ms: float, weight: float, now_ns: int) -> str:
            told.append(done)
            assert done.variant == "fast" and len(done.cameras) == len(done.confidences) >= 1 and age_ms > 0
            assert done.confidences[frame] == min(done.confidences)
            return "fine"

        monkeypatch.setattr(house.governor, "again", again)
        with served(house.publisher), running(house, cameras):
            results = results_of(house, 40)
        assert len({(r.camera, r.frame) for r in results}) == len(results), "each frame once"
        looked = [r for r in results if r.escalated]
        assert looked and all(r.variant == "fine" and r.batch == 1 for r in looked)
        assert all(r.variant == "fast" for r in results if not r.escalated)
        first, both = house.governor.energy_mj("fast", 1), looked[-1].energy_mj
        assert first is not None and both is not None and both > first
        for camera in cameras:
            status = house.cameras.status(camera.name, 0)
            assert status.captured == status.results + sum(status.drops.values())
            assert status.results == house.publisher.last_seq(f"result/{camera.name}")
    assert device.runs["fine"] == len(told), "each second look ran once"


def test_a_second_look_that_fails_leaves_the_first_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = plant()
    models = {"fast": center_model(-90.0), "broken": center_model(-100.0)}
    with built(tmp_path, models, PATIENT, provider=device, device_info=device.known) as house:
        house.governor.pin("fast", clock.mono_ns())
        engine = house.pool._engines["broken"]

        def fail(lane: int, batch: int) -> None:
            raise EdgedError("out of memory")

        monkeypatch.setattr(engine, "submit", fail)
        monkeypatch.setattr(house.governor, "again", lambda *_: "broken")
        with served(house.publisher), running(house, [GATE]):
            results = results_of(house, 10)
        assert {(r.variant, r.escalated) for r in results} == {("fast", False)}
        assert {v.name: v.refused for v in house.pool.variants}["broken"] == "out of memory", "left after three"
        assert house.publisher.last_seq("event") >= 2


def test_the_governor_hears_of_confidences_by_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[BatchDone] = []
    with built(tmp_path, MODELS, PATIENT) as house:
        observe = house.governor.observe

        def listen(said: Observation, now_ns: int) -> None:
            if isinstance(said, BatchDone):
                heard.append(said)
            observe(said, now_ns)

        monkeypatch.setattr(house.governor, "observe", listen)
        with running(house, [GATE, YARD]):
            wait_for(lambda: len(heard) > 20, 30)
    assert Counter(camera for done in heard for camera in done.cameras).keys() == {"gate", "yard"}
    assert all(0 < confidence <= 1 for done in heard for confidence in done.confidences)
    first = [next(done for done in heard if done.variant == variant) for variant in {done.variant for done in heard}]
    assert all(done.cold == any(done is one for one in first) for done in heard)
    assert all(done.service_ms > 0 and done.lead_ms >= 0 and done.contrast is None for done in heard)
