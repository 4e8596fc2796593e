"""Batteries as the kernel shows them: fuel gauges in Wh and in Ah, several, chargers, peripherals, nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.config import PowerConfig
from edged.power.battery import read_battery
from edged.power.provider import BatteryReading
from edged.power.stuck_sensors import StuckBattery
from edged.power.sysfs_reader import SysfsReader
from edged.power.telemetry import open_provider
from tests.support.jetson_tree import JetsonTree

WH = {"energy_full": 50_000_000, "energy_now": 20_000_000, "power_now": 8_200_000}
AH = {
    "charge_full": 5_000_000, "charge_now": 2_500_000, "voltage_min_design": 12_000_000, "voltage_now": 12_500_000,
    "current_now": 400_000,
}  # fmt: skip


def supply(root: Path, name: str, values: dict[str, Any], status: str = "Discharging", kind: str = "Battery") -> None:
    directory = root / "sys/class/power_supply" / name
    directory.mkdir(parents=True)
    for file, value in ({"type": kind, "status": status} | values).items():
        (directory / file).write_text(f"{value}\n")


def read(root: Path) -> tuple[BatteryReading | None, list[str]]:
    files, missing = SysfsReader(root), list[str]()
    try:
        return read_battery(files, missing), missing
    finally:
        files.close()


@pytest.mark.parametrize("status", ["Discharging", "Charging", "Full"])
@pytest.mark.parametrize(
    ("values", "charge_wh", "capacity_wh", "watts"),
    [
        (WH, 20.0, 50.0, 8.2),
        (WH | {"power_now": -8_200_000}, 20.0, 50.0, 8.2),  # drivers differ in the sign
        (AH, 30.0, 60.0, 5.0),  # 2.5 and 5 Ah at 12 V
        ({"energy_full_design": 40_000_000, "capacity": 25, "power_now": 1_000_000}, 10.0, 40.0, 1.0),
        (WH | {"energy_now": 51_000_000}, 50.0, 50.0, 8.2),
    ],
)
def test_charge_capacity_and_draw(
    tmp_path: Path, values: dict[str, int], charge_wh: float, capacity_wh: float, watts: float, status: str
) -> None:
    supply(tmp_path, "BAT0", values, status)
    found, missing = read(tmp_path)
    assert found is not None and not missing
    assert found.charge_j == pytest.approx(charge_wh * 3600) and found.capacity_j == pytest.approx(capacity_wh * 3600)
    assert found.discharge_w == pytest.approx({"Discharging": watts, "Charging": -watts, "Full": 0.0}[status])


def test_batteries_add_up_and_what_is_none_of_the_machine_s_is_left_out(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", WH)
    supply(tmp_path, "BAT1", WH | {"power_now": 1_800_000})
    supply(tmp_path, "BAT2", WH | {"present": 0})
    supply(tmp_path, "AC", {"online": 1}, kind="Mains")
    supply(tmp_path, "hidpp_battery_0", {"capacity": 50, "scope": "Device"})
    found, missing = read(tmp_path)
    assert found is not None and not missing
    assert (found.charge_j, found.capacity_j, found.discharge_w) == pytest.approx((40 * 3600, 100 * 3600, 10.0))


def test_a_machine_without_one_has_none_and_needs_no_sentence(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, [])


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"capacity": 50}, "it does not report its capacity"),
        ({"energy_full": 50_000_000}, "it does not report its charge"),
        (WH | {"energy_full": 0}, "it does not report its capacity"),
        (WH | {"energy_now": -1}, "which no working gauge does"),
        (WH | {"energy_now": 90_000_000}, "which no working gauge does"),
        ({"charge_full": 5_000_000, "charge_now": 1_000_000}, "does not report its voltage"),
        (AH | {"voltage_min_design": 0}, "does not report its voltage"),
    ],
)
def test_what_a_battery_does_not_report_is_unknown_with_the_reason(
    tmp_path: Path, values: dict[str, int], why: str
) -> None:
    supply(tmp_path, "BAT0", values)
    found, missing = read(tmp_path)
    assert found is None and len(missing) == 1 and missing[0].startswith("battery BAT0: ") and why in missing[0]


@pytest.mark.parametrize(("status", "values"), [("Unknown", WH), ("Discharging", {**WH, "power_now": "?"})])
def test_a_draw_that_is_not_reported_is_unknown_and_the_charge_is_not(
    tmp_path: Path, status: str, values: dict[str, Any]
) -> None:
    supply(tmp_path, "BAT0", values, status)
    found, missing = read(tmp_path)
    assert found is not None and found.discharge_w is None and found.charge_j == pytest.approx(72_000)
    assert missing == ["battery BAT0 does not report the power drawn from it"]


def test_a_jetson_on_a_battery_reports_it(tmp_path: Path) -> None:
    JetsonTree(tmp_path)
    supply(tmp_path, "BAT0", WH)
    provider = open_provider(PowerConfig(), tmp_path)
    sample = provider.read()
    provider.close()
    assert sample.provider == "sysfs" and sample.battery == BatteryReading(72_000.0, 180_000.0, 8.2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.dictionaries(st.sampled_from(sorted(WH | AH | {"capacity": 0})), st.integers(-(10**18), 10**18)))
def test_any_numbers_are_a_reading_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("any")
    supply(root, "BAT0", values)
    found, missing = read(root)
    assert (found is not None and 0 <= found.charge_j <= found.capacity_j) or missing


def test_a_gauge_that_keeps_its_charge_while_energy_is_drawn_is_stuck() -> None:
    gauge = StuckBattery()
    full, at_ns = BatteryReading(90_000.0, 100_000.0, 10.0), 0

    def after(seconds: int, reading: BatteryReading) -> tuple[BatteryReading | None, list[str]]:
        nonlocal at_ns
        for _ in range(seconds):
            at_ns += NS_PER_S
            missing: list[str] = []
            found = gauge.check(reading, at_ns, missing)
        return found, missing

    assert after(499, full) == (full, [])
    found, missing = after(10, full)
    assert found is None
    assert missing == ["the battery's charge has not changed while 1.4 Wh were drawn: its gauge is stuck"]
    lower = replace(full, charge_j=89_000.0)
    assert after(1, lower) == (lower, []), "it lives again"
    above_full = replace(full, charge_j=full.capacity_j)
    assert after(1400, above_full) == (above_full, []), "a gauge may read above full, which is cut off"
    assert after(200, above_full)[0] is None
    for quiet in (replace(full, discharge_w=-10.0), replace(full, discharge_w=None)):
        assert after(2000, quiet) == (quiet, []), "a full battery may be charged for long, and an unknown draw is none"
