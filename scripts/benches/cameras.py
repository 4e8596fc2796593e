"""Memory and CPU of 1 to 16 cameras: live (720p H.264 at 30 fps over RTSP) and idle (a camera that does not answer)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.benches import proc
from scripts.benches.clip import write_clip
from scripts.benches.daemon import RunningDaemon
from scripts.benches.report import Figure, Report

MEMORY_TARGET_MB = 22.0
FPS = 5.0
"""Results per second and camera: 16 cameras of 30 fps would need more engine than a small machine has; decoding and the
ring are what is measured, and they run at the full rate."""


def measure(quick: bool = False) -> Report:
    counts, seconds = ((1, 2), 2.0) if quick else ((1, 2, 4, 8, 16), 8.0)
    report = Report("cameras")
    with tempfile.TemporaryDirectory() as directory:
        video = write_clip(Path(directory) / "scene.mp4")
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.rtsp", "--port", "0", "--clip", str(video)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]  # "ready: rtsp://..."
            live = {n: load({f"c{i}": url for i in range(n)}, list(range(n)), seconds) for n in counts}
        finally:
            server.terminate()
            server.wait()
        # Nobody listens on this port of the machine itself: the camera is forever between two attempts.
        idle = {n: load({"c0": f"file://{video}"} | dead(n), [0], seconds) for n in counts}
    first, last = counts[0], counts[-1]
    for name, rows in (("live", live), ("idle", idle)):
        slope = (rows[last][0] - rows[first][0]) / (last - first)
        report.figures.append(Figure(f"memory per further {name} camera (PSS)", slope, "MB", MEMORY_TARGET_MB))
        per_core = (rows[last][1] - rows[first][1]) / (last - first)
        report.notes[f"CPU per further {name} camera, % of a core"] = round(per_core, 2)
        for n in counts:
            report.notes[f"{name}, {n} cameras"] = {"pss_mb": round(rows[n][0], 1), "cpu_percent": round(rows[n][1], 1)}
    return report


def dead(cameras: int) -> dict[str, str]:
    return {f"dead{n}": f"rtsp://127.0.0.1:9/{n}" for n in range(1, cameras)}


def load(cameras: dict[str, str], live: list[int], seconds: float) -> tuple[float, float]:
    """PSS in MB and CPU in percent of a core of a daemon on these cameras."""
    with RunningDaemon(cameras, fps=FPS) as daemon:
        daemon.wait_live([f"c{n}" for n in live])
        time.sleep(2.0)
        before, begun = proc.cpu_ns(daemon.pid), time.monotonic()
        time.sleep(seconds)
        used = proc.cpu_between_ns(before, proc.cpu_ns(daemon.pid)) / 1e9
        return proc.pss_mb(daemon.pid), 100 * used / (time.monotonic() - begun)
