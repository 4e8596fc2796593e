"""The whole loop with its guard: real cameras and engines, at a scale of seconds instead of minutes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged import clock
from edged.accuracy_guard import guard
from edged.bus.schema import Event, Result
from edged.client import Client
from edged.config import CameraConfig, Limits
from edged.governor.messages import Unvetoed, Vetoed
from tests.support.bus import PATIENCE, served, wait_for
from tests.support.loop import Loop, built, running
from tests.support.models import center_model

# Every cell of the test scene that is brighter than its bias is an object. "fine" is slower, and the reference.
FINE, FAST, BLIND = center_model(-100.0, turns=3000), center_model(-101.0), center_model(-1000.0)
LIMITS = Limits(deadline_ms=100.0)


@pytest.fixture(autouse=True)
def _scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of all frames are compared, and scores may come every 20 ms."""
    monkeypatch.setattr(guard, "CLOSE_SHARE", 0.5)
    monkeypatch.setattr(guard, "SHARE", 0.5)
    monkeypatch.setattr(guard, "MIN_SPACING_NS", 20_000_000)


@contextlib.contextmanager
def house(directory: Path, models: dict[str, bytes], *names: str) -> Iterator[Loop]:
    cameras = [CameraConfig(name=n, source=f"test://{5 + i}?width=128&height=64&fps=40") for i, n in enumerate(names)]
    with built(directory, models, LIMITS) as made, served(made.publisher), running(made, cameras):
        yield made


def listening(made: Loop, *topics: str) -> Client:
    return Client(made.publisher.endpoint, topics)


def pin(made: Loop, variant: str) -> None:
    made.calls.call(lambda: made.governor.pin(variant, clock.mono_ns()))


def report(made: Loop) -> Any:
    state = made.reporter.state
    return None if state is None else state.guard


def test_a_spoilt_variant_is_vetoed_within_seconds_and_gives_way(tmp_path: Path) -> None:
    with house(tmp_path, {"fine": FINE, "fast": BLIND}, "gate") as made, listening(made, "event", "result") as client:
        pin(made, "fast")
        begun, event = time.monotonic(), None
        after: list[str] = []
        while len(after) < 20:
            assert time.monotonic() - begun < 15 * PATIENCE, "no veto, or the vetoed variant runs on"
            message = client.receive(2.0 * PATIENCE)
            if isinstance(message, Event) and message.kind == "veto":
                event = message
            elif isinstance(message, Result) and event is not None:
                after.append(message.variant)
        assert event is not None and (event.camera, event.variant) == ("gate", "fast")
        assert event.text.startswith("fast is vetoed on gate: it agrees with fine by 0.0")
        assert set(after[2:]) == {"fine"}  # but for what was in flight
        assert made.governor.decision.variant == "fine" and not made.governor.decision.pinned
        # from now on the reference runs, and the vetoed variant beside it waits for evidence
        wait_for(lambda: report(made) is not None and report(made).agreement[0].vetoed, 5)
        seen = report(made).shadow_runs
        wait_for(lambda: report(made).shadow_runs > seen + 5, 10)
        assert report(made).agreement[0].vetoed


def test_a_healthy_one_goes_on_and_no_frame_is_late_for_the_guard(tmp_path: Path) -> None:
    with house(tmp_path, {"fine": FINE, "fast": FAST}, "gate") as made:
        pin(made, "fast")
        wait_for(lambda: report(made) is not None and report(made).shadow_runs >= 100, 30)
        (agreement,) = report(made).agreement
        assert not agreement.vetoed and agreement.low > agreement.gate and agreement.agreement > 0.9
        assert made.governor.decision.variant == "fast" and made.governor.decision.pinned
        status = made.calls.call(lambda: made.cameras.status("gate", clock.mono_ns()))
        lost = {cause: n for cause, n in status.drops.items() if cause in ("late", "overload", "engine")}
        assert sum(lost.values()) <= 0.02 * status.captured, lost  # the machine's own hiccups


def test_a_veto_of_one_camera_changes_that_camera_alone(tmp_path: Path) -> None:
    with house(tmp_path, {"fine": FINE, "fast": FAST}, "gate", "yard") as made, listening(made, "result") as client:
        pin(made, "fast")

        def ran(count: int) -> dict[str, set[str]]:
            seen: dict[str, set[str]] = {"gate": set(), "yard": set()}
            for _ in range(count):
                message = client.receive(10.0)
                assert isinstance(message, Result)
                seen[message.camera].add(message.variant)
            return seen

        def tell(output: Vetoed | Unvetoed) -> None:
            made.calls.call(lambda: made.governor.observe(output, clock.mono_ns()))

        wait_for(lambda: all(ran(10).values()), 20)
        tell(Vetoed("fast", "it is dark", "gate"))
        ran(20)
        wait_for(lambda: ran(60) == {"gate": {"fine"}, "yard": {"fast"}}, 20)
        tell(Unvetoed("fast", "the day breaks", "gate"))
        ran(20)
        wait_for(lambda: ran(60) == {"gate": {"fast"}, "yard": {"fast"}}, 20)
