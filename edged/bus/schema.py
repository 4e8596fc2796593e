"""One table of every topic, and the types of every message: schema version 1.

ZeroMQ multipart `[topic, payload]`, payload MessagePack with string keys. What a reader may rely on is here and in
`messages.schema.json`, which is generated from these types. Pure data, any thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
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


class Header(Struct, frozen=True, kw_only=True):
    """What every message begins with. The publisher stamps `seq` and `t_publish` (Unix seconds) as it sends; whoever
    builds a message leaves them out. `seq` counts per topic from 1, without gaps at the sender."""

    v: int = SCHEMA_VERSION
    seq: int = 0
    t_publish: float = 0.0


class Latency(Struct, frozen=True, gc=False):
    """Milliseconds a frame spent waiting, being prepared, inferred (whole batch) and decoded."""

    queue: float
    pre: float
    infer: float
    post: float


class Detection(Struct, frozen=True, gc=False):
    """One object; `box` is x0, y0, x1, y1 in pixels of the source frame."""

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]


class ClassScore(Struct, frozen=True, gc=False):
    label: str
    class_id: int
    score: float


class RingRef(Struct, frozen=True, gc=False):
    """Where a local program finds the very frame; `seq` tells whether the slot still holds it."""

    name: str
    slot: int
    seq: int


class Result(Header, frozen=True, kw_only=True):
    """`result/<camera>`: one inferred frame. Exactly one of `detections` and `classes` is there; an empty list means
    that nothing was seen. The publisher fills `age_ms` (capture to publish) and `deadline_met` as it sends."""

    camera: str
    frame: int
    t_capture: float
    mono_capture_ns: int
    variant: str
    batch: int
    latency_ms: Latency
    deadline_ms: float
    energy_mj: float | None
    width: int
    height: int
    ring: RingRef
    age_ms: float = 0.0
    deadline_met: bool = False
    detections: list[Detection] | UnsetType = UNSET
    classes: list[ClassScore] | UnsetType = UNSET


CameraState = Literal["opening", "live", "stalled", "backoff", "ended", "refused"]


class Status(Header, frozen=True, kw_only=True):
    """`status/<camera>`: what the camera is doing and why. `clock` says whose time `t_capture` is; None before a frame.

    Counts are since the daemon started: captured = results + the sum of drops + at most one frame on its way.
    `ended` (a file played to its end) and `refused` (a source this machine cannot open) do not come back by themselves.
    """

    camera: str
    state: CameraState
    reason: str
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


class Decision(Header, frozen=True, kw_only=True):
    """`decision`: what runs and why. `bound` names the constraint that decided."""

    variant: str
    max_batch: int
    bound: str
    reason: str
    alternatives: list[Alternative]
    pinned: bool


class Event(Header, frozen=True, kw_only=True):
    """`event`: something a person should know. `kind` is stable, `text` is a sentence."""

    kind: str
    text: str
    camera: str | None = None
    variant: str | None = None


class Telemetry(Header, frozen=True, kw_only=True):
    """`telemetry`: one sample of the device. Unknown is null, never 0. Units are in the names."""

    provider: str
    power_w: float | None
    power_estimated: bool
    rails_w: dict[str, float | None]
    temperature_c: float | None
    temperatures_c: dict[str, float | None]
    cpu_percent: float | None
    memory_available_mb: float | None
    cpu_pressure_percent: float | None
    gpu_percent: float | None
    gpu_mhz: float | None
    gpu_ceiling_mhz: float | None
    """what the GPU's clock may reach"""
    throttled: bool | None
    throttle_events: dict[str, int | None]
    """since boot"""
    energy_j: float | None
    """of the device since edged started, without `energy_gap_s`, in which it was not known"""
    energy_gap_s: float
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


class State(Header, frozen=True, kw_only=True):
    """`state`: the whole picture, retained: every new subscriber gets it at once."""

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

M = TypeVar("M", Result, Status, Decision, Event, Telemetry, State)
"""Any one message type: what goes in comes out."""

_FIXED_TOPICS: dict[type[Struct], str] = {
    Decision: TOPICS["decision"].prefix,
    Event: TOPICS["event"].prefix,
    Telemetry: TOPICS["telemetry"].prefix,
    State: TOPICS["state"].prefix,
}


def topic_of(message: Message) -> str:
    """The topic on which a message goes out."""
    if isinstance(message, Result):
        return TOPICS["result"].prefix + message.camera
    if isinstance(message, Status):
        return TOPICS["status"].prefix + message.camera
    return _FIXED_TOPICS[type(message)]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of every message, by the name of its type. `python -m edged.bus.schema` prints it.

    The sender leaves out nothing but what may be unset, so every other field is required, whatever its default here.
    """
    parts: list[type[Struct]] = [Latency, Detection, ClassScore, RingRef, Alternative, VariantState]
    kinds = {kind.__name__: kind for kind in [*MESSAGE_TYPES.values(), *parts]}
    _, components = msgspec.json.schema_components(MESSAGE_TYPES.values(), ref_template="#/$defs/{name}")
    for name, definition in components.items():
        fields = msgspec.structs.fields(kinds[name])
        definition["required"] = [field.name for field in fields if field.default is not UNSET]
        if "description" in definition:  # docstrings keep their indentation before Python 3.13
            definition["description"] = " ".join(definition["description"].split())
        for found in definition["properties"].values():
            found.pop("default", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edged messages",
        "description": f"Schema version {SCHEMA_VERSION}. MessagePack maps on the wire, in these shapes.",
        "topics": {
            topic.prefix + ("<camera>" if topic.per_camera else ""): {
                "message": {"$ref": f"#/$defs/{MESSAGE_TYPES[name].__name__}"},
                "when": topic.rate,
                "retained": topic.retained,
            }
            for name, topic in TOPICS.items()
        },
        "$defs": components,
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
