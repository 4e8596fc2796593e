"""The kernel's virtual camera: loaded, told what to do, and asked what it really does (v4l2-ctl, not OpenCV)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

DEVICE = "/dev/video0"
OUTPUT = "/dev/video1"  # a video output: a V4L2 device that gives no frames, as the metadata nodes of USB cameras are
_DEFAULTS = {"percentage_of_dropped_buffers": 0, "osd_text_mode": 0, "wrap_timestamp": 0}


def load() -> None:
    """One webcam and one output."""
    # The driver lists the sizes 320x180, 640x360, 640x480, 1280x720 and more, each at 1, 2, 4, 5, 10, 12.5, 15 ... fps.
    _run("modprobe", "vivid", "n_devs=1", "node_types=0x101", "num_inputs=1", "input_types=0")
    assert Path(DEVICE).is_char_device() and Path(OUTPUT).is_char_device()


def unload() -> None:
    _run("modprobe", "-r", "vivid")


def control(**values: int) -> None:
    """Set controls, of which buttons are pressed by any value; they act at once, also on who is streaming."""
    _run("v4l2-ctl", "-d", DEVICE, "-c", ",".join(f"{name}={value}" for name, value in values.items()))


def reset() -> None:
    control(**_DEFAULTS)


def given() -> tuple[int, int, float]:
    """Width, height and frames per second that the driver is set to."""
    size = re.search(r"Width/Height\s*: (\d+)/(\d+)", _run("v4l2-ctl", "-d", DEVICE, "--get-fmt-video"))
    rate = re.search(r"Frames per second: ([\d.]+)", _run("v4l2-ctl", "-d", DEVICE, "--get-parm"))
    assert size and rate
    return int(size[1]), int(size[2]), float(rate[1])


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
    return done.stdout
