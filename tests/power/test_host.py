"""The host provider on fixture trees: numbers and units, wraps, absences and nonsense."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged import clock
from edged.power.host import HostProvider
from edged.power.telemetry import Sample


class Machine:
    """A tree of /proc and /sys, and the time at which it is read."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.now_ns = 1_000 * clock.NS_PER_S
        monkeypatch.setattr(clock, "mono_ns", lambda: self.now_ns)
        self.provider = HostProvider(root)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def rapl(self, zone: str, name: str, energy_uj: int, span_uj: int = 262_143_328_850) -> None:
        self.write(f"sys/class/powercap/{zone}/name", name + "\n")
        self.write(f"sys/class/powercap/{zone}/energy_uj", f"{energy_uj}\n")
        self.write(f"sys/class/powercap/{zone}/max_energy_range_uj", f"{span_uj}\n")

    def read(self, after_s: float = 1.0) -> Sample:
        self.now_ns += int(after_s * clock.NS_PER_S)
        return self.provider.read()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    it = Machine(tmp_path, monkeypatch)
    it.write("proc/stat", "cpu  1000 0 500 8000 500 0 0 0 0 0\ncpu0 1 1 1 1\n")
    it.write("proc/pressure/cpu", "some avg10=12.34 avg60=3.00 avg300=1.00 total=99\nfull avg10=0.00 avg60=0.00\n")
    it.write("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n")
    return it


def test_cpu_pressure_and_memory(machine: Machine) -> None:
    first = machine.read()
    assert first.cpu_percent is None and "CPU use needs two readings; this is the first" in first.missing
    machine.write("proc/stat", "cpu  1050 0 525 8020 505 0 0 0 0 0\n")
    second = machine.read()
    assert second.cpu_percent == pytest.approx(75.0)
    assert second.cpu_pressure_percent == 12.34
    assert second.memory_available_mb == pytest.approx(8192.0)


def test_a_bare_machine_has_no_power_and_no_temperature_and_says_so(machine: Machine) -> None:
    machine.read()
    machine.write("proc/stat", "cpu  1050 0 525 8020 505 0 0 0 0 0\n")
    sample = machine.read()
    assert sample.power_w is None and sample.temperature_c is None and not sample.power_estimated
    assert sample.missing == (
        "no temperature: this machine has no thermal zones and no hwmon temperature sensors",
        "no power: this machine has no power meter that edged knows (no RAPL in /sys/class/powercap)",
    )


def test_an_empty_tree_is_all_unknown(tmp_path: Path) -> None:
    sample = HostProvider(tmp_path).read()
    assert (sample.cpu_percent, sample.memory_available_mb, sample.cpu_pressure_percent) == (None, None, None)
    assert "/proc/stat cannot be read: No such file or directory" in sample.missing
    assert len(sample.missing) == 5


def test_an_energy_counter_that_stands_still_or_was_reset_is_no_power(machine: Machine) -> None:
    machine.rapl("intel-rapl:0", "package-0", 5_000_000_000)
    machine.rapl("intel-rapl:0:0", "dram", 7_000_000)
    machine.read()
    sample = machine.read()
    assert sample.power_w is None and sample.rails_w == {"package-0": None, "package-0/dram": 0.0}, "a part may be off"
    assert "power of package-0: the energy counter has not advanced for 1.0 s" in sample.missing
    machine.rapl("intel-rapl:0", "package-0", 1_000_000)  # its driver was loaded again: this is no wrap
    sample = machine.read()
    assert sample.power_w is None
    assert "power of package-0: the energy counter ran backwards" in sample.missing
    machine.rapl("intel-rapl:0", "package-0", 16_000_000)
    assert machine.read().power_w == pytest.approx(15.0)


def test_counters_that_stand_still_are_not_an_idle_machine(machine: Machine) -> None:
    machine.read()
    sample = machine.read()
    assert sample.cpu_percent is None and "/proc/stat did not advance since the last reading" in sample.missing


def test_rapl_packages_their_parts_and_the_sum(machine: Machine) -> None:
    def counters(seconds: int) -> None:
        machine.rapl("intel-rapl:0", "package-0", 5_000_000 + 10_000_000 * seconds)
        machine.rapl("intel-rapl:0:0", "core", 4_000_000 * seconds)
        machine.rapl("intel-rapl:1", "package-1", 20_000_000 * seconds)
        machine.rapl("intel-rapl-mmio:0", "package-0", 999_000_000 * seconds)

    counters(0)
    first = machine.read()
    assert first.power_w is None and "power of package-0 needs two readings; this is the first" in first.missing
    counters(2)
    sample = machine.read(after_s=2.0)
    assert sample.rails_w == {
        "package-0": pytest.approx(10.0),
        "package-0/core": pytest.approx(4.0),
        "package-1": pytest.approx(20.0),
    }
    assert sample.power_w == pytest.approx(30.0) and sample.power_estimated
    assert any("the power is that of package-0 + package-1 alone" in why for why in sample.missing)


