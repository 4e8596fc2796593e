"""One picture of a camera, opened as the daemon opens it: in a child process, with a deadline. On any thread."""

from __future__ import annotations

import os
import selectors
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.bus.client import bgr
from edged.clock import NS_PER_S
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.cameras import Cameras

WAIT_S: Final = 15.0
"""for the first picture: a camera with a keyframe every 10 s gives one within that"""
TURN_S: Final = 0.1


def still_of(camera: CameraConfig) -> NDArray[np.uint8]:
    """The first whole picture, BGR [height, width, 3]. EdgedError with the camera's own reason if there is none."""
    with selectors.DefaultSelector() as selector:
        cameras = Cameras(selector, f"still-{os.getpid()}", lambda name: None)
        try:
            cameras.configure([camera], clock.mono_ns())
            end_ns = clock.mono_ns() + int(WAIT_S * NS_PER_S)
            while clock.mono_ns() < end_ns:
                for key, _ in selector.select(TURN_S):
                    cameras.readable(key.data[1], clock.mono_ns())
                cameras.tick(clock.mono_ns())
                for frame in cameras.fresh():
                    pixels = cameras.pixels(frame).copy()
                    if cameras.intact(frame):
                        return bgr(pixels, frame.format)
                    cameras.taken(frame)
                status = cameras.status(camera.name, clock.mono_ns())
                if status.state in ("refused", "ended"):
                    break
            reason = status.reason or f"no picture within {WAIT_S:.0f} s"
            raise EdgedError(f"camera {camera.name} gives no picture: {reason}", "see what `edged check` says of it")
        finally:
            cameras.close()
