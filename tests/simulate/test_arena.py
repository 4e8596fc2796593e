"""The simulated device gives the baselines the figures that the bounds were made with, and repeats itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.errors import UsageError
from edged.simulate.arena import run
from edged.simulate.scenario import Truth
from edged.simulate.shapes import shape
from edged.simulate.tables import DEVICES, device_table
from scripts.benches.baselines import SPARSE, Alert, Baseline, Hysteresis, Static

DATA = Path(__file__).parents[2] / "scripts" / "benches" / "data"
SCENARIOS = {s["name"]: s for s in json.loads((DATA / "governor_scenarios.json").read_text())}
BOUNDS = json.loads((DATA / "governor_bounds.json").read_text())


def share(name: str, policy: Baseline) -> float:
    scenario = SCENARIOS[name]
    seed = scenario["seeds"][0]
    return float(run(Truth(scenario, seed), policy).score / BOUNDS[f"{name}:{seed}"]["REG"])


@pytest.mark.parametrize(
    ("name", "policy", "expected"),
    [
        ("P01-calm", lambda: Static(SPARSE), 0.015),
        ("P02-tight-deadline", lambda: Static(SPARSE), 0.908),
        ("P05-power-steps", Hysteresis, 0.882),
        ("P07-solar-clouds", Hysteresis, 0.715),
        ("P12-four-cams", Hysteresis, 0.889),
        ("P12-four-cams", Alert, 0.906),
        ("P09-fan-failure", Alert, 0.009),
        ("P07-solar-clouds", lambda: Static(SPARSE), 0.625),
    ],
)
def test_baselines_reach_what_they_are_known_to_reach(
    name: str, policy: Callable[[], Baseline], expected: float
) -> None:
    assert share(name, policy()) == pytest.approx(expected, abs=0.005)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    scenario = {**SCENARIOS["P16-everything"], "T": 60}
    first, second = run(Truth(scenario, 26), Hysteresis()), run(Truth(scenario, 26), Hysteresis())
    assert first == second
    assert run(Truth(scenario, 27), Hysteresis()) != first


def test_a_device_may_be_given_as_a_table() -> None:
    table = device_table({"base": "nano", "idle_w": [2.0, 3.0, 4.0, 5.0], "dla": True})
    assert table.idle_w == (2.0, 3.0, 4.0, 5.0) and table.dla
    assert table.latency_ms == DEVICES["nano"].latency_ms
    with pytest.raises(UsageError, match="a device has no 'idle'"):
        device_table({"base": "nx", "idle": 3})
    with pytest.raises(UsageError, match="no simulated device 'tx2'"):
        device_table("tx2")


@pytest.mark.parametrize(
    "spec",
    [
        3.0,
        {"k": "steps", "t": [5], "v": [1, 2]},
        {"k": "sine", "m": 1, "a": 0.5, "p": 10},
        {"k": "saw", "lo": 0, "hi": 2, "p": 4},
        {"k": "square", "lo": 0, "hi": 2, "p": 4},
        {"k": "markov", "v": [1, 2], "d": [3, 3]},
        {"k": "walk", "m": 1, "s": 0.3, "lo": 0, "hi": 2},
        {"k": "sun", "p": 10, "peak": 2},
        [1.0, {"k": "ramp", "t": [0, 10], "v": [0, 1]}],
    ],
)
def test_shapes_are_finite_and_within_their_bounds(spec: Any) -> None:
    values = shape(spec, np.arange(100) * 0.1, np.random.default_rng(1))
    assert values.shape == (100,) and np.isfinite(values).all()
    assert values.min() >= 0 and values.max() <= 3


def test_a_shape_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="k is 'zigzag', expected steps"):
        shape({"k": "zigzag"}, np.arange(3.0), np.random.default_rng(1))
