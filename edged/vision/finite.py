"""The one check on what an engine computed: NaN or infinity means a broken model, whose results are never published."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.errors import EdgedError


def finite(values: NDArray[Any], name: str) -> NDArray[Any]:
    """`values` itself, if every one is finite; EdgedError naming the output `name` if not."""
    if not np.isfinite(values).all():
        raise EdgedError(
            f"output {name} holds values that are not finite (NaN or infinity)",
            "the engine is broken: package the bundle again, or pin another variant",
        )
    return values