def test_a_platform_meter_is_the_whole_machine(machine: Machine) -> None:
    for energy_uj in (0, 45_000_000):
        machine.rapl("intel-rapl:0", "package-0", energy_uj // 3)
        machine.rapl("intel-rapl:1", "psys", energy_uj)
        sample = machine.read()
    assert sample.power_w == pytest.approx(45.0) and not sample.power_estimated


def test_the_energy_counter_wraps(machine: Machine) -> None:
    machine.rapl("intel-rapl:0", "package-0", 99_000_000, span_uj=100_000_000)
    machine.read()
    machine.rapl("intel-rapl:0", "package-0", 4_000_000, span_uj=100_000_000)
    assert machine.read().rails_w["package-0"] == pytest.approx(5.0)


def test_after_a_long_pause_the_counter_is_not_trusted(machine: Machine) -> None:
    machine.rapl("intel-rapl:0", "package-0", 0)
    machine.read()
    machine.rapl("intel-rapl:0", "package-0", 1_000_000)
    sample = machine.read(after_s=3600)
    assert sample.power_w is None
    assert "power of package-0: 3600 s since the last reading, the counter may have wrapped" in sample.missing
    machine.rapl("intel-rapl:0", "package-0", 9_000_000)
    assert machine.read().power_w == pytest.approx(8.0)


def test_a_counter_that_ran_backwards_without_a_range_is_unknown(machine: Machine) -> None:
    machine.rapl("intel-rapl:0", "package-0", 5_000_000)
    machine.read()
    machine.rapl("intel-rapl:0", "package-0", 1_000_000)
    (machine.root / "sys/class/powercap/intel-rapl:0/max_energy_range_uj").unlink()
    sample = machine.read()
    assert sample.rails_w == {"package-0": None} and sample.power_w is None
    assert "power of package-0: the energy counter ran backwards" in sample.missing


def test_a_counter_only_root_may_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.rapl("intel-rapl:0", "package-0", 5_000_000)
    opened = os.open

    def guarded(path: Path, *rest: int) -> int:
        if path.name == "energy_uj":  # the tests may run as root, whom no mode keeps out
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", guarded)
    sample = machine.read()
    assert sample.power_w is None and sample.rails_w == {"package-0": None}
    assert "/sys/class/powercap/intel-rapl:0/energy_uj may not be read by this user" in sample.missing


def test_temperatures_by_name_the_hottest_and_the_absurd(machine: Machine) -> None:
    for zone, (kind, milli) in enumerate([("x86_pkg_temp", "61000"), ("acpitz", "27800"), ("acpitz", "-256000")]):
        machine.write(f"sys/class/thermal/thermal_zone{zone}/type", kind + "\n")
        machine.write(f"sys/class/thermal/thermal_zone{zone}/temp", milli + "\n")
    machine.write("sys/class/hwmon/hwmon0/name", "coretemp\n")
    machine.write("sys/class/hwmon/hwmon0/temp1_label", "Package id 0\n")
    machine.write("sys/class/hwmon/hwmon0/temp1_input", "63500\n")
    machine.write("sys/class/hwmon/hwmon0/temp2_input", "hot\n")
    sample = machine.read()
    assert sample.temperatures_c == {
        "x86_pkg_temp": 61.0,
        "acpitz": 27.8,
        "acpitz#2": None,
        "coretemp/Package id 0": 63.5,
        "coretemp/temp2": None,
    }
    assert sample.temperature_c == 63.5
    assert "/sys/class/thermal/thermal_zone2/temp reads -256 C, which no working sensor does" in sample.missing
    assert "/sys/class/hwmon/hwmon0/temp2_input holds 'hot\\n', not a whole number" in sample.missing


@pytest.mark.parametrize(("milli", "celsius"), [("0", None), ("61", None), ("-150", None), ("-5000", -5.0)])
def test_a_chip_at_zero_degrees_is_a_dead_sensor_or_one_in_whole_degrees(
    machine: Machine, milli: str, celsius: float | None
) -> None:
    for zone, kind in enumerate(("x86_pkg_temp", "acpitz")):
        machine.write(f"sys/class/thermal/thermal_zone{zone}/type", kind + "\n")
        machine.write(f"sys/class/thermal/thermal_zone{zone}/temp", milli + "\n")
    sample = machine.read()
    assert sample.temperatures_c == {"x86_pkg_temp": celsius, "acpitz": int(milli) / 1000}
    assert any("which no working sensor of a chip does" in why for why in sample.missing) == (celsius is None)


@given(
    stat=st.text(max_size=80), pressure=st.text(max_size=80), memory=st.text(max_size=80), energy=st.text(max_size=30)
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nonsense_in_any_file_is_unknown_and_never_an_error(
    machine: Machine, stat: str, pressure: str, memory: str, energy: str
) -> None:
    machine.write("proc/stat", "cpu " + stat)
    machine.write("proc/pressure/cpu", "some avg10=" + pressure)
    machine.write("proc/meminfo", "MemAvailable: " + memory)
    machine.rapl("intel-rapl:0", "package-0", 0)
    machine.write("sys/class/powercap/intel-rapl:0/energy_uj", energy)
    sample = machine.read()
    assert sample.cpu_percent is None or 0 <= sample.cpu_percent <= 100
    assert sample.power_w is None or sample.power_w >= 0
    assert len(sample.missing) <= 12
