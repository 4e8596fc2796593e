"""What a bundle's variants cost on one device: `profile.<device>.json` beside the engines, as frozen structs.

`edged-calibrate profile` measures and writes it; the daemon reads the one of the machine it runs on. Every figure is
tied to the digest of the engine file it was measured on: a file that has changed since has no profile.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from edged.engines.manifest import Name, Sha256
from edged.errors import EdgedError

MAX_BYTES: Final = 1 << 20
MODEL_FILES: Final = ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model")

Positive = Annotated[float, Meta(gt=0, le=1e6)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]


class ProfiledRun(Struct, frozen=True, forbid_unknown_fields=True):
    """One variant at one batch size and clock, warm. Times are of the whole batch: preparation to decoded result."""

    variant: Name
    sha256: Sha256
    """of the engine file that was measured"""
    batch: Annotated[int, Meta(ge=1, le=64)]
    clock: Annotated[int, Meta(ge=0, le=63)]
    """index into `clocks_mhz`; 0 when that is empty"""
    latency_p50_ms: Positive
    latency_p90_ms: Positive
    latency_p99_ms: Positive
    runs: Annotated[int, Meta(ge=1)]
    energy_j: NotNegative | None = None
    """per frame, above idle; None where the device has no meter"""


class Thermal(Struct, frozen=True, forbid_unknown_fields=True):
    """Two-node heat model: junction to sink to air."""

    junction_j_per_c: Positive
    sink_j_per_c: Positive
    junction_sink_c_per_w: Positive
    sink_air_c_per_w: Positive
    leakage_w_per_c: NotNegative = 0.0


class DeviceProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `clocks_mhz` ascends and is empty where the clock is given; `idle_w` has one value per clock (one
    where the clock is given) and is empty without a meter. `estimated`: the meter was an estimate."""

    version: Literal[1]
    device: Annotated[str, Meta(min_length=1, max_length=200)]
    """as `device_name()` says it"""
    runs: Annotated[list[ProfiledRun], Meta(min_length=1, max_length=4096)]
    clocks_mhz: Annotated[list[Positive], Meta(max_length=64)] = []
    idle_w: Annotated[list[NotNegative], Meta(max_length=64)] = []
    estimated: bool = False
    power_mode: str | None = None
    power_provider: str | None = None
    thermal: Thermal | None = None
    accuracy_slope: dict[str, NotNegative] = {}
    """variant -> what its accuracy loses from the easiest scene to the hardest; absent: not known"""


def device_name() -> str:
    """This machine's model: the device tree's on a Jetson, else the architecture and the CPU's name."""
    for file in MODEL_FILES:
        try:
            model = Path(file).read_bytes()[:200].decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            continue
        if model:
            return model
    try:
        info = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        info = ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", info, re.MULTILINE)
    return f"{platform.machine()} {found.group(1).strip()}" if found else platform.machine()


def profile_path(bundle: Path, device: str) -> Path:
    """Where the profile of `device` lies: its name in lower case, everything else a dash."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")[:80] or "unknown"
    return bundle / f"profile.{slug}.json"


def load_profile(bundle: Path, device: str, digests: Sequence[str]) -> DeviceProfile | None:
    """The profile of `device`, with the runs of files that have one of `digests`; None if there is none of them.

    Raises EdgedError for a file that is no profile: an unreadable one must not pass for a device without one.
    """
    path = profile_path(bundle, device)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EdgedError(f"{path}: cannot be read: {error.strerror}", "check its permissions") from error
    try:
        profile = msgspec.json.decode(raw[:MAX_BYTES], type=DeviceProfile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EdgedError(
            f"{path}: is not a device profile: {error}", "measure it again: edged-calibrate profile"
        ) from None
    clocks = max(1, len(profile.clocks_mhz))
    if (profile.idle_w and len(profile.idle_w) != clocks) or any(run.clock >= clocks for run in profile.runs):
        raise EdgedError(
            f"{path}: idle_w and the clocks of runs do not fit clocks_mhz", "measure it again: edged-calibrate profile"
        )
    known = set(digests)
    runs = [run for run in profile.runs if run.sha256 in known]
    return msgspec.structs.replace(profile, runs=runs) if runs else None
