"""Live RTSP cameras for `peers`, in a process of their own: one clip in other phases, and when each frame was sent.

python -m scripts.benches.peer_cameras CLIP CAMERAS FPS SENT: CLIP is a pickle of access units, SENT becomes a file of
int64 [camera][frame of the clip], monotonic nanoseconds. On stdin: "stall N", "resume N"; its end ends the process.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
from pathlib import Path

import numpy as np

from tests.support.rtsp import RtspCamera


def main() -> None:
    clip_file, count, fps, sent_file = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    units = pickle.loads(Path(clip_file).read_bytes())  # written by this benchmark
    sent = np.memmap(sent_file, np.int64, "w+", shape=(count, len(units)))
    with contextlib.ExitStack() as stack:
        cameras = []
        for n in range(count):
            camera = RtspCamera(units, fps, first=n * len(units) // count // round(fps) * round(fps))
            camera.sent_ns = _Row(sent, n)
            cameras.append(stack.enter_context(camera))
        print(json.dumps([camera.url for camera in cameras]), flush=True)
        for line in sys.stdin:
            word, _, number = line.partition(" ")
            cameras[int(number)].faults.stalled = word == "stall"


class _Row(dict[int, int]):
    """What a camera writes its send times into: a row of the shared file."""

    def __init__(self, sent: np.memmap[tuple[int, int], np.dtype[np.int64]], row: int) -> None:
        super().__init__()
        self._sent, self._row = sent, row

    def __setitem__(self, frame: int, at_ns: int) -> None:
        self._sent[self._row, frame] = at_ns


if __name__ == "__main__":
    main()
