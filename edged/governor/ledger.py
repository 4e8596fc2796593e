"""From observations to the economy: what each one means for it, checked, since sensors and clocks lie. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from edged.governor import economy
from edged.governor.decision import BatchDone, Device, Sensed, Skipped, Variant, Workload
from edged.governor.economy import Economy
from edged.governor.latency import plausible_ms

MAX_W = 1e4
MAX_C = 150.0
MIN_C = -60.0
PLACEHOLDER_MS = 1000.0
"""Latency of a variant of which nothing is known; it is not allowed until something is."""
FIRST_FPS = 30.0


def known(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """With a latency for each, so that all have an index."""
    return tuple(v if v.latency_ms else replace(v, latency_ms=(PLACEHOLDER_MS,)) for v in variants)


def sound(device: Device) -> bool:
    """Whether a profile is one: numbers, and at least one clock."""
    watts = device.idle_w
    positive = (
        device.junction_j_per_c, device.sink_j_per_c, device.junction_sink_c_per_w, device.sink_air_c_per_w,
    )  # fmt: skip
    return bool(watts) and all(0 <= w < MAX_W for w in watts) and all(0 < x < 1e9 for x in positive)


def batch_done(e: Economy, done: BatchDone, variant: int, now_s: float) -> Economy:
    if not plausible_ms(done.service_ms) or not 1 <= done.batch <= 64 or not 1 <= done.serial <= 64:
        return e
    clock = e.clock if done.clock is None or not 0 <= done.clock < e.tables.clocks else done.clock
    believed = [c for c in done.confidences if 0 <= c <= 1.5]
    confidence = min(1.0, sum(believed) / len(believed)) if believed else None
    frames = done.batch * done.serial
    late = min(max(0, done.late), frames)
    return economy.ran(
        e, now_s, variant, clock, frames, done.batch, done.service_ms / 1000, late, confidence, _share(done.contrast),
        done.cold, done.again,
    )  # fmt: skip


def skipped(e: Economy, gone: Skipped) -> Economy:
    return economy.skipped(e, gone.frames, gone.late) if 0 < gone.frames < 1e6 else e


def sensed(e: Economy, said: Sensed, now_s: float) -> Economy:
    if said.clock is not None and 0 <= said.clock < e.tables.clocks:
        e = replace(e, clock=said.clock)
    return economy.sensed(
        e,
        now_s,
        _within(said.power_w, 0.0, MAX_W),
        _within(said.temperature_c, MIN_C, MAX_C),
        _share(said.charge),
        _within(said.harvest_w, 0.0, MAX_W),
        e.clock,
    )


def workload(e: Economy, variants: tuple[Variant, ...], load: Workload) -> Economy:
    cameras = max(1, min(64, load.cameras))
    if cameras != e.cameras:
        e = economy.adapted(e, known(variants), e.budget, cameras)
    fps = load.frames_per_s
    if math.isfinite(fps) and fps > 0.01:
        e = replace(e, offered_s=cameras / fps)
    return e


def _within(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low <= value <= high else None


def _share(value: float | None) -> float | None:
    return _within(value, 0.0, 1.0)
