"""What is known of variants and device before anything has run: checked, ranked, or assumed. Pure.

Without a device profile, and with a power sensor, the governor starts from `assumed`, marked as such and with wide
uncertainty, and learns.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from edged.governor.estimators.latency import plausible
from edged.governor.messages import Device, Sensed, Variant

MAX_BATCH: Final = 64
BATCH_GAIN: Final = 0.95  # a larger batch is worthwhile if it takes at most this share of the time per frame
MAX_W: Final = 1e4
ASSUMED_ACTIVE_SHARE: Final = 1.0
"""Assumed of an unknown device: an inference draws as much again as the device does at rest. Jetson modules draw
between half and three times that; a desktop CPU about as much."""
QUIET_S: Final = 0.3  # until the frames that are in the engine are through
QUIET_MEANS: Final = 4.0
"""Averaging times of the sensor after which it shows what the device draws now: 2 % of a step are left."""
QUIET_MOST_S: Final = 6.0
QUIET_WAIT_S: Final = 1.0  # so long a quiet time waits for a reading; a silent sensor ends it
UNKNOWN: Final = Device((0.0,))
"""The device of which nothing is known: its energy costs nothing, and no budget of it is held. Its heat is that of a
small module under its reference cooler; the heat filter takes its errors for warmer or cooler air."""
ASSUMED_FIXED_SHARE: Final = 0.25  # of a frame's time, which no clock changes
ASSUMED_VOLTAGE: Final = 0.6  # share of the highest voltage that is left near no clock at all
ASSUMED_IDLE_SHARE: Final = 0.4  # of idle power, which goes with the clock


def assumed(idle_w: float, known: Device = UNKNOWN, clock: int = 0) -> Device:
    """For a device without a profile that draws `idle_w` at `clock` while little runs."""
    shares = [1.0 - ASSUMED_IDLE_SHARE * (1.0 - ratio) for ratio in known.clock_ratio]
    return replace(known, idle_w=tuple([max(0.1, idle_w) * x / shares[clock] for x in shares]), assumed=True)


def assumed_times(device: Device) -> list[float]:
    """How much longer a frame takes at each clock of which nothing was measured."""
    return [ASSUMED_FIXED_SHARE + (1.0 - ASSUMED_FIXED_SHARE) / ratio for ratio in device.clock_ratio]


def assumed_active_w(device: Device) -> list[float]:
    """Watts above idle at each such clock: in proportion to clock and squared voltage."""
    volts = [ASSUMED_VOLTAGE + (1.0 - ASSUMED_VOLTAGE) * ratio for ratio in device.clock_ratio]
    top_w = ASSUMED_ACTIVE_SHARE * max(device.idle_w)
    return [top_w * ratio * v * v for ratio, v in zip(device.clock_ratio, volts, strict=True)]


def quiet_time(now_s: float, sample: Sensed) -> tuple[float, float]:
    """From when on a sensor shows idle power if no frame runs from `now_s` on, and when that ends at the latest."""
    lag_s = QUIET_S + max(0.0, sample.power_lag_s) + QUIET_MEANS * max(0.0, sample.power_mean_s)
    shows_s = now_s + min(QUIET_MOST_S, lag_s)
    return shows_s, shows_s + QUIET_WAIT_S


def is_plausible(device: Device) -> bool:
    """Whether all its constants are numbers in a possible range, and it has at least one clock; where the clocks are a
    guess, a ratio of each."""
    masses = device.junction_j_per_c, device.sink_j_per_c
    positive = *masses, device.junction_sink_c_per_w, device.sink_air_c_per_w
    return (
        bool(device.idle_w)
        and all(0 <= w < MAX_W for w in device.idle_w)
        and all(0 < x < 1e9 for x in positive)
        and 0 <= device.leakage_w_per_c < 1e9
        and len(device.clock_ratio) in (1, len(device.idle_w))
        and all(0 < ratio <= 1 for ratio in device.clock_ratio)
    )


def checked(variant: Variant) -> Variant:
    """With an accuracy and latencies that are numbers; the batches from the first implausible one on are unknown."""
    accuracy = variant.accuracy if variant.accuracy is not None and math.isfinite(variant.accuracy) else None
    return replace(variant, accuracy=accuracy, latency_ms=plausible(variant.latency_ms, MAX_BATCH))


def rank(variant: Variant) -> tuple[float, float, str]:
    """Sorts the most accurate first, then the fastest; unknown comes last."""
    accuracy = -1.0 if variant.accuracy is None else variant.accuracy
    return -accuracy, variant.latency_ms[0] if variant.latency_ms else math.inf, variant.name


def best_batch(variant: Variant) -> int:
    """The largest worthwhile batch; 1 on a CPU, where a batch gains nothing."""
    best, best_ms = 1, variant.latency_ms[0] if variant.latency_ms else math.inf
    for k, ms in enumerate(variant.latency_ms, start=1):
        if ms / k <= BATCH_GAIN * best_ms:
            best, best_ms = k, ms / k
    return best
