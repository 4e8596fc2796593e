"""From bytes to a typed request, or to a refusal."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.bus.requests import OPERATIONS, Set, Why, parse_request
from edged.config import Limits
from edged.errors import EdgedError


def test_setting_changes_only_what_is_named_and_null_removes() -> None:
    assert Set(deadline_ms=30.0, power_w=None).changes() == {"deadline_ms": 30.0, "power_w": None}


def test_the_budget_keys_are_those_of_the_configuration() -> None:
    assert Set.__struct_fields__ == (*Limits.__struct_fields__, "cameras")
    assert OPERATIONS == ("snapshot", "set", "pin", "trigger", "profile", "why", "reload", "modes", "set_mode")
    assert parse_request(msgpack.packb({"op": "why"})) == Why(10)


def test_settings_of_cameras_are_checked_one_by_one() -> None:
    request = parse_request(msgpack.packb({"op": "set", "cameras": {"gate": {"fps": None, "weight": 2}, "yard": {}}}))
    assert isinstance(request, Set) and request.changes() == {}
    assert request.camera_changes() == {"gate": {"fps": None, "weight": 2.0}}
    for cameras, problem in (
        ({"gate": {"fps": 0}}, "cameras.gate.fps is 0, expected frames per second, from 0.001 to 1000"),
        ({"gate": {"source": "test://7"}}, "cameras.gate.source is not a known key"),
        ({"gate": 5}, "cameras.gate is 5, expected"),
        ({"gate": {}}, "changes nothing"),
        (5, "cameras is 5, expected"),
    ):
        with pytest.raises(EdgedError, match=problem):
            parse_request(msgpack.packb({"op": "set", "cameras": cameras}))


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(max_size=9),
        st.binary(max_size=9),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["op", "n", "variant", "power_w", "deadline_ms", "cameras"])
requests = st.dictionaries(names, values | st.sampled_from(["set", "pin", "profile", "why", "snapshot"]), max_size=4)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | requests.map(msgpack.packb) | values.map(msgpack.packb))
def test_any_bytes_are_a_request_or_an_edged_error(payload: bytes) -> None:
    try:
        parse_request(payload)
    except EdgedError as error:
        assert error.hint and "\n" not in error.message


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(EdgedError):
        parse_request(b"\x91" * 60_000)
