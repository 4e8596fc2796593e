"""An NVIDIA GPU that is a card of its own, by NVML: power and energy counter, temperature, clocks, throttle reasons.

In: the driver's management library. Out: a `Sample` of the GPU beside what any Linux machine reads of the rest. The
total is the card's power and the host's; where the host has no meter it is the card's alone, marked as an estimate. A
Jetson is read through its own files instead. Runs on the sampler's thread.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from edged import clock
from edged.errors import EdgedError
from edged.power.host import NO_POWER, HostProvider
from edged.power.provider import Sample, counter_mean_s
from edged.power.stuck_sensors import Load, stuck_temperatures
from edged.power.temperatures import NO_TEMPERATURES, hottest, plausible_c

try:
    ctypes.CDLL("libnvidia-ml.so.1")  # without the driver its package would take 3 MB for nothing
    import pynvml
except (ImportError, OSError):  # why_not() says so
    pynvml = None

RAIL: Final = "gpu"
LAG_S: Final = 0.1
"""The card's counters are renewed about ten times a second."""
DRIVER_MEAN_S: Final = 1.0
"""Over which the driver averages the power that it reports."""
MOST_W: Final = 3000.0
"""No card draws more."""
_SLOWDOWNS: Final = {
    "sw-power-cap": "nvmlClocksThrottleReasonSwPowerCap",
    "sw-thermal": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "hw-slowdown": "nvmlClocksThrottleReasonHwSlowdown",
    "hw-thermal": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "hw-power-brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
}
"""The reasons that keep the clocks below the requested ones; idleness and fixed clocks are not among them."""


def why_not() -> str | None:
    """What keeps NVML from working here, or None."""
    if pynvml is None:
        if importlib.util.find_spec("pynvml") is None:
            return "its Python package is not installed: pip install 'edged[cuda]'"
        return "the NVIDIA driver is not here (libnvidia-ml.so.1)"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"the NVIDIA driver reports: {error}"
    try:
        return None if pynvml.nvmlDeviceGetCount() else "there is no NVIDIA GPU here"
    finally:
        pynvml.nvmlShutdown()


class NvmlProvider:
    """The first GPU, and the host around it."""

    def __init__(self, host: HostProvider) -> None:
        if (missing := why_not()) is not None:
            raise EdgedError(f'[power] provider = "nvml": {missing}', 'set provider = "auto"')
        self._host = host
        pynvml.nvmlInit()
        self._gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._bits = {reason: int(getattr(pynvml, name)) for reason, name in _SLOWDOWNS.items()}
        self._events = dict.fromkeys(_SLOWDOWNS, 0)
        self._slowed = 0
        self._stuck = stuck_temperatures()
        self._mean_s = DRIVER_MEAN_S
        self._energy: tuple[int, int] | None = None  # millijoules, when

    @property
    def name(self) -> str:
        return "nvml"

    def read(self) -> Sample:
        sample = self._host.read()
        missing = list(sample.missing)
        now_ns = clock.mono_ns()
        celsius = self._ask(missing, "temperature", pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
        celsius = plausible_c("the GPU", celsius, RAIL, missing)
        temperatures = dict(sample.temperatures_c)
        watts = self._watts(missing, now_ns)
        usage = self._ask(missing, "utilisation", pynvml.nvmlDeviceGetUtilizationRates)
        mhz = self._ask(missing, "clock", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
        ceiling = self._ask(missing, "highest clock", pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM)
        slowed = self._slowdowns(missing)
        load = Load(watts, None if usage is None else float(usage.gpu))
        temperatures |= self._stuck.check({RAIL: celsius}, (RAIL,), load, now_ns, missing)
        power_w, estimated = _total(sample, watts, missing)
        if temperatures[RAIL] is not None:
            missing = [why for why in missing if why != NO_TEMPERATURES]  # true of the host alone
        return replace(
            sample,
            provider=self.name,
            power_w=power_w,
            power_estimated=estimated,
            power_lag_s=LAG_S,
            power_mean_s=self._mean_s,
            rails_w=dict(sample.rails_w) | {RAIL: watts},
            temperature_c=hottest(temperatures),
            temperatures_c=temperatures,
            gpu_percent=None if usage is None else float(usage.gpu),
            gpu_mhz=None if mhz is None else float(mhz),
            gpu_ceiling_mhz=None if ceiling is None else float(ceiling),
            throttled=slowed,
            throttle_events=dict(self._events),
            missing=tuple(missing),
        )

    def close(self) -> None:
        self._host.close()
        pynvml.nvmlShutdown()

    def energy_mj(self) -> int | None:
        """The card's own counter since the driver was loaded, millijoules; None where it has none."""
        counted: int | None = self._ask([], "energy", pynvml.nvmlDeviceGetTotalEnergyConsumption)
        return counted

    def _watts(self, missing: list[str], now_ns: int) -> float | None:
        """The mean since the last reading, by the counter; the driver's own recent mean where the counter is missing or
        does not advance."""
        energy, before = self.energy_mj(), self._energy
        self._energy = None if energy is None else (energy, now_ns)
        if energy is not None and before is not None and now_ns > before[1] and energy > before[0]:
            seconds = (now_ns - before[1]) / clock.NS_PER_S
            self._mean_s = counter_mean_s(seconds)
            watts = (energy - before[0]) / 1e3 / seconds
            if watts <= MOST_W:  # else the counter has jumped
                return watts
        self._mean_s = DRIVER_MEAN_S
        milliwatts = self._ask(missing, "power", pynvml.nvmlDeviceGetPowerUsage)
        if milliwatts == 0:
            missing.append("the GPU's power is unknown: it reads 0 W, and a card in use draws more")
        return milliwatts / 1e3 if milliwatts else None

    def _slowdowns(self, missing: list[str]) -> bool | None:
        """Whether it is slowed now; each reason that begins is counted as an event since the start."""
        now = self._ask(missing, "throttle reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        if now is None:
            return None
        for reason, bit in self._bits.items():
            if now & bit and not self._slowed & bit:
                self._events[reason] += 1
        self._slowed = now
        return any(now & bit for bit in self._bits.values())

    def _ask(self, missing: list[str], what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(self._gpu, *arguments)
        except pynvml.NVMLError as error:
            missing.append(f"the GPU's {what} is unknown: {error}")
            return None


def _total(host: Sample, card_w: float | None, missing: list[str]) -> tuple[float | None, bool]:
    """The machine's watts, and whether they are an estimate. The host's lack of a meter is put beside the card's."""
    if card_w is None:
        return None, False
    if host.power_w is not None:
        return host.power_w + card_w, host.power_estimated
    missing[:] = [why for why in missing if why != NO_POWER]
    missing.append(f"the host's power is not measured: the power is that of the GPU's card alone ({RAIL})")
    return card_w, True
