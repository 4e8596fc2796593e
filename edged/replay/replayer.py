"""The same calls to the same governor: entries of a log in, whether every answer came out the same byte for byte. Pure.

Replay begins at a Start or a Snapshot and follows the records one by one. After a Gap it waits for the next Snapshot:
what lies between cannot be known. A Snapshot met on the way must equal the state reached. A log may hold several runs;
the monotonic clock begins anew with each boot, so a Timeline tells the time that people are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.governor.helm import Again, Answer, Asked, Helm, Start, Tap
from edged.governor.messages import Choice, Decision, Waiting
from edged.governor.standing import State
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
    escalations: int = 0
    gaps: int = 0
    lost: int = 0
    unchecked: int = 0
    """records between a gap (or the log's beginning) and the next snapshot"""
    difference: str | None = None
    broken: list[str] = field(default_factory=list)

    @property
    def compared(self) -> int:
        return self.decisions + self.choices + self.escalations

    @property
    def exact(self) -> bool:
        """Nothing differed, and there was something to compare."""
        return self.difference is None and self.compared > 0


class Timeline:
    """Recorded times as ones that never go back: after a boot they go on from the last before it."""

    def __init__(self) -> None:
        self._shift_ns = 0
        self._last_ns: int | None = None

    def at(self, recorded_ns: int) -> int:
        if self._last_ns is not None and recorded_ns + self._shift_ns < self._last_ns:
            self._shift_ns = self._last_ns - recorded_ns
        self._last_ns = recorded_ns + self._shift_ns
        return self._last_ns


def replay(entries: Iterable[Entry | str], tap: Tap | None = None) -> Outcome:
    """Stops at the first difference: what follows it follows from it. `tap` sees every call that was made again, in
    the time of a Timeline."""
    outcome, helm, times = Outcome(), None, Timeline()
    begun_ns: int | None = None
    for entry in entries:
        if isinstance(entry, str):
            outcome.broken.append(entry)
            helm = None
            continue
        outcome.records += 1
        at_ns = times.at(entry.at_ns)
        begun_ns = at_ns if begun_ns is None else begun_ns
        outcome.seconds = (at_ns - begun_ns) / NS_PER_S
        try:
            helm, difference = _one(entry, helm, outcome)
        except EdgedError as error:
            difference = f"{_name(entry.asked)}: recorded without trouble, now refused: {error.message}"
        if difference is not None:
            outcome.difference = difference
            break
        if tap is not None and helm is not None and not isinstance(entry.asked, Snapshot | Gap | Sampled):
            tap(at_ns, entry.asked, entry.answer, helm.state)
    return outcome


def _one(entry: Entry, helm: Helm | None, outcome: Outcome) -> tuple[Helm | None, str | None]:
    asked = entry.asked
    if isinstance(asked, Sampled):
        return helm, None
    if isinstance(asked, Gap):
        outcome.gaps += 1
        outcome.lost += asked.lost
        return None, None
    if isinstance(asked, Snapshot):
        if helm is not None and _bytes(helm.state) != _bytes(asked.state):
            return helm, "the governor's state is another one than that recorded"
        return Helm.resumed(asked.state), None
    if isinstance(asked, Start):
        helm = Helm(asked.variants, asked.budget, entry.at_ns, asked.device)
        outcome.decisions += 1
        return helm, _compare(entry, asked, helm.decision)
    if helm is None:
        outcome.unchecked += 1
        return None, None
    answer = ask(helm, asked, entry.at_ns)
    if isinstance(asked, Waiting):
        outcome.choices += 1
    elif isinstance(asked, Again):
        outcome.escalations += 1
    elif answer is not None:
        outcome.decisions += 1
    return helm, _compare(entry, asked, answer)


def ask(helm: Helm, asked: Asked, now_ns: int) -> Answer:
    """The recorded call, made again: its answer as the tap would have seen it."""
    if isinstance(asked, Waiting):
        return helm.choose(asked, now_ns)
    if isinstance(asked, Again):
        return helm.escalate(asked.done, asked.age_ms, asked.period_ms, asked.frame, asked.weight, now_ns=now_ns)
    assert not isinstance(asked, Start)
    before = helm.decision
    decision = helm.observe(asked, now_ns)
    return None if decision is before else decision


def _compare(entry: Entry, asked: Asked, answer: Answer) -> str | None:
    if raw_answer(asked, answer) == entry.answer_raw:
        return None
    return f"{_name(asked)}: {_told(entry.answer, answer)}"


def _told(recorded: Answer, now: Answer) -> str:
    """Which field of the answer differs."""
    if isinstance(recorded, Decision | Choice) and type(now) is type(recorded):
        for name in recorded.__dataclass_fields__:
            was, is_now = getattr(recorded, name), getattr(now, name)
            if repr(was) != repr(is_now):
                return f"{type(now).__name__.lower()}.{name} was {_short(was)}, is now {_short(is_now)}"
    return f"the answer was {_short(recorded)}, is now {_short(now)}"


def _short(value: object) -> str:
    text = "no new decision" if value is None else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _name(asked: Any) -> str:
    return f"at {type(asked).__name__}"


def _bytes(state: State) -> bytes:
    return msgspec.msgpack.encode(_STATE.freeze(state))
