"""One table of every topic, and the types of every message: schema version 1.

ZeroMQ multipart `[topic, payload]`, payload MessagePack with string keys. What a reader may rely on is here and in
`messages.schema.json`, which `json_schema.py` makes from these types. Pure data, any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType

from edged.bus.state_parts import (
    Agreement,
    Battery,
    BudgetState,
    ClockControl,
    Escalation,
    Guard,
    InputDrift,
    Memory,
    ProfileMode,
    Recording,
    ScheduleState,
    VariantState,
)

__all__ = [  # the parts of a state, for readers of this module
    "Agreement",
    "Battery",
    "BudgetState",
    "ClockControl",
    "Escalation",
    "Guard",
    "InputDrift",
    "Memory",
    "ProfileMode",
    "Recording",
    "ScheduleState",
    "VariantState",
]

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
    "track": Topic("track/", True, "when an object enters, leaves, crosses, stays, ends", False),
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


class Mask(Struct, frozen=True):
    """Which cells of a grid an object covers: `rows` x `columns` cells, the first at `x`, `y`, each `cell_width` x
    `cell_height`, in pixels of the source frame. `runs`: lengths of runs of cells in row order, in turns outside and
    inside, outside first; they add up to rows * columns."""

    x: float
    y: float
    cell_width: float
    cell_height: float
    columns: int
    rows: int
    runs: list[int]


class Detection(Struct, frozen=True, gc=False):
    """One object; `box` is x0, y0, x1, y1 in pixels of the source frame. Where the model gives them: `mask`,
    `keypoints` (x, y, confidence 0..1) and, of an oriented box, its four `corners` in order, of which `box` is the
    upright hull. Where the camera's objects are tracked: `track`, its identity, once it has one, and `zones`, the names
    of those that hold the box's bottom centre."""

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]
    mask: Mask | UnsetType = UNSET
    keypoints: list[tuple[float, float, float]] | UnsetType = UNSET
    corners: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]] | UnsetType = (
        UNSET
    )
    track: int | UnsetType = UNSET
    zones: tuple[str, ...] | UnsetType = UNSET


class ClassMap(Struct, frozen=True):
    """A class for each of `rows` x `columns` cells that cover the source frame evenly. `runs`: class id and number of
    cells, in turns, in row order."""

    columns: int
    rows: int
    runs: list[int]


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
    """`result/<camera>`: one inferred frame. Exactly one of `detections`, `classes`, `class_map` and `embedding` is
    there; an empty list means that nothing was seen. `variant` made this result; `escalated`: another had run before it
    on the same frame and was in doubt. `tiles`: columns by rows of the tiles that it was looked at in, such as "2x2";
    absent where the engine was given the frame as a whole. `energy_mj` is estimated, of all runs of this frame, above
    what the device draws at rest. The publisher fills `age_ms` (capture to publish) and `deadline_met` as it sends."""

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
    escalated: bool = False
    tiles: str | UnsetType = UNSET
    detections: list[Detection] | UnsetType = UNSET
    classes: list[ClassScore] | UnsetType = UNSET
    class_map: ClassMap | UnsetType = UNSET
    embedding: list[float] | UnsetType = UNSET


class Track(Header, frozen=True, kw_only=True):
    """`track/<camera>`: what an object did. `enter`: it came into the picture, or into `zone`; `leave`: it left `zone`;
    `cross`: it crossed `line` to its `direction`, looking along the line; `stay`: it has been in `zone` for its
    `stay_s`; `end`: it is gone. `track` is its identity on this camera since the daemon started. `box` (pixels) and
    `point` (the bottom centre, in shares of the picture) are those of its last sight, at `t_capture`. `duration_s`:
    since it came into the picture, for a zone's events since it entered it. `snapshot`: the name of its best picture in
    the directory of `[snapshots]`, written within a second; null where none is taken."""

    camera: str
    kind: Literal["enter", "leave", "cross", "stay", "end"]
    track: int
    label: str
    class_id: int
    t_capture: float
    box: tuple[float, float, float, float]
    point: tuple[float, float]
    duration_s: float
    best_score: float
    zone: str | None = None
    line: str | None = None
    direction: Literal["left", "right"] | None = None
    snapshot: str | None = None


CameraState = Literal["opening", "live", "stalled", "backoff", "ended", "refused"]


