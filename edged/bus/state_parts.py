"""What `state` and `telemetry` are made of, beside the messages in schema.py: frozen structs. Pure data, any thread."""

from __future__ import annotations

from msgspec import Struct


class VariantState(Struct, frozen=True):
    """A variant of the bundle as it is here; `refused` is the reason why it never runs. `resident`: it is loaded and
    can run now. `memory_mb`: what it takes while it is, beside what all share; `load_s`: how long its last load took;
    null before the first."""

    name: str
    precision: str
    sparse: bool
    accuracy: float | None
    runtime: str | None
    refused: str | None
    results: int
    latency_p50_ms: float | None
    resident: bool = True
    memory_mb: float | None = None
    load_s: float | None = None


class Memory(Struct, frozen=True):
    """What the daemon holds, in MB: `held_mb`, its process and engines, counts against `memory_mb`; `shared_mb` of it
    is what all variants share. `available_mb`: what can be had before the kernel kills, in the machine or in the
    service's control group; `stalled_percent`: of the last 10 s in which all tasks waited for memory. `loading`: the
    variant that is being loaded. `problem`: why the limit cannot be held, or a pin waits. Null is not known, or
    none."""

    held_mb: float | None
    shared_mb: float
    available_mb: float | None
    stalled_percent: float | None
    loading: str | None
    problem: str | None


class Escalation(Struct, frozen=True):
    """A frame whose best score is below `confidence` is run again on `variant` when deadline and budgets allow it."""

    variant: str
    confidence: float


class BudgetState(Struct, frozen=True):
    """A limit beside what was measured. `limit` and `measured` are in `unit`; null: not set, not known. `estimated`: no
    meter measured it. `note` says over what it was measured, or why it is not known."""

    name: str
    limit: float | None
    measured: float | None
    unit: str
    estimated: bool
    note: str


class Agreement(Struct, frozen=True):
    """How far a variant sees on a camera what the reference sees there, 0..1, over its last `samples` shadow runs
    (after a veto: since then). `low` and `high` bound it at every look at once; null without a sample. A variant of
    which it is proven to be below `gate` is `vetoed`."""

    camera: str
    variant: str
    agreement: float | None
    low: float | None
    high: float | None
    samples: int
    gate: float
    vetoed: bool


class InputDrift(Struct, frozen=True):
    """A camera's pictures against the calibration's: medians over two minutes, luma 0..255; null before a picture.
    `reason` says how they differ, empty if they do not."""

    camera: str
    drifted: bool
    reason: str
    brightness: float | None
    contrast: float | None
    low: float | None
    high: float | None


class Guard(Struct, frozen=True):
    """The accuracy guard since the start. `reference` is null if it does not run here: nothing is guarded then.
    `paused`: why it does not run now, though it could. `shadow_share` is of the frames inferred; `passed_over` counts
    runs that were due and not made, by cause."""

    reference: str | None
    shadow_runs: int
    shadow_share: float | None
    shadow_ms: float
    passed_over: dict[str, int]
    agreement: list[Agreement]
    drift: list[InputDrift]
    paused: str | None = None


class ClockControl(Struct, frozen=True):
    """The GPU's clock ceiling where `[power] clock_control` is set, in MHz: the one in force by the helper's word, and
    from where to where it can be had. `clock_mhz` is null while edged does not control it; `problem` says why."""

    clock_mhz: float | None
    lowest_mhz: float
    highest_mhz: float
    problem: str | None


class ProfileMode(Struct, frozen=True):
    """The power mode that the profile in force names. `problem`: why it is not in force, "" when it was set and
    verified, null while that is going on."""

    mode: str
    problem: str | None


class ScheduleState(Struct, frozen=True):
    """The entry of `[schedule]` that began last, local times as HH:MM: `profile` since `since`, `next_profile` from
    `next_at` on; null: the configuration's own limits. `problem`: why its profile was refused, null if it was not.
    A profile taken by hand holds until the next entry."""

    profile: str | None
    since: str
    next_profile: str | None
    next_at: str
    problem: str | None


class Recording(Struct, frozen=True):
    """The log for `edged replay`, see `[record]`. `megabytes` of all its files; `dropped`: records that the disk was
    too slow for. `problem`: why nothing is recorded any more, null while it is."""

    path: str
    megabytes: float
    dropped: int
    problem: str | None


class Battery(Struct, frozen=True):
    """All batteries of the device together. `discharge_w` is below 0 while they charge; null: not known."""

    charge_j: float
    capacity_j: float
    discharge_w: float | None
