"""Messages of the daemon in, what the page shows beside the pictures out: JSON, once for all who look.

`take` runs on the gateway's thread; the page's thread asks for `history`. Everything is bounded.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict, deque
from typing import Final

import msgspec
from msgspec import Struct

from edged import clock
from edged.bus.decision_words import BOUNDS, consequences
from edged.bus.remedies import remedy
from edged.bus.schema import Decision, Event, Message, Result, State, Track

HISTORY: Final = 600
"""Rows, one a second: ten minutes."""
EVENTS: Final = 20
STALE_NS: Final = 5 * clock.NS_PER_S
"""`state` comes once a second."""
MAX_AGES: Final = 4096
"""Results of a second; further ones are left out of its ages."""


class Row(Struct, frozen=True):
    """A second in numbers, null where one is not known. `age_ms`: the median of its results, `worst_ms` the largest."""

    t: float
    power_w: float | None
    power_estimated: bool
    power_limit_w: float | None
    temperature_c: float | None
    temperature_limit_c: float | None
    age_ms: float | None
    worst_ms: float | None
    deadline_ms: float | None
    shares: dict[str, float]


class Live(Struct, frozen=True):
    """What a camera's last result saw, and how many came in the second."""

    results: int
    objects: dict[str, int]
    classes: list[tuple[str, float]]


class Happened(Struct, frozen=True):
    t: float
    text: str


class Update(Struct, frozen=True):
    """One a second. `why`: the decision in sentences; `remedies`: by camera, what to do about its fault; `objects`:
    what tracked objects did in zones and at lines."""

    state: State
    row: Row
    live: dict[str, Live]
    why: list[str]
    remedies: dict[str, str]
    events: list[Happened]
    objects: list[Happened]
    lost: int


class Overview:
    def __init__(self) -> None:
        self.state: State | None = None
        self._state_ns = 0
        self._rows: deque[Row] = deque(maxlen=HISTORY)
        self._events: deque[Happened] = deque(maxlen=EVENTS)
        self._objects: deque[Happened] = deque(maxlen=EVENTS)
        self._last: dict[str, Result] = {}
        self._counts: Counter[str] = Counter()
        self._ages_ms: list[float] = []
        self._encoder = msgspec.json.Encoder()

    def take(self, message: Message, lost: int) -> Update | None:
        """An update, at each state. `lost`: messages of the daemon that did not arrive."""
        if isinstance(message, Result):
            self._last[message.camera] = message
            self._counts[message.camera] += 1
            if len(self._ages_ms) < MAX_AGES:
                self._ages_ms.append(message.age_ms)
        elif isinstance(message, Event):
            where = f"{message.camera}: " if message.camera else ""
            self._events.append(Happened(message.t_publish, where + message.text))
        elif isinstance(message, Track) and message.kind != "end" and (message.zone or message.line):
            self._objects.append(Happened(message.t_publish, _track_words(message)))
        elif isinstance(message, State):
            return self._second(message, lost)
        return None

    @property
    def current(self) -> State | None:
        """The state, while the daemon goes on reporting it."""
        return self.state if clock.mono_ns() - self._state_ns < STALE_NS else None

    def history(self) -> bytes:
        """The last ten minutes, as JSON: a list of rows, the oldest first."""
        return self._encoder.encode(list(self._rows))

    def encode(self, update: Update) -> bytes:
        return self._encoder.encode(update)

    def _second(self, state: State, lost: int) -> Update:
        self.state, self._state_ns = state, clock.mono_ns()
        row = _row(state, self._ages_ms)
        self._rows.append(row)
        names = {one.camera for one in state.cameras}
        live = {name: _live(result, self._counts[name]) for name, result in self._last.items() if self._counts[name]}
        update = Update(
            state,
            row,
            {name: one for name, one in live.items() if name in names},
            [] if state.decision is None else _why(state.decision),
            {one.camera: words for one in state.cameras if (words := remedy(one)) is not None},
            list(self._events),
            list(self._objects),
            lost,
        )
        self._last = {name: result for name, result in self._last.items() if name in names}
        self._counts.clear()
        self._ages_ms.clear()
        return update


def _row(state: State, ages_ms: list[float]) -> Row:
    sample = state.telemetry
    return Row(
        t=state.t_publish,
        power_w=sample.power_w if sample else None,
        power_estimated=sample.power_estimated if sample else False,
        power_limit_w=state.limits.get("power_w"),
        temperature_c=sample.temperature_c if sample else None,
        temperature_limit_c=state.limits.get("temperature_c"),
        age_ms=statistics.median(ages_ms) if ages_ms else None,
        worst_ms=max(ages_ms, default=None),
        deadline_ms=state.limits.get("deadline_ms"),
        shares=state.decision.shares if state.decision else {},
    )


def _live(result: Result, results: int) -> Live:
    seen = result.detections if isinstance(result.detections, list) else []
    classes = result.classes if isinstance(result.classes, list) else []
    objects: defaultdict[str, int] = defaultdict(int)
    for one in seen:
        objects[one.label] += 1
    best = sorted(classes, key=lambda one: -one.score)[:3]
    named = [(one.label, one.score) for one in best]
    return Live(results, dict(objects), named)


def _why(decision: Decision) -> list[str]:
    return [f"{decision.reason} ({BOUNDS.get(decision.bound, decision.bound)})", *consequences(decision)]


def _track_words(track: Track) -> str:
    where = track.zone or track.line
    done = {"enter": "entered", "leave": "left", "stay": "stays in", "cross": "crossed"}[track.kind]
    side = f" to the {track.direction}" if track.direction else ""
    return f"{track.camera}: {track.label} {track.track} {done} {where}{side}"
