"""What a broker gets, as plain data: the node, each camera, the objects in sight. Pure; on the thread that uses it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from msgspec import UNSET

from edged.bus.schema import Result, State, Status

J_PER_KWH: Final = 3.6e6
MAX_CAMERAS: Final = 64


def node_state(state: State, before: State | None) -> dict[str, Any]:
    """Unknown is null. Rates are those since the state `before`."""
    decision, sample = state.decision, state.telemetry
    results, results_before = (None if one is None else sum(c.results for c in one.cameras) for one in (state, before))
    return {
        "version": state.version,
        "profile": state.profile,
        "variant": decision and decision.variant,
        "pinned": decision and decision.pinned,
        "results_per_s": _rate(results, results_before, state, before),
        "power_w": sample and _rounded(sample.power_w, 3),
        "power_estimated": sample and sample.power_estimated,
        "energy_kwh": sample and _rounded(sample.energy_j, 6, 1 / J_PER_KWH),
        "temperature_c": sample and _rounded(sample.temperature_c, 2),
        "throttled": sample and sample.throttled,
        "problems": problems(state),
    }


def camera_state(camera: Status, state: State, before: State | None) -> dict[str, Any]:
    """As `node_state`, of one camera."""
    earlier = next((one.results for one in before.cameras if one.camera == camera.camera), None) if before else None
    return {
        "state": camera.state,
        "reason": camera.reason,
        "results_per_s": _rate(camera.results, earlier, state, before),
        "captured": camera.captured,
        "results": camera.results,
        "drops": camera.drops,
        "reconnects": camera.reconnects,
    }


def problems(state: State) -> list[str]:
    """What a person should look at, a sentence each; none in good order."""
    found = [] if state.healthy else ["a stage of the daemon makes no progress"]
    found += [f"camera {one.camera}: {one.state}, {one.reason}" for one in state.cameras if one.state != "live"]
    if state.telemetry is not None and state.telemetry.throttled:
        found.append("the device throttles")
    if state.decision is not None:
        found += [f"the limit on {name.replace('_', ' ')} has given way" for name in state.decision.yielded]
        found += state.decision.unheld
    return found


def matters(state: State) -> tuple[object, ...]:
    """What is to be sent at once when it changes."""
    cameras = tuple((one.camera, one.state) for one in state.cameras)
    return state.profile, state.healthy, state.decision and state.decision.pinned, tuple(problems(state)), cameras


def _rounded(value: float | None, digits: int, factor: float = 1.0) -> float | None:
    return None if value is None else round(value * factor, digits)


def _rate(now: int | None, then: int | None, state: State, before: State | None) -> float | None:
    seconds = state.uptime_s - before.uptime_s if before is not None else 0.0
    if now is None or then is None or seconds <= 0 or now < then:
        return None
    return round((now - then) / seconds, 2)


class Objects:
    """How many objects of each label a camera has in sight: the most in any result since the last report, so that one
    that is missed in a frame does not come and go."""

    def __init__(self) -> None:
        self._seen: dict[str, Counter[str]] = {}
        self._reported: dict[str, dict[str, int]] = {}

    def add(self, result: Result) -> None:
        seen = self._seen.get(result.camera)
        if seen is None:
            if len(self._seen) >= MAX_CAMERAS:
                return
            seen = self._seen[result.camera] = Counter()
        if result.detections is not UNSET:
            seen |= Counter(found.label for found in result.detections)
        elif result.classes is not UNSET and result.classes:
            seen |= Counter([result.classes[0].label])

    def report(self) -> dict[str, dict[str, int]]:
        """Of the cameras whose counts differ from the last report, or all after `forget`. A label that is gone is 0."""
        changed = {}
        for camera, seen in self._seen.items():
            before = self._reported.get(camera)
            counts = {**dict.fromkeys(before or (), 0), **seen}
            if counts != before:
                self._reported[camera] = changed[camera] = counts
            self._seen[camera] = Counter()
        return changed

    def forget(self) -> None:
        """What was reported is unknown to the broker."""
        self._reported.clear()

    def drop(self, camera: str) -> None:
        self._seen.pop(camera, None)
        self._reported.pop(camera, None)
