"""Four Jetson boards as files: rails, the whole, GPU, throttling; what vanishes, comes back, or is nonsense."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged import clock
from edged.config import PowerConfig
from edged.power.jetson import SysfsProvider
from edged.power.select_provider import choose
from edged.power.telemetry import Sample, open_provider
from tests.support.jetson_tree import BOARDS, JetsonTree


class Read:
    """A board, its provider, and the time, ten seconds on at each reading unless told."""

    def __init__(self, root: Path, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1_000 * clock.NS_PER_S
        monkeypatch.setattr(clock, "mono_ns", lambda: self.now_ns)
        self.tree = JetsonTree(root, board)
        self.provider = SysfsProvider(root)

    def __call__(self, after_s: float = 11.0) -> Sample:
        self.now_ns += int(after_s * clock.NS_PER_S)
        return self.provider.read()


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    return Read(tmp_path, "orin_nano", monkeypatch)


@pytest.mark.parametrize(
    ("board", "rails", "power_w", "estimated"),
    [
        ("orin_nano", {"VDD_IN": 7.006, "VDD_CPU_GPU_CV": 1.592, "VDD_SOC": 1.351}, 7.006, False),
        ("orin_nx", {"VDD_IN": 9.007, "VDD_CPU_GPU_CV": 2.548, "VDD_SOC": 1.709}, 9.007, False),
        (
            "agx_orin",
            {"VDD_GPU_SOC": 2.397, "VDD_CPU_CV": 0.799, "VIN_SYS_5V0": 3.522, "VDDQ_VDD2_1V8AO": 0.301},
            7.019,
            True,
        ),
        ("thor", {"VDD_GPU": -0.392, "VDD_CPU_SOC_MSS": 6.507, "VIN_SYS_5V0": 6.520, "VIN": 23.364}, 23.364, False),
    ],
)
def test_rails_and_the_whole(
    tmp_path: Path, board: str, rails: dict[str, float], power_w: float, estimated: bool
) -> None:
    JetsonTree(tmp_path, board)
    sample = SysfsProvider(tmp_path).read()
    assert dict(sample.rails_w) == {name: pytest.approx(watts, abs=0.001) for name, watts in rails.items()}
    assert sample.power_w == pytest.approx(power_w, abs=0.002) and sample.power_estimated is estimated
    assert any("is not measured" in why for why in sample.missing) is estimated


@pytest.mark.parametrize("board", BOARDS)
def test_heat_gpu_and_throttling(tmp_path: Path, board: str) -> None:
    tree = JetsonTree(tmp_path, board)
    sample = SysfsProvider(tmp_path).read()
    assert sample.temperature_c == 48.093 and sample.temperatures_c["tj-thermal"] == 48.093
    assert sample.temperatures_c["cv0-thermal"] is None
    asleep = "no temperature while their part of the chip is powered off: cv0-thermal, cv1-thermal, cv2-thermal"
    assert asleep in sample.missing
    hz = tree.board.gpu_hz
    assert (sample.gpu_percent, sample.gpu_mhz, sample.gpu_ceiling_mhz) == (42.3, hz[1] / 1e6, hz[-1] / 1e6)
    assert sample.throttled is False
    assert sample.throttle_events == {"under_voltage": 0, "average_over_current": 0, "peak_over_current": 0}
    assert sample.cpu_pressure_percent == 1.5 and sample.memory_available_mb == 4096.0


def test_values_follow_the_hardware(nano: Read) -> None:
    assert nano().power_w == pytest.approx(7.006, abs=0.001)
    nano.tree.write(nano.tree.rail("VDD_IN"), 3000)
    nano.tree.write(f"{nano.tree.devfreq}/max_freq", 612_000_000)
    nano.tree.write("sys/class/thermal/cooling_device1/cur_state", 1)
    nano.tree.write("sys/class/thermal/thermal_zone8/temp", 99_500)
    sample = nano(0.1)
    assert sample.power_w == pytest.approx(14.928) and sample.gpu_ceiling_mhz == 612.0
    assert sample.throttled is True and sample.temperature_c == 99.5


def test_a_rail_that_vanishes_takes_the_total_with_it_and_comes_back(nano: Read) -> None:
    nano()
    current = nano.tree.root / nano.tree.rail("VDD_IN")
    current.unlink()
    sample = nano()
    assert sample.power_w is None and sample.rails_w["VDD_IN"] is None
    assert sample.rails_w["VDD_SOC"] == pytest.approx(1.351, abs=0.001)
    assert "no total power: Jetson Orin Nano has it on VDD_IN; VDD_IN is unknown" in sample.missing
    current.write_text("1408\n")
    assert nano().power_w == pytest.approx(7.006, abs=0.001)


def chip_of(board: Read, rail: str) -> tuple[Path, str]:
    """The monitor of a rail and its channel."""
    current = board.tree.root / board.tree.rail(rail)
    return current.parent, current.name.removeprefix("curr").removesuffix("_input")


@pytest.mark.parametrize(
    ("board", "rail"),
    [("orin_nano", "VDD_IN"), ("orin_nx", "VDD_IN"), ("agx_orin", "VIN_SYS_5V0"), ("agx_orin", "VDDQ_VDD2_1V8AO")],
)
@pytest.mark.parametrize("mv", [0, -8])
def test_a_rail_stuck_at_0_v_is_no_power_of_0_w(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: str, rail: str, mv: int
) -> None:
    it = Read(tmp_path, board, monkeypatch)
    chip, channel = chip_of(it, rail)
    (chip / f"in{channel}_input").write_text(f"{mv}\n")
    sample = it()
    assert sample.rails_w[rail] is None and sample.power_w is None
    assert any(why.startswith(f"no power of rail {rail}: its voltage reads") for why in sample.missing)


def test_a_monitor_that_multiplies_by_itself_is_judged_by_its_voltage_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Read(tmp_path, "thor", monkeypatch)
    (chip,) = (name.parent for name in it.tree.root.glob("sys/devices/platform/i2c/*/hwmon/*/power1_input"))
    assert it().power_w == pytest.approx(23.364)
    (chip / "in1_input").write_text("0\n")
    assert it().power_w is None


@pytest.mark.parametrize("ma", [0, 20])
def test_a_module_that_seems_to_draw_nothing_has_no_total(nano: Read, ma: int) -> None:
    nano.tree.write(nano.tree.rail("VDD_IN"), ma)
    sample = nano()
    assert sample.power_w is None
    assert any("VDD_IN reads 0." in why and "a running device draws more" in why for why in sample.missing)


@pytest.mark.parametrize(("shunt_uohm", "ma"), [(5000, 32_760), (5000, -32_760), (10_000, 16_380), (20_000, 8190)])
def test_a_current_at_the_end_of_its_monitor_s_range_is_unknown(nano: Read, shunt_uohm: int, ma: int) -> None:
    chip, channel = chip_of(nano, "VDD_IN")
    (chip / f"shunt{channel}_resistor").write_text(f"{shunt_uohm}\n")
    nano.tree.write(nano.tree.rail("VDD_IN"), ma)
    sample = nano()
    assert sample.rails_w["VDD_IN"] is None and sample.power_w is None
    assert any("the end of the monitor's range" in why for why in sample.missing)
    nano.tree.write(nano.tree.rail("VDD_IN"), 2000)
    assert nano().power_w == pytest.approx(9.952)


def test_more_than_a_module_can_draw_is_no_total(nano: Read) -> None:
    nano.tree.write(nano.tree.rail("VDD_IN"), 15_000)  # as a program that multiplies for us would report it
    sample = nano()
    assert sample.power_w is None
    assert "no total power: VDD_IN reads 75 W, more than Jetson Orin Nano can draw" in sample.missing


def test_a_voltage_at_the_end_of_its_monitor_s_range_is_unknown(nano: Read) -> None:
    chip, channel = chip_of(nano, "VDD_IN")
    (chip / f"in{channel}_input").write_text("32760\n")
    assert nano().power_w is None


def minutes(board: Read, count: int, *moving: str) -> Sample:
    """A reading every five seconds while the load changes each minute; the zones `moving` follow it."""
    for second in range(0, 60 * count, 5):
        busy = second // 60 % 2
        board.tree.write(board.tree.rail("VDD_IN"), 2400 + second if busy else 1200 + second)
        for zone in moving:
            board.tree.write(f"sys/class/thermal/{zone}/temp", 60_000 + 5 * second + 9000 * busy)
        sample = board(5)
    return sample


def test_a_temperature_that_keeps_its_value_under_changing_load_is_unknown(nano: Read) -> None:
    assert minutes(nano, 2).temperature_c == 48.093, "not long enough to tell"
    sample = minutes(nano, 4)
    assert sample.temperature_c is None and sample.power_w is not None
    assert any(
        re.fullmatch(r"tj-thermal has read 48.093 C for \d minutes while the load changed: the sensor is stuck", why)
        for why in sample.missing
    )
    nano.tree.write("sys/class/thermal/thermal_zone8/temp", 50_000)
    assert nano(1).temperature_c == 50.0, "it lives again"


def test_the_hottest_is_the_hottest_of_the_sensors_that_work(nano: Read) -> None:
    sample = minutes(nano, 6, "thermal_zone0", "thermal_zone1")
    assert sample.temperatures_c["tj-thermal"] is None
    assert sample.temperature_c == sample.temperatures_c["cpu-thermal"] and sample.temperature_c is not None


def test_a_temperature_under_an_even_load_may_keep_its_value(nano: Read) -> None:
    for _ in range(120):
        sample = nano(5)
    assert sample.temperature_c == 48.093


def test_a_power_that_keeps_its_value_while_the_gpu_s_use_changes_is_unknown(nano: Read) -> None:
    for second in range(0, 600, 5):
        nano.tree.write(f"{nano.tree.gpu}/load", 900 if second // 60 % 2 else 50)
        sample = nano(5)
    assert sample.power_w is None and sample.rails_w["VDD_IN"] is None
    assert any(why.startswith("VDD_IN has read 7.00621 W for") for why in sample.missing)


def test_a_monitor_that_comes_back_under_another_number(nano: Read) -> None:
    nano()
    link = nano.tree.root / "sys/class/hwmon/hwmon0"
    target = os.readlink(link)
    link.unlink()
    assert nano().rails_w == {"VDD_IN": None, "VDD_CPU_GPU_CV": None, "VDD_SOC": None}
    link.with_name("hwmon9").symlink_to(target)
    assert nano().power_w == pytest.approx(7.006, abs=0.001)


def test_a_sum_with_a_part_unknown_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agx = Read(tmp_path, "agx_orin", monkeypatch)
    agx()
    agx.tree.write(agx.tree.rail("VDD_CPU_CV"), "Input/output error")
    sample = agx()
    assert sample.power_w is None and sample.rails_w["VIN_SYS_5V0"] == pytest.approx(3.522, abs=0.001)


def test_channels_that_are_off_or_not_connected_are_no_rails(nano: Read) -> None:
    chip = (nano.tree.root / nano.tree.rail("VDD_SOC")).parent
    (chip / "in3_enable").write_text("0\n")
    (chip / "in2_label").write_text("NC\n")
    sample = nano()
    assert sample.rails_w["VDD_SOC"] is None and sample.rails_w["VDD_CPU_GPU_CV"] is None
    assert "no sensor for VDD_CPU_GPU_CV, VDD_SOC" in sample.missing


def test_an_unknown_module_has_rails_but_no_total(tmp_path: Path) -> None:
    tree = JetsonTree(tmp_path)
    (tree.root / "proc/device-tree/compatible").write_text("nvidia,p9999-0000\0nvidia,tegra999\0")
    provider = open_provider(PowerConfig(), tmp_path)
    sample = provider.read()
    provider.close()
    assert provider.name == "sysfs" and sample.rails_w["VDD_IN"] is not None
    assert sample.power_w is None and not sample.power_estimated
    assert "no total power: nvidia,p9999-0000 is not a module whose rails edged knows" in sample.missing


def test_a_zone_that_answers_try_again(nano: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    nano()
    asleep = nano.tree.root / "sys/class/thermal/thermal_zone1/temp"
    number = asleep.stat().st_ino
    read = os.pread

    def gated(descriptor: int, length: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == number:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return read(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", gated)
    sample = nano()
    assert sample.temperatures_c["gpu-thermal"] is None
    assert any("powered off: gpu-thermal, cv0-thermal" in why for why in sample.missing)


def test_what_the_machine_does_not_count_is_not_there(tmp_path: Path) -> None:
    tree = JetsonTree(tmp_path)
    (tree.root / "sys/class/hwmon/hwmon1").unlink()
    for number in range(3):
        (tree.root / f"sys/class/thermal/cooling_device{number}").unlink()
    (tree.root / f"sys/class/devfreq/{tree.board.gpu}").unlink()
    sample = SysfsProvider(tmp_path).read()
    assert sample.throttle_events == {} and sample.throttled is None
    assert sample.gpu_percent is None and "no GPU in /sys/class/devfreq" in sample.missing


def test_auto_takes_the_jetson_directly_and_else_the_host(tmp_path: Path) -> None:
    assert choose("auto", tmp_path).name == "host"
    JetsonTree(tmp_path, "thor")
    assert choose("auto", tmp_path) == choose("auto", tmp_path)
    assert (choose("auto", tmp_path).name, choose("auto", tmp_path).because) == ("sysfs", "this is a Jetson AGX Thor")
    assert choose("host", tmp_path).because == "as configured"


def test_descriptors_are_kept_and_given_back(tmp_path: Path) -> None:
    JetsonTree(tmp_path, "agx_orin")
    before = len(os.listdir("/proc/self/fd"))
    provider = SysfsProvider(tmp_path)
    provider.read()
    held = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        provider.read()
    assert len(os.listdir("/proc/self/fd")) == held > before
    provider.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reading_is_cheap(tmp_path: Path) -> None:
    JetsonTree(tmp_path)
    provider = SysfsProvider(tmp_path)
    provider.read()
    spent = []
    for _ in range(50):
        begin = perf_counter()
        provider.read()
        spent.append(perf_counter() - begin)
    provider.close()
    assert sorted(spent)[10] < 0.01  # about a millisecond; at 10 Hz that is one percent of a core


@given(
    name=st.sampled_from(["curr1_input", "in1_input", "in1_label", "in2_enable"]),
    raw=st.binary(max_size=80),
    compatible=st.binary(max_size=80),
    temp=st.binary(max_size=20),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nonsense_in_any_file_is_unknown_and_never_an_error(
    nano: Read, name: str, raw: bytes, compatible: bytes, temp: bytes
) -> None:
    chip = nano.tree.root / "sys/class/hwmon/hwmon0"
    (chip / name).write_bytes(raw)
    (nano.tree.root / "sys/class/thermal/thermal_zone0/temp").write_bytes(temp)
    (nano.tree.root / f"{nano.tree.gpu}/load").write_bytes(temp)
    (nano.tree.root / "proc/device-tree/compatible").write_bytes(compatible)
    provider = SysfsProvider(nano.tree.root)
    sample = provider.read()
    provider.close()
    assert sample.power_w is None or 0 <= sample.power_w <= 1000
    assert sample.gpu_percent is None or 0 <= sample.gpu_percent <= 100
    assert all(watts is None or -5 <= watts <= 1000 for watts in sample.rails_w.values())
