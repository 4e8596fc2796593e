"""The gate: whether a file is close enough to the float model to be shipped, and if not, why and where to look.

In: evaluations of the float model and of each file on the same held-out pictures, and the recipe's limits. Out: a
`Verdict` per file. Judged is the measured drop plus one standard error of it, from draws that both models share: a
drop that is small only because few pictures were measured does not pass. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from edged.engines.decoder_spec import ObjectDecoder
from edged_calibration.evaluate.metrics import Evaluation, Task

POINTS: Final = 100.0
_WORST_SHOWN: Final = 3
_MOST_ALIKE: Final = 0.9  # of the pictures


class Verdict(Struct, frozen=True, forbid_unknown_fields=True):
    """Of one file. Drops are in points, hundredths of the metric; positive is worse than float.

    `low` and `high` bound the drop with 95 % confidence.
    """

    file: str
    metric: str
    float_value: float
    value: float
    drop: float
    low: float
    high: float
    standard_error: float
    limit: float
    images: int
    passed: bool
    reason: str


def alike(found: Evaluation, task: Task) -> str:
    """A sentence where the validation pictures tell a good file from a broken one hardly or not at all; else empty."""
    if found.alike < _MOST_ALIKE * found.images:
        return ""
    count = f"{found.alike} of {found.images} validation pictures"
    if isinstance(task.output, ObjectDecoder):
        return (
            f"there are no objects in {count}, so that only {found.images - found.alike} measure anything: "
            "give frames with objects in them"
        )
    return f"{count} have the same answer, which a broken file may give as well: give frames with different answers"


def judge(file: str, baseline: Evaluation, found: Evaluation, limit: float) -> Verdict:
    """The verdict on one file; `baseline` is the float model's evaluation on the same pictures."""
    if baseline.metric != found.metric or baseline.images != found.images:
        raise ValueError(f"{file}: measured by {found.metric} on {found.images}, the float model by {baseline.metric}")
    drop = (baseline.value - found.value) * POINTS
    differences = (np.array(baseline.draws) - np.array(found.draws)) * POINTS
    error = float(differences.std())
    low, high = (float(end) for end in np.percentile(differences, (2.5, 97.5)))
    passed = drop + error <= limit
    reason = (
        f"{found.metric} drops by {drop:.2f} points ({baseline.value:.4f} to {found.value:.4f}), {limit:g} are allowed"
    )
    if not passed and drop <= limit:
        reason += f", but with {found.images} pictures it is only known to within {error:.2f}: measure on more"
    return Verdict(
        file,
        found.metric,
        baseline.value,
        found.value,
        round(drop, 3),
        round(low, 3),
        round(high, 3),
        round(error, 3),
        limit,
        found.images,
        passed,
        reason,
    )


def refusal(verdicts: Sequence[Verdict], worst: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """(sentence, what to do) if a verdict fails; `worst` names the layers of a file with the largest errors."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if not failed:
        return None
    first = max(failed, key=lambda verdict: verdict.drop - verdict.limit)
    others = f"; so do {len(failed) - 1} more files" if len(failed) > 1 else ""
    message = f"the bundle is refused: {first.file} fails the gate: {first.reason}{others}"
    layers = list(worst.get(first.file, ()))[:_WORST_SHOWN]
    look = f"look at the layers {', '.join(layers)} first; " if layers else ""
    return message, (
        f"{look}keep layers in float ([quantize] keep_float, `edged-calibrate sensitivity` finds them), prune fewer "
        "([sparsify] dense), or calibrate on frames like those of the validation set"
    )
