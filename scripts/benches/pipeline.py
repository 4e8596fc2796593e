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
from scripts.benches.report import Figure, Report

VARIANT = "fp16"
CPU_TARGET, FPS_TARGET, P50_TARGET_MS, P99_TARGET_MS = 1.10, 1.3, 2.0, 10.0


def bare(kind: str, cameras: int, frames: int, video: Path) -> dict[str, float]:
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
    rounds, frames, seconds = (1, 100, 2.0) if quick else (5, 400, 5.0)
    report = Report("pipeline")
    with tempfile.TemporaryDirectory() as directory:
        videos = [write_clip(Path(directory) / f"scene{n}.mp4", phase=n / 4) for n in range(4)]
        for cameras in (1, 4):
            sides: dict[str, list[dict[str, float]]] = {"opencv": [], "tight": [], "flat_out": [], "paced": []}
            for _ in range(rounds):
                for kind in ("opencv", "tight"):
                    sides[kind].append(bare(kind, cameras, frames, videos[0]))
                sides["flat_out"].append(flat_out(videos[:cameras], seconds))
                sides["paced"].append(paced(videos[:cameras], seconds))
            compare(report, cameras, sides)
    return report


def compare(report: Report, cameras: int, sides: dict[str, list[dict[str, float]]]) -> None:
    """Ratios round by round, against the cheaper bare loop of that round."""
    best = [min(a, b, key=lambda side: side["cpu_ms"]) for a, b in zip(sides["opencv"], sides["tight"], strict=True)]
    of = f"{cameras} camera{'s' if cameras > 1 else ''}"
    for mode, name in (("flat_out", "flat out"), ("paced", "paced at 30 fps")):
        ratios = [edged["cpu_ms"] / loop["cpu_ms"] for edged, loop in zip(sides[mode], best, strict=True)]
        report.figures.append(figure(f"CPU per published frame, {of}, {name}", ratios, "x bare", CPU_TARGET))
    if cameras == 1:
        ratios = [edged["fps"] * loop["wall_ms"] / 1000 for edged, loop in zip(sides["flat_out"], best, strict=True)]
        report.figures.append(figure(f"frames per second, {of}, flat out", ratios, "x bare", FPS_TARGET, "at least"))
    for quantile, target in (("p50", P50_TARGET_MS), ("p99", P99_TARGET_MS)):
        extra = [
            edged[f"age_{quantile}_ms"] - loop["wall_ms"] for edged, loop in zip(sides["paced"], best, strict=True)
        ]
        report.figures.append(figure(f"age beyond the bare loop's time, {of}, {quantile}", extra, "ms", target))
    for side, rows in sides.items():
        report.notes[f"{side}, {of}"] = {key: round(median(row[key] for row in rows), 3) for key in rows[0]}


def figure(name: str, values: list[float], unit: str, target: float, sense: str = "at most") -> Figure:
    assert sense in ("at most", "at least")
    return Figure(name, median(values), unit, target, sense, (min(values), max(values)))  # type: ignore[arg-type]
