"""The governor sets the clock through the real helper process on an emulated board, and always gives it back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edged.bus.schema import Event
from edged.config import CameraConfig, Limits, PowerConfig
from edged.engines.device_profile import Conditions, device_name, profile_path
from edged.engines.pool import Pool
from edged.governor.messages import Device, Variant
from edged.loop.device_info import DeviceInfo
from edged.power.host_paths import HostPaths
from tests.support.bus import served, wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.fake_device import FakeDevice
from tests.support.helped import Helper, command_on
from tests.support.jetson_tree import BOARDS, JetsonTree
from tests.support.loop import built, change_limits, running
from tests.support.models import center_model, write_bundle

MHZ = tuple(hz / 1e6 for hz in BOARDS["orin_nano"].gpu_hz)
LOW, TOP = MHZ[0], MHZ[-1]
MODELS = {"fine": center_model(-100.0, turns=3000), "fast": center_model(-90.0, turns=1500)}
IDLE_W = tuple(1.0 + 0.5 * n for n in range(len(MHZ)))
EASY = Limits(deadline_ms=400.0, power_window_s=2.0)
SMALL = "test://5?width=128&height=64&fps=20"


@dataclass
class Board(FakeDevice):
    """At rest it draws what its ceiling costs."""

    helper: Helper | None = None

    def read(self) -> Any:
        assert self.helper is not None
        ceiling_mhz = self.helper.ceiling_mhz
        self.idle_w = IDLE_W[MHZ.index(ceiling_mhz)]
        return replace(super().read(), gpu_ceiling_mhz=ceiling_mhz)

    def known(self, pool: Pool) -> DeviceInfo:
        reported = super().known(pool)
        clocks = len(MHZ)
        variants = [
            Variant(v.name, v.accuracy, v.latency_ms, (1.0,) * clocks, v.active_w * clocks) for v in reported.variants
        ]
        device = Device(IDLE_W)
        return DeviceInfo(tuple(variants), device, MHZ)


@pytest.fixture
def helper() -> Iterator[Helper]:
    with tempfile.TemporaryDirectory(prefix="edged-") as directory:  # a socket's path must be short
        os.chmod(directory, 0o755)
        it = Helper(Path(directory), JetsonTree(Path(directory) / "board"))
        it.start()
        yield it
        it.kill()


def test_a_power_cap_lowers_the_ceiling_and_a_dead_helper_ends_its_control(helper: Helper, tmp_path: Path) -> None:
    device = Board({"fine": 0.05, "fast": 0.02}, {"fine": 6.0, "fast": 3.0}, helper=helper)
    power = PowerConfig(interval_s=0.2, clock_control=True)
    machine = HostPaths(clock_helper=helper.socket)
    camera = CameraConfig(name="gate", source=SMALL)
    with contextlib.ExitStack() as stack:
        house = stack.enter_context(
            built(tmp_path, MODELS, EASY, power, machine=machine, provider=device, device_info=device.known)
        )
        house.sampler.start()
        stack.enter_context(served(house.publisher))
        stack.enter_context(running(house, [camera]))

        def state() -> Any:
            return house.calls.call(lambda: house.governor.governor.state)

        wait_for(lambda: not state().device.fixed_clock, 20)
        assert helper.ceiling_mhz == TOP

        cap_w = 3.6  # at the highest clock the board draws more even at rest
        change_limits(house, power_w=cap_w)
        wait_for(lambda: helper.ceiling_mhz < 800, 20)
        settled_s = device.now_s + 2 * EASY.power_window_s
        wait_for(lambda: device.now_s > settled_s + 4, 20)
        assert device.worst_mean_w(EASY.power_window_s, settled_s) <= 1.05 * cap_w
        wait_for(lambda: sum(device.runs.values()) > 50, 60)
        reported = house.calls.call(lambda: house.governor.message)
        assert reported.clock_mhz == pytest.approx(helper.ceiling_mhz)

        held_mhz = helper.ceiling_mhz
        helper.kill()
        wait_for(lambda: state().device.fixed_clock, 10)
        assert state().clock == MHZ.index(held_mhz), "killed like that it puts nothing back: the sensor says so"
        report = house.governor.gpu_clock.report
        assert report is not None and report.clock_mhz is None and report.problem
        helper.start()
        assert helper.ceiling_mhz == TOP
        wait_for(lambda: not state().device.fixed_clock, 20)
        wait_for(lambda: helper.ceiling_mhz < 800, 20)
    wait_for(lambda: helper.ceiling_mhz == TOP, 20)


# ---- the daemon ------------------------------------------------------------------------------------------------------


def profile(models: dict[str, bytes]) -> dict[str, Any]:
    """Of this machine, as `edged-calibrate profile` would write it."""
    runs = [
        {
            "variant": name,
            "sha256": hashlib.sha256(model).hexdigest(),
            "batch": 1,
            "clock": n,
            "runs": 50,
            "latency_p50_ms": 3.0,
            "latency_p90_ms": 3.2,
            "latency_p99_ms": 3.5,
            "energy_j": 0.02,
        }
        for name, model in models.items()
        for n in range(len(MHZ))
    ]
    return {
        "version": 2, "device": device_name(), "runtime": "cpu", "power_mode": "15W", "runs": runs, "clocks_mhz": MHZ,
        "idle_w": [4 + w for w in IDLE_W],
    }  # fmt: skip


CONFIG = """
[limits]
deadline_ms = 300
power_w = 6.5
[power]
provider = "sysfs"
interval_s = 0.2
clock_control = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    bundle = write_bundle(tmp_path / "bundle", MODELS)
    profile_path(bundle, Conditions(device_name(), "cpu", "15W")).write_text(json.dumps(profile(MODELS)))
    return write_config(tmp_path, bundle, {"gate": SMALL}, CONFIG)


