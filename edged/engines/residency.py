"""Which variants are loaded: `(state, now) -> (state, action)`. Pure, no I/O and no clock.

As many as fit into `[limits] memory_mb` and into the memory that is free are loaded, the most needed first, one at a
time. When memory is short the least needed is let go, one at a time, and what fits again comes back after a calm time,
which doubles with each shortage that follows soon. A variant that is needed more than a loaded one takes its place,
once it has been needed for a multiple of its load time. The last one is never let go; but one that alone exceeds
`memory_mb` gives way to a smaller one that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edged.clock import NS_PER_S

LOAD_COPIES: Final = 2.0
"""A load takes so many times the file beside what it leaves: the file itself and the graph that is read from it."""
RESERVE_SHARE: Final = 0.05
RESERVE_MB: Final = (32.0, 256.0)
"""That share of all memory, within these bounds, is kept free for cameras, clients and the page cache."""
ROOM_FACTOR: Final = 1.5
"""A variant is loaded only if so many reserves are left after it, so that loading never begins a shortage."""
STALLED_PERCENT: Final = 10.0
"""Of the last ten seconds, in which all tasks waited for memory: the kernel is about to kill."""
SETTLE_NS: Final = NS_PER_S
STALL_SETTLE_NS: Final = 5 * NS_PER_S
"""What was freed shows in the free memory at once, in a mean over ten seconds later."""
CALM_S: Final = 10.0
CALM_MOST_S: Final = 600.0
DWELL_S: Final = 5.0
LONG_AGO_NS: Final = -(1 << 62)
PAYBACK: Final = 20.0
"""To take another's place a variant must have been needed for so many times what loading it takes."""


@dataclass(frozen=True)
class Member:
    """A variant that can run here. `memory_mb`: as measured when it was loaded, None before. `pinned`: by an
    operator. `may`: it is neither vetoed nor below the accuracy floor."""

    name: str
    resident: bool
    file_mb: float
    memory_mb: float | None = None
    load_s: float | None = None
    pinned: bool = False
    may: bool = True

    @property
    def takes_mb(self) -> float:
        """Loaded; a guess before it was."""
        return self.file_mb if self.memory_mb is None else self.memory_mb

    @property
    def peak_mb(self) -> float:
        """While it is loaded."""
        return self.takes_mb + LOAD_COPIES * self.file_mb


@dataclass(frozen=True)
class Room:
    """Megabytes. `limit_mb`: `[limits] memory_mb`; `held_mb`: what counts against it. `available_mb`: what can be had
    before the kernel kills, of `total_mb`. `stalled_percent`: of the last ten seconds. None is not set, not known."""

    limit_mb: float | None = None
    held_mb: float | None = None
    available_mb: float | None = None
    total_mb: float | None = None
    stalled_percent: float | None = None

    @property
    def reserve_mb(self) -> float:
        low, high = RESERVE_MB
        return high if self.total_mb is None else min(high, max(low, RESERVE_SHARE * self.total_mb))

    def shortage(self) -> str | None:
        """Why something must be let go, or None."""
        if self.limit_mb is not None and self.held_mb is not None and self.held_mb > self.limit_mb:
            return f"{self.held_mb:.0f} MB are in use, memory_mb is {self.limit_mb:g}"
        if self.available_mb is not None and self.available_mb < self.reserve_mb:
            return f"{max(0.0, self.available_mb):.0f} MB of memory are left, {self.reserve_mb:.0f} MB are kept free"
        if self.stalled:
            return f"the system waited for memory in {self.stalled_percent:.0f} % of the last 10 s"
        return None

    @property
    def stalled(self) -> bool:
        return self.stalled_percent is not None and self.stalled_percent > STALLED_PERCENT

    def lacks_mb(self, need_mb: float) -> float:
        """How much must be freed before so much more can be taken; 0 or less: nothing."""
        lacking = 0.0
        if self.limit_mb is not None and self.held_mb is not None:
            lacking = max(lacking, self.held_mb + need_mb - self.limit_mb)
        if self.available_mb is not None:
            lacking = max(lacking, need_mb + ROOM_FACTOR * self.reserve_mb - self.available_mb)
        return lacking


@dataclass(frozen=True)
class Load:
    name: str


@dataclass(frozen=True)
class LetGo:
    name: str
    why: str


Action = Load | LetGo


@dataclass(frozen=True)
class State:
    """`changed_ns`: when a variant last came or went; `short_ns`: when memory was last short, `relieved_ns`: when a
    variant was last let go for that. `calm_s`: how long after a shortage nothing is loaded. `wanted`: what waits for
    another's place, and since when."""

    changed_ns: int = LONG_AGO_NS
    short_ns: int = LONG_AGO_NS
    relieved_ns: int = LONG_AGO_NS
    calm_s: float = CALM_S
    wanted: tuple[str, int] | None = None


