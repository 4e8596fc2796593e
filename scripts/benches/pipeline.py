"""The daemon against a bare loop on the same 720p H.264 video with the same engine; sides alternate, medians quoted."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from edged.client import Client, Result
from scripts.benches import proc
from scripts.benches.clip import write_clip
from scripts.benches.daemon import BUNDLE, RunningDaemon
from scripts.benches.report import Figure, Report, Sense

VARIANT = "fp16"
FPS = 30
CPU_TARGET, FPS_TARGET, P50_TARGET_MS, P99_TARGET_MS = 1.05, 1.3, 2.0, 10.0


def bare(kind: str, cameras: int, frames: int, video: Path, fps: int = 0) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "scripts.benches.bare",
        kind,
        str(BUNDLE),
        VARIANT,
        str(cameras),
        str(frames),
        str(video),
        str(fps),
    ]
    out: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return out


def flat_out(videos: list[Path], seconds: float) -> dict[str, float]:
    """As fast as it goes: the file cameras wait for the engine, no frame is dropped."""
    return watch({f"c{n}": f"file://{video}?pace=0" for n, video in enumerate(videos)}, seconds)


def paced(videos: list[Path], seconds: float) -> dict[str, float]:
    """At the videos' own 30 fps, in different phases, as cameras run."""
    return watch({f"c{n}": f"file://{video}" for n, video in enumerate(videos)}, seconds)


def watch(cameras: dict[str, str], seconds: float) -> dict[str, float]:
    """CPU, rate and ages of a daemon on these cameras, between two results `seconds` apart."""
    ages: list[float] = []
    with RunningDaemon(cameras) as daemon:
        daemon.wait_live(list(cameras))
        daemon.ask("pin", variant=VARIANT)
        time.sleep(1.0)
        with Client(daemon.results, ["result"]) as client:
            client.receive(10.0)
            before, begun = proc.cpu_ns(daemon.pid), time.monotonic()
            for result in client:  # the topic holds nothing but results
                assert isinstance(result, Result)
                ages.append(result.age_ms)
                if time.monotonic() - begun >= seconds:
                    break
            after, ended = proc.cpu_ns(daemon.pid), time.monotonic()
            lost = sum(client.gaps.values())
    frames = len(ages) + lost
    ages.sort()
    return {
        "cpu_ms": proc.cpu_between_ns(before, after) / frames / 1e6,
        "fps": frames / (ended - begun),
        "age_p50_ms": median(ages),
        "age_p99_ms": ages[int(0.99 * len(ages))],
    }


def measure(quick: bool = False) -> Report:
    rounds, frames, seconds = (1, 100, 2.0) if quick else (3, 300, 5.0)
    report = Report("pipeline")
    with tempfile.TemporaryDirectory() as directory:
        videos = [write_clip(Path(directory) / f"scene{n}.mp4", phase=n / 4) for n in range(4)]
        for cameras in (1, 4):
            sides: dict[str, list[dict[str, float]]] = {}
            for _ in range(rounds):
                for side, measured in one_round(cameras, videos, frames, seconds).items():
                    sides.setdefault(side, []).append(measured)
            compare(report, cameras, sides)
    return report


def one_round(cameras: int, videos: list[Path], frames: int, seconds: float) -> dict[str, dict[str, float]]:
    """Every side once. The bare loop of a mode is the cheaper of the two ways to write it."""
    round_: dict[str, dict[str, float]] = {}
    for mode, fps, of_edged in (("flat out", 0, flat_out), ("paced", FPS, paced)):
        loops = [bare(kind, cameras, frames, videos[0], fps) for kind in ("opencv", "tight")]
        round_[f"bare, {mode}"] = min(loops, key=lambda loop: loop["cpu_ms"])
        round_[f"edged, {mode}"] = of_edged(videos[:cameras], seconds)
    return round_


def compare(report: Report, cameras: int, sides: dict[str, list[dict[str, float]]]) -> None:
    """Ratios round by round, each mode of the daemon against the bare loop in the same mode."""
    of = f"{cameras} camera{'s' if cameras > 1 else ''}"
    pairs = {
        mode: list(zip(sides[f"edged, {mode}"], sides[f"bare, {mode}"], strict=True)) for mode in ("flat out", "paced")
    }
    cpu = {mode: [edged["cpu_ms"] / loop["cpu_ms"] for edged, loop in rounds] for mode, rounds in pairs.items()}
    for mode, ratios in cpu.items():
        report.figures.append(figure(f"CPU per published frame, {of}, {mode}", ratios, "x bare", CPU_TARGET))
    if cameras == 1:
        ratios = [edged["fps"] * loop["wall_ms"] / 1000 for edged, loop in pairs["flat out"]]
        report.figures.append(figure(f"frames per second, {of}, flat out", ratios, "x bare", FPS_TARGET, "at least"))
    loops_ms = [loop["wall_ms"] for loop in sides["bare, flat out"]]
    for quantile, target in (("p50", P50_TARGET_MS), ("p99", P99_TARGET_MS)):
        extra = [edged[f"age_{quantile}_ms"] - ms for edged, ms in zip(sides["edged, paced"], loops_ms, strict=True)]
        report.figures.append(figure(f"age beyond the bare loop's time, {of}, {quantile}", extra, "ms", target))
    for side, rows in sides.items():
        report.notes[f"{side}, {of}"] = {key: round(median(row[key] for row in rows), 3) for key in rows[0]}


def figure(name: str, values: list[float], unit: str, target: float, sense: Sense = "at most") -> Figure:
    return Figure(name, median(values), unit, target, sense, (min(values), max(values)))
