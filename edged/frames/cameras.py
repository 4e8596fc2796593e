"""The parent side of every camera: children, sockets, rings, state machines and the counts of their frames.

In: the configured cameras, readable sockets, the time. Out: fresh frames by reference, their pixels in shared memory,
and what each camera is doing. Runs on the engine-loop thread and never blocks it; the pictures are decoded in one child
process per camera (capture.py).

How to use it, all from one thread::

    cameras = Cameras(selector, instance="main", report=changed.add)
    cameras.configure(config.camera, now)
    while running:
        for key, _ in selector.select(timeout until cameras.next_wake_ns()):
            if key.data[0] == "camera":
                cameras.readable(key.data[1], now)
        cameras.tick(now)
        for frame in cameras.fresh():
            ...                      # schedule it
        pixels = cameras.pixels(frame)   # copy what you need, then
        if not cameras.intact(frame):    # ... what was copied may be torn: count_drop(camera, "torn")
        cameras.taken(frame)             # exactly once for every frame from fresh(), whatever became of it
        cameras.count_result(camera)     # or count_drop(camera, cause): exactly one of them for every frame
"""

from __future__ import annotations

import math
import selectors
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.config import CameraConfig
from edged.credentials import credentials_directory
from edged.errors import EdgedError, UsageError, encodable
from edged.frames import camera_state as life
from edged.frames.camera_session import NEVER_NS, CameraSession, Hooks
from edged.frames.child import Child
from edged.frames.child_protocol import StartRequest
from edged.frames.forkserver import ForkServer
from edged.frames.frame import CaptureClock, DropCause, Frame
from edged.frames.ring import RingReader, StreamFigures
from edged.frames.ring_names import RingNames
from edged.paths import make_private, runtime_dir
from edged.uri import parse, redact

StateName = Literal["opening", "live", "stalled", "backoff", "ended", "refused"]

_STATES: Final[dict[type[life.State], StateName]] = {
    life.Opening: "opening",
    life.Live: "live",
    life.Stalled: "stalled",
    life.BackingOff: "backoff",
    life.Ended: "ended",
    life.Refused: "refused",
}
_CLOSE_MS: Final = 900
_MAX_DYING: Final = 2  # killed processes of one camera that have not ended: more would only pile up


@dataclass(frozen=True)
class CameraStatus:
    """What a camera is doing and why; `source` is redacted. Counts are since the camera was first configured.

    captured = results + sum(drops) + the frames that fresh() returned and that are not counted yet.
    """

    camera: str
    state: StateName
    reason: str
    since_s: float
    source: str
    width: int | None
    height: int | None
    clock: CaptureClock | None
    captured: int
    results: int
    drops: dict[str, int]
    reconnects: int
    last_frame_age_ms: float | None
    still_since_s: float | None
    """for so long nothing has moved, by the motion gate"""
    tiles: int
    """that a frame is looked at in, time permitting; 1 without"""
    stream: StreamFigures | None


def check_sources(cameras: Sequence[CameraConfig]) -> None:
    """UsageError, naming the camera, for a source that cannot be parsed."""
    for camera in cameras:
        try:
            parse(camera.source)
        except UsageError as error:
            raise UsageError(f"camera {camera.name}: {error.message}", error.hint) from None


