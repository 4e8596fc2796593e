"""The GPU clock from the profile to the end: measured at every clock, ceiling set, followed, raised, restored."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.engines.bundle import load_bundle
from edged.engines.ort import OrtRuntime
from edged.engines.pool import Pool
from tests.support.bus import wait_for
from tests.support.clocked_engine import MODELS, RUN_MS, busy_s, load_at_the_ceiling
from tests.support.daemon import RunningDaemon
from tests.support.helped import Helper, clocked_config, command_on, profile_on
from tests.support.jetson_tree import JetsonTree
from tests.support.live_board import ACTIVE_W, IDLE_W, LiveBoard
from tests.support.models import write_bundle

LOW_CAP_W, HIGH_CAP_W = 5.8, 60.0
"""At rest the board draws less than the first at its lowest clock alone."""
WINDOW_S = 2.0


@pytest.fixture
def helper() -> Iterator[Helper]:
    with tempfile.TemporaryDirectory(prefix="edged-") as directory:  # a socket's path must be short
        os.chmod(directory, 0o755)
        it = Helper(Path(directory), JetsonTree(Path(directory) / "board", "thor"))
        it.start()
        yield it
        it.kill()


@pytest.fixture
def board(helper: Helper) -> Iterator[LiveBoard]:
    with LiveBoard(helper.tree) as live:
        yield live


def profiled(bundle: Path, helper: Helper, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `edged-calibrate profile BUNDLE` writes on that board."""
    assert profile_on(helper, bundle, json=True) == 0
    (written,) = bundle.glob("profile.*.json")
    found: dict[str, Any] = json.loads(written.read_text())
    assert json.loads(capsys.readouterr().out) == found
    return found


def test_an_engine_below_the_highest_clock_is_slower_and_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = JetsonTree(tmp_path / "board", "thor")
    lowest_hz, top_hz = tree.board.gpu_hz[0], tree.board.gpu_hz[-1]
    tree.write(f"{tree.devfreq}/max_freq", lowest_hz)
    monkeypatch.setattr(OrtRuntime, "load", load_at_the_ceiling(tree.root))
    with Pool(load_bundle(write_bundle(tmp_path / "bundle", MODELS)), OrtRuntime(1), 1) as pool:
        for name, run_ms in RUN_MS.items():
            before_s = busy_s(tree.root)
            pool.submit(0, 1, name)
            pool.collect(0)
            assert pool.took_ms(0) >= run_ms * top_hz / lowest_hz
            assert busy_s(tree.root) - before_s == pytest.approx(pool.took_ms(0) / 1000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_clock_is_profiled_lowered_followed_raised_and_restored(
    helper: Helper,
    board: LiveBoard,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OrtRuntime, "load", load_at_the_ceiling(helper.tree.root))
    bundle = write_bundle(tmp_path / "bundle", MODELS)
    found = profiled(bundle, helper, capsys)
    assert found["clocks_mhz"] == list(board.mhz) and found["power_mode"] == "120W"
    idle_w = found["idle_w"]
    assert isinstance(idle_w, list)
    for measured_w, rest_w, active_w in zip(idle_w, IDLE_W, ACTIVE_W, strict=True):
        assert rest_w <= measured_w <= rest_w + 0.1 * active_w
    runs: Any = found["runs"]
    assert {run["clock"] for run in runs} == {0, 1, 2, 3}
    lowest_mhz, top_mhz = board.mhz[0], board.mhz[-1]
    assert helper.ceiling_mhz == top_mhz, "the profile gives the ceiling back"

    config = clocked_config(tmp_path, bundle, LOW_CAP_W, WINDOW_S)
    with RunningDaemon(config, tmp_path, command_on(helper.tree, helper.socket, config, clocked=True)) as daemon:
        wait_for(lambda: helper.ceiling_mhz == lowest_mhz, 30)
        assert "profile_refused" not in daemon.log and "not used" not in daemon.log
        wait_for(lambda: daemon.state()["clock"]["clock_mhz"] == lowest_mhz, 20)
        wait_for(lambda: board.history[-1].clock_mhz == lowest_mhz, 20)
        settled_s = board.now_s + 4.0
        wait_for(lambda: board.now_s > settled_s + 4.0, 30)
        assert board.mean_w(settled_s) <= 1.05 * LOW_CAP_W
        assert helper.ceiling_mhz == lowest_mhz
        wait_for(lambda: daemon.camera("gate")["results"] > 20, 60)

        assert daemon.ask("set", power_w=HIGH_CAP_W)["ok"]
        wait_for(lambda: helper.ceiling_mhz > lowest_mhz, 60)
        assert daemon.ask("set", power_w=LOW_CAP_W)["ok"]
        wait_for(lambda: helper.ceiling_mhz == lowest_mhz, 60)
        assert daemon.stop() == 0
    assert helper.ceiling_mhz == top_mhz, "restored"
