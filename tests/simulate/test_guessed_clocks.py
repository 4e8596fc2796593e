"""Without a device profile the clock is chosen from a guess, which is corrected: limits hold, and it pays."""

from __future__ import annotations

from typing import Any

import pytest

from edged.simulate.arena import run
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from edged.simulate.score import Score
from tests.support.governor_script import scenario

FLAT = {"base": "nx", "power_exponent": 1.0, "floor_mhz": 408, "idle_w": [5.9] * 4}
"""Its voltage does not fall with the clock, and idling draws the same at each."""
MEMORY_BOUND = {"base": "nx", "fixed_share": 0.6}


def scored(profiled: bool, **changes: Any) -> Score:
    return run(Truth(scenario(T=180, **changes), 5), GovernorPolicy(profiled=profiled))


@pytest.mark.parametrize(
    ("device", "cap_w"), [("nx", 8.0), ("nano", 5.5), ("agx", 14.0), (MEMORY_BOUND, 8.0), (FLAT, 9.5)]
)
def test_the_power_is_held_and_soon_as_much_is_reached_as_with_a_profile(device: Any, cap_w: float) -> None:
    guessed, profiled = (scored(known, dev=device, cap=cap_w) for known in (False, True))
    assert guessed.power_violation == 0.0 and guessed.throttles == 0 and guessed.late < 0.02
    assert guessed.settled > 0.95 * profiled.settled


def test_the_power_is_held_with_a_sensor_that_is_slow_and_noisy() -> None:
    slow = {"hz": 1, "lag": 0.8, "tau": 1.0, "noise": 0.03, "lsb": 0.15, "drop": 0.15}
    other_w = {"k": "markov", "v": [0, 0.8], "d": [60, 40]}
    assert scored(False, cap=8.0, W=20, D=45, sens=slow, co=other_w).power_violation == 0.0


def test_the_temperature_is_held() -> None:
    hot = scored(False, cap=14.0, amb=50, Tlim=80)
    assert hot.heat_violation == 0.0 and hot.throttles == 0
