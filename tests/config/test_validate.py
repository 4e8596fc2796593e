"""The sentences that untrusted data gets."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from edged.errors import UsageError
from edged.validate import convert, expectation, show


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1, description="a whole number of 1 or more")]
    mode: Literal["fast", "good"] = "good"


class Round(Struct, frozen=True, forbid_unknown_fields=True, tag="round", tag_field="shape"):
    radius: int


class Square(Struct, frozen=True, forbid_unknown_fields=True, tag="square", tag_field="shape"):
    side: int


class Outer(Struct, frozen=True, forbid_unknown_fields=True):
    inner: Inner
    limit: Annotated[float, Meta(gt=0)] | None = None
    more: Annotated[list[Inner], Meta(max_length=9)] = []
    body: Round | Square | None = None


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ({}, "f: t.inner is missing", "add it: a table with the keys size, mode"),
        ({"inner": {"size": 0}}, "f: t.inner.size is 0, expected a whole number of 1 or more", "correct t.inner.size"),
        ({"inner": {"size": 1, "mode": "x"}}, 'f: t.inner.mode is \'x\', expected one of "fast", "good"', "correct"),
        ({"inner": {"size": 1, "sice": 1}}, "f: t.inner.sice is not a known key", "did you mean size?"),
        ({"inner": {"size": 1, "a\nb": 1}}, "f: t.inner.'a\\nb' is not a known key", "known here: size, mode"),
        ({"inner": [1]}, "f: t.inner is a list, expected a table", "correct t.inner"),
        ({"inner": {"size": 1}, "limit": -1.0}, "f: t.limit is -1.0, expected a number", "correct t.limit"),
        (
            {"inner": {"size": 1}, "more": [{"size": 1}, {"size": 0}]},
            "f: t.more[1].size is 0, expected a whole",
            "correct",
        ),
        (
            {"inner": {"size": 1}, "more": [{"size": 1, "x": 1}]},
            "f: t.more[0].x is not a known key",
            "here: size, mode",
        ),
        ({"inner": {"size": 1}, "body": {"shape": "x"}}, 'f: t.body.shape is \'x\', expected one of "round", "s', ""),
        ({"inner": {"size": 1}, "body": {"shape": "round", "x": 1}}, "f: t.body.x is not a known", "radius, side"),
        ({"inner": {"size": 1}, "limit": float("inf")}, "f: t.limit must be a finite number", "nan and inf"),
    ],
)
def test_the_sentence_names_place_key_value_and_what_was_expected(data: object, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        convert(data, Outer, "f", prefix="t")
    assert refused.value.message.startswith(message)
    assert hint in refused.value.hint


def test_what_fits_is_converted() -> None:
    assert convert({"inner": {"size": 2}, "limit": 3}, Outer, "f") == Outer(Inner(2), 3.0)


def test_a_value_is_shown_short_and_without_what_may_be_a_password() -> None:
    assert "secret" not in show("rtsp://user:secret@host")
    assert len(show("x" * 1000)) <= 80
    assert show(10**5000) == "a number far too large"
    assert show(None) == "null"


def test_an_optional_type_is_described_by_what_it_may_hold() -> None:
    assert expectation(int | None) == "a whole number"
