"""A 720p H.264 video of the rendered scene, as a camera would send it: 30 fps, no B frames, 4 Mbit/s."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from edged.synthetic.scene import Scene

FRAMES = 300


TICKS_PER_FRAME = 40


def write_clip(path: Path, frames: int = FRAMES, phase: float = 0.0, pause_s: float = 0.0) -> Path:
    """`phase` (0..1) of a period is added after the first frame: several cameras in one run then do not tick as one.
    With `pause_s` the belt runs for a second and then stands still for so long."""
    scene = Scene(seed=11, width=1280, height=720, fps=30.0, run_s=1.0, pause_s=pause_s)
    picture = np.empty((720, 1280, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1280, 720, "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 30 * TICKS_PER_FRAME)
        stream.options = {"preset": "veryfast", "bf": "0", "g": "30"}
        for index in range(frames):
            scene.render(index, picture)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts = index * TICKS_PER_FRAME + (round(phase * TICKS_PER_FRAME) if index else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
