"""Frames through the engine: a second look is published once, says so, and costs what both runs cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.bus.schema import Result
from edged.client import Client
from edged.config import CameraConfig, Limits
from edged.governor.messages import BatchDone, Observation
from tests.support.bus import wait_for
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


def test_the_governor_gets_service_and_wait_of_each_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observed: list[BatchDone] = []
    with built(tmp_path, MODELS, PATIENT) as house:
        observe = house.governor.observe

        def listen(observation: Observation, now_ns: int) -> None:
            if isinstance(observation, BatchDone):
                observed.append(observation)
            observe(observation, now_ns)

        monkeypatch.setattr(house.governor, "observe", listen)
        with running(house, [GATE, YARD]):
            wait_for(lambda: len(observed) > 20, 30)
    assert {done.variant for done in observed} <= set(MODELS)
    assert all(done.service_ms > 0 and done.wait_ms >= 0 and done.clock is None for done in observed)
    assert all(0 <= done.late <= done.batch for done in observed)
