"""What `edged check` says of sensors, power modes and the clock, and the commands it gives."""

from __future__ import annotations

import os
import socket
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from edged.checks.finding import Finding
from edged.checks.power import try_power
from edged.commands.check import clocks_to_choose
from edged.config import PowerConfig
from edged.engines.device_profile import VERSION, DeviceProfile
from edged.governor.messages import Device
from edged.loop.device_info import DeviceInfo
from edged.power import clock_helper
from edged.power.host_paths import HostPaths
from tests.support.jetson_tree import JetsonTree
from tests.support.jtop_service import JtopService


def reported(
    root: Path, config: PowerConfig, tree: JetsonTree | None = None, mode: str | None = None
) -> dict[str, list[Finding]]:
    """By subject. Nothing of this machine itself is asked."""
    path = str(tree.bin if tree else root)
    found: dict[str, list[Finding]] = {}
    for finding in try_power(config, mode, HostPaths(root, root / "clocks.sock", path)):
        found.setdefault(finding.subject, []).append(finding)
    return found


def test_a_jetson_is_read_directly_and_what_it_reads_is_named(tmp_path: Path) -> None:
    tree = JetsonTree(tmp_path, "agx_orin")
    (tmp_path / "sys/class/hwmon/hwmon2").unlink()  # the over-current counters
    found = reported(tmp_path, PowerConfig(jtop_socket=f"{tmp_path}/none"), tree)
    first, *warnings = found["power"]
    assert first.level == "ok" and first.text == (
        "provider sysfs, this is a Jetson AGX Orin: power 7.0 W (estimated), temperature 48.1 C, GPU 42 %, "
        "GPU clock 408 MHz, rails 4, throttling no; unknown here: CPU, over-current counters"
    )
    assert all(finding.level == "warning" and finding.fix for finding in warnings)
    (modes,) = found["power modes"]
    assert modes.level in ("ok", "warning") and "MODE_30W of MAXN, MODE_15W, MODE_30W, MODE_50W" in modes.text
    assert "GPU clock" not in found


@pytest.mark.skipif(os.getuid() != 0, reason="without jtop only root may set a mode")
def test_the_mode_of_the_profile_to_start_with_is_looked_up(tmp_path: Path) -> None:
    tree, config = JetsonTree(tmp_path), PowerConfig(jtop_socket=f"{tmp_path}/none")
    levels = {}
    for mode in ("15W", "7w", "51W"):
        (finding,) = reported(tmp_path, config, tree, mode)["power modes"]
        levels[mode] = finding.level, finding.text.rpartition("; ")[2], finding.fix
    assert levels["15W"][0] == "ok"
    assert levels["7w"][:2] == ("warning", "the profile's mode 7W needs a reboot, which edged never does")
    assert levels["7w"][2].startswith("sudo nvpmodel -m 3 ")
    assert levels["51W"][:2] == ("warning", "the profile's mode 51W is not one of them")
    (finding,) = reported(tmp_path / "elsewhere", config, None, "15W")["power modes"]
    assert finding.level == "warning" and "this is no Jetson" in finding.text


def test_the_clock_is_tried_where_it_is_wanted(tmp_path: Path) -> None:
    (clock,) = reported(tmp_path, PowerConfig(clock_control=True))["GPU clock"]
    assert clock.level == "warning" and clock.text == f"there is no clock helper: {tmp_path / 'clocks.sock'} is missing"
    assert clock.fix == "sudo systemctl enable --now edged-clocks.socket"


def test_a_clock_helper_that_is_there_tells_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_helper, "IDLE_EXIT_S", 2.0)
    ceiling = clock_helper.Ceiling(JetsonTree(tmp_path / "board").root, tmp_path / "ceiling")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "clocks.sock"))
        listener.listen()
        helper = clock_helper.Helper(listener, ceiling, frozenset({os.getuid()}))
        thread = threading.Thread(target=helper.run)
        thread.start()
        (clock,) = reported(tmp_path, PowerConfig(clock_control=True))["GPU clock"]
        thread.join(20)
    assert clock.level == "ok" and clock.text.startswith("8 ceilings from 306 to 1020 MHz through ")


