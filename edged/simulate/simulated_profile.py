"""What is known of a simulated device on which a daemon runs: watts by kind of engine, and its heat. Pure."""

from __future__ import annotations

from edged.governor.messages import Device
from edged.simulate.tables import ENGINES, LEAKAGE_W_PER_C, NAMES, DeviceTable, device_table


def table(name: str) -> DeviceTable:
    """Of "orin-nano", "orin-nx" or "agx-orin"."""
    return device_table(NAMES[name])


def device(name: str) -> Device:
    """For the governor: one clock, the highest, given."""
    known = table(name)
    return Device(
        idle_w=known.idle_w[-1:],
        leakage_w_per_c=LEAKAGE_W_PER_C,
        junction_j_per_c=known.junction_j_per_c,
        sink_j_per_c=known.sink_j_per_c,
        junction_sink_c_per_w=known.junction_sink_c_per_w,
        sink_air_c_per_w=known.sink_air_c_per_w,
    )


def active_w(name: str, precision: str, sparse: bool) -> float:
    """Watts above idle while an engine of this kind runs; what is neither INT8 nor FP16 is taken for FP16."""
    kind = ("int8-sparse" if sparse else "int8") if precision == "int8" else "fp16"
    return table(name).active_w[ENGINES.index(kind)]
