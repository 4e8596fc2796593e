"""The other side of `bench pipeline`: one thread that decodes, letterboxes, infers, decodes boxes, and nothing else.

`python -m scripts.benches.bare KIND BUNDLE VARIANT CAMERAS FRAMES VIDEO FPS` prints CPU and wall ms per frame.
FPS 0 is as fast as it goes; else the loop sleeps until each frame is due, as a camera would make it.
KIND `opencv` is the loop most people write (cv2.VideoCapture, BGR); `tight` uses the cheapest means edged knows (PyAV,
scaling before colour conversion, bound buffers). The benchmark compares with the cheaper of the two.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edged.engines.bundle import load_bundle, select_file
from edged.frames.frame import PixelFormat
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import Letterboxer

WARM = 20


def opencv_frames(video: str) -> Iterator[tuple[NDArray[Any], PixelFormat]]:
    while True:
        capture = cv2.VideoCapture(video, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        image = np.empty((720, 1280, 3), np.uint8)
        while capture.read(image)[0]:
            yield image, PixelFormat.BGR24


def tight_frames(video: str) -> Iterator[tuple[NDArray[Any], PixelFormat]]:
    whole = np.empty((1080, 1280), np.uint8)
    while True:
        with av.open(video) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                y, u, v = (
                    np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in frame.planes
                )
                np.copyto(whole[:720], y)
                cv2.merge([u, v], dst=whole[720:].reshape(360, 640, 2))
                yield whole, PixelFormat.NV12


def main() -> None:
    kind, directory, variant, cameras, frames, video, fps = sys.argv[1:]
    cv2.setNumThreads(1)
    bundle = load_bundle(Path(directory))
    manifest = bundle.manifest
    spec = next(v for v in manifest.variants if v.name == variant)
    file = bundle.directory / select_file(spec, "onnxruntime", platform.machine()).path
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    image = np.empty((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    letterboxer = Letterboxer(manifest.input, [image])
    geometry = letterboxer.geometry(1280, 720)
    decode = make_decoder(manifest)
    open_frames: Callable[[str], Iterator[tuple[NDArray[Any], PixelFormat]]] = (
        opencv_frames if kind == "opencv" else tight_frames
    )
    sources = [open_frames(video) for _ in range(int(cameras))]
    period_s = 1 / (float(fps) * len(sources)) if float(fps) else 0.0
    due_s = time.monotonic()
    cpu = wall = 0
    for n in count():
        due_s += period_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        if n == WARM:
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        if n == WARM + int(frames):
            break
        pixels, layout = next(sources[n % len(sources)])
        letterboxer.fill(geometry, pixels, layout, 0, 0)
        outputs = dict(zip(names, session.run(names, {manifest.input.name: image}), strict=True))
        decode(outputs, 0, geometry)
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    print(json.dumps({"cpu_ms": cpu / int(frames) / 1e6, "wall_ms": wall / int(frames) / 1e6}))


if __name__ == "__main__":
    main()
