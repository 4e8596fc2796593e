"""A `state` message as metric families, named by Prometheus' conventions: base units, `_total` for counters.

Unknown is absent, never 0. Pure: a message in, families out, any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from edged.bus.schema import CameraState, Decision, Guard, State, Status, Telemetry

LIMITS: Final = ("heat", "deadline", "power", "energy", "accuracy", "frame_rate")
"""The limits that `yielded` of a decision can name."""

Samples = Iterable[tuple[Sequence[str], float | None]]


def families(state: State) -> Iterator[Metric]:
    """All that a state says; a family without a known value is left out."""
    yield from gauge(
        "edged_build_info",
        "The running daemon.",
        "version bundle metric",
        [((state.version, state.bundle, state.metric), 1)],
    )
    yield from gauge("edged_uptime_seconds", "Since the daemon started.", "", [((), state.uptime_s)])
    yield from gauge("edged_healthy", "0 while a stage has work and makes no progress.", "", [((), state.healthy)])
    yield from gauge(
        "edged_limit",
        "Each limit that is set, in the unit that its name ends with.",
        "name",
        [((name,), value) for name, value in state.limits.items()],
    )
    yield from _cameras(state.cameras)
    yield from counter(
        "edged_variant_results",
        "Results by the variant that made them.",
        "variant",
        [((one.name,), one.results) for one in state.variants],
    )
    yield from gauge(
        "edged_variant_available",
        "0 for a variant of the bundle that is refused on this device.",
        "variant",
        [((one.name,), one.refused is None) for one in state.variants],
    )
    if state.decision is not None:
        yield from _decision(state.decision, [one.name for one in state.variants if one.refused is None])
    if state.guard is not None:
        yield from _guard(state.guard)
    if state.telemetry is not None:
        yield from _power(state.telemetry)
        yield from _device(state.telemetry)
    if state.recording is not None:
        yield from counter(
            "edged_recording_dropped", "Records that the disk was too slow for.", "", [((), state.recording.dropped)]
        )


def gauge(name: str, text: str, labels: str, samples: Samples) -> Iterator[Metric]:
    """The family if it has a known value. `labels`: their names, separated by blanks."""
    yield from _filled(GaugeMetricFamily(name, text, labels=labels.split()), samples)


def counter(name: str, text: str, labels: str, samples: Samples) -> Iterator[Metric]:
    """As `gauge`; the exposition adds `_total` to the name."""
    yield from _filled(CounterMetricFamily(name, text, labels=labels.split()), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Iterator[Metric]:
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    if family.samples:
        yield family


def _cameras(cameras: list[Status]) -> Iterator[Metric]:
    yield from counter(
        "edged_camera_frames_captured",
        "Frames that the camera gave.",
        "camera",
        [((one.camera,), one.captured) for one in cameras],
    )
    yield from counter(
        "edged_camera_results", "Results published.", "camera", [((one.camera,), one.results) for one in cameras]
    )
    yield from counter(
        "edged_camera_drops",
        "Frames without a result, by cause.",
        "camera cause",
        [((one.camera, cause), count) for one in cameras for cause, count in one.drops.items()],
    )
    yield from counter(
        "edged_camera_reconnects",
        "How often the camera was opened again.",
        "camera",
        [((one.camera,), one.reconnects) for one in cameras],
    )
    yield from gauge(
        "edged_camera_state",
        "1 for the state the camera is in.",
        "camera state",
        [((one.camera, name), name == one.state) for one in cameras for name in get_args(CameraState)],
    )
    yield from gauge(
        "edged_camera_last_frame_age_seconds",
        "Age of the camera's newest frame.",
        "camera",
        [((one.camera,), seconds(one.last_frame_age_ms)) for one in cameras],
    )


def _decision(decision: Decision, variants: list[str]) -> Iterator[Metric]:
    if decision.shares:
        yield from gauge(
            "edged_variant_share_ratio",
            "Share of each variant in the results of the last second.",
            "variant",
            [((name,), decision.shares.get(name, 0.0)) for name in variants],
        )
    yield from gauge(
        "edged_limit_relaxed",
        "1 for a limit that has given way.",
        "limit",
        [((name,), name in decision.yielded) for name in dict.fromkeys((*LIMITS, *decision.yielded))],
    )
    yield from gauge(
        "edged_limits_unenforceable",
        "How many limits could not be held even without any frame.",
        "",
        [((), len(decision.unheld))],
    )
    yield from gauge(
        "edged_frame_share_ratio", "Share of the offered frames that ran.", "", [((), decision.frame_share)]
    )


def _guard(guard: Guard) -> Iterator[Metric]:
    yield from gauge(
        "edged_variant_agreement_ratio",
        "How far a variant sees what the reference sees.",
        "camera variant",
        [((one.camera, one.variant), one.agreement) for one in guard.agreement],
    )
    yield from gauge(
        "edged_variant_vetoed",
        "1 for a variant that is proven to see too little on a camera.",
        "camera variant",
        [((one.camera, one.variant), one.vetoed) for one in guard.agreement],
    )
    yield from gauge(
        "edged_input_drifted",
        "1 for a camera whose pictures are unlike the calibration's.",
        "camera",
        [((one.camera,), None if one.brightness is None else one.drifted) for one in guard.drift],
    )
    yield from counter("edged_shadow_runs", "Runs beside the reference.", "", [((), guard.shadow_runs)])
    yield from counter(
        "edged_shadow_runs_skipped",
        "Runs that were due and not made, by cause.",
        "cause",
        [((cause,), count) for cause, count in guard.passed_over.items()],
    )


def _power(sample: Telemetry) -> Iterator[Metric]:
    estimated = "true" if sample.power_estimated else "false"
    yield from gauge("edged_power_watts", "Of the whole device.", "estimated", [((estimated,), sample.power_w)])
    yield from counter(
        "edged_energy_joules",
        "Of the whole device since the daemon started, without the unmeasured time.",
        "estimated",
        [((estimated,), sample.energy_j)],
    )
    yield from counter(
        "edged_energy_unmeasured_seconds", "Time for which the energy is unknown.", "", [((), sample.energy_gap_s)]
    )
    yield from gauge(
        "edged_rail_power_watts",
        "Of each rail that has a meter.",
        "rail",
        [((name,), watts) for name, watts in sample.rails_w.items()],
    )
    if (battery := sample.battery) is not None:
        yield from gauge("edged_battery_charge_joules", "Left in all batteries.", "", [((), battery.charge_j)])
        yield from gauge("edged_battery_capacity_joules", "Of all batteries.", "", [((), battery.capacity_j)])


def _device(sample: Telemetry) -> Iterator[Metric]:
    yield from gauge("edged_hottest_temperature_celsius", "Of the hottest zone.", "", [((), sample.temperature_c)])
    yield from gauge(
        "edged_temperature_celsius",
        "Of each thermal zone.",
        "zone",
        [((name,), value) for name, value in sample.temperatures_c.items()],
    )
    yield from gauge("edged_throttled", "1 while the device throttles.", "", [((), sample.throttled)])
    yield from counter(
        "edged_throttle_events",
        "Since boot, by kind.",
        "kind",
        [((kind,), count) for kind, count in sample.throttle_events.items()],
    )
    yield from gauge("edged_cpu_usage_ratio", "Of all cores.", "", [((), _ratio(sample.cpu_percent))])
    yield from gauge("edged_gpu_usage_ratio", "Of the GPU.", "", [((), _ratio(sample.gpu_percent))])
    yield from gauge("edged_gpu_clock_hertz", "The GPU's clock.", "", [((), _times(sample.gpu_mhz, 1e6))])
    yield from gauge(
        "edged_memory_available_bytes", "Of the device.", "", [((), _times(sample.memory_available_mb, 1e6))]
    )


def seconds(ms: float | None) -> float | None:
    return _times(ms, 1e-3)


def _ratio(percent: float | None) -> float | None:
    return _times(percent, 0.01)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
