"""What the daemon uses, sample by sample, and the verdict over a run. Reads /proc; the judging part is pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP_S = 600.0
"""Caches, the recorder's ring and the estimators fill up; of a short run half is warm-up."""
SLOPE_MB_PER_H = 0.5
SLOPE_FROM_S = 3500.0
"""The last sample of an hour is some seconds before its end."""
GROWTH_MB = 0.5
"""A run of less than an hour cannot show such a slope: its memory may grow by this much after the warm-up. What the C
library keeps free for each thread fills up for a quarter of an hour."""
GAP_S = 5.0
STOP_S = 15.0


@dataclass(frozen=True)
class Sample:
    at_s: float
    rss_mb: float
    """without the frame rings, which come and go with their cameras"""
    children_mb: float
    descriptors: int
    threads: int
    shm_files: int
    unaccounted: int
    """frames captured that are neither a result nor a drop, beyond one on its way for each camera"""


def sample(at_s: float, pid: int, state: dict[str, Any]) -> Sample:
    """Of the process `pid` and its children; `state` as the daemon published it."""
    unaccounted = 0
    for camera in state.get("cameras", []):
        on_the_way = camera["captured"] - camera["results"] - sum(camera["drops"].values())
        unaccounted = max(unaccounted, on_the_way - 1, -on_the_way)
    children = descendants(pid)
    owned = {path.name for path in Path("/dev/shm").glob("edged-*") if _owner(path) == os.getuid()}
    mapped = {name for one in (pid, *children) for name in owned if name in _maps(one)}
    return Sample(
        at_s,
        _rss_mb(pid),
        sum(map(_rss_mb, children)),
        len(os.listdir(f"/proc/{pid}/fd")),
        len(os.listdir(f"/proc/{pid}/task")),
        len(mapped),
        unaccounted,
    )


def judge(samples: Sequence[Sample], gap_s: float, code: int | None, stop_s: float) -> list[tuple[str, str, bool]]:
    """(what, figure, whether it holds) for each condition."""
    warm_s = min(WARM_UP_S, samples[-1].at_s / 2)
    warm = [one for one in samples if one.at_s >= warm_s]
    slope, error = _slope([one.at_s / 3600 for one in warm], [one.rss_mb for one in warm])
    third = len(warm) // 3 or 1
    growth = float(np.median([one.rss_mb for one in warm[-third:]]) - np.median([one.rss_mb for one in warm[:third]]))
    flat = slope < SLOPE_MB_PER_H if samples[-1].at_s >= SLOPE_FROM_S else growth < GROWTH_MB
    rows = [
        ("RSS slope, MB an hour; growth, MB", f"{slope:+.2f} +- {error:.2f}; {growth:+.1f}", flat),
        ("frames unaccounted for", str(max(one.unaccounted for one in samples)), _all_zero(samples)),
        ("longest watchdog gap, s", f"{gap_s:.2f}", gap_s < GAP_S),
        ("exit code", str(code), code == 0),
        ("time to stop, s", f"{stop_s:.1f}", stop_s < STOP_S),
    ]
    for name, slack in (("descriptors", 4), ("threads", 1), ("shm_files", 1)):
        # medians: connections come in crowds, and a sample may meet one
        first, last = (float(np.median([asdict(one)[name] for one in part])) for part in (warm[:third], warm[-third:]))
        rows.append((f"{name}, at first and at last", f"{first:g} -> {last:g}", last <= first + slack))
    return rows


def _all_zero(samples: Sequence[Sample]) -> bool:
    return all(one.unaccounted == 0 for one in samples)


def _slope(hours: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Least squares and its standard error, of the medians of up to 20 pieces: samples close by are not independent."""
    pieces = [np.array(piece) for piece in np.array_split(np.array([hours, values]).T, min(20, len(values)))]
    x, y = np.array([np.median(piece, axis=0) for piece in pieces]).T
    if len(x) < 3:
        return 0.0, float("inf")
    fit, residuals, *_ = np.polyfit(x, y, 1, full=True)
    spread = float(residuals[0]) / (len(x) - 2) if len(residuals) else 0.0
    return float(fit[0]), float(np.sqrt(spread / np.sum((x - x.mean()) ** 2)))


def _rss_mb(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/status").read_text().split()
        return (int(words[words.index("RssAnon:") + 1]) + int(words[words.index("RssFile:") + 1])) / 1024
    except (OSError, ValueError):
        return 0.0  # it has ended


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def descendants(pid: int) -> list[int]:
    """Process numbers of all children, and theirs."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        found = [int(c) for t in tasks for c in Path(f"/proc/{pid}/task/{t}/children").read_text().split()]
    except OSError:
        return []
    return found + [inner for child in found for inner in descendants(child)]
