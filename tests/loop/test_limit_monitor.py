"""The limits beside what was measured: means over windows, energy over a horizon, and one event when one is passed."""

from __future__ import annotations

from typing import Any

import pytest

from edged.bus.schema import BudgetState
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.loop.limit_monitor import LimitMonitor
from edged.power.energy_meter import HorizonUse
from edged.power.telemetry import Sample

S = NS_PER_S


class Said:
    """A publisher's place: keeps what is said."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def publish(self, message: Any) -> Any:
        self.events.append((message.kind, message.text))
        return message


def made(limits: Limits, restored: HorizonUse | None = None) -> tuple[LimitMonitor, Said]:
    output = Said()
    budgets = LimitMonitor({"fine": 0.9, "fast": 0.8, "odd": None}, output, restored)  # type: ignore[arg-type]
    budgets.limits_changed(limits, 0)
    return budgets, output


def state(budgets: LimitMonitor, name: str, now_ns: int) -> BudgetState:
    return next(budget for budget in budgets.states(now_ns) if budget.name == name)


def metered(budgets: LimitMonitor, power_w: float, from_s: int, to_s: int, estimated: bool = False) -> None:
    """Read once a second, as the sampler gives it: with the energy since second 0."""
    for second in range(from_s, to_s + 1):
        read = sample(second, power_w, power_estimated=estimated, energy_j=power_w * second)
        budgets.sensed(read, second * S)


def sample(at_s: float, power_w: float | None, temperature_c: float | None = None, **more: Any) -> Sample:
    return Sample("test", round(at_s * S), power_w, temperature_c=temperature_c, **more)


def test_unknown_is_none_with_the_reason() -> None:
    budgets, output = made(Limits(power_w=8.0, temperature_c=85.0, energy_wh=1.0))
    budgets.sensed(sample(1, None, missing=("no meter here",)), S)
    for name in ("power", "energy", "temperature"):
        found = state(budgets, name, 2 * S)
        assert found.limit is not None and found.measured is None and found.note == "no meter here"
    assert output.events == []


def test_energy_is_counted_over_its_horizon_and_reported_once_when_spent() -> None:
    budgets, output = made(Limits(energy_wh=1.0, energy_horizon_h=1.0))
    metered(budgets, 10.0, 0, 399, estimated=True)
    spent = state(budgets, "energy", 399 * S)
    assert spent.measured == pytest.approx(3990 / 3600, rel=0.01) and spent.estimated and spent.unit == "Wh"
    assert [kind for kind, _ in output.events] == ["budget_exhausted"]
    assert "1.00 Wh of 1 Wh for 1 h are used (estimated)" in output.events[0][1]
    metered(budgets, 10.0, 3590, 3659)
    left = state(budgets, "energy", 3659 * S).measured
    assert left is not None and left < 0.2, "the next horizon has begun"


def test_another_horizon_keeps_what_was_used_and_a_restart_too() -> None:
    budgets, _ = made(Limits(energy_wh=5.0, energy_horizon_h=24.0))
    metered(budgets, 10.0, 0, 360)
    assert state(budgets, "energy", 360 * S).measured == pytest.approx(1.0)
    budgets.limits_changed(Limits(energy_wh=5.0, energy_horizon_h=12.0), 360 * S)
    found = state(budgets, "energy", 360 * S)
    assert found.measured == pytest.approx(1.0) and found.note == "in 6 min of 12 h, metered 100% of it"
    again, _ = made(Limits(energy_wh=5.0, energy_horizon_h=12.0), budgets.horizon)
    assert state(again, "energy", 400 * S).measured == pytest.approx(1.0)


def test_without_an_energy_limit_it_is_what_was_used_since_the_start() -> None:
    budgets, _ = made(Limits())
    metered(budgets, 10.0, 0, 360)
    found = state(budgets, "energy", 360 * S)
    assert found.measured == pytest.approx(1.0) and found.note == "since edged started"


def test_a_power_limit_that_is_passed_is_reported_once_a_minute() -> None:
    budgets, output = made(Limits(power_w=8.0, power_window_s=5.0))
    metered(budgets, 9.0, 0, 99)
    assert [text for _, text in output.events] == ["power: 9.00 W over 5 s, the limit is 8 W"] * 2
    assert state(budgets, "power", 99 * S).measured == pytest.approx(9.0)


def test_heat_beyond_the_limit_is_reported() -> None:
    budgets, output = made(Limits(temperature_c=80.0))
    for second, degrees in enumerate((79.0, 80.4, 80.6, 81.0)):
        budgets.sensed(sample(second, None, degrees), second * S)
    assert output.events == [("limit_exceeded", "temperature: 80.6 C, the limit is 80 C")]


def test_shares_are_those_of_the_last_minute() -> None:
    budgets, _ = made(Limits(deadline_ms=40.0))
    for _second in range(100):
        for n in range(10):
            budgets.published("fine" if n < 5 else "fast" if n < 9 else "odd", on_time=n != 0)
        budgets.update_counters(offered=20 * (_second + 1), budget=6 * (_second + 1))
    assert state(budgets, "deadline", S).measured == 90.0
    assert state(budgets, "deadline", S).limit == pytest.approx(99.0)
    assert state(budgets, "accuracy", S).measured == pytest.approx((5 * 0.9 + 4 * 0.8) / 9, abs=1e-3)
    rate = state(budgets, "frame_rate", S)
    assert rate.measured == 50.0 and "354 dropped for a budget" in rate.note