def decide(
    state: State, members: Sequence[Member], room: Room, loading: bool, now_ns: int
) -> tuple[State, Action | None]:
    """`members`: the most needed first. `loading`: a load has begun and is not done."""
    loaded = [member for member in members if member.resident]
    settle_ns = STALL_SETTLE_NS if room.stalled else SETTLE_NS
    if (why := room.shortage()) is not None:
        fitting = _fit_alone(members, loaded, room)
        if len(loaded) > 1 and now_ns - state.changed_ns >= settle_ns:
            return short(state, now_ns), LetGo(_least_needed(loaded, fitting).name, why)
        state = replace(state, short_ns=now_ns)
        calm = not loading and now_ns - max(state.changed_ns, state.relieved_ns) >= state.calm_s * NS_PER_S
        if calm and len(loaded) == 1 and fitting and loaded[0] not in fitting and _has_memory_for(fitting[0], room):
            return replace(state, changed_ns=now_ns), Load(fitting[0].name)
        return state, None
    if loading or now_ns - state.short_ns < state.calm_s * NS_PER_S:
        return state, None
    for member in members:
        if not member.resident and room.lacks_mb(member.peak_mb) <= 0:
            return replace(state, changed_ns=now_ns, wanted=None), Load(member.name)
        if not member.resident and state.wanted is not None and state.wanted[0] == member.name:
            break  # what less needed ones have left is for this one
    return _in_place_of(state, members, room, now_ns)


def _fit_alone(members: Sequence[Member], loaded: Sequence[Member], room: Room) -> list[Member]:
    """Those that hold `memory_mb` where all of them do not, the most needed first; none if that is not what is short,
    or an operator has pinned what is loaded."""
    if room.limit_mb is None or room.held_mb is None or any(member.pinned for member in loaded):
        return []
    beside_mb = room.held_mb - sum(member.takes_mb for member in loaded)
    return [member for member in members if member.may and beside_mb + member.takes_mb <= room.limit_mb]


def _least_needed(loaded: Sequence[Member], fitting: Sequence[Member]) -> Member:
    """What goes: beside one that holds the limit alone, first those that do not."""
    too_large = [member for member in loaded if member not in fitting]
    return (too_large if len(too_large) < len(loaded) and too_large else loaded)[-1]


def _has_memory_for(member: Member, room: Room) -> bool:
    """Whether the machine has it, whatever the limit: for a moment the large and the small one are loaded."""
    return not room.stalled and replace(room, limit_mb=None).lacks_mb(member.peak_mb) <= 0


def short(state: State, now_ns: int) -> State:
    """Something is let go for a shortage, or could not be loaded. A second soon after the first makes the calm time
    longer."""
    since_s = (now_ns - state.relieved_ns) / NS_PER_S
    calm_s = CALM_S if since_s > CALM_MOST_S else state.calm_s
    if state.calm_s < since_s <= CALM_MOST_S:
        calm_s = min(CALM_MOST_S, 2 * state.calm_s)
    return State(now_ns, now_ns, now_ns, calm_s)


def _in_place_of(state: State, members: Sequence[Member], room: Room, now_ns: int) -> tuple[State, Action | None]:
    """The most needed variant that is away takes the place of less needed ones, if that makes room for it."""
    for index, member in enumerate(members):
        less = [other for other in members[index + 1 :] if other.resident]
        stays = any(other.resident for other in members[:index])
        usable = less if stays else less[1:]  # the last one goes on while another is loaded
        if member.resident or room.lacks_mb(member.peak_mb) > sum(other.takes_mb for other in usable):
            continue
        name, since_ns = state.wanted or ("", 0)
        if name != member.name:
            return replace(state, wanted=(member.name, now_ns)), None
        dwell_s = 0.0 if member.pinned else max(DWELL_S, PAYBACK * (member.load_s or 0.0))
        if now_ns - since_ns < dwell_s * NS_PER_S:
            return state, None
        return replace(state, changed_ns=now_ns), LetGo(less[-1].name, f"{member.name} is needed more")
    return replace(state, wanted=None), None


@dataclass(frozen=True)
class Need:
    """What the governor knows of a variant. `may`: it is neither vetoed nor below the accuracy floor. `fits`: it could
    run on all frames within the limits. `share`: of the results of the last seconds. `latency_ms`: None before its
    first load."""

    name: str
    may: bool
    fits: bool
    share: float
    accuracy: float | None
    latency_ms: float | None


def ranked(needs: Sequence[Need], pinned: str | None, reference: str) -> list[str]:
    """The most needed first: the pinned one; the most accurate that fits; what ran lately; the quickest, for when the
    load grows; the accuracy guard's reference; then by accuracy. What may not run is needed least."""
    fitting = [need for need in needs if need.may and need.fits]
    best = max(fitting, key=lambda need: need.accuracy or 0.0, default=None)
    timed = [need for need in needs if need.may and need.latency_ms is not None]
    quickest = min(timed, key=lambda need: need.latency_ms or 0.0, default=None)

    def order(need: Need) -> tuple[float, ...]:
        return (
            need.name != pinned, not need.may, need is not best, -round(need.share, 2), need is not quickest,
            need.name != reference, -(need.accuracy or 0.0),
        )  # fmt: skip

    return [need.name for need in sorted(needs, key=order)]
