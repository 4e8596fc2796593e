"""Equal values have equal digests, and a value that differs in any part has another."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from edged_calibration.digest import digest_of, file_digest


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


class Options(Struct):
    rows: Any
    method: Any


class Pictures:
    def __init__(self, content: str) -> None:
        self._content = content

    def digest(self) -> str:
        return self._content


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.binary(max_size=5)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Options, inner, inner),
    ),
    max_leaves=8,
)


def plain(value: Any) -> str:
    """A text that two values share only if they are of the same types and content throughout."""
    if isinstance(value, Options):
        return f"Options({plain(value.rows)}, {plain(value.method)})"
    if isinstance(value, Point):
        return f"Point({plain(value.x)}, {plain(value.y)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(plain(item) for item in value)})"
    return f"{type(value).__name__} {value!r}"


@given(VALUES, VALUES)
def test_digests_are_equal_for_equal_values_alone(first: Any, second: Any) -> None:
    assert digest_of(first) == digest_of(copy.deepcopy(first))
    assert (digest_of(first) == digest_of(second)) == (plain(first) == plain(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([["a"], "b"], [["a", "b"]]),
        (1, 1.0),
        (1, True),
        (Pictures("a"), "a"),
        (np.zeros(4, np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros(4, np.int32), np.zeros(4, np.float32)),
        (np.float32(1), np.float64(1)),
    ],
)
def test_what_only_looks_alike_differs(first: Any, second: Any) -> None:
    assert digest_of(first) != digest_of(second)


def test_models_and_files_are_known_by_their_content(network: onnx.ModelProto, tmp_path: Path) -> None:
    changed = copy.deepcopy(network)
    assert digest_of(network) == digest_of(changed)
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    assert digest_of(network) != digest_of(changed)
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    assert file_digest(tmp_path / "a") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_a_value_whose_content_is_not_known_is_refused() -> None:
    for value in (object(), [object()], Point, iter([])):
        with pytest.raises(TypeError, match="has no digest"):
            digest_of(value)
