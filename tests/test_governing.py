"""The whole loop under budgets: real engines, a plant in place of the sensors, and what the plant then drew."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edged import clock
from edged.bus.schema import BudgetState, Result
from edged.client import Client
from edged.config import CameraConfig, Limits
from tests.support.bus import served, wait_for
from tests.support.house import House, built, running
from tests.support.models import center_model
from tests.support.plant import Plant

MODELS = {"fine": center_model(-100.0, turns=6000), "fast": center_model(-90.0, turns=1500)}
JOULES = {"fine": 0.1, "fast": 0.02}
TIMES_MS = {"fine": 6.0, "fast": 2.0}
EASY = Limits(deadline_ms=100.0, power_window_s=4.0)


def camera(name: str = "gate", fps: int = 60, weight: float = 1.0) -> CameraConfig:
    return CameraConfig(name=name, source=f"test://5?width=128&height=64&fps={fps}", weight=weight)


@contextlib.contextmanager
def governed(
    directory: Path, cameras: list[CameraConfig], limits: Limits, plant: Plant, models: dict[str, bytes] = MODELS
) -> Iterator[House]:
    with built(directory, models, limits, plant.known, plant, 0.2, ran=plant.ran) as house:
        house.sampler.start()
        with served(house.publisher), running(house, cameras, limits):
            yield house


def counted(house: House, name: str = "gate") -> Any:
    return house.calls.call(lambda: house.cameras.status(name, clock.mono_ns()))


def for_seconds(seconds: float) -> None:
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end, seconds + 1)


def set_limits(house: House, **changes: Any) -> None:
    limits = msgspec.structs.replace(EASY, **changes)
    house.calls.call(lambda: house.pipeline.set_limits(limits))


def shares(plant: Plant, seconds: float) -> dict[str, float]:
    """Runs per second of each variant over some time from now on."""
    before = dict(plant.runs)
    for_seconds(seconds)
    return {name: (plant.runs[name] - before[name]) / seconds for name in before}


def test_a_power_cap_is_held_by_the_cheaper_variant_and_then_by_fewer_frames(tmp_path: Path) -> None:
    plant = Plant(JOULES, TIMES_MS)
    with governed(tmp_path, [camera()], EASY, plant) as house:
        for_seconds(1)
        free = shares(plant, 3)
        assert free["fine"] > 10 * free["fast"], "nothing is scarce: the most accurate on every frame"
        uncapped_w = plant.mean_w(3)
        cap_w = 2.0 + 0.5 * (uncapped_w - 2.0)
        set_limits(house, power_w=cap_w)
        for_seconds(4)
        mixed = shares(plant, 5)
        assert plant.mean_w(5) <= 1.05 * cap_w
        assert mixed["fast"] > free["fast"] + 5 and mixed["fine"] > 1
        tight_w = 2.0 + 0.08 * (uncapped_w - 2.0)
        set_limits(house, power_w=tight_w)
        for_seconds(4)
        assert shares(plant, 4)["fine"] < 5
        assert plant.mean_w(4) <= 1.05 * tight_w
        assert counted(house).drops["budget"] > 20, "the frame rate gives way"
        set_limits(house)
        for_seconds(1)
        assert shares(plant, 2)["fine"] > 10, "the limit taken away, all is as before"
    status = house.cameras.status("gate", 0)
    on_its_way = status.captured - status.results - sum(status.drops.values())
    assert on_its_way in (0, 1)


@pytest.mark.slow
def test_heat_is_held_below_its_limit(tmp_path: Path) -> None:
    plant = Plant(JOULES, TIMES_MS)
    with governed(tmp_path, [camera()], EASY, plant) as house:
        for_seconds(8)
        settled_c, idle_c = plant.seen[-1][2], plant.seen[0][2]
        limit_c = idle_c + 0.5 * (settled_c - idle_c)
        set_limits(house, temperature_c=limit_c)
        for_seconds(8)
        begin_s = plant.now_s
        ran = shares(plant, 8)
        hottest_c = max(c for s, _, c in plant.seen if s > begin_s)
        assert hottest_c <= limit_c + 0.5
        assert hottest_c > limit_c - 0.35 * (settled_c - idle_c), "what is allowed is used"
        assert sum(ran.values()) > 10 and house.steering.message.bound == "heat"


@pytest.mark.slow
def test_the_heavier_camera_gets_the_better_variant(tmp_path: Path) -> None:
    plant = Plant(JOULES, TIMES_MS)
    cameras = [camera("gate", 30, weight=5.0), camera("yard", 30, weight=1.0)]
    seen: Counter[tuple[str, str]] = Counter()
    with governed(tmp_path, cameras, EASY, plant) as house:
        for_seconds(4)
        set_limits(house, power_w=2.0 + 0.35 * (plant.mean_w(2) - 2.0))
        for_seconds(4)
        with Client(house.endpoint, ["result"], timeout_s=5.0) as client:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                if isinstance(message := client.receive(1.0), Result):
                    seen[message.camera, message.variant] += 1
    assert seen["gate", "fine"] > 1.5 * seen["yard", "fine"] + 5, seen
    dropped = {name: house.cameras.status(name, 0).drops.get("budget", 0) for name in ("gate", "yard")}
    assert dropped["gate"] <= dropped["yard"], dropped


@pytest.mark.slow
def test_dark_sensors_neither_stop_the_loop_nor_lift_the_cap(tmp_path: Path) -> None:
    plant = Plant(JOULES, TIMES_MS)
    with governed(tmp_path, [camera()], EASY, plant) as house:
        for_seconds(3)
        cap_w = 2.0 + 0.5 * (plant.mean_w(2) - 2.0)
        set_limits(house, power_w=cap_w)
        for_seconds(4)
        plant.dark = True
        for_seconds(4)
        assert sum(shares(plant, 5).values()) > 10
        assert plant.mean_w(5) <= 1.1 * cap_w
        wait_for(lambda: power(house).measured is None and "dark" in power(house).note, 12)


def power(house: House) -> BudgetState:
    return next(b for b in house.calls.call(lambda: house.budgets.states(clock.mono_ns())) if b.name == "power")
