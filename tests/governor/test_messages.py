"""Every field that the governor reads has a producer in the daemon: one that ships and sets it."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from edged.governor import messages
from edged.governor.messages import (
    BatchDone,
    Battery,
    BatteryBudget,
    Budget,
    BudgetChanged,
    ClockRange,
    Device,
    EnergyUse,
    Pinned,
    Residency,
    Sensed,
    ShadowDone,
    Skipped,
    Unvetoed,
    Variant,
    VariantLost,
    Vetoed,
    Waiting,
    Workload,
)

EDGED = Path(messages.__file__).parents[1]
PRODUCERS: dict[type, str] = {
    Variant: "loop/device_info.py",
    Device: "loop/device_info.py",
    Budget: "loop/governor_client.py",
    BatteryBudget: "loop/governor_client.py",
    BudgetChanged: "loop/governor_client.py",
    Pinned: "loop/governor_client.py",
    VariantLost: "loop/governor_client.py",
    Residency: "loop/variant_residency.py",
    Skipped: "loop/governor_client.py",
    BatchDone: "loop/batch_executor.py",
    Sensed: "loop/sensor_feed.py",
    Battery: "loop/sensor_feed.py",
    EnergyUse: "loop/limit_monitor.py",
    Workload: "loop/status_reporter.py",
    ClockRange: "loop/gpu_clock.py",
    Waiting: "loop/dispatcher.py",
    ShadowDone: "loop/shadow_runner.py",
    Vetoed: "accuracy_guard/guard.py",
    Unvetoed: "accuracy_guard/guard.py",
}
BY_THE_GOVERNOR = {(Device, "assumed"), (Device, "fixed_clock")}
"""Set by the governor itself: without a profile, and by a ClockRange."""


def fields(kind: type) -> list[str]:
    return list(kind._fields) if hasattr(kind, "_fields") else [field.name for field in dataclasses.fields(kind)]


def given(kind: type, path: Path) -> set[str]:
    """The fields that a module sets where it makes one, or copies it with `replace`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == kind.__name__:
            found |= set(fields(kind)[: len(node.args)])
        if name in (kind.__name__, "replace"):
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


@pytest.mark.parametrize("kind", PRODUCERS, ids=lambda kind: kind.__name__)
def test_each_field_is_set_by_its_producer(kind: type) -> None:
    missing = set(fields(kind)) - given(kind, EDGED / PRODUCERS[kind])
    missing -= {name for of, name in BY_THE_GOVERNOR if of is kind}
    assert not missing, f"nothing in {PRODUCERS[kind]} sets {sorted(missing)} of {kind.__name__}"


def test_the_list_is_whole() -> None:
    made_here = {"Start", "Tick", "Choice", "Misfit", "Decision"}
    kinds = {
        name
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and kind.__module__ == messages.__name__ and name not in made_here
    }
    assert kinds == {kind.__name__ for kind in PRODUCERS}
