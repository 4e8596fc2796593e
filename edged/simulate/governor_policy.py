"""The governor with a simulated device: schedule, dispatcher and governor as the engine loop has them. Pure.

`limits` is what a profile or an operator sets beyond the scenario's own limits; `on_call` records the run as it would a
daemon's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

import msgspec

from edged.clock import NS_PER_S
from edged.engines.device_profile import VERSION, DeviceProfile, ProfiledRun, Thermal
from edged.frames.frame import DropCause, Frame, PixelFormat
from edged.frames.schedule import Scheduler
from edged.governor.governor import Governor, OnCall
from edged.governor.messages import (
    BatchDone,
    Battery,
    BatteryBudget,
    Budget,
    BudgetChanged,
    ClockRange,
    Observation,
    Sensed,
    Skipped,
    Tick,
    Unvetoed,
    Variant,
    Vetoed,
    Workload,
)
from edged.loop.device_info import from_profile, guessed_clocks
from edged.loop.dispatcher import Dispatcher
from edged.simulate.arena import Action, Arrival, Moment, NominalProfile, Outcome
from edged.simulate.device import Reading
from edged.simulate.tables import ACCURACY, ACCURACY_SLOPE, CLOCK_STALL_S, ENGINES, LEAKAGE_W_PER_C, TYPICAL

WORKLOAD_S: Final = 1.0
"""How often the engine loop counts what the cameras offer."""
LIVE_S: Final = 2.0
NO_CAP_W: Final = 1e6
"""A scenario always has a cap; this one is none."""
DEFAULT_LIMITS: Final = Budget(deadline_ms=1000.0, deadline_quantile=0.99, min_accuracy=0.0, min_fps=0.2)
TIME_CAUSES: Final[frozenset[DropCause]] = frozenset({"late", "overload", "torn"})


def warm_variants(nominal: NominalProfile) -> list[Variant]:
    """The device's engines as a daemon without a profile knows them: the bundle's accuracies, the warm latencies."""
    return [
        Variant(
            name,
            ACCURACY[i] - TYPICAL * ACCURACY_SLOPE[i],
            tuple(_batch_s(nominal, i, k) * 1000 for k in range(1, nominal.cameras + 1)),
        )
        for i, name in enumerate(ENGINES)
        if nominal.available[i]
    ]


def device_profile(nominal: NominalProfile) -> bytes:
    """The file that `edged-calibrate profile` writes for this device, with every clock and a soak."""
    table, clocks = nominal.table, range(nominal.clocks)
    runs = [
        _run(name, k, clock, _batch_s(nominal, i, k, clock), float(nominal.active_w[i, clock]))
        for i, name in enumerate(ENGINES)
        if nominal.available[i]
        for k in range(1, nominal.cameras + 1)
        for clock in clocks
    ]
    thermal = Thermal(
        table.junction_j_per_c,
        table.sink_j_per_c,
        table.junction_sink_c_per_w,
        table.sink_air_c_per_w,
        LEAKAGE_W_PER_C,
    )
    return msgspec.json.encode(
        DeviceProfile(
            VERSION,
            "simulated",
            "tensorrt",
            runs,
            clocks_mhz=list(table.clocks_mhz),
            idle_w=[float(w) for w in nominal.idle_w],
            thermal=thermal,
        )
    )


def _run(name: str, batch: int, clock: int, batch_s: float, active_w: float) -> ProfiledRun:
    ms = batch_s * 1000
    return ProfiledRun(name, "0" * 64, batch, clock, ms, ms, ms, 1, active_w * batch_s / batch)


def _batch_s(nominal: NominalProfile, engine: int, batch: int, clock: int = -1) -> float:
    return float(nominal.latency_s[engine, clock] * batch**nominal.table.batch_power)


class GovernorPolicy:
    """A policy of the arena. Deadline, window, temperature and cap are the scenario's; quantile, accuracy floor and
    energy are those of `limits`. `profiled`: with a device profile; without one only the accuracies, the warm latencies
    and the clocks' frequencies are known, as in a daemon without a profile, and the rest is learnt."""

    def __init__(
        self,
        fixed_clock: bool = False,
        profiled: bool = True,
        limits: Budget = DEFAULT_LIMITS,
        on_call: OnCall | None = None,
    ) -> None:
        self._fixed_clock, self._profiled, self._limits, self._on_call = fixed_clock, profiled, limits, on_call

    def start(self, nominal: NominalProfile) -> None:
        self.nominal = nominal
        self._still: tuple[tuple[str, float], ...] = ()
        known, device = tuple(warm_variants(nominal)), None
        if self._profiled:
            known, device = from_profile(known, msgspec.json.decode(device_profile(nominal), type=DeviceProfile))
        elif not self._fixed_clock:
            known, device = guessed_clocks(known, nominal.table.clocks_mhz)
        self._knows_clocks = self._profiled or not self._fixed_clock
        battery = None
        if nominal.capacity_wh is not None:
            battery = BatteryBudget(nominal.duration_s, tuple(float(x) for x in nominal.forecast_w))
        self.budget = replace(
            self._limits,
            deadline_ms=nominal.deadline_s * 1000,
            power_w=None,
            power_window_s=nominal.window_s,
            temperature_c=nominal.limit_c,
            battery=battery,
        )
        self.governor = Governor(known, self.budget, 0, device, self._on_call)
        self._observe(Workload(nominal.cameras, nominal.fps * nominal.cameras), 0.0)
        if not self._fixed_clock:
            self._observe(ClockRange(nominal.clocks - 1), 0.0)
        self._schedule = Scheduler()
        self._dispatcher = Dispatcher(self._schedule, self.governor, nominal.cameras, self._drop)
        self._dispatcher.weights = {_name(i): weight for i, weight in enumerate(nominal.weights)}
        self._clock = nominal.clocks - 1
        self._arrived_s: dict[int, float] = {}
        self._offered = 0
        self._counted_s = self._at_s = 0.0
        self._late = self._saved = 0
        self._unreported: deque[tuple[int, bool]] = deque()

    # --- what the arena reports ---------------------------------------------------------------------------------------

    def sense(self, reading: Reading) -> None:
        store = None
        if reading.charge is not None and self.nominal.capacity_wh is not None:
            capacity_j = self.nominal.capacity_wh * 3600
            store = Battery(reading.charge * capacity_j, capacity_j, reading.sun_w)
        clock = self._clock if self._knows_clocks else None
        sensed = Sensed(
            reading.power_w,
            reading.temperature_c,
            clock,
            battery=store,
            power_lag_s=self.nominal.sensor_lag_s,
            power_mean_s=self.nominal.sensor_mean_s,
        )
        self._observe(sensed, reading.at_s)
        if reading.still is not None:
            self._still = tuple([(_name(camera), reading.still) for camera in range(self.nominal.cameras)])

    def tick(self, at_s: float) -> None:
        if at_s - self._counted_s >= WORKLOAD_S:
            live = max(1, sum(at_s - arrived_s < LIVE_S for arrived_s in self._arrived_s.values()))
            load = Workload(live, self._offered / (at_s - self._counted_s), self._still)
            self._observe(load, at_s)
            self._offered, self._counted_s = 0, at_s
        self._observe(Tick(), at_s)

    def veto(self, engine: int, camera: int | None, vetoed: bool, at_s: float) -> None:
        where = None if camera is None else _name(camera)
        kind = Vetoed if vetoed else Unvetoed
        self._observe(kind(ENGINES[engine], "the scenario says so", where), at_s)

    def arrive(self, arrival: Arrival) -> None:
        self._offered += 1
        self._arrived_s[arrival.camera] = arrival.at_s
        captured_ns = _ns(arrival.at_s)
        frame = Frame(
            _name(arrival.camera), arrival.index, 0, 0, 0, 0, PixelFormat.NV12, captured_ns, captured_ns, "arrival"
        )
        weight = self._dispatcher.weights[frame.camera]
        drop = self._schedule.offer(frame, captured_ns + _ns(self.nominal.deadline_s), weight)
        if drop is not None:
            self._drop(drop.frame, drop.cause)

    @property
    def waiting(self) -> bool:
        return len(self._schedule) > 0

    def decide(self, moment: Moment) -> Action:
        self._clock, at_s = moment.clock, moment.at_s
        cap_w = moment.cap_w if moment.cap_w < NO_CAP_W else None
        if self.budget.power_w != cap_w:
            self.budget = replace(self.budget, power_w=cap_w)
            self._observe(BudgetChanged(self.budget), at_s)
        now_ns = _ns(at_s)
        if not self._fixed_clock and moment.may_switch_clock:
            self._clock = self.governor.state.plan.clock  # in force before the batch begins
        clock = self._clock
        free_ns = now_ns if clock == moment.clock else now_ns + _ns(CLOCK_STALL_S)
        chosen = self._dispatcher.next(now_ns, free_ns, False, clock if self._knows_clocks else None)
        self._report_drops(at_s)
        if chosen is None:
            return Action(clock)
        return Action(clock, ENGINES.index(chosen.variant), tuple([frame.frame for frame in chosen.frames]))

    def done(self, outcome: Outcome) -> None:
        service_s = outcome.end_s - outcome.begin_s
        wait_ms = max(0.0, outcome.finished_age_s - service_s) * 1000
        clock = outcome.clock if self._knows_clocks else None
        done = BatchDone(ENGINES[outcome.engine], outcome.frames, service_s * 1000, wait_ms, outcome.late, clock)
        self._observe(done, outcome.end_s)

    def dropped(self) -> tuple[int, int]:
        counts = self._late, self._saved
        self._late = self._saved = 0
        return counts

    # --- to the governor ----------------------------------------------------------------------------------------------

    def _drop(self, frame: Frame, cause: DropCause) -> None:
        late = cause in TIME_CAUSES
        self._late += late
        self._saved += not late
        self._unreported.append((1, late))

    def _report_drops(self, at_s: float) -> None:
        for late in (True, False):
            if count := sum(n for n, is_late in self._unreported if is_late == late):
                self._observe(Skipped(count, late), at_s)
        self._unreported.clear()

    def _observe(self, observation: Observation, at_s: float) -> None:
        self.governor.observe(observation, _ns(at_s))


def _name(camera: int) -> str:
    return f"camera-{camera}"


def _ns(at_s: float) -> int:
    return round(at_s * NS_PER_S)
