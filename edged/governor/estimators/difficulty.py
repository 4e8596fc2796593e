"""How difficult the next frame is: confidences of results in, a difficulty from 0 to 1 out. Pure.

The confidence of a result tells its frame's difficulty with noise. The next frame's is predicted by a small recursive
least squares on [1, smoothed difficulty of its camera, contrast of the frame], so a contrast that tells nothing is soon
ignored. The smoothed difficulty is each camera's own; the weights are common to all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edged.governor.fast_replace import replace
from edged.governor.messages import TYPICAL

CONFIDENCE_SPAN: Final = 0.8
"""Confidence falls by so much from the easiest to the hardest frame."""
OBSERVED_VAR: Final = 0.01
SMOOTHING: Final = 0.30
INFLATION: Final = 1.0004
QUANTILES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
"""What the slow path reckons with, of the difficulties predicted of late."""
CAMERAS: Final = 64
"""So many cameras are told apart; the one heard of longest ago makes room."""

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """`smooth`: by camera, "" where none was named. `recent`: a ring of predictions, whose quantiles the slow path
    takes."""

    weights: Vector = (0.0, 1.0, 0.0)
    cov: tuple[Vector, Vector, Vector] = ((0.05, 0.0, 0.0), (0.0, 0.05, 0.0), (0.0, 0.0, 0.05))
    smooth: Mapping[str, float] = field(default_factory=dict)
    recent: tuple[float, ...] = (TYPICAL,)
    at: int = 0

    def predict(self, contrast: float | None, camera: str = "") -> float:
        a, b, c = self.weights
        return min(0.98, max(0.02, a + b * self.smooth.get(camera, TYPICAL) + c * _centred(contrast)))

    def quantiles(self) -> tuple[float, ...]:
        ranked = sorted(self.recent)
        return tuple([ranked[int(q * len(ranked))] for q in QUANTILES])


def observed(confidence: float) -> float:
    """Difficulty as one result tells it."""
    return min(1.0, max(0.0, (1.0 - confidence) / CONFIDENCE_SPAN))


def fresh(remember: int) -> Scene:
    return Scene(recent=(TYPICAL,) * remember)


def learn(scene: Scene, contrast: float | None, confidence: float, camera: str = "") -> Scene:
    predicted, difficulty = scene.predict(contrast, camera), observed(confidence)
    before = scene.smooth.get(camera, TYPICAL)
    h = (1.0, before, _centred(contrast))
    ph = [sum([p * x for p, x in zip(row, h, strict=True)]) for row in scene.cov]
    total = sum([p * x for p, x in zip(ph, h, strict=True)]) + OBSERVED_VAR
    error = difficulty - sum([w * x for w, x in zip(scene.weights, h, strict=True)])
    gain = [p / total for p in ph]
    cov = [[(scene.cov[i][j] - gain[i] * ph[j]) * INFLATION for j in range(3)] for i in range(3)]
    trace = cov[0][0] + cov[1][1] + cov[2][2]
    if trace > 1.0:
        cov = [[x / trace for x in row] for row in cov]
    i = scene.at
    return replace(
        scene,
        weights=(
            scene.weights[0] + gain[0] * error,
            scene.weights[1] + gain[1] * error,
            scene.weights[2] + gain[2] * error,
        ),
        cov=((cov[0][0], cov[0][1], cov[0][2]), (cov[1][0], cov[1][1], cov[1][2]), (cov[2][0], cov[2][1], cov[2][2])),
        smooth=_with(scene.smooth, camera, before + SMOOTHING * (difficulty - before)),
        recent=(*scene.recent[:i], predicted, *scene.recent[i + 1 :]),
        at=(i + 1) % len(scene.recent),
    )


def _with(smooth: Mapping[str, float], camera: str, value: float) -> Mapping[str, float]:
    """The last heard of goes last."""
    kept = {name: known for name, known in smooth.items() if name != camera}
    if len(kept) >= CAMERAS:
        del kept[next(iter(kept))]
    return kept | {camera: value}


def _centred(contrast: float | None) -> float:
    return 0.0 if contrast is None else contrast - 0.5
