"""What the engine loop does with Cameras, and nothing else: turns, frames, statuses, with deadlines for the tests."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from edged import clock
from edged.config import CameraConfig
from edged.frames import ring as rings
from edged.frames.cameras import Cameras, CameraStatus
from edged.frames.frame import Frame
from tests.support.bus import PATIENCE


class EngineLoop:
    """Turns until a condition holds. Every frame is counted as a result at once. Use as a context manager."""

    def __init__(self, *configs: CameraConfig) -> None:
        self.selector = selectors.DefaultSelector()
        self.instance = f"t{uuid4().hex[:10]}"
        self.changes: list[tuple[float, str, str, str]] = []  # (s since start, camera, state, reason)
        self.frames: list[Frame] = []
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self.begin = time.monotonic()
        self._changed: list[str] = []
        self.cameras = Cameras(self.selector, self.instance, self._changed.append)
        if configs:
            self.configure(*configs)

    def configure(self, *configs: CameraConfig) -> None:
        self.cameras.configure(configs, clock.mono_ns())
        self._note()

    def __enter__(self) -> EngineLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.cameras.close()
        self.selector.close()

    def turn(self) -> None:
        now_ns = clock.mono_ns()
        for key, _ in self.selector.select(min(0.02, max(0.0, (self.cameras.next_wake_ns() - now_ns) / 1e9))):
            self.cameras.readable(key.data[1], clock.mono_ns())
            self._note()
        self.cameras.tick(clock.mono_ns())
        self._note()
        for frame in self.cameras.fresh():
            self.on_frame(frame)
            self.frames.append(frame)
            self.cameras.count_result(frame.camera)
            self.cameras.taken(frame)
        for name in self.cameras.names():
            status = self.status(name)
            assert status.captured == status.results + sum(status.drops.values())

    def _note(self) -> None:
        for name in self._changed:
            status = self.status(name)
            self.changes.append((time.monotonic() - self.begin, name, status.state, status.reason))
        self._changed.clear()

    def until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Turn until it holds; returns how long that took. Fails after `within_s` times PATIENCE."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < within_s * PATIENCE, f"not within {within_s} s; {self.changes}"
            self.turn()
        return time.monotonic() - begin

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def status(self, camera: str = "cam") -> CameraStatus:
        return self.cameras.status(camera, clock.mono_ns())

    def until_state(self, state: str, within_s: float, camera: str = "cam") -> float:
        return self.until(lambda: self.status(camera).state == state, within_s)

    def until_frames(self, more: int, within_s: float = 10) -> float:
        goal = len(self.frames) + more
        return self.until(lambda: len(self.frames) >= goal, within_s)


def child_pid(name: str = "cam") -> int:
    """The capture process of a camera; fails if there is not exactly one of ours."""
    me, pids = os.getpid(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text() == f"cam-{name}\n":
                server = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if int(Path(f"/proc/{server}/stat").read_text().rsplit(")", 1)[1].split()[1]) == me:
                    pids.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert len(pids) == 1, pids
    return pids[0]


def ring_files(loop: EngineLoop) -> list[str]:
    return sorted(path.name for path in rings.SHM.glob(f"edged-{loop.cameras._names.token}-*"))
