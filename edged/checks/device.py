"""Which machine this is and what its sensors read: the head of `edged doctor`'s report. No serial numbers, no secrets.

A board and a power configuration in, findings out. Rates need two readings, so the sensors are read twice.
"""

from __future__ import annotations

import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Final

import edged
from edged import clock
from edged.checks.finding import Figures, Finding, failed
from edged.config import PowerConfig
from edged.engines import trt
from edged.engines.device_profile import device_name
from edged.errors import EdgedError
from edged.power.provider import Sample
from edged.power.rails import compatible, find_module
from edged.power.select_provider import choose, make
from edged.power.sysfs_reader import SysfsReader

PACKAGES: Final = (
    "numpy", "opencv-python-headless", "av", "onnxruntime", "onnxruntime-gpu", "cuda-bindings", "tensorrt",
    "nvidia-ml-py", "jetson-stats", "pyzmq",
)  # fmt: skip
L4T: Final = "etc/nv_tegra_release"
PAUSE_S: Final = 1.0


def machine(root: Path) -> Finding:
    """Model, module, system and versions."""
    files = SysfsReader(root)
    module = find_module(files)
    figures: Figures = {
        "edged": edged.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "system": _line(root / "etc/os-release", r'^PRETTY_NAME="?([^"\n]+)'),
        "jetson linux": _line(root / L4T, r"^# (.+?)(?:, GCID|$)"),
        "module": None if module is None else module.name,
        "board": next(iter(compatible(files)), None),
        "memory_mib": _mib(_line(root / "proc/meminfo", r"^MemTotal:\s+(\d+) kB")),
        "disk free_mib": shutil.disk_usage(root).free >> 20,
    }
    files.close()
    for package in PACKAGES:
        try:
            figures[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            figures[package] = None
    figures["tensorrt library"] = None if trt.why_not() is not None else trt.version()
    return Finding("ok", "machine", device_name(root), figures=figures)


def sensors(config: PowerConfig, root: Path) -> list[Finding]:
    """Every rail, temperature and clock that the configured provider reads."""
    try:
        provider = make(choose(config.provider, root), config, root)
    except EdgedError as error:
        return [failed("sensors", error)]
    try:
        provider.read()
        clock.sleep_s(PAUSE_S)
        sample = provider.read()
    finally:
        provider.close()
    return [_power(sample), _rest(sample)]


def _power(sample: Sample) -> Finding:
    figures: Figures = {f"{rail}_w": _rounded(watts) for rail, watts in sample.rails_w.items()}
    figures["total_w"] = _rounded(sample.power_w)
    if (battery := sample.battery) is not None:
        figures["battery_percent"] = round(100 * battery.charge_j / battery.capacity_j, 1)
        figures["battery draw_w"] = _rounded(battery.discharge_w)
    reasons = [text for text in sample.missing if _of_power(text)]
    if sample.power_w is None:
        return Finding("untested", "power", "; ".join(reasons) or "no meter of the whole device", figures=figures)
    estimated = ", estimated" if sample.power_estimated else ""
    text = "; ".join([f"{sample.provider}: {sample.power_w:.2f} W{estimated}", *reasons])
    return Finding("ok", "power", text, figures=figures)


def _rest(sample: Sample) -> Finding:
    figures: Figures = {f"{name}_c": _rounded(c) for name, c in sample.temperatures_c.items()}
    figures |= {"gpu_percent": sample.gpu_percent, "gpu clock_mhz": sample.gpu_mhz}
    figures |= {"gpu clock's ceiling_mhz": sample.gpu_ceiling_mhz}
    figures["throttled now"] = None if sample.throttled is None else "yes" if sample.throttled else "no"
    figures |= {f"throttle events, {name}": count for name, count in sample.throttle_events.items()}
    reasons = [text for text in sample.missing if not _of_power(text)]
    if sample.temperature_c is None:
        return Finding("untested", "sensors", "; ".join(reasons) or "no temperature", figures=figures)
    unknown = f"; unknown: {'; '.join(reasons)}" if reasons else ""
    return Finding("ok", "sensors", f"hottest {sample.temperature_c:.0f} C{unknown}", figures=figures)


def _of_power(reason: str) -> bool:
    return re.search(r"power(?!ed off)|rail|battery", reason) is not None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _line(path: Path, pattern: str) -> str | None:
    """What the pattern finds in a file of the system; None if that is not there."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else None


def _mib(kib: str | None) -> int | None:
    return None if kib is None else int(kib) >> 10