class Gate(Struct, frozen=True):
    """A camera's motion gate, where it is on. `still_share`: of the frames of the last hour, those left out because
    nothing moved; `saved_w`: estimated, what their inferences would have drawn. Of `looked_at` still frames that were
    inferred all the same `missed` showed something new; `missed_low` and `missed_high` bound that share at every look.
    `open`: the share is proven too high, so the gate lets everything through for ten minutes."""

    open: bool
    still_share: float | None
    saved_w: float | None
    looked_at: int
    missed: int
    missed_low: float | None
    missed_high: float | None


class Stream(Struct, frozen=True):
    """What a camera's stream costs. `lost_packets` since it was opened; the others of the last second, null where they
    are not known: `decode_ms` is CPU time for a picture, `keyframe_interval_s` lies between the last two keyframes."""

    lost_packets: int
    decode_ms: float | None
    mbit_s: float | None
    keyframe_interval_s: float | None


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
    stream: Stream | None = None
    still_since: float | None = None
    """Unix seconds: since when nothing has moved, by the motion gate; null while something does, and without a gate"""
    gate: Gate | None = None


class Alternative(Struct, frozen=True):
    """A variant as it stood when the choice was made. `verdict` is a sentence. `energy_mj` is estimated, of a frame
    above rest; `power_w` the whole device's with all frames on it; null while nothing is known of watts."""

    variant: str
    accuracy: float | None
    predicted_ms: float | None
    fits: bool
    verdict: str
    energy_mj: float | None = None
    power_w: float | None = None


class Number(Struct, frozen=True):
    """One number that a decision was made of; `error` is its standard error, `age_s` how old it is, null where that has
    no meaning. `assumed`: a guess that nothing measured has replaced yet."""

    name: str
    value: float
    unit: str
    error: float | None
    age_s: float | None
    assumed: bool


class Decision(Header, frozen=True, kw_only=True):
    """`decision`: what ran in the last second, and why. Each batch is chosen on its own; results name their variant.

    `variant`: the one that made most results; `shares`: of each that ran, its share of them (empty before the first
    results). `bound` names the constraint that decided. `clock_mhz`: the ceiling asked for, null where it is fixed.
    `price_per_j`: how many fully accurate frames a joule must gain, 0 while energy is not limited. `frame_share`: share
    of the offered frames that ran. `yielded`: limits that are relaxed now (heat, deadline, power, energy, accuracy,
    frame_rate). `unheld`: limits that are unenforceable, a sentence each; they do not stop frames. `escalation`: always
    null.
    """

    variant: str
    max_batch: int
    bound: str
    reason: str
    alternatives: list[Alternative]
    pinned: bool
    clock_mhz: float | None = None
    price_per_j: float = 0.0
    frame_share: float = 1.0
    escalation: Escalation | None = None
    yielded: list[str] = []
    unheld: list[str] = []
    numbers: list[Number] = []
    shares: dict[str, float] = {}


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
    battery: Battery | None = None
    """null where the device has none, or one that does not report its charge"""
    variants_mb: dict[str, float | None] = {}
    """what each variant that is loaded takes, beside what all share"""


class State(Header, frozen=True, kw_only=True):
    """`state`: the whole picture, retained: every new subscriber gets it at once."""

    version: str
    pid: int
    uptime_s: float
    bundle: str
    metric: str
    limits: dict[str, float | None]
    profile: str | None = None
    """the power profile in force; null: the configuration's own limits"""
    variants: list[VariantState]
    cameras: list[Status]
    decision: Decision | None
    telemetry: Telemetry | None
    healthy: bool
    stages: dict[str, float]
    """Seconds since each stage last made progress."""
    budgets: list[BudgetState] = []
    guard: Guard | None = None
    clock: ClockControl | None = None
    mode: ProfileMode | None = None
    recording: Recording | None = None
    schedule: ScheduleState | None = None
    run: str | None = None
    """names this run of the daemon, so that run, topic and `seq` together name a message for good"""
    memory: Memory | None = None


Message = Result | Status | Track | Decision | Event | Telemetry | State

MESSAGE_TYPES: dict[str, type[Struct]] = {
    "result": Result,
    "status": Status,
    "track": Track,
    "decision": Decision,
    "event": Event,
    "telemetry": Telemetry,
    "state": State,
}

M = TypeVar("M", Result, Status, Track, Decision, Event, Telemetry, State)
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
    if isinstance(message, Track):
        return TOPICS["track"].prefix + message.camera
    return _FIXED_TOPICS[type(message)]
