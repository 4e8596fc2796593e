"""USB and other V4L2 cameras through OpenCV. In: v4l2:///dev/videoN?width=&height=&fps=. Out: BGR24 frames with the
kernel's own time stamp of the buffer. Runs in the camera's child process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.sources.base import Grabbed, SourceInfo
from edged.uri import SourceUri

_MAX_AGE_NS: Final = 10 * clock.NS_PER_S
_LOG_ERRORS: Final = 2  # OpenCV's LOG_LEVEL_ERROR: its warnings would come again with each attempt, beside our reason
_NAMES: Final = "ls -l /dev/v4l/by-id names the cameras there are"

# OpenCV 5 has moved it.
(getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(_LOG_ERRORS)


class V4l2Source:
    """The driver gives the nearest size and rate it has; `info` says which."""

    cost = None

    def __init__(self, uri: SourceUri) -> None:
        self._device = uri.target
        self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise _refusal(self._device)
        self._ask(uri.options)
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        codec = (
            int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=False).decode("ascii", "replace")
        )
        self.info = SourceInfo(width, height, PixelFormat.BGR24, fps if 0 < fps <= 1000 else None, codec)

    def _ask(self, options: Mapping[str, float]) -> None:
        # The rate last: with every later setting OpenCV asks for it again, and then for 25 where it was given 2/25 s.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        if "width" in options or "height" in options:  # one without the other has no effect
            for key, wanted in (("width", cv2.CAP_PROP_FRAME_WIDTH), ("height", cv2.CAP_PROP_FRAME_HEIGHT)):
                self._capture.set(wanted, options.get(key, self._capture.get(wanted)))
        if "fps" in options:
            self._capture.set(cv2.CAP_PROP_FPS, max(1.0, options["fps"]))  # it drops the fraction, and 0 means any

    def grab(self) -> Grabbed:
        if not self._capture.grab():
            raise EdgedError(f"{self._device} has stopped giving frames")
        now_ns = clock.mono_ns()
        # On CLOCK_MONOTONIC, in most drivers.
        buffer_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * clock.NS_PER_MS)
        return Grabbed(buffer_ns if now_ns - _MAX_AGE_NS < buffer_ns <= now_ns else now_ns)

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        ok, picture = self._capture.retrieve(into)
        if not ok or picture.shape != into.shape:
            raise EdgedError(f"{self._device} gave a frame that cannot be read as {self.info.width}x{self.info.height}")
        if picture is not into:  # OpenCV took memory of its own
            np.copyto(into, picture)

    def close(self) -> None:
        self._capture.release()


def _refusal(device: str) -> EdgedError:
    """Why OpenCV, which does not say, could not open it."""
    try:
        if not stat.S_ISCHR(os.stat(device).st_mode):
            return EdgedError(f"cannot open {device}: it is no camera", _NAMES)
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError:
        return EdgedError(f"cannot open {device}: this user may not", "add the user to the group video")
    except OSError as error:
        return EdgedError(f"cannot open {device}: {error.strerror}", _NAMES)
    return EdgedError(
        f"cannot open {device}: it is in use by another program or gives no pictures",
        "a USB camera often has two devices, of which the second gives only data about the pictures",
    )
