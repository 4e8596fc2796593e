"""USB and other V4L2 cameras through OpenCV. In: v4l2:///dev/videoN?width=&height=&fps=. Out: BGR24 frames with the
kernel's own time stamp of the buffer. Runs in the camera's child process.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.source import Grabbed, SourceInfo
from edged.frames.uri import SourceUri

_MAX_AGE_NS = 10 * clock.NS_PER_S


class V4l2Source:
    """The driver gives the nearest size and rate it has; `info` says which."""

    def __init__(self, uri: SourceUri) -> None:
        self._device = uri.target
        self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise EdgedError(f"cannot open {self._device}: it is missing, in use, or not readable by this user")
        for key, wanted in (("width", cv2.CAP_PROP_FRAME_WIDTH), ("height", cv2.CAP_PROP_FRAME_HEIGHT)):
            if key in uri.options:
                self._capture.set(wanted, uri.options[key])
        if "fps" in uri.options:
            self._capture.set(cv2.CAP_PROP_FPS, uri.options["fps"])
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        codec = (
            int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=False).decode("ascii", "replace")
        )
        self.info = SourceInfo(width, height, PixelFormat.BGR24, fps if 0 < fps <= 1000 else None, codec)

    def grab(self) -> Grabbed:
        if not self._capture.grab():
            raise EdgedError(f"{self._device} gives no more frames")
        now_ns = clock.mono_ns()
        buffer_ns = round(
            self._capture.get(cv2.CAP_PROP_POS_MSEC) * clock.NS_PER_MS
        )  # CLOCK_MONOTONIC, in most drivers
        return Grabbed(buffer_ns if now_ns - _MAX_AGE_NS < buffer_ns <= now_ns else now_ns)

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        ok, picture = self._capture.retrieve(into)
        if not ok or picture.shape != into.shape:
            raise EdgedError(f"{self._device} gave a frame that cannot be read as {self.info.width}x{self.info.height}")
        if picture is not into:  # OpenCV took memory of its own
            np.copyto(into, picture)

    def close(self) -> None:
        self._capture.release()
