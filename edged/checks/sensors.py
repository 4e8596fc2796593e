"""Every rail, temperature and clock that the configured provider reads; twice, since rates need two readings."""

from __future__ import annotations

import threading
from typing import Final

from edged.checks.doctor_finding import Figures, Finding
from edged.config import PowerConfig
from edged.errors import EdgedError
from edged.power.provider import Sample
from edged.power.select_provider import open_provider

PAUSE_S: Final = 1.0


def sensors(config: PowerConfig) -> list[Finding]:
    try:
        provider = open_provider(config)
    except EdgedError as error:
        return [Finding("failed", "sensors", error.message)]
    try:
        provider.read()
        threading.Event().wait(PAUSE_S)
        sample = provider.read()
    finally:
        provider.close()
    return [_power(sample), _rest(sample)]


def _power(sample: Sample) -> Finding:
    figures: Figures = {f"{rail}_w": watts for rail, watts in sample.rails_w.items()}
    figures["total_w"] = sample.power_w
    if sample.power_w is None:
        return Finding("untested", "power", _no_power(sample).removeprefix("no power: "), figures)
    estimated = ", estimated" if sample.power_estimated else ""
    return Finding("ok", "power", f"{sample.provider}: {sample.power_w:.2f} W{estimated}", figures)


def _rest(sample: Sample) -> Finding:
    figures: Figures = {f"{name}_c": c for name, c in sample.temperatures_c.items()}
    figures |= {"gpu clock_mhz": sample.gpu_mhz, "gpu clock's ceiling_mhz": sample.gpu_ceiling_mhz}
    figures |= {f"throttle {name}": count for name, count in sample.throttle_events.items()}
    untold = [text for text in sample.missing if text != _no_power(sample)]
    if sample.temperature_c is None:
        return Finding("untested", "sensors", "; ".join(untold) or "no temperature", figures)
    missing = f"; unknown: {'; '.join(untold)}" if untold else ""
    return Finding("ok", "sensors", f"hottest {sample.temperature_c:.0f} C{missing}", figures)


def _no_power(sample: Sample) -> str:
    return next((text for text in sample.missing if "power" in text), "no meter says the whole device's power")
