"""Which machine, system and versions this is: the head of a report. Files and installed packages in, findings out."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Final

import edged
from edged.checks.doctor_finding import Figures, Finding
from edged.engines import trt
from edged.engines.device_profile import device_name

PACKAGES: Final = (
    "numpy", "opencv-python-headless", "av", "onnxruntime", "onnxruntime-gpu", "cuda-bindings", "tensorrt",
    "nvidia-ml-py", "jetson-stats", "pyzmq",
)  # fmt: skip
L4T: Final = Path("/etc/nv_tegra_release")


def machine() -> Finding:
    figures: Figures = {
        "edged": edged.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "system": _system(),
        "jetson linux": _l4t(),
    }
    for package in PACKAGES:
        try:
            figures[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            figures[package] = None
    figures["tensorrt library"] = None if trt.why_not() is not None else trt.version()
    return Finding("ok", "machine", device_name(), figures)


def _system() -> str | None:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return None
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', text, re.MULTILINE)
    return found.group(1) if found else None


def _l4t() -> str | None:
    """JetPack's base, as "R36, REVISION: 4.3"; None where this is no Jetson."""
    try:
        return L4T.read_text().partition("\n")[0].lstrip("# ").partition(", GCID")[0]
    except OSError:
        return None
