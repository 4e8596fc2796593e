"""The motion gate: what it costs beside decoding, and what it sees of a belt that runs and stops under bad conditions.

Cost: H.264 clips of the belt, one running and one standing still, each picture decoded and then judged. Sight: the
rendered belt with noise, rain and steps of light; recall of its starts within 0.3 s, and how far the share of frames
left out is from the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edged.frames.motion_gate import MotionGate, Verdict
from edged.regions import CameraMotion
from edged.synthetic.scene import Scene
from scripts.benches.clip import write_clip
from scripts.benches.report import Figure, Report

Image = NDArray[np.uint8]

COST: Final = 0.06
RECALL: Final = 0.99
STILL_ERROR: Final = 0.05
FPS: Final = 15.0
RUN_S, PAUSE_S = 6.0, 8.0
SIZE: Final = (1280, 720)
WITHIN_S: Final = 0.3


def measure(quick: bool = False) -> Report:
    cv2.setNumThreads(1)
    report = Report("motion")
    rounds = 3 if quick else 7
    for name, pause_s in (("while it runs", 0.0), ("while it stands still", 1000.0)):
        with TemporaryDirectory() as directory:
            clip = Path(directory) / "clip.mp4"
            write_clip(clip, pause_s=pause_s)
            costs = [cost(clip) for _ in range(rounds)]
        shares = [gate / decoding for decoding, gate in costs]
        report.figures.append(
            Figure(f"gate's CPU beside decoding, {name}", median(shares), "x", COST, spread=(min(shares), max(shares)))
        )
        report.notes |= {f"decoding {name}, ms": round(median(decoding for decoding, _ in costs), 3)}
    starts = seen = 0
    errors: dict[str, float] = {}
    for name, change in CONDITIONS.items():
        for seed in range(1 if quick else 3):
            found = look(change, 40 + seed, 45.0 if quick else 90.0)
            starts, seen = starts + found[0], seen + found[1]
            errors[name] = max(errors.get(name, 0.0), abs(found[2]))
    report.figures.append(Figure(f"starts seen within {WITHIN_S:g} s", seen / starts, "", RECALL, "at least"))
    report.figures.append(Figure("still share off the truth, worst", max(errors.values()), "", STILL_ERROR))
    report.notes |= {"starts": starts}
    report.notes |= {f"still share off, {name}": round(error, 3) for name, error in errors.items()}
    return report


def cost(clip: Path) -> tuple[float, float]:
    """CPU milliseconds a frame of decoding, and of the gate; as of a camera with FPS."""
    gate = enabled_gate()
    decoding = judging = frames = 0
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        pictures = container.decode(stream)
        while True:
            begun = time.thread_time_ns()
            picture = next(pictures, None)
            decoded = time.thread_time_ns()
            if picture is None:
                break
            plane = picture.planes[0]
            luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
            ready = time.thread_time_ns()
            gate.judge(luma, frames / FPS)
            judging += time.thread_time_ns() - ready
            decoding += decoded - begun
            frames += 1
    return decoding / frames / 1e6, judging / frames / 1e6


def look(change: Callable[[Image, int], Image], seed: int, seconds: float) -> tuple[int, int, float]:
    """(starts of the belt, those seen in time, still share less the true one)."""
    gate = enabled_gate()
    truth, seen = [], []
    for index, (moves, luma) in enumerate(belt(seed, seconds)):
        truth.append(moves)
        seen.append(gate.judge(change(luma, index), index / FPS) is Verdict.MOTION)
    starts = [i for i in range(1, len(truth)) if truth[i] and not truth[i - 1]]
    # the first frame of a run has not moved yet
    in_time = sum(any(seen[i : i + 2 + int(WITHIN_S * FPS)]) for i in starts)
    return len(starts), in_time, float(np.mean(truth) - np.mean(seen))


def enabled_gate() -> MotionGate:
    gate = MotionGate(CameraMotion())
    gate.enabled = True
    return gate


def belt(seed: int, seconds: float) -> Iterator[tuple[bool, Image]]:
    scene = Scene(seed, *SIZE, FPS, RUN_S, PAUSE_S)
    picture = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    for index in range(int(seconds * FPS)):
        scene.render(index, picture)
        yield scene.moves(index), picture[:, :, 1]


def plain(luma: Image, index: int) -> Image:
    return luma


def noisy(luma: Image, index: int) -> Image:
    noise = np.random.default_rng(index).normal(0, 6, luma.shape).astype(np.float32)
    made: Image = np.clip(luma + noise, 0, 255).astype(np.uint8)
    return made


def rainy(luma: Image, index: int) -> Image:
    chance, wet = np.random.default_rng(index), np.array(luma)
    for x, y in zip(chance.integers(0, SIZE[0] - 5, 40), chance.integers(0, SIZE[1] - 30, 40), strict=True):
        cv2.line(wet, (int(x), int(y)), (int(x) + 3, int(y) + 25), 200, 1)
    return wet


def stepping(luma: Image, index: int) -> Image:
    gain = 0.7 if int(index / FPS / 7) % 2 else 1.0
    made: Image = np.clip(luma * gain + (0 if int(index / FPS / 11) % 2 else 12), 0, 255).astype(np.uint8)
    return made


CONDITIONS: Final = {"plain": plain, "noise": noisy, "rain": rainy, "steps of light": stepping}
