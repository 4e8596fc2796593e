"""One table of every topic, and the types of every message: schema version 1.

ZeroMQ multipart `[topic, payload]`, payload MessagePack with string keys. What a reader may rely on is here and in
`messages.schema.json`, which is generated from these types. Pure data, any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Topic:
    """`rate`: what a reader may expect when all is well. `retained`: also carried inside `state`."""

    prefix: str
    per_camera: bool
    rate: str
    retained: bool


TOPICS: dict[str, Topic] = {
    "result": Topic("result/", True, "one per inferred frame", False),
    "status": Topic("status/", True, "on a change of state, and once a second while the camera gives no frames", True),
    "decision": Topic("decision", False, "when the choice changes", True),
    "event": Topic("event", False, "when something happened that a person should know", False),
    "telemetry": Topic("telemetry", False, "every sample", True),
    "state": Topic("state", False, "once a second, and to every new subscriber at once", True),
}


class Latency(Struct, frozen=True):
    """Milliseconds a frame spent waiting, being prepared, inferred (whole batch) and decoded."""

    queue: float
    pre: float
    infer: float
    post: float


class Detection(Struct, frozen=True):
    """One object; `box` is x0, y0, x1, y1 in pixels of the source frame."""

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]


class ClassScore(Struct, frozen=True):
    label: str
    class_id: int
    score: float


class RingRef(Struct, frozen=True):
    """Where a local program finds the very frame; `seq` tells whether the slot still holds it."""

    name: str
    slot: int
    seq: int


class Result(Struct, frozen=True):
    """`result/<camera>`: one inferred frame. `seq` counts per topic without gaps at the sender."""

    v: int
    seq: int
    camera: str
    frame: int
    t_capture: float
    t_publish: float
    mono_capture_ns: int
    age_ms: float
    variant: str
    batch: int
    latency_ms: Latency
    deadline_ms: float
    deadline_met: bool
    energy_mj: float | None
    width: int
    height: int
    ring: RingRef
    detections: list[Detection] | UnsetType = UNSET
    classes: list[ClassScore] | UnsetType = UNSET


CameraState = Literal["opening", "live", "stalled", "backoff", "ended", "refused"]


class Status(Struct, frozen=True):
    """`status/<camera>`: what the camera is doing and why. `clock` says whose time `t_capture` is; None before a frame.

    Counts are since the daemon started: captured = results + the sum of drops + at most one frame on its way.
    `ended` (a file played to its end) and `refused` (a source this machine cannot open) do not come back by themselves.
    """

    v: int
    seq: int
    camera: str
    state: CameraState
    reason: str
    t_publish: float
    since_s: float
    source: str
    width: int | None
    height: int | None
    clock: Literal["camera", "arrival"] | None
    captured: int
    results: int
    drops: dict[str, int]
    reconnects: int
    last_frame_age_ms: float | None


class Alternative(Struct, frozen=True):
    """A variant as it stood when the choice was made. `verdict` is a sentence."""

    variant: str
    accuracy: float | None
    predicted_ms: float | None
    fits: bool
    verdict: str


class Decision(Struct, frozen=True):
    """`decision`: what runs and why. `bound` names the constraint that decided."""

    v: int
    seq: int
    t_publish: float
    variant: str
    max_batch: int
    bound: str
    reason: str
    alternatives: list[Alternative]
    pinned: bool


class Event(Struct, frozen=True):
    """`event`: something a person should know. `kind` is stable, `text` is a sentence."""

    v: int
    seq: int
    t_publish: float
    kind: str
    text: str
    camera: str | None = None
    variant: str | None = None


class Telemetry(Struct, frozen=True):
    """`telemetry`: one sample of the device. Unknown is null, never 0. Units are in the names."""

    v: int
    seq: int
    t_publish: float
    provider: str
    power_w: float | None
    power_estimated: bool
    rails_w: dict[str, float | None]
    temperature_c: float | None
    temperatures_c: dict[str, float | None]
    cpu_percent: float | None
    memory_available_mb: float | None
    cpu_pressure_percent: float | None
    missing: list[str]
    """Why a value is null, one sentence each."""


class VariantState(Struct, frozen=True):
    """A variant of the bundle as loaded here; `refused` is the reason if it is not."""

    name: str
    precision: str
    sparse: bool
    accuracy: float | None
    runtime: str | None
    refused: str | None
    results: int
    latency_p50_ms: float | None


class State(Struct, frozen=True):
    """`state`: the whole picture, retained: every new subscriber gets it at once."""

    v: int
    seq: int
    t_publish: float
    version: str
    pid: int
    uptime_s: float
    bundle: str
    metric: str
    limits: dict[str, float | None]
    variants: list[VariantState]
    cameras: list[Status]
    decision: Decision | None
    telemetry: Telemetry | None
    healthy: bool
    stages: dict[str, float]
    """Seconds since each stage last made progress."""


Message = Result | Status | Decision | Event | Telemetry | State

MESSAGE_TYPES: dict[str, type[Struct]] = {
    "result": Result,
    "status": Status,
    "decision": Decision,
    "event": Event,
    "telemetry": Telemetry,
    "state": State,
}
