"""A load for an emulated board whose power and speed follow the GPU clock: too much for the lowest one, on any machine.

Rate and deadline follow from the latencies of the profile that was measured on the board just before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.daemon import write_config
from tests.support.models import center_model

MODELS = {"fine": center_model(-100.0, turns=12000), "fast": center_model(-90.0, turns=6000)}
IDLE_W = (4.0, 6.0, 8.0, 12.0)
ACTIVE_W = (4.0, 8.0, 14.0, 24.0)
LOAD = 3.0
"""Of the most accurate variant at the lowest clock, as a multiple of what it can do: twice as much as needed, since a
machine may have been busy while it was measured."""
DEADLINE = 6.0
"""In inferences of that variant at the lowest clock."""
CAMERAS = ("gate", "yard", "road", "shed")


def profile_of(bundle: Path) -> dict[str, Any]:
    """What `edged-calibrate profile` has written into the bundle."""
    (written,) = bundle.glob("profile.*.json")
    found: dict[str, Any] = json.loads(written.read_text())
    return found


def clocked_config(directory: Path, bundle: Path, limit_w: float, window_s: float) -> Path:
    """The configuration of a daemon that may set the clock, under a power limit. The motion gate is off: it would take
    the load away."""
    slowest_ms = max(run["latency_p50_ms"] for run in profile_of(bundle)["runs"])
    fps = 1000 * LOAD / slowest_ms / len(CAMERAS)
    cameras = {name: f"test://{n}?width=128&height=64&fps={fps:.2f}" for n, name in enumerate(CAMERAS)}
    lines = f"""
[limits]
deadline_ms = {DEADLINE * slowest_ms:.0f}
power_w = {limit_w}
power_window_s = {window_s}
[power]
interval_s = 0.2
clock_control = true
[motion]
gate = "off"
"""
    return write_config(directory, bundle, cameras, lines)
