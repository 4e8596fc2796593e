"""A scenario of the arena with one seed in, everything that will happen out: the truth that a policy never sees. Pure.

The JSON's keys: name, dev (or a table), T (seconds), fps, n (cameras), D (deadline, ms), cap (W) over W seconds, Tlim,
bat {cap_wh, soc0}, and the shapes amb, rsa (factor on the sink's resistance), co (a co-runner's W), gcont, mcont (GPU
and memory contention, factors), sun (W), diff (difficulty 0..1), still (the share of the frames that a motion gate
leaves out); mis and rmis: how far this unit is from the profile; sens {hz, lag, tau, noise, lsb, gain, drop, stuck};
lsd, spike, ptail: the latency's noise; fcerr, fcbias: the forecast's. For a site as a daemon meets it: apart (each
camera's frames come in their own time), weights (by camera), vetoes [{engine, camera or none, during}], outages
[{camera, during}]. Each quantity has its own stream of chance, so changing one leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from edged.errors import UsageError
from edged.simulate.shapes import Array, shape
from edged.simulate.tables import ACCURACY, ACCURACY_SLOPE, DLA, ENGINES, STALL_ENERGY, STEP_S, device_table

FORECAST_STEP_S: Final = 30.0
MAX_TICKS: Final = 2_000_000
KEEP_ALIVE_FPS: Final = 0.5
"""What a motion gate lets through of each camera while nothing moves."""
JITTER: Final = 0.05
"""Standard deviation of the time between two frames of a camera, as a share of it; assumed."""
GPU_SHARE: Final = (1.0, 0.9, 0.85, 0.8, 0.0)
MEMORY_SHARE: Final = (0.5, 0.8, 1.0, 1.0, 0.6)
"""How much of the GPU's and of the memory's contention each engine feels; assumed."""
LIMITS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "cap": (0, 1e6),
        "amb": (-100, 150),
        "rsa": (0.01, 100),
        "co": (-1e4, 1e4),
        "gcont": (-1e3, 1e3),
        "mcont": (-1e3, 1e3),
        "sun": (-1e4, 1e4),
        "fps": (1e-6, 1e3),
        "still": (0, 1),
        "diff": (-1e3, 1e3),
    }
)
"""Far more than any device meets: beyond them the plant's arithmetic ends, not physics."""
SENSOR: Final = {"hz": 5, "lag": 0.2, "tau": 0.4, "noise": 0.012, "lsb": 0.05, "gain": 0.01, "drop": 0.0}