def on_board(helper: Helper, config: Path) -> RunningDaemon:
    return RunningDaemon(config, config.parent, command_on(helper.tree, helper.socket, config))


def clock_of(daemon: RunningDaemon) -> dict[str, Any]:
    reported: dict[str, Any] = daemon.state()["clock"]
    return reported


def test_the_daemon_lowers_the_ceiling_says_so_and_gives_it_back_when_it_stops(helper: Helper, config: Path) -> None:
    with on_board(helper, config) as daemon:
        wait_for(lambda: helper.ceiling_mhz < TOP, 20)
        wait_for(lambda: clock_of(daemon)["clock_mhz"] == helper.ceiling_mhz, 20)
        assert clock_of(daemon) | {"clock_mhz": 0} == {
            "clock_mhz": 0,
            "lowest_mhz": LOW,
            "highest_mhz": TOP,
            "problem": None,
        }
        assert daemon.stop() == 0
    assert helper.ceiling_mhz == TOP


def test_a_daemon_that_is_killed_leaves_nothing_lowered(helper: Helper, config: Path) -> None:
    with on_board(helper, config) as daemon:
        wait_for(lambda: helper.ceiling_mhz < TOP, 20)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(10)
    wait_for(lambda: helper.ceiling_mhz == TOP, 20)


def test_without_a_helper_the_daemon_runs_and_says_what_is_missing(helper: Helper, config: Path) -> None:
    helper.kill()
    with on_board(helper, config) as daemon:
        with daemon.client("event") as client:
            wait_for(lambda: daemon.camera("gate")["captured"] > 5, 20)
            wait_for(lambda: clock_of(daemon)["problem"] is not None, 20)
            assert "clocks.sock" in clock_of(daemon)["problem"] and clock_of(daemon)["clock_mhz"] is None
            helper.start()
            heard: list[str] = []
            end = time.monotonic() + 20
            while not any("edged controls" in text for text in heard) and time.monotonic() < end:
                if isinstance(message := client.receive(1.0), Event):
                    heard.append(message.text)
        assert any("edged controls" in text for text in heard), heard
        assert "GPU clock control is unavailable" in daemon.log
        wait_for(lambda: helper.ceiling_mhz < TOP, 20)


def test_with_a_profile_of_one_clock_there_is_nothing_to_choose_by(helper: Helper, config: Path) -> None:
    path = profile_path(config.parent / "bundle", Conditions(device_name(), "cpu", "15W"))
    measured = json.loads(path.read_text())
    runs = [run for run in measured["runs"] if run["clock"] == 0]
    path.write_text(json.dumps(measured | {"runs": runs, "clocks_mhz": [], "idle_w": measured["idle_w"][:1]}))
    with on_board(helper, config) as daemon:
        wait_for(lambda: daemon.camera("gate")["captured"] > 5, 20)
        assert daemon.state()["clock"] is None and helper.ceiling_mhz == TOP
        assert "the device profile is of one clock only" in daemon.log


def test_without_a_profile_a_few_clocks_are_chosen_from_by_a_guess(helper: Helper, config: Path) -> None:
    profile_path(config.parent / "bundle", Conditions(device_name(), "cpu", "15W")).unlink()
    with on_board(helper, config) as daemon:
        wait_for(lambda: clock_of(daemon)["clock_mhz"] is not None, 20)
        clock = clock_of(daemon)
        assert clock["highest_mhz"] == TOP and clock["lowest_mhz"] >= LOW and clock["problem"] is None
        # the board reads 7.0 W whatever runs, above the limit: a lower clock is tried
        wait_for(lambda: helper.ceiling_mhz < TOP, 60)
        assert daemon.stop() == 0
    assert helper.ceiling_mhz == TOP
