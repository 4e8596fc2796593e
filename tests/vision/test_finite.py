from __future__ import annotations

import numpy as np
import pytest

from edged.errors import EdgedError
from edged.vision.finite import finite


def test_finite_values_pass_as_they_are() -> None:
    values = np.array([3e38, -3e38, 0], np.float32)
    assert finite(values, "x") is values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_anything_else_is_refused_by_the_name_of_its_output(bad: float) -> None:
    with pytest.raises(EdgedError, match="output x holds values that are not finite") as caught:
        finite(np.array([0, bad], np.float32), "x")
    assert caught.value.hint
