"""Messages of every type, filled with plausible values."""

from __future__ import annotations

from edged import clock
from edged.bus.schema import (
    Alternative,
    Decision,
    Detection,
    Event,
    Latency,
    Result,
    RingRef,
    State,
    Status,
    Telemetry,
    Track,
)
from edged.bus.schema import VariantState as Variant


def result(camera: str = "gate", frame: int = 1, objects: int = 8, age_ms: float = 10.0) -> Result:
    return Result(
        camera=camera,
        frame=frame,
        t_capture=1.7e9,
        mono_capture_ns=clock.mono_ns() - int(age_ms * clock.NS_PER_MS),
        variant="int8-sparse",
        batch=1,
        latency_ms=Latency(1.0, 0.5, 8.0, 0.25),
        deadline_ms=50.0,
        energy_mj=None,
        width=1280,
        height=720,
        ring=RingRef("edged-test-gate", 1, 2 * frame),
        detections=[Detection("gear", n, 0.5 + n / 100, (1.5, 2.5, 100.25, 200.125)) for n in range(objects)],
    )


def status(camera: str = "gate") -> Status:
    return Status(
        camera=camera,
        state="live",
        reason="frames arrive",
        since_s=1.0,
        source="test://7",
        width=1280,
        height=720,
        clock="arrival",
        captured=10,
        results=8,
        drops={"superseded": 1},
        reconnects=0,
        last_frame_age_ms=5.0,
    )


def track(camera: str = "gate") -> Track:
    return Track(
        camera=camera,
        kind="cross",
        track=7,
        label="gear",
        class_id=2,
        t_capture=1.7e9,
        box=(1.5, 2.5, 100.25, 200.125),
        point=(0.04, 0.28),
        duration_s=3.5,
        best_score=0.9,
        line="door",
        direction="left",
    )


def decision() -> Decision:
    return Decision(
        variant="fp32",
        max_batch=1,
        bound="accuracy",
        reason="the most accurate that fits",
        alternatives=[Alternative("fp32", 0.9, 12.0, True, "fits")],
        pinned=False,
    )


def event() -> Event:
    return Event(kind="restart", text="camera gate was started again", camera="gate")


def telemetry() -> Telemetry:
    return Telemetry(
        provider="host",
        power_w=None,
        power_estimated=False,
        rails_w={},
        temperature_c=41.0,
        temperatures_c={"cpu": 41.0},
        cpu_percent=12.5,
        memory_available_mb=1024.0,
        cpu_pressure_percent=None,
        gpu_percent=37.5,
        gpu_mhz=612.0,
        gpu_ceiling_mhz=1020.0,
        throttled=False,
        throttle_events={"under_voltage": 0, "average_over_current": 1, "peak_over_current": None},
        energy_j=1234.5,
        energy_gap_s=0.0,
        missing=["no power meter"],
    )


def state(pid: int = 1234) -> State:
    return State(
        version="0.1.0",
        pid=pid,
        run=f"run{pid}",
        uptime_s=1.0,
        bundle="demo",
        metric="map50",
        limits={"deadline_ms": 50.0, "power_w": None},
        variants=[Variant("fp32", "fp32", False, 0.9, "onnxruntime", None, 8, 9.5)],
        cameras=[status()],
        decision=decision(),
        telemetry=telemetry(),
        healthy=True,
        stages={"pipeline": 0.01},
    )
