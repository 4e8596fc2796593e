"""The engine loop with real parts: what is published, what is counted, and what is not let through."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from edged.bus.schema import Result
from edged.client import Client
from edged.config import CameraConfig, Limits
from edged.errors import UsageError
from edged.vision.letterbox import Letterboxer
from tests.support.bus import served, wait_for
from tests.support.loop import Loop, built, change_limits, running
from tests.support.models import center_model

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}
GATE = CameraConfig(name="gate", source="test://5?width=128&height=64&fps=60")
PATIENT = Limits(deadline_ms=5000.0)


def drops(house: Loop, camera: str = "gate") -> dict[str, int]:
    return house.calls.call(lambda: house.cameras.status(camera, 0)).drops


def results(house: Loop, camera: str = "gate") -> int:
    return house.calls.call(lambda: house.cameras.status(camera, 0)).results


@pytest.mark.parametrize(("names", "largest"), [((), 4), (("gate",), 1), (("gate", "door"), 2)])
def test_engines_are_made_ready_for_one_frame_of_each_camera(
    tmp_path: Path, names: tuple[str, ...], largest: int
) -> None:
    cameras = [CameraConfig(name=name, source=GATE.source) for name in names]
    with built(tmp_path, MODELS, cameras=cameras) as house:
        assert house.pool.max_batch == largest
        assert {len(variant.latency_ms) for variant in house.pool.variants} == {largest}


def test_a_frame_torn_while_it_was_read_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = Letterboxer.fill
    slow = [True]

    def fill_slowly(self: Letterboxer, *arguments: Any) -> None:
        fill(self, *arguments)
        if slow[0]:
            time.sleep(0.2)  # the ring has four slots: at 60 frames a second they are all new by then

    monkeypatch.setattr(Letterboxer, "fill", fill_slowly)
    with built(tmp_path, MODELS, PATIENT) as house, running(house, [GATE]):
        wait_for(lambda: drops(house).get("torn", 0) >= 3)
        assert results(house) == 0 and house.publisher.last_seq("result/gate") == 0
        slow[0] = False
        wait_for(lambda: results(house) >= 3)


def test_a_prediction_that_lets_nothing_through_is_tested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with built(tmp_path, MODELS) as house:
        monkeypatch.setattr(house.governor, "predict_ms", lambda variant: (1e6,) * 4)  # of a machine that stood still
        with running(house, [GATE]):
            wait_for(lambda: results(house) >= 10)


def test_what_waits_when_the_daemon_stops_is_counted(tmp_path: Path) -> None:
    with built(tmp_path, MODELS) as house:
        with running(house, [GATE]):
            wait_for(lambda: results(house) >= 3)
        status = house.cameras.status("gate", 0)
        assert status.captured == status.results + sum(status.drops.values())
        assert house.reporter.state is not None and house.reporter.state.cameras[0].results == status.results


def test_a_wrong_configuration_changes_nothing(tmp_path: Path) -> None:
    with built(tmp_path, MODELS) as house, running(house, [GATE]):
        bad_source = [CameraConfig(name="yard", source="gopher://x")]
        with pytest.raises(UsageError, match="gopher"):
            house.calls.call(lambda: house.engine_loop.configure(bad_source))
        with pytest.raises(UsageError, match="accuracy"):
            change_limits(house, min_accuracy=0.99, deadline_ms=9.0)
        assert house.limits.layers.in_force == Limits()
        assert house.calls.call(house.cameras.names) == ["gate"]
        before = results(house)
        wait_for(lambda: results(house) > before)


def test_results_say_what_ran_and_where_the_frame_lies(tmp_path: Path) -> None:
    with (
        built(tmp_path, MODELS, PATIENT) as house,
        served(house.publisher),
        running(house, [GATE]),
        Client(house.publisher.endpoint, ["result"], timeout_s=5.0) as client,
    ):
        message = client.receive(5.0)
        assert isinstance(message, Result)
        assert message.variant == "fine" and message.batch == 1 and message.deadline_ms == 5000.0
        assert message.energy_mj is None
        assert isinstance(message.detections, list)
        wait_for(lambda: isinstance(m := client.receive(5.0), Result) and client.frame(m) is not None)