def test_it_is_said_which_clocks_there_are_to_choose_from_and_whether_their_cost_was_measured() -> None:
    bare = DeviceInfo(())
    assert clocks_to_choose(bare, "b").level == "warning" and "lists no GPU clocks" in clocks_to_choose(bare, "b").text
    at_one = clocks_to_choose(DeviceInfo((), Device((4.0,))), "b")
    assert at_one.level == "warning" and "of one clock only" in at_one.text and at_one.fix.endswith("profile b")
    guessed = clocks_to_choose(DeviceInfo((), Device((0.0, 0.0), clock_ratio=(0.5, 1.0)), (510, 1020)), "b")
    assert guessed.level == "ok" and guessed.text.startswith("2 clocks from 510 to 1020 MHz") and guessed.fix
    profile = DeviceProfile(VERSION, "board", "cpu", [], clocks_mhz=[510, 1020], idle_w=[4.0, 5.0])
    meterless = DeviceProfile(VERSION, "board", "cpu", [], clocks_mhz=[510, 1020])
    known = DeviceInfo((), Device((0.0, 0.0), clock_ratio=(0.5, 1.0)), (510, 1020), profile=meterless)
    assert "guessed" in clocks_to_choose(known, "b").text, "a profile without a meter says nothing of watts"
    measured = clocks_to_choose(DeviceInfo((), Device((4.0, 5.0)), (510, 1020), profile=profile), "b")
    assert measured.level == "ok" and "as measured" in measured.text and not measured.fix


def test_an_unknown_module_and_a_bare_machine(tmp_path: Path) -> None:
    found = reported(tmp_path, PowerConfig())
    assert found["power"][0].text.startswith(
        "provider host, this is no Jetson: nothing is known; unknown here: power, "
    )
    assert "power modes" not in found
    tree = JetsonTree(tmp_path)
    (tree.root / "proc/device-tree/compatible").write_text("nvidia,p9999-0000\0nvidia,tegra999\0")
    found = reported(tmp_path, PowerConfig(jtop_socket=f"{tmp_path}/none"), tree)
    assert "this is a nvidia,p9999-0000" in found["power"][0].text
    fixes = {finding.text: finding.fix for finding in found["power"]}
    no_total = "no total power: nvidia,p9999-0000 is not a module whose rails edged knows"
    assert fixes[no_total] == "limit temperature_c instead of power_w: without a total it cannot hold"


def test_a_counter_that_only_root_may_read_has_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("1\n")
    opened = os.open

    def guarded(path: Path, *rest: int) -> int:
        if getattr(path, "name", "") == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", guarded)
    fixes = {finding.text: finding.fix for finding in reported(tmp_path, PowerConfig())["power"]}
    fix = fixes["/sys/class/powercap/intel-rapl:0/energy_uj may not be read by this user"]
    assert fix.startswith("sudo chgrp edged /sys/class/powercap/intel-rapl:*/energy_uj && sudo chmod 440 ")


@pytest.mark.skipif(find_spec("jtop") is None, reason="needs the extra: pip install 'edged[jetson]'")
def test_jtop_is_named_when_it_answers(tmp_path: Path) -> None:
    tree = JetsonTree(tmp_path)
    service = JtopService(tmp_path)
    service.start()
    try:
        found = reported(tmp_path, PowerConfig(provider="jtop", jtop_socket=str(service.socket)), tree)
    finally:
        service.stop()
    assert found["power"][0].text.startswith("provider jtop, as configured: power 7.0 W, temperature 48.1 C, ")
    assert found["power modes"][0].text == "15W of 15W, 25W, MAXN_SUPER, 7W; set through jtop"
