"""A real daemon and a belt that stands still: frames are left out and counted; an energy limit turns that on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edged
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon, write_config

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
STANDS = {"belt": "test://7?fps=10&run_s=0.5&pause_s=80000\nmotion = { keep_alive_s = 1 }"}
LIMITS = "[limits]\ndeadline_ms = 60000\n[record]\nmax_mb = 0\n"


def still(daemon: RunningDaemon) -> int:
    return int(daemon.camera("belt")["drops"].get("still", 0))


def test_still_frames_are_left_out_counted_and_looked_at_now_and_then(tmp_path: Path) -> None:
    config = write_config(tmp_path, BUNDLE, STANDS, LIMITS + '[motion]\ngate = "on"')
    with RunningDaemon(config, tmp_path) as daemon:
        wait_for(lambda: still(daemon) >= 30 and daemon.camera("belt")["gate"]["looked_at"] >= 2, 30)
        belt: dict[str, Any] = daemon.camera("belt")
        assert belt["state"] == "live" and belt["still_since"] is not None
        assert 0 <= belt["captured"] - belt["results"] - sum(belt["drops"].values()) <= 1
        assert belt["gate"]["still_share"] > 0.5 and belt["gate"]["missed"] == 0
        results = belt["results"]
        daemon.ask("trigger", camera="belt")
        wait_for(lambda: daemon.camera("belt")["results"] >= results + 15, 10)
        refused = daemon.ask("trigger", camera="gate")
        assert not refused["ok"] and "no camera 'gate'" in refused["error"]


def test_auto_follows_the_limits_on_energy(tmp_path: Path) -> None:
    config = write_config(tmp_path, BUNDLE, STANDS, LIMITS + '[power]\nprovider = "simulated"')
    with RunningDaemon(config, tmp_path) as daemon:
        wait_for(lambda: daemon.camera("belt")["results"] >= 20, 20)
        assert still(daemon) == 0 and daemon.camera("belt")["gate"] is None
        daemon.ask("set", power_w=20.0)
        wait_for(lambda: still(daemon) >= 10, 20)
        daemon.ask("set", power_w=None)
        wait_for(lambda: daemon.camera("belt")["gate"] is None, 10)
        stopped = still(daemon)
        results = daemon.camera("belt")["results"]
        wait_for(lambda: daemon.camera("belt")["results"] >= results + 10, 10)
        assert still(daemon) <= stopped + 1
