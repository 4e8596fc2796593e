"""What a bundle's variants cost on one device: `profile.<device>.<runtime>[.<power mode>].json` beside the engines.

`edged-calibrate profile` measures and writes it; the daemon reads the one that fits what it runs. A profile holds for
one device, runtime and power mode, and for the very files that were measured, by their digests: any other is refused
with the reason, never used in part.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from edged import files
from edged.engines.manifest import Name, Sha256
from edged.errors import EdgedError

VERSION: Final = 2
MAX_BYTES: Final = 4 << 20
MAX_OTHERS: Final = 16
MODEL_FILES: Final = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")

Positive = Annotated[float, Meta(gt=0, le=1e6)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]
RuntimeName = Literal["cpu", "cuda", "tensorrt"]
"""As `[engine] device` names it: ONNX Runtime on the CPU, ONNX Runtime on CUDA, TensorRT."""


class Conditions(Struct, frozen=True):
    """What the figures of a profile hold for. `power_mode`: nvpmodel's name of it, None where there is none. `threads`:
    of one inference, which matters on the CPU alone."""

    device: str
    runtime: RuntimeName
    power_mode: str | None = None
    threads: int = 1


class ProfiledRun(Struct, frozen=True, forbid_unknown_fields=True):
    """One variant at one batch size and clock, warm. Times are of the whole batch: preparation to decoded result."""

    variant: Name
    sha256: Sha256
    """of the engine file that was measured: an ONNX file, or a TensorRT plan"""
    batch: Annotated[int, Meta(ge=1, le=64)]
    clock: Annotated[int, Meta(ge=0, le=63)]
    """index into `clocks_mhz`; 0 when that is empty"""
    latency_p50_ms: Positive
    latency_p90_ms: Positive
    latency_p99_ms: Positive
    runs: Annotated[int, Meta(ge=1)]
    energy_j: NotNegative | None = None
    """per frame, above idle at that clock; None where the device has no meter"""


class Thermal(Struct, frozen=True, forbid_unknown_fields=True):
    """Two-node heat model: junction to sink to air. `leakage_w_per_c`: what the idle power grows by per degree."""

    junction_j_per_c: Positive
    sink_j_per_c: Positive
    junction_sink_c_per_w: Positive
    sink_air_c_per_w: Positive
    leakage_w_per_c: NotNegative = 0.0


class DeviceProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `clocks_mhz` ascends; it is empty where the clock could not be set. `idle_w` has one value per
    clock (one where `clocks_mhz` is empty) and is empty without a meter. `estimated`: the meter was an estimate."""

    version: Literal[2]
    device: Annotated[str, Meta(min_length=1, max_length=200)]
    runtime: RuntimeName
    runs: Annotated[list[ProfiledRun], Meta(min_length=1, max_length=16384)]
    power_mode: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    clocks_mhz: Annotated[list[Positive], Meta(max_length=64)] = []
    idle_w: Annotated[list[NotNegative], Meta(max_length=64)] = []
    estimated: bool = False
    power_provider: str | None = None
    thermal: Thermal | None = None
    memory_mb: dict[Name, NotNegative] = {}
    """what each variant takes while it is loaded, beside what all share"""

    @property
    def conditions(self) -> Conditions:
        return Conditions(self.device, self.runtime, self.power_mode, self.threads)


def device_name(root: Path = Path("/")) -> str:
    """This machine's model: the device tree's on a Jetson, else the architecture and the CPU's name."""
    for file in MODEL_FILES:
        try:
            model = (root / file).read_bytes()[:200].decode("utf-8", "replace").strip("\0 \n")
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


def profile_path(bundle: Path, here: Conditions) -> Path:
    """Where the profile for these conditions is: names in lower case, everything else a dash."""
    mode = "" if here.power_mode is None else f".{_slug(here.power_mode)}"
    return bundle / f"profile.{_slug(here.device)}.{here.runtime}{mode}.json"


