"""What a simulated device is made of: the nominal tables of three Jetson-class devices and the laws around them. Pure.

Sourced. Throttle at 99.0 and shutdown at 104.5 C: the trips of the CPU zone in Linux' tegra234 device trees. The
highest GPU clocks: the modules' published maxima (Orin Nano 625 MHz in its 15 W mode, Orin NX 16 GB 918 MHz, AGX Orin
64 GB 1300 MHz); 408 MHz is that of the Nano's 7 W mode.

Assumed, since no public measurement gives them for one workload: the steps between those clocks; power at rest, which
depends on carrier board and peripherals (2.2 W are reported for a stripped Orin Nano, some 3 to 5 W for a developer
kit); the latency of each engine (an SSD/YOLO-class detector; INT8 and 2:4 gains of the size NVIDIA publishes); active
power (the AGX value is of the size of the 40 W that its GPU rail shows under a stress test) and its growth with the
clock (f * V(f)^2, exponent 2.4 above the voltage floor); heat capacities and resistances (a module under its reference
cooler that settles within minutes); leakage; and the accuracy of each engine over difficulty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from edged.errors import UsageError

STEP_S: Final = 0.1
"""The plant's integration step."""
THROTTLE_C: Final = 99.0
THROTTLE_OFF_C: Final = 97.0
SHUTDOWN_C: Final = 104.5
THROTTLED_FACTOR: Final = 1.5
"""Assumed: what a throttled device still needs more than at its lowest clock."""
LEAKAGE_W_PER_C: Final = 0.015
"""Assumed; above 25 C."""
CLOCK_STALL_S: Final = 0.060
CLOCK_DWELL_S: Final = 2.0
ENGINE_STALL_S: Final = 0.0015
COLD_FACTOR: Final = 0.12
COLD_AFTER_S: Final = 3.0
"""Assumed: the stall of a clock change, the least time between two, the cost of another engine, a cold engine's."""
STALL_ENERGY: Final = 0.6
"""Assumed: share of an inference's energy that does not grow when contention stretches it."""

ENGINES: Final = ("fp16", "int8", "int8-sparse", "lite", "dla")
DLA: Final = 4
"""Index of the engine that runs on the deep-learning accelerator: its own clock, its own contention."""
ACCURACY: Final = (0.920, 0.900, 0.890, 0.840, 0.900)
ACCURACY_SLOPE: Final = (0.300, 0.420, 0.480, 0.580, 0.425)
"""Accuracy on a scene of difficulty d is ACCURACY - ACCURACY_SLOPE * d; both assumed."""


TYPICAL: Final = 0.4
"""Difficulty of the data that the accuracy of a bundle is measured on."""


@dataclass(frozen=True)
class DeviceTable:
    """`latency_ms` and `active_w` by engine, batch 1 at the highest clock; `fixed_share` of the latency does not scale
    with the clock; a batch of n takes n ** `batch_power` times as long."""

    clocks_mhz: tuple[float, ...]
    idle_w: tuple[float, ...]
    latency_ms: tuple[float, ...]
    active_w: tuple[float, ...]
    floor_mhz: float
    junction_j_per_c: float
    sink_j_per_c: float
    junction_sink_c_per_w: float
    sink_air_c_per_w: float
    fixed_share: float = 0.25
    batch_power: float = 0.88
    power_exponent: float = 2.4
    dla: bool = True


DEVICES: Final[Mapping[str, DeviceTable]] = {
    "nx": DeviceTable(
        (408, 612, 765, 918), (4.6, 5.0, 5.4, 5.9), (20.0, 13.0, 10.2, 7.0, 38.0), (14.5, 13.3, 13.6, 12.0, 0.9),
        612, 12.0, 90.0, 1.2, 4.5,
    ),
    "agx": DeviceTable(
        (408, 612, 816, 1300), (5.8, 6.8, 7.8, 9.5), (8.2, 5.3, 4.2, 2.9, 17.0), (47.0, 43.0, 44.0, 38.0, 2.4),
        612, 25.0, 300.0, 0.45, 1.25, fixed_share=0.22, batch_power=0.80,
    ),
    "nano": DeviceTable(
        (306, 408, 510, 625), (3.2, 3.4, 3.7, 4.1), (23.6, 15.5, 12.0, 8.2, 38.0), (8.6, 7.9, 8.1, 7.2, 0.9),
        408, 8.0, 60.0, 1.6, 6.0, batch_power=0.90, dla=False,
    ),
}  # fmt: skip


NAMES: Final[Mapping[str, str]] = {"orin-nano": "nano", "orin-nx": "nx", "agx-orin": "agx"}
"""As people call them, and as the arena does."""


def device_table(device: Any) -> DeviceTable:
    """By name, or from a JSON object {"base": NAME, field: value ...}."""
    if isinstance(device, str):
        if device not in DEVICES:
            raise UsageError(f"there is no simulated device {device!r}", f"choose one of: {', '.join(DEVICES)}")
        return DEVICES[device]
    base = device_table(device.get("base", "nx"))
    known = {field.name for field in fields(DeviceTable)}
    changed = {key: value for key, value in device.items() if key != "base"}
    if unknown := changed.keys() - known:
        raise UsageError(f"a device has no {sorted(unknown)[0]!r}", f"its keys are: {', '.join(sorted(known))}")
    values: dict[str, Any] = {name: changed.get(name, getattr(base, name)) for name in known}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return DeviceTable(**values)
