"""Masks and class maps go out as runs and come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.bus.cells import class_ids, mask_cells
from edged.bus.schema import Mask
from edged.loop.result_fields import result_fields
from edged.vision import results

SIDES = st.integers(1, 9)


@given(SIDES, SIDES, st.integers(0, 2**31))
def test_what_is_sent_is_what_is_read(rows: int, columns: int, seed: int) -> None:
    cells = np.random.default_rng(seed).integers(0, 2, (rows, columns)).astype(bool)
    box = np.zeros((1, 4), np.float32)
    seen = results.Detections(box, box[0, :1], np.zeros(1, np.int64), (results.Mask(cells, 0, 0, 1, 1),))
    (sent,) = result_fields(seen, ["a"])["detections"]
    assert mask_cells(sent.mask).tolist() == cells.tolist()
    ids = np.random.default_rng(seed).integers(0, 3, (rows, columns))
    assert class_ids(result_fields(results.ClassMap(ids), ["a", "b", "c"])["class_map"]).tolist() == ids.tolist()


def test_runs_that_do_not_add_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="reshape"):
        mask_cells(Mask(0, 0, 1, 1, 3, 3, [2, 2]))