def load_profile(bundle: Path, here: Conditions, digests: Mapping[str, str]) -> DeviceProfile | None:
    """The profile for `here`, with the runs of the variants in `digests` (variant -> SHA-256 of the file that runs).

    None if the bundle has no profile of this device at all. EdgedError, with the reason and the command that measures a
    new one, for a file that is no profile or of an older form, and for one that was measured under other conditions,
    with another file, or without one of the variants.
    """
    path = profile_path(bundle, here)
    cure = measure_hint(bundle, here)
    if (profile := _read(path, cure)) is None:
        if (reason := _other(bundle, here)) is not None:
            raise EdgedError(reason, cure)
        return None
    if (reason := _unlike(profile.conditions, here)) is not None:
        raise EdgedError(f"{path}: {reason}", cure)
    clocks = max(1, len(profile.clocks_mhz))
    if profile.clocks_mhz != sorted(set(profile.clocks_mhz)):
        raise EdgedError(f"{path}: clocks_mhz does not ascend", cure)
    if (profile.idle_w and len(profile.idle_w) != clocks) or any(run.clock >= clocks for run in profile.runs):
        raise EdgedError(f"{path}: idle_w and the clocks of runs do not fit clocks_mhz", cure)
    for variant, digest in digests.items():
        measured = {run.sha256 for run in profile.runs if run.variant == variant}
        if not any(run.variant == variant and (run.batch, run.clock) == (1, clocks - 1) for run in profile.runs):
            raise EdgedError(f"{path}: has no measurement of {variant} with batch 1 at the highest clock", cure)
        if measured != {digest}:
            other = min(measured - {digest})
            raise EdgedError(
                f"{path}: measured another file of {variant}: SHA-256 {other[:12]}..., here {digest[:12]}...", cure
            )
    return msgspec.structs.replace(profile, runs=[run for run in profile.runs if run.variant in digests])


def measure_hint(bundle: Path, here: Conditions) -> str:
    """The command that measures a profile for these conditions."""
    threads = f" --threads {here.threads}" if here.runtime == "cpu" and here.threads != 1 else ""
    return f"measure it: edged-calibrate profile {bundle} --device {here.runtime}{threads}"


def _read(path: Path, cure: str) -> DeviceProfile | None:
    """None if there is no such file."""
    try:
        with files.open_regular(path) as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EdgedError(f"{path}: cannot be read: {error.strerror}", "check its permissions") from error
    try:
        form: Any = msgspec.json.decode(raw[:MAX_BYTES])
        version = form.get("version") if isinstance(form, dict) else None
        if type(version) is int and version < VERSION:
            raise EdgedError(f"{path}: is of an older form (version {version}; this edged reads {VERSION})", cure)
        return msgspec.convert(form, DeviceProfile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EdgedError(f"{path}: is not a device profile: {str(error)[:200]}", cure) from None


def _other(bundle: Path, here: Conditions) -> str | None:
    """Why the profiles that the bundle has of this device do not serve here; None if it has none."""
    for path in sorted(bundle.glob(f"profile.{_slug(here.device)}.*json"))[:MAX_OTHERS]:
        try:
            profile = _read(path, "")
        except EdgedError as error:
            return error.message
        if profile is not None and (reason := _unlike(profile.conditions, here)) is not None:
            return f"{path}: {reason}"
    return None


def _unlike(measured: Conditions, here: Conditions) -> str | None:
    """In what `measured` differs from `here`; None if it does not matter."""
    if measured.device != here.device:
        return f"was measured on {measured.device}; this is {here.device}"
    if measured.runtime != here.runtime:
        return f"was measured on {measured.runtime}; the engines run on {here.runtime}"
    if measured.power_mode != here.power_mode:
        return (
            f"was measured in power mode {measured.power_mode or 'unknown'}; the mode is {here.power_mode or 'unknown'}"
        )
    if here.runtime == "cpu" and measured.threads != here.threads:
        return f"was measured with {measured.threads} threads; [engine] threads is {here.threads}"
    return None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "unknown"
