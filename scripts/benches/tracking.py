"""The tracker beside those of the package `trackers`: the same detections, true identities from the rendered scene.

The demo model sees a rendered belt once; each setting takes every n-th frame of it, or leaves frames out at random.
`trackers` and its measures (IDF1, HOTA) run in an environment of their own, made on the first run (needs PyPI).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import edged
from edged import clock
from edged.clock import NS_PER_MS
from edged.engines.bundle import load_bundle, select_file
from edged.errors import UsageError
from edged.frames.frame import PixelFormat
from edged.synthetic.scene import Scene
from edged.tracking.tracker import Tracker
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import Letterboxer
from edged.vision.results import Detections
from scripts.benches.report import Figure, Report

PEER: Final = "trackers==2.6.1"
BUNDLE: Final = Path(edged.__file__).parent / "bundles" / "demo"
FPS: Final = 30.0
SETTINGS: Final = {"30 fps": 1, "10 fps": 3, "5 fps": 6}
DROPPED: Final = 0.5
"""share of the frames of 15 fps that a budget takes, at random"""
OBJECTS: Final = 30
WORST_DROP: Final = 3.0
MOST_MS: Final = 0.3

Seen = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=40.0, help="of each scene (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many scenes (default %(default)s)")


def measure(quick: bool = False, seconds: float = 40.0, seeds: int = 3) -> Report:
    if quick:
        seconds, seeds = 10.0, 1
    python = environment()
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        scene = Scene(900 + seed, fps=FPS)
        frames = int(seconds * FPS)
        seen = detect(scene, frames)
        for setting, kept in settings(frames, seed).items():
            for tracker, scores in compare(python, scene, seen, kept).items():
                for name, value in scores.items():
                    rows.setdefault(f"{setting}, {tracker}", {}).setdefault(name, []).append(value)
    return report(rows)


def report(rows: dict[str, dict[str, list[float]]]) -> Report:
    mean = {row: {name: float(np.mean(values)) for name, values in scores.items()} for row, scores in rows.items()}
    made = Report("tracking")
    settings = list(dict.fromkeys(row.split(",")[0] for row in mean))
    for name in ("IDF1", "HOTA"):
        for setting in settings:
            ours = mean[f"{setting}, edged"][name]
            best = max(scores[name] for row, scores in mean.items() if row.startswith(setting) and "edged" not in row)
            made.figures.append(
                Figure(f"{name} at {setting} above the best peer", ours - best, "points", 0.0, "at least")
            )
    lost = mean["30 fps, edged"]["IDF1"] - mean["5 fps, edged"]["IDF1"]
    made.figures.append(Figure("IDF1 lost from 30 to 5 fps", lost, "points", WORST_DROP))
    each_ms = update_ms()
    made.figures.append(
        Figure(f"update with {OBJECTS} objects", each_ms[1], "ms", MOST_MS, spread=(each_ms[0], each_ms[2]))
    )
    made.notes |= {row: " ".join(f"{k} {v:.1f}" for k, v in scores.items()) for row, scores in mean.items()}
    return made


def settings(frames: int, seed: int) -> dict[str, list[int]]:
    """Which frames each setting keeps."""
    chance = random.Random(seed)
    kept = {name: list(range(0, frames, step)) for name, step in SETTINGS.items()}
    kept["15 fps, half dropped".replace(",", " and")] = [i for i in range(0, frames, 2) if chance.random() > DROPPED]
    return kept


def detect(scene: Scene, frames: int) -> list[Seen]:
    """What the demo's INT8 variant sees in each frame."""
    bundle = load_bundle(BUNDLE)
    manifest = bundle.manifest
    spec = next(v for v in manifest.variants if v.name == "int8-sparse")
    file = bundle.directory / select_file(spec, "onnxruntime", platform.machine()).path
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    batch = np.empty((1, manifest.input.height, manifest.input.width, 3), np.uint8)
    letterboxer, decode = Letterboxer(manifest.input, [batch]), make_decoder(manifest)
    geometry = letterboxer.geometry(scene.width, scene.height)
    picture = np.empty((scene.height, scene.width, 3), np.uint8)
    seen: list[Seen] = []
    for index in range(frames):
        scene.render(index, picture)
        letterboxer.fill(geometry, picture, PixelFormat.BGR24, 0, 0)
        found = decode(dict(zip(names, session.run(names, {manifest.input.name: batch}), strict=True)), 0, geometry)
        assert isinstance(found, Detections)
        seen.append((found.boxes.astype(np.float64), found.scores.astype(np.float64), found.class_ids.astype(np.int64)))
    return seen


def compare(python: Path, scene: Scene, seen: list[Seen], kept: list[int]) -> dict[str, dict[str, float]]:
    """IDF1 and HOTA in points of each tracker on the kept frames."""
    tracker = Tracker()
    lines: list[str] = []
    for place, index in enumerate(kept, 1):
        boxes, scores, classes = seen[index]
        identities, _ = tracker.update(index / FPS, boxes, scores, classes)
        lines += [mot(place, int(i), box) for i, box in zip(identities, boxes, strict=True) if i]
    truth = [mot(n, o.identity + 1, o.box) for n, index in enumerate(kept, 1) for o in scene.truth(index)]
    frames = [[seen[index][0].tolist(), seen[index][1].tolist(), seen[index][2].tolist()] for index in kept]
    rate = FPS / (kept[-1] - kept[0]) * (len(kept) - 1)
    with TemporaryDirectory() as directory:
        Path(directory, "truth.txt").write_text("".join(truth))
        Path(directory, "edged.txt").write_text("".join(lines))
        Path(directory, "frames.json").write_text(json.dumps({"rate": rate, "frames": frames}))
        command = [str(python), str(Path(__file__).with_name("tracking_peer.py")), directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise UsageError("bench tracking: the peers failed", done.stderr.strip()[-500:])
    scores_of: dict[str, dict[str, float]] = json.loads(done.stdout)
    return scores_of


def mot(frame: int, identity: int, box: Any) -> str:
    """A line of the MOT challenge's text format."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return f"{frame},{identity},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},1,1,1\n"


def update_ms() -> tuple[float, float, float]:
    """Least, median and greatest milliseconds of an update with OBJECTS objects, of five rounds."""
    chance = np.random.default_rng(0)
    place, size = chance.uniform(0, 1000, (OBJECTS, 2)), chance.uniform(30, 80, (OBJECTS, 2))
    speed, classes = chance.normal(0, 60, (OBJECTS, 2)), chance.integers(0, 3, OBJECTS)
    rounds: list[float] = []
    for _ in range(5):
        tracker, times = Tracker(), []
        for n in range(200):
            centre = place + speed * n / 15
            boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) + chance.normal(0, 1.5, (OBJECTS, 4))
            begun_ns = clock.mono_ns()
            tracker.update(n / 15, boxes, np.full(OBJECTS, 0.8), classes)
            times.append((clock.mono_ns() - begun_ns) / NS_PER_MS)
        rounds.append(float(np.median(times)))
    return min(rounds), float(np.median(rounds)), max(rounds)


def environment() -> Path:
    """The Python of the environment that holds PEER."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged" / PEER.replace("==", "-")
    python = cache / "bin" / "python"
    if not (cache / "ready").exists():
        venv.create(cache, with_pip=True, clear=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], capture_output=True, text=True)
        if done.returncode:
            raise UsageError(f"bench tracking: {PEER} cannot be installed", done.stderr.strip()[-300:])
        (cache / "ready").touch()
    return python
