"""What users would write instead of edged, for `peers`: the same cameras, model and ONNX Runtime options.

python peer_systems.py SYSTEM JSON: cv2-threads (a reader thread for each camera that keeps the newest frame), pyav (one
loop over the cameras in turn), gstreamer (appsink pipelines, scaled in them). JSON: urls, model, size, threshold, log.
Each result is appended to the log as int32 camera, int32 frame number, int32 boxes, int32 age in us as the system
itself says (0: it says none), float64 monotonic seconds.
Runs until it is ended. Imports nothing of edged: GStreamer's bindings are those of the system's Python.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RECORD = struct.Struct("<iiiid")


class Task:
    """Letterbox, inference, boxes, log: as everybody writes them."""

    def __init__(self, options: dict[str, Any]) -> None:
        import onnxruntime as ort  # edged's subscriber, which shares this module, has no use for it nor for OpenCV

        self.size, self.threshold = options["size"], options["threshold"]
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(options["model"], settings, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.log = Path(options["log"]).open("ab", buffering=0)  # noqa: SIM115 - open as long as the process

    def run(self, camera: int, picture: Any) -> None:
        """A BGR picture of any size."""
        number = number_of(picture)
        output = self.session.run(None, {self.input: self.blob(picture)})[0][0]
        self.log.write(RECORD.pack(camera, number, self.boxes(output), 0, time.monotonic()))

    def blob(self, picture: Any) -> Any:
        import cv2

        height, width = picture.shape[:2]
        scale = min(self.size / width, self.size / height)
        wide, high = round(width * scale), round(height * scale)
        canvas = np.full((self.size, self.size, 3), 114, np.uint8)
        top, left = (self.size - high) // 2, (self.size - wide) // 2
        fits = (width, height) == (wide, high)
        canvas[top : top + high, left : left + wide] = picture if fits else cv2.resize(picture, (wide, high))
        return np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255.0

    def boxes(self, output: Any) -> int:
        import cv2

        best = output[4:].max(0)
        keep = best > self.threshold
        if not keep.any():
            return 0
        corners = output[:4, keep].T
        offset = output[4:, keep].argmax(0)[:, None] * 4096.0  # boxes of other classes do not suppress each other
        places = np.concatenate([corners[:, :2] - corners[:, 2:] / 2 + offset, corners[:, 2:]], 1)
        return len(cv2.dnn.NMSBoxes(places.tolist(), best[keep].tolist(), self.threshold, 0.7)[:100])


def number_of(picture: Any) -> int:
    """The 12 bits in blocks along the top."""
    side, number = picture.shape[1] / 40, 0
    rows = slice(int(side * 0.3), int(side * 0.7) + 1)
    for bit in range(12):
        number = number << 1 | int(picture[rows, int((bit + 0.3) * side) : int((bit + 0.7) * side) + 1].mean() > 125)
    return number


def cv2_threads(task: Task, urls: list[str]) -> None:
    import cv2

    changed = threading.Condition()
    latest: list[Any] = [None] * len(urls)

    def read(n: int, url: str) -> None:
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
        while True:
            good, picture = capture.read()
            if not good:
                return
            with changed:
                latest[n] = picture
                changed.notify()

    for n, url in enumerate(urls):
        threading.Thread(target=read, args=(n, url), daemon=True).start()
    turn = 0
    while True:
        with changed:
            while all(picture is None for picture in latest):
                changed.wait()
            order = [(turn + k) % len(urls) for k in range(len(urls))]
            camera = next(n for n in order if latest[n] is not None)
            picture, latest[camera], turn = latest[camera], None, camera + 1
        task.run(camera, picture)


def pyav(task: Task, urls: list[str]) -> None:
    import av

    def frames(url: str) -> Iterator[Any]:
        container = av.open(url, options={"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"})
        container.streams.video[0].thread_count = 1
        yield from container.decode(video=0)

    readers = [frames(url) for url in urls]
    while True:
        for camera, reader in enumerate(readers):
            task.run(camera, next(reader).to_ndarray(format="bgr24"))


def gstreamer(task: Task, urls: list[str]) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    wide, high = task.size, task.size * 9 // 16
    sinks, pipelines = [], []
    for url in urls:
        pipeline = Gst.parse_launch(
            f"rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! avdec_h264 max-threads=1 "
            f"! videoconvertscale ! video/x-raw,format=BGR,width={wide},height={high} "
            "! appsink name=s max-buffers=1 drop=true sync=false"
        )
        pipeline.set_state(Gst.State.PLAYING)
        pipelines.append(pipeline)
        sinks.append(pipeline.get_by_name("s"))
    while True:
        idle = True
        for camera, sink in enumerate(sinks):
            sample = sink.emit("try-pull-sample", 0)
            if sample is None:
                continue
            idle = False
            buffer = sample.get_buffer()
            _, mapped = buffer.map(Gst.MapFlags.READ)
            picture = np.ndarray((high, wide, 3), np.uint8, mapped.data, strides=(-(-wide * 3 // 4) * 4, 3, 1)).copy()
            buffer.unmap(mapped)
            task.run(camera, picture)
        if idle:
            time.sleep(0.001)


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    {"cv2-threads": cv2_threads, "pyav": pyav, "gstreamer": gstreamer}[sys.argv[1]](Task(options), options["urls"])
