"""What a bundle's variants cost on this machine: latency quantiles and joules per frame, per batch size and GPU clock.

In: a bundle, the machine's power provider and, where there is one, the clock helper. Out: a `DeviceProfile` tied to the
device, the runtime, the power mode and the digests of the files that ran. The variants take turns, so that a machine
that gets warmer or busier affects all of them alike. Energy is what the provider reports above idle at that clock;
without a meter it is None. One thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import numpy as np

from edged import clock
from edged.config import EngineConfig
from edged.engines.bundle import Bundle
from edged.engines.device_profile import DeviceProfile, ProfiledRun
from edged.engines.pool import Pool
from edged.errors import EdgedError
from edged.power.provider import Provider, Sample
from edged_calibration.profile.bench import Bench
from edged_calibration.profile.power_meter import PowerMeter
from edged_calibration.profile.soak import fit_heat, soak
from edged_calibration.progress import QUIET, Advance, Stages

WARM_RUNS: Final = 5
TURNS: Final = 5
"""Of each variant and batch at a clock; between them the others have theirs."""
SETTLE_S: Final = 0.2
"""A new ceiling acts within 0.1 s."""
METER_LAG_S: Final = 1.0
"""Power monitors average: before the idle power is read, the work before it must have left the average."""


class ClockCeiling(Protocol):
    """The GPU's clock ceiling while it is held; `clocks_mhz` ascends. As `power.clocks.HeldCeiling`."""

    @property
    def clocks_mhz(self) -> Sequence[float]: ...

    def set(self, index: int) -> None:
        """EdgedError if it is not in force afterwards."""
        ...


@dataclass(frozen=True)
class Plan:
    """`seconds`: for each variant, batch and clock, and for resting at each clock. `batches`: empty for 1 to the
    largest. `soak_s`: 0 for none."""

    seconds: float
    batches: Sequence[int] = ()
    soak_s: float = 0.0
    power_mode: str | None = None


@dataclass
class _Case:
    """One variant at one batch size and clock."""

    clock: int
    variant: str
    batch: int
    latencies_ms: list[float] = field(default_factory=list)
    energy_j: float | None = 0.0
    frames: int = 0

    @property
    def active_w(self) -> float:
        """Above idle, while it runs; 0 where that is unknown."""
        return 0.0 if self.energy_j is None else self.energy_j / (sum(self.latencies_ms) / 1000)


def measure(
    bundle: Bundle,
    provider: Provider,
    config: EngineConfig,
    plan: Plan,
    ceiling: ClockCeiling | None = None,
    stages: Stages = QUIET,
) -> DeviceProfile:
    """Every usable variant at every batch size and every clock. EdgedError if the bundle runs none here."""
    meter = PowerMeter(provider)
    with Pool.open(bundle, config) as pool:
        sizes = [batch for batch in plan.batches or range(1, pool.max_batch + 1) if batch <= pool.max_batch]
        if 1 not in sizes:
            raise EdgedError("batch 1 is not among the batches", f"give --batches from 1 to {pool.max_batch}")
        bench = Bench(bundle, pool)
        variants = [variant.name for variant in pool.variants if variant.refused is None]
        clocks_mhz = list(ceiling.clocks_mhz) if ceiling is not None and len(ceiling.clocks_mhz) > 1 else []
        cases: list[_Case] = []
        idle_w: list[float | None] = []
        for index in range(max(1, len(clocks_mhz))):
            at_mhz = ""
            if ceiling is not None and clocks_mhz:
                ceiling.set(index)
                clock.sleep_s(SETTLE_S)
                at_mhz = f" at {clocks_mhz[index]:.0f} MHz"
            here = [_Case(index, name, batch) for name in variants for batch in sizes]
            with stages.stage(f"measuring {bundle.manifest.name}{at_mhz}") as advance:
                idle_w.append(_at_one_clock(bench, meter, plan, here, advance))
            cases += here
        thermal = None
        if plan.soak_s > 0 and (lacking := _lacking(provider.read())):
            stages.say(f"no soak: it needs {lacking}, which cannot be read here")
        elif plan.soak_s > 0:
            hottest = max(here, key=lambda case: case.active_w)
            with stages.stage("soaking") as advance:
                work = partial(bench.run, hottest.variant, hottest.batch, 1)
                history = soak(work, meter, plan.soak_s, advance)
            thermal, problem = fit_heat(history)
            if problem:
                stages.say(f"no thermal constants: {problem}")
        return DeviceProfile(
            version=2,
            device=pool.machine,
            runtime=pool.device,
            runs=_runs(pool.digests, cases),
            power_mode=plan.power_mode,
            threads=config.threads if pool.device == "cpu" else 1,
            clocks_mhz=clocks_mhz,
            idle_w=[round(w, 4) for w in idle_w if w is not None] if None not in idle_w else [],
            estimated=meter.estimated,
            power_provider=provider.name,
            thermal=thermal,
            memory_mb={v.name: round(v.memory_mb, 1) for v in pool.variants if v.memory_mb is not None},
        )


def _lacking(sample: Sample) -> str:
    """What a soak needs and the sample has not."""
    needed = {"the power": sample.power_w, "a temperature": sample.temperature_c}
    return " and ".join(name for name, value in needed.items() if value is None)


def _at_one_clock(
    bench: Bench, meter: PowerMeter, plan: Plan, cases: Sequence[_Case], advance: Advance
) -> float | None:
    """Fills the cases; returns the watts of the machine with the engines loaded and idle, None without a meter."""
    for case in cases:
        bench.run(case.variant, case.batch, WARM_RUNS)
    clock.sleep_s(min(METER_LAG_S, plan.seconds))
    idle_w = meter.mean_w(plan.seconds)
    for turn in range(TURNS):
        for number, case in enumerate(cases):
            _turn(bench, meter, idle_w, case, plan.seconds / TURNS)
            advance(turn * len(cases) + number + 1, TURNS * len(cases))
    return idle_w


def _turn(bench: Bench, meter: PowerMeter, idle_w: float | None, case: _Case, seconds: float) -> None:
    meter.start()
    start_ns = clock.mono_ns()
    while (clock.mono_ns() - start_ns) / clock.NS_PER_S < seconds:
        case.latencies_ms += bench.run(case.variant, case.batch, 1)
        case.frames += case.batch
        meter.tick()
    joules = meter.stop()
    if joules is None or idle_w is None or case.energy_j is None:
        case.energy_j = None
    else:
        case.energy_j += joules - idle_w * meter.spent_s


def _runs(digests: Mapping[str, str], cases: Sequence[_Case]) -> list[ProfiledRun]:
    runs = []
    for case in cases:
        p50, p90, p99 = (round(float(value), 4) for value in np.percentile(case.latencies_ms, (50, 90, 99)))
        energy_j = None if case.energy_j is None else round(max(case.energy_j / case.frames, 0.0), 6)
        runs.append(
            ProfiledRun(
                variant=case.variant,
                sha256=digests[case.variant],
                batch=case.batch,
                clock=case.clock,
                latency_p50_ms=p50,
                latency_p90_ms=p90,
                latency_p99_ms=p99,
                runs=len(case.latencies_ms),
                energy_j=energy_j,
            )
        )
    return runs
