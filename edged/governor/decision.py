"""What the governor is told, what it answers: plain data, so that a decision can be logged, replayed and explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = Literal["deadline", "load", "accuracy", "pin", "none"]
"""The constraint that decided: the time a frame may take; the engine's capacity; the accuracy floor, which forbids a
faster variant that would fit; an operator; or none, when the most accurate variant runs and fits."""


@dataclass(frozen=True)
class Variant:
    """What is known of a variant before it has run here.

    `latency_ms` is the warm service time of a batch (as in `BatchDone.service_ms`): index 0 is batch 1.
    """

    name: str
    accuracy: float | None
    latency_ms: tuple[float, ...]


@dataclass(frozen=True)
class Budget:
    """The limits as the governor holds them; None is absent. Units as in the configuration."""

    deadline_ms: float
    deadline_quantile: float
    min_accuracy: float
    power_w: float | None = None
    power_window_s: float = 10.0
    energy_wh: float | None = None
    energy_horizon_h: float = 24.0
    temperature_c: float | None = None


@dataclass(frozen=True)
class BatchDone:
    """A batch came back. `service_ms` is preparation + inference + decoding of the whole batch on the engine loop,
    `lead_ms` the greatest capture-to-start age of its frames (decoding and waiting), `late` how many missed."""

    variant: str
    batch: int
    service_ms: float
    lead_ms: float
    late: int


@dataclass(frozen=True)
class Workload:
    """What the cameras offer: how many are live and the frames per second of all together; told once a second."""

    cameras: int
    frames_per_s: float
    late: int
    """frames dropped since the last Workload because they could not meet their deadline, or for overload"""


@dataclass(frozen=True)
class BudgetChanged:
    budget: Budget


@dataclass(frozen=True)
class Pinned:
    """An operator holds a variant, or (None) lets go."""

    variant: str | None


@dataclass(frozen=True)
class VariantLost:
    """A variant stopped working at run time and may not be chosen again."""

    variant: str
    why: str


Observation = BatchDone | Workload | BudgetChanged | Pinned | VariantLost


@dataclass(frozen=True)
class Alternative:
    """A variant as it stood when the choice was made; `predicted_ms` is its time from capture to publish at the
    budget's quantile, None when nothing is known."""

    variant: str
    accuracy: float | None
    predicted_ms: float | None
    fits: bool
    verdict: str


@dataclass(frozen=True)
class Decision:
    """What the next batches get, and why in one sentence with its numbers."""

    variant: str
    max_batch: int
    bound: Bound
    reason: str
    alternatives: tuple[Alternative, ...]
    pinned: bool
