"""Batches of rendered camera frames through a bundle's engines, as the daemon runs them: the same letterbox (on a GPU
its scaler), the same pool with its CUDA graphs and plans, the same decoder. One thread.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edged import clock
from edged.engines.bundle import Bundle
from edged.engines.pool import Pool
from edged.frames.frame import PixelFormat
from edged.synthetic.scene import Scene
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import open_letterboxer

FRAMES: Final = 8
FRAME_WIDTH: Final = 1280
FRAME_HEIGHT: Final = 720
"""Of a usual camera, so that the letterbox costs what it costs in use."""


class Bench:
    def __init__(self, bundle: Bundle, pool: Pool) -> None:
        scene = Scene(seed=7, width=FRAME_WIDTH, height=FRAME_HEIGHT, fps=3)
        self._frames = np.empty((FRAMES, FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
        for index, frame in enumerate(self._frames):
            scene.render(index, frame)
        self._pool = pool
        self._letterboxer = open_letterboxer(bundle.manifest.input, pool)
        self._letterbox = self._letterboxer.geometry(FRAME_WIDTH, FRAME_HEIGHT)
        self._decode = make_decoder(bundle.manifest)

    def run(self, variant: str, batch: int, runs: int) -> list[float]:
        """Milliseconds of each of `runs` batches, from the frames to the decoded objects."""
        self._pool.select(variant)
        times_ms = []
        for number in range(runs):
            start_ns = clock.mono_ns()
            for index in range(batch):
                frame = self._frames[(number + index) % FRAMES]
                self._letterboxer.fill(self._letterbox, frame, PixelFormat.BGR24, 0, index)
            self._pool.submit(0, batch)
            outputs = self._pool.collect(0)
            for index in range(batch):
                self._decode(outputs, index, self._letterbox)
            times_ms.append((clock.mono_ns() - start_ns) / clock.NS_PER_MS)
        return times_ms