class Truth:
    """All that is true of one scenario and seed; arrays over time go by STEP_S, arrays over frames by tick.

    UsageError for a shape that is none, or that leaves LIMITS; it names the key.
    """

    def __init__(self, scenario: Mapping[str, Any], seed: int) -> None:
        self.scenario, self.seed = scenario, seed
        self.table = device_table(scenario["dev"])
        self.duration_s = float(scenario["T"])
        self.steps = round(self.duration_s / STEP_S)
        self.cameras = int(scenario.get("n", 1))
        self.deadline_s = scenario["D"] / 1000.0
        self.window_s = int(scenario.get("W", 30))
        self.limit_c = float(scenario.get("Tlim", 90))
        self.battery: Mapping[str, float] | None = scenario.get("bat")
        self.apart = bool(scenario.get("apart", False))
        weights = np.array(scenario.get("weights", [1.0] * self.cameras), float)
        self.weights = tuple((weights / weights.mean()).tolist())
        self._vetoes = [(ENGINES.index(v["engine"]), v.get("camera"), *v["during"]) for v in scenario.get("vetoes", [])]
        self._surroundings()
        self._unit()
        self.camera: list[int] = []
        self.tick = self._ticks()
        self.at_step = np.minimum(self.steps - 1, (self.tick / STEP_S).astype(int))
        self._scene()
        self._latency_noise()
        self._sensors()
        self._forecast()
        self.junction_c = float(scenario.get("tj0", self.ambient_c[0] + 12))
        self.sink_c = self.junction_c - (8.0 if "tj0" in scenario else 4.0)

    @property
    def frames(self) -> int:
        return len(self.tick) if self.apart else len(self.tick) * self.cameras

    def tick_of(self, frame: int) -> int:
        """Where the arrays by tick have this frame."""
        return frame if self.apart else frame // self.cameras

    def camera_of(self, frame: int) -> int:
        return self.camera[frame] if self.apart else frame % self.cameras

    def arrived_s(self, frame: int) -> float:
        return self._arrived_s[frame if self.apart else frame // self.cameras]

    @property
    def veto_changes(self) -> list[tuple[float, int, int | None, bool]]:
        """(when, engine, camera or None for all, whether it is vetoed from then on), in order."""
        begins = [(begin_s, engine, camera, True) for engine, camera, begin_s, _ in self._vetoes]
        return sorted([*begins, *[(end_s, engine, camera, False) for engine, camera, _, end_s in self._vetoes]])

    def is_vetoed(self, engine: int, camera: int, at_s: float) -> bool:
        return any(
            engine == e and where in (None, camera) and begin_s <= at_s < end_s
            for e, where, begin_s, end_s in self._vetoes
        )

    def latency_s(self, tick: int, engine: int, clock: int) -> float:
        """Of one batch-1 inference of this tick on a warm engine."""
        warm = self.latency_top_s[engine] * self.clock_factor[engine, clock]
        return float(warm * self.contention[tick, engine] * self.noise[tick])

    def energy_j(self, tick: int, engine: int, clock: int, batch_factor: float) -> float:
        """Above idle. Contention stretches the time more than the energy."""
        busy_s = self.latency_top_s[engine] * self.clock_factor[engine, clock] * batch_factor
        stretched = STALL_ENERGY + (1 - STALL_ENERGY) * self.contention[tick, engine]
        return float(self.active_w[engine, clock] * busy_s * stretched)

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])

    def _surroundings(self) -> None:
        self.time = np.arange(self.steps) * STEP_S
        self.cap_w = self._over_time("cap", None, 1)
        self.ambient_c = self._over_time("amb", 25, 2)
        self.sink_air = self._over_time("rsa", 1.0, 3) * self.table.sink_air_c_per_w
        self.corunner_w = self._over_time("co", 0.0, 4)
        self.gpu_contention = np.maximum(1.0, self._over_time("gcont", 1.0, 5))
        self.memory_contention = np.maximum(1.0, self._over_time("mcont", 1.0, 6))
        self.sun_w = self._over_time("sun", 0.0, 7)
        self.gated = "still" in self.scenario
        self.still = self._over_time("still", 0.0, 17)
        fps = self._over_time("fps", 30, 8)
        self.fps = np.maximum(fps * (1 - self.still), np.minimum(fps, KEEP_ALIVE_FPS))

    def _over_time(self, key: str, default: float | None, stream: int) -> Array:
        """A quantity of the scenario at every step."""
        where, (least, most) = f"scenario {self.scenario['name']}: {key}", LIMITS[key]
        try:
            with np.errstate(all="ignore"):  # the result is checked afterwards
                values = shape(self.scenario.get(key, default), self.time, self._random(stream))
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RecursionError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(
                f"{where} is no shape over time: {reason}", "see a shipped one: edged simulate --list"
            ) from None
        if not np.all((values >= least) & (values <= most)):  # nor is NaN
            raise UsageError(f"{where} is not between {least:g} and {most:g} all the time", f"correct {key}")
        return values

    def _unit(self) -> None:
        """How this unit differs from the nominal profile."""
        table, rng, n = self.table, self._random(9), len(ENGINES)
        spread = self.scenario.get("mis", 0.08)
        clocks = np.array(table.clocks_mhz, float)
        ratio = clocks / clocks[-1]
        self.latency_top_s = np.array(table.latency_ms) / 1000.0 * np.exp(rng.normal(0, spread, n))
        above_floor = np.maximum(clocks, table.floor_mhz) / clocks[-1]
        power = above_floor**table.power_exponent * np.minimum(1.0, clocks / table.floor_mhz)
        nominal_w = np.array(table.active_w)[:, None] * power[None, :]
        nominal_w[DLA, :] = table.active_w[DLA]
        self.nominal_active_w = nominal_w.copy()
        engine_spread = np.exp(rng.normal(0, spread, n))[:, None]
        self.active_w = nominal_w * engine_spread * np.exp(rng.normal(0, 0.03, nominal_w.shape))
        self.active_w[DLA, :] = nominal_w[DLA, 0] * math.exp(rng.normal(0, spread))
        self.idle_w = np.array(table.idle_w, float) * math.exp(rng.normal(0, 0.05))
        self.nominal_clock_factor = np.tile(table.fixed_share + (1 - table.fixed_share) / ratio, (n, 1))
        self.nominal_clock_factor[DLA, :] = 1.0
        self.clock_factor = self.nominal_clock_factor * np.exp(rng.normal(0, 0.02, nominal_w.shape))
        self.clock_factor[DLA, :] = 1.0
        self.clock_factor[:, -1] = 1.0
        thermal = np.exp(rng.normal(0, self.scenario.get("rmis", 0.10), 4))
        self.junction_j_per_c = table.junction_j_per_c * thermal[0]
        self.sink_j_per_c = table.sink_j_per_c * thermal[1]
        self.junction_sink = table.junction_sink_c_per_w * thermal[2]
        self.sink_air = self.sink_air * thermal[3]
        self.available = np.array([True] * n)
        self.available[DLA] = table.dla

    def _ticks(self) -> Array:
        """When frames come: of all cameras at once, or (`apart`) each in its own time, with a little jitter; a camera
        that is out gives none."""
        cameras = self.cameras if self.apart else 1
        if float(self.fps.mean()) * self.duration_s * cameras > MAX_TICKS:
            raise UsageError(
                f"scenario {self.scenario['name']}: fps gives more than {MAX_TICKS} frames in all", "lower T or fps"
            )
        if not self.apart:
            ticks = self._times(0.013, 0.0, self._random(15))
            self._arrived_s = ticks
            return np.array(ticks)
        rng, outages = self._random(15), self.scenario.get("outages", [])
        arrivals = []
        for camera in range(cameras):
            times = self._times(float(rng.uniform(0.0, 1.0 / self.fps[0])), JITTER, rng)
            out = [(o["during"][0], o["during"][1]) for o in outages if o["camera"] == camera]
            arrivals += [(at, camera) for at in times if not any(begin <= at < end for begin, end in out)]
        arrivals.sort()
        self.camera = [camera for _, camera in arrivals]
        self._arrived_s = [at for at, _ in arrivals]
        return np.array(self._arrived_s)

    def _times(self, first_s: float, jitter: float, rng: np.random.Generator) -> list[float]:
        times, at = [], first_s
        while at < self.duration_s - 0.2:
            times.append(at)
            wobble = 1.0 + jitter * float(rng.normal()) if jitter else 1.0
            at += max(0.2, wobble) / float(self.fps[min(self.steps - 1, int(at / STEP_S))])
        return times

    def _scene(self) -> None:
        """Difficulty: a slow shape and a correlated flicker; a frame's contrast is only loosely related to it."""
        get, n = self.scenario.get, len(self.tick)
        slow = np.interp(self.tick, self.time, self._over_time("diff", 0.4, 10))
        rng, rho = self._random(11), get("drho", 0.95)
        shocks = rng.normal(0, 1, n)
        flicker, last, kept = np.empty(n), 0.0, math.sqrt(1 - rho * rho)
        for i in range(n):
            last = rho * last + kept * shocks[i]
            flicker[i] = last
        fine = rng.normal(0, 1, n)
        self.difficulty = np.clip(slow + get("dsd", 0.10) * flicker + 0.03 * fine, 0.0, 1.0)
        centred = (self.difficulty - self.difficulty.mean()) / (self.difficulty.std() + 1e-9)
        tells = get("varcorr", 0.6)
        other = math.sqrt(max(0, 1 - tells * tells)) * rng.normal(0, 1, n)
        self.contrast = np.clip(0.5 + 0.22 * (tells * centred + other), 0, 1)
        self.confidence_noise = rng.normal(0, 0.06, n)

    def _latency_noise(self) -> None:
        """A log-normal body and rare Pareto spikes, the same for all engines."""
        get, n, rng = self.scenario.get, len(self.tick), self._random(12)
        body = np.exp(rng.normal(0, get("lsd", 0.03), n))
        spikes = rng.random(n) < get("spike", 0.004)
        pareto = np.minimum(1.0 + 0.5 * (rng.pareto(get("ptail", 2.0), n) + 0.4), 12.0)
        self.noise = np.where(spikes, body * pareto, body)
        gpu = np.array(get("kg", GPU_SHARE))
        memory = np.array(get("km", MEMORY_SHARE))
        more_gpu = (self.gpu_contention[self.at_step] - 1)[:, None]
        more_memory = (self.memory_contention[self.at_step] - 1)[:, None]
        self.contention = (1 + gpu[None, :] * more_gpu) * (1 + memory[None, :] * more_memory)

    def _sensors(self) -> None:
        given = self.scenario.get("sens", {})
        self.sensor = {**SENSOR, **{k: v for k, v in given.items() if k != "stuck"}}
        rng = self._random(13)
        self.sensor_gain = 1.0 + rng.uniform(-1, 1) * self.sensor["gain"]
        self.power_noise = rng.normal(0, 1, self.steps)
        self.temperature_noise = rng.normal(0, 0.25, self.steps)
        self.silent = rng.random(self.steps) < self.sensor["drop"]
        for begin_s, end_s in given.get("stuck", []):
            self.silent[int(begin_s / STEP_S) : int(end_s / STEP_S)] = True

    def _forecast(self) -> None:
        """The true mean of each block, smoothed over three to each side, with an error per block and a bias."""
        rng, blocks = self._random(14), math.ceil(self.duration_s / FORECAST_STEP_S)
        per = FORECAST_STEP_S / STEP_S
        means = np.array([self.sun_w[int(i * per) : int((i + 1) * per)].mean() for i in range(blocks)])
        error = np.exp(rng.normal(0, self.scenario.get("fcerr", 0.2), blocks))
        smooth = np.convolve(np.pad(means, 3, mode="edge"), np.ones(7) / 7, "valid")
        self.forecast_w = smooth * error * math.exp(rng.normal(0, self.scenario.get("fcbias", 0.05)))


def accuracy(engine: int, difficulty: float) -> float:
    """Of one engine on a scene of this difficulty."""
    return ACCURACY[engine] - ACCURACY_SLOPE[engine] * difficulty
