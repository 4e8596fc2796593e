"""What the page is told each second, from the daemon's messages; unknown stays null, and everything is bounded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from edged import clock
from edged.bus.remedies import BY_REASON, BY_STATE, remedy
from edged.bus.schema import CameraState, ClassScore
from edged.gateway.web.overview import EVENTS, HISTORY, MAX_AGES, STALE_NS, Overview
from tests.support import messages


def test_a_second_in_numbers() -> None:
    overview = Overview()
    for age_ms in (10.0, 20.0, 90.0):
        overview.take(msgspec.structs.replace(messages.result(), age_ms=age_ms), 0)
    update = overview.take(messages.state(), 3)
    assert update is not None and update.lost == 3
    assert (update.row.age_ms, update.row.worst_ms, update.row.deadline_ms) == (20.0, 90.0, 50.0)
    assert update.row.power_w is None and update.row.temperature_c == 41.0
    assert update.live["gate"].results == 3 and update.live["gate"].objects == {"gear": 8}
    assert update.why == ["the most accurate that fits (bound by the accuracy floor)"]
    again = overview.take(messages.state(), 3)
    assert again is not None and again.row.age_ms is None and again.live == {}, "no result in this second"
    assert len(json.loads(overview.history())) == 2
    assert json.loads(overview.encode(again))["row"]["power_w"] is None


def test_classes_are_named_the_best_first() -> None:
    overview = Overview()
    classes = [ClassScore(str(n), n, n / 10) for n in range(5)]
    overview.take(msgspec.structs.replace(messages.result(), detections=msgspec.UNSET, classes=classes), 0)
    update = overview.take(messages.state(), 0)
    assert update is not None and update.live["gate"].classes == [("4", 0.4), ("3", 0.3), ("2", 0.2)]


def test_everything_is_bounded_and_cameras_that_are_gone_are_forgotten() -> None:
    overview = Overview()
    for n in range(MAX_AGES + 5):
        overview.take(messages.result(f"c{n % 100}", objects=0), 0)
    for _ in range(EVENTS + 5):
        overview.take(messages.event(), 0)
        overview.take(messages.track(), 0)
    update = overview.take(messages.state(), 0)
    assert update is not None and update.live == {} and len(update.events) == len(update.objects) == EVENTS
    assert update.objects[0].text == "gate: gear 7 crossed door to the left"
    for _ in range(HISTORY):
        overview.take(messages.state(), 0)
    assert len(json.loads(overview.history())) == HISTORY


def test_a_state_is_current_while_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    overview = Overview()
    assert overview.current is None
    overview.take(messages.state(), 0)
    assert overview.current is not None
    later = clock.mono_ns() + STALE_NS
    monkeypatch.setattr(clock, "mono_ns", lambda: later)
    assert overview.current is None and overview.state is not None


@pytest.mark.parametrize("state", ["stalled", "backoff", "ended", "refused"])
def test_every_fault_has_a_remedy(state: CameraState) -> None:
    status = msgspec.structs.replace(messages.status(), state=state, reason="something new")
    assert remedy(status) == BY_STATE[state]
    refused = msgspec.structs.replace(status, reason="the camera refuses the user or the password")
    assert "credential set camera.gate" in (remedy(refused) or "")


def test_a_camera_without_a_fault_has_none() -> None:
    assert remedy(messages.status()) is None


def test_the_reasons_are_those_that_cameras_give() -> None:
    root = Path(__file__).parents[2]
    source = "".join(path.read_text() for path in (root / "edged/frames").rglob("*.py"))
    plain = re.sub(r'"\s*\n\s*f?"', "", source)
    for part, _ in BY_REASON:
        found = part in plain or part in ("with 404", "onnection refused")  # the server's number, the system's words
        assert found, f"no camera gives a reason with {part!r}"
