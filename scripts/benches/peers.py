"""edged beside what its users would write instead: OpenCV with reader threads, a PyAV loop, a GStreamer appsink.

The same live cameras (720p H.264 at 15 fps by RTSP), the same model, the same ONNX Runtime settings; the order of the
systems is shuffled. Age is measured from the camera's socket: each picture carries its number, so that no system's own
clock counts.
CPU and memory are those of all processes of a system, edged's subscriber included. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import edged
from scripts.benches import peer_material, proc
from scripts.benches.peer_material import FPS, Material
from scripts.benches.peer_systems import RECORD
from scripts.benches.report import Figure, Report

PEERS = ("cv2-threads", "pyav", "gstreamer")
SYSTEMS = ("edged", *PEERS)
PACKAGE = Path(edged.__file__).parent
WARM_S = 2.0
START_S = 60.0
STALL_S = 10.0
LIVE_MS = 1000.0
"""A peer whose results are older than that, in the median, falls behind its cameras: it is none of the best."""
GST_PACKAGES = (
    "python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav"
)
_HAS_GST = (
    'import gi, cv2, onnxruntime; gi.require_version("Gst", "1.0"); from gi.repository import Gst; Gst.init(None); '
    'assert all(map(Gst.ElementFactory.find, ("rtspsrc", "rtph264depay", "avdec_h264", "videoconvertscale")))'
)


@dataclass
class Row:
    """One system on one load. Ages in ms; `age_error_ms`: edged's own `age_ms` less the measured age."""

    results_s: float
    cpu_ms: float
    pss_mb: float
    first_s: float
    detections: float
    ages_ms: list[float] = field(repr=False)
    age_error_ms: list[float] = field(default_factory=list, repr=False)

    def age(self, quantile: float) -> float:
        return float(np.quantile(self.ages_ms, quantile)) if self.ages_ms else float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which, separated by commas (default: all)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the order of the systems")


def measure(
    quick: bool = False, systems: str = ",".join(SYSTEMS), seconds: float = 8.0, rounds: int = 3, seed: int = 1
) -> Report:
    seconds, rounds = (3.0, 1) if quick else (seconds, rounds)
    compileall.compile_dir(PACKAGE, quiet=1)  # as pip does with the packages of every system
    report = Report("peers")
    chosen: dict[str, list[str]] = {}
    for name in systems.split(","):
        command, missing = _command(name)
        if missing:
            report.notes[f"{name} is left out"] = missing
        else:
            chosen[name] = command
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="edged-peers-") as directory:
        material = peer_material.make(Path(directory), 60 if quick else peer_material.FRAMES)
        rows: dict[tuple[str, int], list[Row]] = {}
        for _ in range(rounds):
            for count in (1, 4):
                order = list(chosen)
                rng.shuffle(order)
                for name in order:
                    row = _run(name, chosen[name], material, count, seconds, Path(directory))
                    rows.setdefault((name, count), []).append(row)
        if "edged" in chosen and not quick:
            report.notes["a camera that stops for 10 s"] = _outage(chosen["edged"], material, Path(directory))
    for (name, count), found in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0])):
        report.notes[f"{name}, {count} x {FPS} fps"] = _note(found)
    _judge(report, rows)
    return report


def _command(name: str) -> tuple[list[str], str]:
    """(the command of a system without its options, why it cannot run here)."""
    script = str(Path(__file__).with_name("peer_systems.py"))
    if name == "edged":
        return [sys.executable, "-m", "scripts.benches.peer_edged"], ""
    if name != "gstreamer":
        return [sys.executable, script, name], ""
    # the system's Python has the bindings, and borrows our packages if it is of our version
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("platlib")}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        tried = subprocess.run(
            ["/usr/bin/python3", "-c", _HAS_GST], env=environment, capture_output=True, timeout=60, check=False
        )
        if tried.returncode == 0:
            return ["env", f"PYTHONPATH={environment['PYTHONPATH']}", "/usr/bin/python3", script, name], ""
    return [], f"GStreamer for Python is not here: apt-get install {GST_PACKAGES}"


