"""The same calls to the same governor: entries of a log in, whether every answer came out the same byte for byte. Pure.

Replay begins at a Start or a Snapshot and follows the records one by one. After a Gap it waits for the next Snapshot:
what lies between cannot be known. A Snapshot met on the way must equal the state reached. A log may hold several runs;
the monotonic clock restarts with each boot, so a Timeline gives the time that people are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.governor.governor import Governor, OnCall
from edged.governor.messages import Answer, Choice, Decision, Request, Start, Waiting
from edged.governor.state import State
from edged.replay.codec import codec
from edged.replay.record import Entry, Gap, Sampled, Snapshot, raw_answer

_STATE = codec(State)


@dataclass
class Outcome:
    """What a replay found. `difference`: the first one, in words; None if all that was compared came out the same."""

    records: int = 0
    seconds: float = 0.0
    """from the first record to the last, or to the difference; what lies between two boots is not in it"""
    decisions: int = 0
    choices: int = 0
    gaps: int = 0
    lost: int = 0
    unchecked: int = 0
    """records between a gap (or the log's beginning) and the next snapshot"""
    difference: str | None = None
    broken: list[str] = field(default_factory=list)

    @property
    def compared(self) -> int:
        return self.decisions + self.choices

    @property
    def exact(self) -> bool:
        """Nothing differed, and there was something to compare."""
        return self.difference is None and self.compared > 0

    @property
    def healthy(self) -> bool:
        """Nothing differed, and there was something to compare, or the log is undamaged and holds nothing to
        compare: a file that has just begun has only the governor's state."""
        return self.exact or (self.difference is None and self.records > 0 and not self.broken)


class Timeline:
    """Recorded times as ones that never go back: after a boot they continue from the last one before it."""

    def __init__(self) -> None:
        self._shift_ns = 0
        self._last_ns: int | None = None

    def at(self, recorded_ns: int) -> int:
        if self._last_ns is not None and recorded_ns + self._shift_ns < self._last_ns:
            self._shift_ns = self._last_ns - recorded_ns
        self._last_ns = recorded_ns + self._shift_ns
        return self._last_ns


def replay(entries: Iterable[Entry | str], on_call: OnCall | None = None) -> Outcome:
    """Stops at the first difference: what follows it follows from it. `on_call` gets every call that was made again, in
    the time of a Timeline."""
    outcome, governor, times = Outcome(), None, Timeline()
    begun_ns: int | None = None
    for entry in entries:
        if isinstance(entry, str):
            outcome.broken.append(entry)
            governor = None
            continue
        outcome.records += 1
        at_ns = times.at(entry.at_ns)
        begun_ns = at_ns if begun_ns is None else begun_ns
        outcome.seconds = (at_ns - begun_ns) / NS_PER_S
        try:
            governor, difference = _one(entry, governor, outcome)
        except EdgedError as error:
            difference = f"{_name(entry.request)}: recorded without an error, now refused: {error.message}"
        if difference is not None:
            outcome.difference = difference
            break
        if on_call is not None and governor is not None and not isinstance(entry.request, Snapshot | Gap | Sampled):
            on_call(at_ns, entry.request, entry.answer, governor)
    return outcome


def _one(entry: Entry, governor: Governor | None, outcome: Outcome) -> tuple[Governor | None, str | None]:
    request = entry.request
    if isinstance(request, Sampled):
        return governor, None
    if isinstance(request, Gap):
        outcome.gaps += 1
        outcome.lost += request.lost
        return None, None
    if isinstance(request, Snapshot):
        if governor is not None and _bytes(governor.state) != _bytes(request.state):
            return governor, "the governor's state is another one than that recorded"
        return Governor.resumed(request.state), None
    if isinstance(request, Start):
        governor = Governor(request.variants, request.budget, entry.at_ns, request.device)
        outcome.decisions += 1
        return governor, _compare(entry, request, governor.decision)
    if governor is None:
        outcome.unchecked += 1
        return None, None
    answer = call(governor, request, entry.at_ns)
    if isinstance(request, Waiting):
        outcome.choices += 1
    elif answer is not None:
        outcome.decisions += 1
    return governor, _compare(entry, request, answer)


def call(governor: Governor, request: Request, now_ns: int) -> Answer:
    """The recorded call, made again: its answer as `on_call` would have got it."""
    if isinstance(request, Waiting):
        return governor.choose(request, now_ns)
    assert not isinstance(request, Start)
    before = governor.decision
    decision = governor.observe(request, now_ns)
    return None if decision is before else decision


def _compare(entry: Entry, request: Request, answer: Answer) -> str | None:
    if raw_answer(request, answer) == entry.answer_raw:
        return None
    return f"{_name(request)}: {_difference(entry.answer, answer)}"


def _difference(recorded: Answer, now: Answer) -> str:
    """Which field of the answer differs."""
    if isinstance(recorded, Decision | Choice) and type(now) is type(recorded):
        for name in _fields(recorded):
            was, is_now = getattr(recorded, name), getattr(now, name)
            if repr(was) != repr(is_now):
                return f"{type(now).__name__.lower()}.{name} was {_short(was)}, is now {_short(is_now)}"
    return f"the answer was {_short(recorded)}, is now {_short(now)}"


def _short(value: object) -> str:
    text = "no new decision" if value is None else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _fields(answer: Decision | Choice) -> Iterable[str]:
    return answer._fields if isinstance(answer, Choice) else answer.__dataclass_fields__


def _name(request: Any) -> str:
    return f"at {type(request).__name__}"


def _bytes(state: State) -> bytes:
    return msgspec.msgpack.encode(_STATE.freeze(state))