class Cameras:
    """All cameras of the daemon. Every method is called from the engine-loop thread; none blocks, but `close`."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        instance: str,
        report: Callable[[str], None],
        locks: Path | None = None,
    ) -> None:
        """`instance` is this daemon's among those of this user; rings that dead daemons left behind are removed.
        EdgedError if a live one is the same instance. `report(camera)` is called, from within the other methods, when a
        camera changes state. `locks`: where the instance's lock lies (None: the runtime directory). Sockets are
        registered with the selector with `data=("camera", name)`."""
        self._selector = selector
        self._forkserver = ForkServer()
        self._sessions: dict[str, CameraSession] = {}
        self._dying: list[Child] = []
        credentials = credentials_directory()
        self._names = RingNames(instance, locks or make_private(runtime_dir()))
        self._forkserver.warm_up()
        self._hooks = Hooks(
            self._start, self._stop, report, self._names.name, str(credentials) if credentials else None
        )

    def configure(self, cameras: Sequence[CameraConfig], now_ns: int) -> None:
        """Make these the cameras: add, remove, restart those that changed in more than `fps` and `weight`. Counts
        survive a restart. Raises UsageError for a source that cannot be parsed, and then changes nothing."""
        check_sources(cameras)
        wanted = {config.name: config for config in cameras}
        for name in self._sessions.keys() - wanted.keys():
            self._sessions.pop(name).stop()
        for name, config in wanted.items():
            session = self._sessions.get(name)
            if session is None:
                self._sessions[name] = CameraSession(config, self._hooks, now_ns)
            elif session.config.same_stream(config):
                session.tune(config)
            else:
                session.restart(config, now_ns)
        self._sessions = {name: self._sessions[name] for name in wanted}

    def _start(self, name: str, request: StartRequest) -> Child:
        if sum(child.camera == name for child in self._dying) >= _MAX_DYING:
            raise EdgedError(
                "its capture processes cannot be ended: the driver hangs",
                "reconnect the camera, or restart the machine",
            )
        child = Child(name, self._forkserver.start(request))
        self._selector.register(child.link, selectors.EVENT_READ, ("camera", name))
        return child

    def _stop(self, child: Child) -> None:
        self._selector.unregister(child.link)
        child.kill()
        self._dying.append(child)

    def readable(self, camera: str, now_ns: int) -> None:
        """Its socket is readable. A name that is gone is ignored: it may have been removed in the same turn."""
        session = self._sessions.get(camera)
        if session is not None:
            session.readable(now_ns)

    def tick(self, now_ns: int) -> None:
        """Advance the state machines: spawn, kill, notice silence. Cheap; call it once a turn."""
        for session in self._sessions.values():
            if now_ns >= session.wake_ns:
                session.tick(now_ns)
        if self._dying:
            self._dying = [child for child in self._dying if not child.wait(0)]

    def next_wake_ns(self) -> int:
        """The time (mono_ns) at which `tick` must be called at the latest; far away when nothing is due by itself."""
        return min([session.wake_ns for session in self._sessions.values()], default=NEVER_NS)

    def fresh(self) -> list[Frame]:
        """The newest unseen frame of each camera that has one. Frames in between are counted `superseded`."""
        frames = (session.fresh() for session in self._sessions.values())
        return [frame for frame in frames if frame is not None]

    def pixels(self, frame: Frame) -> NDArray[np.uint8]:
        """A read-only view of the frame's pixels in shared memory: BGR24 (height, width, 3), NV12
        (height * 3 // 2, width). It may be overwritten while you read: check `intact` after you copied it.
        Raises EdgedError when the frame's ring is gone (its camera was removed or reopened meanwhile)."""
        ring = self._ring_of(frame)
        if ring is None:
            raise EdgedError(f"the ring of camera {frame.camera} that held frame {frame.frame} is gone")
        return ring.pixels(frame.slot)

    def intact(self, frame: Frame) -> bool:
        """Whether the pixels have been the frame's own up to now; False when its ring is gone."""
        ring = self._ring_of(frame)
        return ring is not None and ring.intact(frame.slot, frame.seq)

    def _ring_of(self, frame: Frame) -> RingReader | None:
        session = self._sessions.get(frame.camera)
        return None if session is None else session.ring_of(frame)

    def taken(self, frame: Frame) -> None:
        """The frame's pixels are no longer needed: an unpaced source (`pace=0`) may give its next frame. To be called
        once for every frame that `fresh` returned, also when it was dropped; as early as possible."""
        session = self._sessions.get(frame.camera)
        if session is not None:
            session.taken(frame)

    def count_result(self, camera: str) -> None:
        """A frame was published. Ignored for a camera that was removed meanwhile."""
        session = self._sessions.get(camera)
        if session is not None:
            session.counters.results += 1

    def count_drop(self, camera: str, cause: DropCause, n: int = 1) -> None:
        """Frames that `fresh` returned gave no result. Ignored for a camera that was removed meanwhile."""
        session = self._sessions.get(camera)
        if session is not None:
            session.counters.drops[cause] += n

    def status(self, camera: str, now_ns: int) -> CameraStatus:
        """Raises KeyError for a camera that is not configured."""
        session = self._sessions[camera]
        machine, counters, last = session.machine, session.counters, session.last
        still_ns = session.still_since_ns
        return CameraStatus(
            camera=camera,
            state=_STATES[type(machine.state)],
            reason=machine.reason,
            since_s=(now_ns - machine.state.since_ns) / clock.NS_PER_S,
            source=encodable(redact(session.config.source)),
            width=last.width if last else None,
            height=last.height if last else None,
            clock=last.clock if last else None,
            captured=counters.captured,
            results=counters.results,
            drops={cause: n for cause, n in counters.drops.items() if n},
            reconnects=machine.reconnects,
            last_frame_age_ms=(now_ns - last.mono_capture_ns) / clock.NS_PER_MS if last else None,
            still_since_s=None if still_ns is None else (now_ns - still_ns) / clock.NS_PER_S,
            tiles=math.prod(session.config.grid or (1,)),
            stream=session.stream_figures(),
        )

    def set_gate(self, open_cameras: Collection[str], on: bool) -> None:
        """The motion gate of every camera, off for `open_cameras` in any case."""
        for name, session in self._sessions.items():
            session.set_gate(on and name not in open_cameras)

    def trigger(self, camera: str) -> None:
        """Something outside saw motion: its gate opens for some seconds. KeyError for an unknown camera."""
        self._sessions[camera].trigger()

    def names(self) -> list[str]:
        """The configured cameras, in order."""
        return list(self._sessions)

    def ring_name(self, camera: str) -> str:
        """The name of its current ring in /dev/shm; "" while it has none."""
        ring = self._sessions[camera].ring
        return ring.name if ring is not None else ""

    def close(self) -> None:
        """Kill the children (within a second) and remove the rings. The counts can still be read."""
        for session in self._sessions.values():
            session.stop()
        until_ns = clock.mono_ns() + _CLOSE_MS * clock.NS_PER_MS
        for child in self._dying:
            child.wait((until_ns - clock.mono_ns()) // clock.NS_PER_MS)
        self._forkserver.close()
        self._names.release()
