"""The `test` source: a rendered scene at its own pace. Frame `index` of a seed is always the same picture.

In: test://SEED?width=&height=&fps=&run_s=&pause_s=. Out: BGR24 frames, due at their rate. Runs in the
camera's child process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.frames.frame import PixelFormat
from edged.frames.sources.base import Grabbed, SourceInfo
from edged.synthetic.scene import Scene
from edged.uri import SourceUri

_MAX_LATE_NS = clock.NS_PER_S // 2


class SceneSource:
    """Grab n gives scene index `first_frame` + n - 1."""

    def __init__(self, uri: SourceUri, first_frame: int) -> None:
        options = uri.options
        width, height, fps = int(options.get("width", 1280)), int(options.get("height", 720)), options.get("fps", 30.0)
        self.info = SourceInfo(width, height, PixelFormat.BGR24, fps, "scene")
        run_s, pause_s = options.get("run_s", 6.0), options.get("pause_s", 0.0)
        self._scene = Scene(int(uri.target), width, height, fps, run_s, pause_s)
        self._index = first_frame - 1
        self._period_ns = round(clock.NS_PER_S / fps)
        self._due_ns = clock.mono_ns() - self._period_ns

    cost = None

    def grab(self) -> Grabbed:
        self._index += 1
        self._due_ns += self._period_ns
        now_ns = clock.mono_ns()
        if now_ns - self._due_ns > _MAX_LATE_NS:
            self._due_ns = now_ns  # this machine cannot draw that fast: slower, rather than ever later
        return Grabbed(self._due_ns)

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._scene.render(self._index, into)

    def close(self) -> None:
        """Nothing to close."""