class _Cameras:
    """The cameras' process; `sent` is [camera][frame of the clip] in monotonic ns."""

    def __init__(self, material: Material, count: int, directory: Path) -> None:
        sent = directory / f"sent-{time.monotonic_ns()}"
        words = [str(material.clip), str(count), str(FPS), str(sent)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benches.peer_cameras", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        self.urls: list[str] = json.loads(self.process.stdout.readline())
        self.sent = np.memmap(sent, np.int64, "r").reshape(count, -1)

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def _running(
    name: str, command: list[str], material: Material, count: int, directory: Path
) -> Iterator[tuple[subprocess.Popen[bytes], _Cameras, Path, Path]]:
    """(the system's process, its cameras, its log of results, its notes)."""
    cameras = _Cameras(material, count, directory)
    tag = f"{name}-{time.monotonic_ns()}"
    log, notes = directory / f"{tag}.log", directory / f"{tag}.notes"
    log.touch()
    options = {
        "urls": cameras.urls, "log": str(log), "notes": str(notes), "model": str(material.model),
        "bundle": str(material.bundle), "threshold": material.threshold, "size": peer_material.SIZE,
    }  # fmt: skip
    process = subprocess.Popen([*command, json.dumps(options)], stderr=subprocess.DEVNULL)
    try:
        yield process, cameras, log, notes
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        cameras.close()


def _run(name: str, command: list[str], material: Material, count: int, seconds: float, directory: Path) -> Row:
    begun = time.monotonic()
    with _running(name, command, material, count, directory) as (process, cameras, log, _):
        ages: list[float] = []
        errors: list[float] = []
        while not (first := _records(log)) and time.monotonic() - begun < START_S and process.poll() is None:
            time.sleep(0.02)
        if not first:
            raise RuntimeError(f"{name} gave no result within {START_S:.0f} s")
        time.sleep(WARM_S)
        before, since, skip = proc.cpu_ns(process.pid), time.monotonic(), len(_records(log))
        seen = skip
        while time.monotonic() - since < seconds:
            time.sleep(0.1)
            for camera, number, _, published_us, at_s in _records(log)[seen:]:
                seen += 1
                if 0 <= number < cameras.sent.shape[1]:
                    age_ms = at_s * 1e3 - int(cameras.sent[camera, number]) / 1e6
                    ages.append(age_ms)
                    errors += [published_us / 1e3 - age_ms] if published_us else []
        elapsed = time.monotonic() - since
        used_ns = proc.cpu_between_ns(before, proc.cpu_ns(process.pid))
        records, memory = _records(log)[skip:], proc.pss_mb(process.pid)
    results = max(1, len(records))
    return Row(
        len(records) / elapsed,
        used_ns / 1e6 / results,
        memory,
        first[0][4] - begun,
        statistics.fmean(r[2] for r in records) if records else 0.0,
        ages,
        errors,
    )


def _records(log: Path) -> list[tuple[int, int, int, int, float]]:
    data = log.read_bytes()
    whole = len(data) - len(data) % RECORD.size
    return [record for record in RECORD.iter_unpack(data[:whole])]


def _outage(command: list[str], material: Material, directory: Path) -> dict[str, Any]:
    """Two cameras; the first is silent for ten seconds, its connection open."""
    with _running("edged", command, material, 2, directory) as (_, cameras, log, notes):
        end = time.monotonic() + START_S
        while {record[0] for record in _records(log)} != {0, 1} and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(3.0)
        stalled = time.monotonic()
        cameras.say("stall 0")
        time.sleep(STALL_S)
        resumed = time.monotonic()
        cameras.say("resume 0")
        time.sleep(12.0)
        records = _records(log)
    states = [line for line in map(json.loads, notes.read_text().splitlines()) if line.get("camera") == "c0"]
    noticed = [line["at"] for line in states if line["at"] > stalled and line["state"] != "live"]
    back = [record[4] for record in records if record[0] == 0 and record[4] > resumed]
    others = [record[4] for record in records if record[0] == 1 and stalled < record[4] < resumed]
    return {
        "noticed after s": round(noticed[0] - stalled, 2) if noticed else None,
        "results again after s": round(back[0] - resumed, 2) if back else None,
        "results/s of the other camera meanwhile": round(len(others) / STALL_S, 1),
        "longest gap of the other camera s": round(float(max(np.diff(others), default=float("nan"))), 2),
    }


def _note(rows: list[Row]) -> dict[str, float]:
    errors = [statistics.median(row.age_error_ms) for row in rows if row.age_error_ms]
    known = {"published age_ms less the measured": round(statistics.median(errors), 1)} if errors else {}
    return {
        **known,
        "results/s": round(statistics.median(row.results_s for row in rows), 1),
        "age p50 ms": round(statistics.median(row.age(0.5) for row in rows), 1),
        "age p99 ms": round(statistics.median(row.age(0.99) for row in rows), 1),
        "CPU ms/result": round(statistics.median(row.cpu_ms for row in rows), 1),
        "PSS MB": round(statistics.median(row.pss_mb for row in rows), 0),
        "first result s": round(statistics.median(row.first_s for row in rows), 2),
        "detections": round(statistics.median(row.detections for row in rows), 1),
    }


def _judge(report: Report, rows: dict[tuple[str, int], list[Row]]) -> None:
    """Figures of edged against the peers, round by round."""

    def rounds(name: str, count: int, figure: str) -> list[float]:
        return [getattr(row, figure) for row in rows.get((name, count), [])]

    def best(count: int, figure: str, greatest: bool = False) -> list[float]:
        live = [
            peer
            for peer in PEERS
            if (peer, count) in rows and statistics.median(row.age(0.5) for row in rows[peer, count]) <= LIVE_MS
        ]
        found = [rounds(peer, count, figure) for peer in live]
        return [max(values) if greatest else min(values) for values in zip(*found, strict=True)]

    def ratio(title: str, count: int, figure: str, target: float, greatest: bool = False) -> None:
        values = [a / b for a, b in zip(rounds("edged", count, figure), best(count, figure, greatest), strict=False)]
        if values:
            sense = "at least" if greatest else "at most"
            report.figures.append(
                Figure(title, statistics.median(values), "x", target, sense, (min(values), max(values)))  # type: ignore[arg-type]
            )

    pairs = list(zip(rows.get(("edged", 1), []), rows.get(("gstreamer", 1), []), strict=False))
    if pairs:
        values = [edged.age(0.5) - peer.age(0.5) for edged, peer in pairs]
        spread = min(values), max(values)
        report.figures.append(
            Figure("1 camera: age p50 beyond GStreamer's", statistics.median(values), "ms", 10.0, spread=spread)
        )
    errors = [abs(statistics.median(row.age_error_ms)) for row in rows.get(("edged", 1), []) if row.age_error_ms]
    if errors:
        report.figures.append(Figure("1 camera: published age_ms, off by", statistics.median(errors), "ms", 15.0))
    if ("edged", 1) in rows:
        report.figures.append(Figure("first result", statistics.median(rounds("edged", 1, "first_s")), "s", 2.5))
    ratio("1 camera: CPU a result, of the best peer's", 1, "cpu_ms", 1.05)
    ratio("4 cameras: results, of the best peer's", 4, "results_s", 1.0, greatest=True)
    ratio("4 cameras: CPU a result, of the best peer's", 4, "cpu_ms", 1.05)
    ratio("4 cameras: memory (PSS), of the best peer's", 4, "pss_mb", 1.3)
