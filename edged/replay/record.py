"""The records of a log: every call to the governor, as lists that MessagePack writes compactly. Pure, any thread.

A record is [code, nanoseconds since the record before, ...]. The codes are in KINDS; request and answer follow as their
codecs freeze them. A Snapshot is the complete state of the governor: every file begins with one (or with the Start), so
that it replays by itself; a Gap says how many records were lost, and a Snapshot follows it.
"""

from __future__ import annotations

import hashlib
import typing
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from edged.governor.messages import Answer, Choice, Decision, Observation, Request, Start, Waiting
from edged.governor.state import State
from edged.replay.codec import Codec, codec

VERSION: Final = 2


@dataclass(frozen=True)
class Snapshot:
    """The state after everything that was recorded before it."""

    state: State


@dataclass(frozen=True)
class Gap:
    """So many records are missing here: the queue was full."""

    lost: int


@dataclass(frozen=True)
class Sampled:
    """A sample of the sensors, for people: `json` as the daemon published it. The governor's own is a `Sensed`."""

    json: str


KINDS: Final[tuple[type, ...]] = (Snapshot, Gap, Sampled, Start, Waiting, *typing.get_args(Observation))
_CODES: Final = {kind: code for code, kind in enumerate(KINDS)}
_REQUESTS: Final = tuple(codec(kind) for kind in KINDS)
_DECISION, _CHOICE = codec(Decision), codec(Choice)


def _answers(kind: type) -> Codec | None:
    if kind in (Snapshot, Gap, Sampled):
        return None
    return _CHOICE if kind is Waiting else _DECISION


_ANSWERS: Final = tuple(_answers(kind) for kind in KINDS)

SHAPE: Final = hashlib.sha256("\n".join(c.shape for c in (*_REQUESTS, _DECISION, _CHOICE)).encode()).hexdigest()[:16]
"""Two logs with the same shape are read by the same code."""


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """The first thing in a file. `governor`: digest of the governor's source; `machine`: what numbers depend on."""

    version: int
    shape: str
    edged: str
    governor: str
    machine: str
    bundle: str
    """the manifest's digest, or what else the variants came from"""
    opened_s: float
    """Unix time"""
    mono_ns: int
    """where the records' nanoseconds count from"""
    number: int
    """of this file in its ring"""
    estimated: bool = False
    """whether power and temperature came from a simulated device"""


@dataclass(frozen=True)
class Entry:
    """A record as read. `answer_raw` is the answer's bytes, to be compared with those of a replay."""

    at_ns: int
    request: Request | Snapshot | Gap | Sampled
    answer: Answer
    answer_raw: bytes


def freeze(elapsed_ns: int, request: Request | Snapshot | Gap | Sampled, answer: Answer = None) -> list[Any]:
    code = _CODES[type(request)]
    answers = _ANSWERS[code]
    record = [code, elapsed_ns, _REQUESTS[code].freeze(request)]
    if answers is not None and answer is not None:
        record.append(answers.freeze(answer))
    return record


def raw_answer(request: object, answer: Answer) -> bytes:
    """The bytes of an answer; empty for none."""
    answers = _ANSWERS[_CODES[type(request)]]
    return b"" if answers is None or answer is None else msgspec.msgpack.encode(answers.freeze(answer))


def thaw(record: Any, before_ns: int) -> Entry:
    """ValueError for anything but a record."""
    if not isinstance(record, list) or not 3 <= len(record) <= 4:
        raise ValueError("a record has another shape")
    code, elapsed_ns = record[0], record[1]
    if type(code) is not int or not 0 <= code < len(KINDS) or type(elapsed_ns) is not int:
        raise ValueError("a record is of no known kind")
    request = _REQUESTS[code].thaw(record[2])
    answers = _ANSWERS[code]
    answer, raw = None, b""
    if len(record) == 4 and answers is not None:
        answer, raw = answers.thaw(record[3]), msgspec.msgpack.encode(record[3])
    return Entry(before_ns + elapsed_ns, request, answer, raw)
