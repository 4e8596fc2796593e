"""Results in, JPEGs out with what was seen drawn on them, for the cameras that somebody looks at and no others.

`offer` runs on the gateway's thread and keeps a reference at most. Drawing and encoding happen on the thread
"pictures", one picture of a camera for all who look at it; the newest result wins. OpenCV is loaded when somebody looks
for the first time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.bus.client import Rings
from edged.bus.schema import Result
from edged.config import CameraConfig
from edged.worker import Worker

INTERVAL_NS: Final = clock.NS_PER_S // 10
"""Between two pictures of a camera, at least."""
UNSEEN_NS: Final = clock.NS_PER_S
"""After this time without a result a frame is shown that got none."""
WANTED_NS: Final = 3 * clock.NS_PER_S
"""Who looks asks again before that."""
MAX_CAMERAS: Final = 64
_WAIT_S: Final = 0.5
_STOP_S: Final = 2.0


@dataclass(frozen=True)
class Picture:
    """`result` is None for a frame that got none."""

    camera: str
    jpeg: bytes
    result: Result | None
    made_ns: int


@dataclass
class _Camera:
    """`shown`: slot and seq of the last picture. `trails`: where each track's bottom centre has been, see `drawing`."""

    result: Result
    wanted_ns: int = 0
    encoded_ns: int = 0
    shown: tuple[int, int] = (-1, -1)
    trails: dict[int, list[tuple[float, float]]] = field(default_factory=dict)


class Pictures:
    """Started with `start`, stopped with `stop`."""

    def __init__(self, cameras: Mapping[str, CameraConfig], ready: Callable[[Picture], None]) -> None:
        """`cameras`: whose zones and lines are drawn. `ready` gets each picture, on the thread "pictures"."""
        self._configured, self._ready = cameras, ready
        self._cameras: dict[str, _Camera] = {}
        self._changed = threading.Event()
        self._warm = False
        self._rings = Rings()
        self._worker = Worker("pictures", self._turn)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._changed.set()
        self._worker.stop(_STOP_S)

    def warm_up(self) -> None:
        """Somebody will look soon: load what that needs. Any thread."""
        self._warm = True
        self._changed.set()

    def keep(self, cameras: Collection[str]) -> None:
        """Forget the cameras that the daemon no longer has."""
        for name in self._cameras.keys() - cameras:
            del self._cameras[name]

    def offer(self, result: Result) -> None:
        """A camera's newest result."""
        camera = self._cameras.get(result.camera)
        if camera is None:
            if len(self._cameras) < MAX_CAMERAS:
                self._cameras[result.camera] = _Camera(result)
            return
        camera.result = result
        if camera.wanted_ns > clock.mono_ns():
            self._changed.set()

    def want(self, name: str) -> bool:
        """Somebody looks at this camera, for the next seconds. False: nothing is known of it. Any thread."""
        camera = self._cameras.get(name)
        if camera is None:
            return False
        now_ns = clock.mono_ns()
        first = camera.wanted_ns < now_ns
        camera.wanted_ns = now_ns + WANTED_NS
        if first:
            camera.encoded_ns, camera.shown, camera.trails = 0, (-1, -1), {}
            self._changed.set()
        return True

    def _turn(self) -> None:
        self._changed.clear()
        if self._warm:
            import edged.gateway.web.drawing  # noqa: F401

            self._warm = False
        now_ns = clock.mono_ns()
        wanted = [camera for camera in list(self._cameras.values()) if camera.wanted_ns > now_ns]
        due = [camera for camera in wanted if _due_ns(camera) <= now_ns]
        if due:
            self._encode(min(due, key=lambda camera: camera.encoded_ns), now_ns)
            return
        if not wanted:
            self._rings.clear()  # a ring that is mapped keeps its memory, long after the daemon removed it
        wait_s = min([_WAIT_S, *((_due_ns(camera) - now_ns) / clock.NS_PER_S for camera in wanted)])
        self._changed.wait(wait_s)

    def _encode(self, camera: _Camera, now_ns: int) -> None:
        from edged.gateway.web.drawing import jpeg_of  # OpenCV: forty megabytes that nobody needs who does not look

        camera.encoded_ns = now_ns
        latest = camera.result
        result: Result | None = latest
        pixels: NDArray[np.uint8] | None = None
        where = latest.ring.slot, latest.ring.seq
        if where != camera.shown:
            pixels = self._rings.frame(latest)
        if pixels is None:  # overwritten, or shown already: the newest frame, if it is another one
            newest = self._rings.newest(latest)
            if newest is None or (newest[0].slot, newest[0].seq) == camera.shown:
                return
            frame, pixels = newest
            where = frame.slot, frame.seq
            result = None
        camera.shown = where
        jpeg = jpeg_of(pixels, result, self._configured.get(latest.camera), camera.trails)
        self._ready(Picture(latest.camera, jpeg, result, clock.mono_ns()))


def _due_ns(camera: _Camera) -> int:
    fresh = (camera.result.ring.slot, camera.result.ring.seq) != camera.shown
    return camera.encoded_ns + (INTERVAL_NS if fresh else UNSEEN_NS)
