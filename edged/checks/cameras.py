"""Cameras, tried for `edged check` as the daemon would: a child process each, a frame within a deadline, the rate.

Configured cameras in, one sentence each out. On the thread that calls; a decoder that hangs is killed with its child.
"""

from __future__ import annotations

import os
import selectors
from dataclasses import dataclass
from typing import Final

from edged import clock
from edged.clock import NS_PER_S
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.cameras import Cameras, CameraStatus

FIRST_FRAME_S: Final = 12.0
"""More than the daemon gives a camera to open, so that its own reason is reported."""
MEASURE_S: Final = 2.2
"""Two of the seconds in which a camera's process counts what its stream costs."""
_LONGEST_WAIT_S: Final = 0.1


@dataclass(frozen=True)
class Tried:
    """`problem` None: it gave frames, and `text` says which."""

    name: str
    text: str
    fps: float | None = None
    problem: str | None = None
    hint: str = ""


@dataclass
class _Watched:
    """A camera under trial: when its first frame came, and how many have come by now."""

    begun_ns: int | None = None
    first: int = 0
    status: CameraStatus | None = None
    failed: bool = False
    done_ns: int | None = None


def try_cameras(configured: list[CameraConfig]) -> list[Tried]:
    """All at once; at most FIRST_FRAME_S + MEASURE_S."""
    with selectors.DefaultSelector() as selector:
        cameras = Cameras(selector, f"check-{os.getpid()}", lambda camera: None)
        try:
            now_ns = clock.mono_ns()
            unfit = _configure(cameras, configured, now_ns)
            watched = {name: _Watched() for name in cameras.names()}
            end_ns = now_ns + int((FIRST_FRAME_S + MEASURE_S) * NS_PER_S)
            while now_ns < end_ns and any(w.done_ns is None for w in watched.values()):
                _turn(selector, cameras, watched, now_ns)
                now_ns = clock.mono_ns()
            return [unfit.get(camera.name) or _verdict(watched[camera.name], camera) for camera in configured]
        finally:
            cameras.close()


def _configure(cameras: Cameras, configured: list[CameraConfig], now_ns: int) -> dict[str, Tried]:
    """Start those whose source can be understood; the others with the reason."""
    unfit = {}
    fit: list[CameraConfig] = []
    for camera in configured:
        try:
            cameras.configure([*fit, camera], now_ns)
            fit.append(camera)
        except EdgedError as error:
            unfit[camera.name] = Tried(camera.name, "", problem=error.message, hint=error.hint)
    return unfit


def _turn(selector: selectors.BaseSelector, cameras: Cameras, watched: dict[str, _Watched], now_ns: int) -> None:
    wait_s = min(_LONGEST_WAIT_S, max(0.0, (cameras.next_wake_ns() - now_ns) / NS_PER_S))
    for key, _ in selector.select(wait_s):
        cameras.readable(key.data[1], clock.mono_ns())
    now_ns = clock.mono_ns()
    cameras.tick(now_ns)
    for frame in cameras.fresh():
        cameras.taken(frame)
        cameras.count_result(frame.camera)
    for name, camera in watched.items():
        if camera.done_ns is not None:
            continue
        status = camera.status = cameras.status(name, now_ns)
        if camera.begun_ns is None and status.captured:
            camera.begun_ns, camera.first = now_ns, status.captured
        measured = camera.begun_ns is not None and now_ns - camera.begun_ns >= MEASURE_S * NS_PER_S
        camera.failed = status.state in ("backoff", "refused") or (status.state == "ended" and not status.captured)
        if measured or camera.failed or status.state == "ended":
            camera.done_ns = now_ns


def _verdict(camera: _Watched, config: CameraConfig) -> Tried:
    status = camera.status
    if status is None or camera.begun_ns is None or camera.failed:
        state = status.state if status else "opening"
        reason = f"no frame within {FIRST_FRAME_S:.0f} s"
        if status and state in ("backoff", "refused"):
            reason = status.reason
        elif status and status.reason != "opening":
            reason += f": {status.reason}"
        return Tried(config.name, "", problem=f"{status.source if status else 'source'}: {reason}")
    text = f"{status.source}: {status.width}x{status.height}"
    fps = None
    more = status.captured > camera.first  # else it is slower than can be measured here
    if more and camera.done_ns is not None and camera.done_ns > camera.begun_ns:
        fps = (status.captured - camera.first) * NS_PER_S / (camera.done_ns - camera.begun_ns)
        text += f", {fps:.1f} fps"
    source = {"camera": "the camera's own clock", "arrival": "arrival at this machine"}.get(
        status.clock or "", "unknown"
    )
    text += f", capture time by {source}"
    if status.stream is not None and (cost := status.stream.words()):
        text += f"; {cost}"
    return Tried(config.name, text, fps)
