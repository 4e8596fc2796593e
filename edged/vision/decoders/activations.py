"""What a graph leaves to its reader: the last activation. Pure arithmetic, any thread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engines.decoder_spec import Activation


def activated(logits: NDArray[Any], activation: Activation) -> NDArray[np.float64]:
    """Scores of logits (..., C), in double precision: no finite float32 overflows there."""
    values = logits.astype(np.float64)
    if activation == "sigmoid":
        return 0.5 + 0.5 * np.tanh(0.5 * values)
    if activation == "softmax":
        weights = np.exp(values - values.max(axis=-1, keepdims=True))
        found: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
        return found
    return values
