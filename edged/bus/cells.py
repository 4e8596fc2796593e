"""Masks and class maps of result messages as arrays: for programs that look at them.

In: a `Mask` or a `ClassMap` as it came. Out: NumPy arrays. Any thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edged.bus.schema import ClassMap, Mask


def mask_cells(mask: Mask) -> NDArray[np.bool_]:
    """(rows, columns): which cells the object covers. ValueError if the runs do not add up."""
    turns = np.arange(len(mask.runs)) % 2 == 1
    return np.repeat(turns, mask.runs).reshape(mask.rows, mask.columns)


def class_ids(found: ClassMap) -> NDArray[np.int64]:
    """(rows, columns): the class of each cell. ValueError if the runs do not add up."""
    runs = np.array(found.runs, np.int64).reshape(-1, 2)
    return np.repeat(runs[:, 0], runs[:, 1]).reshape(found.rows, found.columns)
