"""The limits beside what was measured: means over windows, energy over a horizon, and one event when one is passed."""

from __future__ import annotations

from typing import Any

import pytest

from edged.bus.schema import BudgetState
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.loop.limit_monitor import LimitMonitor, Meter
from edged.power.telemetry import Sample

S = NS_PER_S


class Said:
    """A publisher's place: keeps what is said."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def publish(self, message: Any) -> Any:
        self.events.append((message.kind, message.text))
        return message


def made(limits: Limits) -> tuple[LimitMonitor, Said]:
    said = Said()
    budgets = LimitMonitor({"fine": 0.9, "fast": 0.8, "odd": None}, said, 0)  # type: ignore[arg-type]
    budgets.limits_changed(limits, 0)
    return budgets, said


def state(budgets: LimitMonitor, name: str, now_ns: int) -> BudgetState:
    return next(budget for budget in budgets.states(now_ns) if budget.name == name)


def sample(at_s: float, power_w: float | None, temperature_c: float | None = None, **more: Any) -> Sample:
    return Sample("test", round(at_s * S), power_w, temperature_c=temperature_c, **more)


def test_the_mean_is_that_of_the_window() -> None:
    meter = Meter()
    for second in range(41):
        meter.add(second * S, 2.0 if second <= 20 else 6.0, 10.0)
    assert meter.mean_w(10.0, 40 * S) == (pytest.approx(6.0), pytest.approx(10.0))
    assert meter.joules == pytest.approx(20 * 2 + 4 + 19 * 6)


def test_silence_is_not_made_up() -> None:
    meter = Meter()
    meter.add(0, 4.0, 10.0)
    meter.add(1 * S, None, 10.0)
    meter.add(8 * S, 4.0, 10.0)
    assert meter.joules == 0.0 and meter.mean_w(10.0, 8 * S) is None
    meter.add(30 * S, 4.0, 10.0)
    assert meter.joules == 0.0, "too long a gap to draw a line across"
    meter.add(31 * S, 4.0, 10.0)
    assert meter.joules == pytest.approx(4.0)


def test_a_window_of_an_hour_keeps_few_points() -> None:
    meter = Meter()
    for tenths in range(36_000):
        meter.add(tenths * S // 10, 5.0, 3600.0)
    assert len(meter._points) <= 120
    mean = meter.mean_w(3600.0, 3600 * S)
    assert mean is not None and mean[0] == pytest.approx(5.0)


def test_unknown_is_none_with_the_reason() -> None:
    budgets, said = made(Limits(power_w=8.0, temperature_c=85.0, energy_wh=1.0))
    budgets.sensed(sample(1, None, missing=("no meter here",)), S)
    for name in ("power", "energy", "temperature"):
        found = state(budgets, name, 2 * S)
        assert found.limit is not None and found.measured is None and found.note == "no meter here"
    assert said.events == []


def test_energy_is_counted_over_its_horizon_and_said_once_when_spent() -> None:
    budgets, said = made(Limits(energy_wh=1.0, energy_horizon_h=1.0))
    for second in range(400):
        budgets.sensed(sample(second, 10.0, power_estimated=True), second * S)
    spent = state(budgets, "energy", 399 * S)
    assert spent.measured == pytest.approx(3990 / 3600, rel=0.01) and spent.estimated and spent.unit == "Wh"
    assert [kind for kind, _ in said.events] == ["budget_exhausted"]
    assert "1.00 Wh are spent of 1 Wh for 1 h (estimated)" in said.events[0][1]
    for second in range(3590, 3660):
        budgets.sensed(sample(second, 10.0), second * S)
    left = state(budgets, "energy", 3659 * S).measured
    assert left is not None and left < 0.2, "the next horizon has begun"


def test_a_power_limit_that_is_passed_is_said_once_a_minute() -> None:
    budgets, said = made(Limits(power_w=8.0, power_window_s=5.0))
    for second in range(100):
        budgets.sensed(sample(second, 9.0), second * S)
    assert [text for _, text in said.events] == ["power: 9.00 W over 5 s, the limit is 8 W"] * 2
    assert state(budgets, "power", 99 * S).measured == pytest.approx(9.0)


def test_heat_beyond_the_limit_is_said() -> None:
    budgets, said = made(Limits(temperature_c=80.0))
    for second, degrees in enumerate((79.0, 80.4, 80.6, 81.0)):
        budgets.sensed(sample(second, None, degrees), second * S)
    assert said.events == [("limit_exceeded", "temperature: 80.6 C, the limit is 80 C")]


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
    assert rate.measured == 50.0 and "354 given up for a budget" in rate.note
