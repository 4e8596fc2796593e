"""The life of one camera as a pure state machine: opening, live, stalled, backing off, and open again, without end.

In: events of the camera's child process and the time. Out: the next state and what to do: spawn a child, kill it, tell
the subscribers. No I/O, no clock, any thread. `now_ns` is monotonic.

How it moves:
    Opening    --first frame--> Live       --failed, gone, 10 s--> BackingOff     --end of file--> Ended
    Live       --silence--> Stalled (child killed)   --2 s of the same or damaged pictures--> Stalled (child kept)
    Stalled    --new picture--> Live (if the child was kept)        --its time is up--> Opening
    BackingOff --its time is up--> Opening
    any        --failure that no retry fixes--> Refused
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

_S = 1_000_000_000
OPEN_TIMEOUT_NS = 10 * _S  # from the start of the child to its first frame
SILENCE_NS = 2 * _S  # or SILENCE_PERIODS of the camera, where that is longer
SILENCE_PERIODS = 5
FROZEN_NS = 2 * _S  # or SILENCE_PERIODS of the camera
WAITING_NS = 60 * _S  # from the start of the child, while packets come and no keyframe
FROZEN_REOPEN_NS = 60 * _S  # some cameras only wake up when they are opened again
CORRUPT_REOPEN_NS = 20 * _S
BACKOFF_FIRST_NS = _S // 2
BACKOFF_CAP_NS = 30 * _S
PROVEN_CAP_NS = 4 * _S  # of a camera that has given frames: after an outage it is to be back within 5 s
HEALED_NS = 5 * _S  # that long live before the backoff starts from its beginning
MAX_PERIOD_NS = 60 * _S


def _impossible(value: NoReturn) -> NoReturn:
    """For the last case of a match: mypy proves that it is never reached."""
    raise AssertionError(value)


# ---- events ------------------------------------------------------------------------------------------------------


class Opened(Struct, frozen=True):
    """The child opened the source; `period_ns` between two frames, 0 where nothing says so."""

    period_ns: int = 0


class Waiting(Struct, frozen=True):
    """The child is connected and has no picture yet; why."""

    reason: str


class FrameSeen(Struct, frozen=True):
    """A new picture came."""


class FrozenSeen(Struct, frozen=True):
    """A picture came, the same as before."""


class CorruptSeen(Struct, frozen=True):
    """A picture came, and it is damaged."""


class Alive(Struct, frozen=True):
    """No picture, and that is not the camera's fault: it was above its rate, or the child waits for us."""


class ChildFailed(Struct, frozen=True):
    """The child says why it gives up; `final` when trying again cannot help."""

    reason: str
    final: bool = False


class ChildGone(Struct, frozen=True):
    """The child is gone without a message."""


class EndOfFile(Struct, frozen=True):
    """The source has ended as it should."""


class Tick(Struct, frozen=True):
    """Nothing but time."""


ChildEvent = Opened | Waiting | FrameSeen | FrozenSeen | CorruptSeen | Alive | ChildFailed | ChildGone | EndOfFile
Event = ChildEvent | Tick


class Action(Enum):
    """What the shell has to do, in this order."""

    KILL = "kill"
    SPAWN = "spawn"
    REPORT = "report"


# ---- states ------------------------------------------------------------------------------------------------------


class Opening(Struct, frozen=True):
    """A child is on its way to the first frame. Left for Live, BackingOff (failed, gone, until_ns), Ended, Refused."""

    since_ns: int
    until_ns: int
    reason: str = "opening"


class Live(Struct, frozen=True):
    """Frames come. Left for Stalled (silent, frozen or damaged), BackingOff (failed, gone), Ended, Refused.

    `heard_ns` is the last sign of life; `frozen_ns` when the picture that still stands came a second time."""

    since_ns: int
    heard_ns: int
    frozen_ns: int | None = None


class Stalled(Struct, frozen=True):
    """No new picture. Without a child (silence) left for Opening at `until_ns`; with one (frozen) also for Live."""

    since_ns: int
    until_ns: int
    reason: str
    heard_ns: int
    child: bool


class BackingOff(Struct, frozen=True):
    """No child. Left for Opening at `until_ns`."""

    since_ns: int
    until_ns: int
    reason: str


class Ended(Struct, frozen=True):
    """A file played to its end. Not left."""

    since_ns: int


class Refused(Struct, frozen=True):
    """A source this machine cannot open. Not left."""

    since_ns: int
    reason: str


State = Opening | Live | Stalled | BackingOff | Ended | Refused


class Camera(Struct, frozen=True):
    """A camera's state and what it remembers from one state to the next. `failures` since it was last well."""

    name: str
    state: State
    period_ns: int = 0
    failures: int = 0
    reconnects: int = 0
    slowest_ns: int = 0
    """the period of the configured rate; 0 where there is none"""
    proven: bool = False
    """whether it has ever given a frame"""

    @property
    def has_child(self) -> bool:
        return isinstance(self.state, Opening | Live) or (isinstance(self.state, Stalled) and self.state.child)

    @property
    def silence_ns(self) -> int:
        """How long it may say nothing."""
        return max(SILENCE_NS, SILENCE_PERIODS * self.period_ns)

    @property
    def reason(self) -> str:
        """Why it gives no frames, in words; "" while it does."""
        match self.state:
            case Opening(reason=reason):
                return reason
            case Live():
                return ""
            case Ended():
                return "end of file"
            case Stalled(reason=reason) | BackingOff(reason=reason) | Refused(reason=reason):
                return reason
            case _ as never:
                _impossible(never)

    def wake_ns(self) -> int | None:
        """When the next Tick matters; None: never by itself."""
        match self.state:
            case Opening(until_ns=until_ns) | BackingOff(until_ns=until_ns):
                return until_ns
            case Live(heard_ns=heard_ns):
                return heard_ns + self.silence_ns
            case Stalled(until_ns=until_ns, heard_ns=heard_ns, child=child):
                return min(until_ns, heard_ns + self.silence_ns) if child else until_ns
            case Ended() | Refused():
                return None
            case _ as never:
                _impossible(never)


Step = tuple[Camera, tuple[Action, ...]]


def start(name: str, now_ns: int, slowest_ns: int = 0) -> Step:
    """A new camera and its first actions. `slowest_ns`: the period of its configured rate, 0 where there is none."""
    return _open(Camera(name, Opening(now_ns, now_ns), slowest_ns=min(slowest_ns, MAX_PERIOD_NS)), now_ns, kill=False)


def step(camera: Camera, event: Event, now_ns: int) -> Step:
    """What becomes of the camera. An event of a child that it no longer has changes nothing."""
    if isinstance(event, Tick):
        return _tick(camera, now_ns)
    return _child_event(camera, event, now_ns) if camera.has_child else (camera, ())


def _child_event(camera: Camera, event: ChildEvent, now_ns: int) -> Step:
    match event:
        case Opened(period_ns=period_ns):
            return _opened(camera, period_ns, now_ns), ()
        case Waiting(reason=reason):
            return _waiting(camera, reason, now_ns)
        case FrameSeen():
            return _frame(camera, now_ns)
        case FrozenSeen():
            return _frozen(camera, now_ns)
        case CorruptSeen():
            return _corrupt(camera, now_ns)
        case Alive():
            return _heard(camera, now_ns), ()
        case ChildFailed(reason=reason, final=final):
            return _end(camera, Refused(now_ns, reason)) if final else _back_off(camera, reason, now_ns)
        case ChildGone():
            return _back_off(camera, "the capture process died", now_ns)
        case EndOfFile():
            return _end(camera, Ended(now_ns))
        case _ as never:
            _impossible(never)


def backoff_ns(name: str, failures: int, cap_ns: int = BACKOFF_CAP_NS) -> int:
    """The wait before attempt `failures` + 1: doubling to the cap, less up to a quarter so that cameras that failed
    together do not come back together. The same for the same arguments."""
    full = min(cap_ns, BACKOFF_FIRST_NS << min(failures, 10))
    return full - full // 4 * hashlib.sha256(f"{name}/{failures}".encode()).digest()[0] // 256


def _tick(camera: Camera, now_ns: int) -> Step:
    wake_ns = camera.wake_ns()
    if wake_ns is None or now_ns < wake_ns:
        return camera, ()
    match camera.state:
        case Opening():
            return _back_off(camera, _never_live(camera.state, now_ns), now_ns)
        case Live():
            return _silent(camera, now_ns)
        case Stalled(child=True, until_ns=until_ns) if now_ns < until_ns:
            return _silent(camera, now_ns)
        case _:
            return _open(replace(camera, reconnects=camera.reconnects + 1), now_ns, kill=camera.has_child)


def _never_live(opening: Opening, now_ns: int) -> str:
    if opening.reason == "opening":
        return f"no frame within {(now_ns - opening.since_ns) // _S} s of opening"
    return f"{opening.reason} ({(now_ns - opening.since_ns) // _S} s)"


def _open(camera: Camera, now_ns: int, kill: bool) -> Step:
    until_ns = now_ns + max(OPEN_TIMEOUT_NS, SILENCE_PERIODS * camera.slowest_ns)
    opening = replace(camera, state=Opening(now_ns, until_ns), period_ns=0)
    actions = (Action.SPAWN, Action.REPORT)
    return opening, ((Action.KILL, *actions) if kill else actions)


def _opened(camera: Camera, period_ns: int, now_ns: int) -> Camera:
    camera = replace(camera, period_ns=min(max(period_ns, 0), MAX_PERIOD_NS))
    match camera.state:
        case Opening(since_ns=since_ns):
            return replace(camera, state=Opening(since_ns, now_ns + max(OPEN_TIMEOUT_NS, camera.silence_ns)))
        case _:
            return _heard(camera, now_ns)


def _waiting(camera: Camera, reason: str, now_ns: int) -> Step:
    """As long as packets come, a keyframe may: cameras exist that send one in 20 s."""
    match camera.state:
        case Opening(since_ns=since_ns) as opening:
            until_ns = max(opening.until_ns, min(now_ns + OPEN_TIMEOUT_NS, since_ns + WAITING_NS))
            waiting = replace(camera, state=Opening(since_ns, until_ns, reason))
            return waiting, (() if reason == opening.reason else (Action.REPORT,))
        case _:
            return _heard(camera, now_ns), ()


def _heard(camera: Camera, now_ns: int) -> Camera:
    match camera.state:
        case Live() | Stalled():
            return replace(camera, state=replace(camera.state, heard_ns=now_ns))
        case _:
            return camera


def _frame(camera: Camera, now_ns: int) -> Step:
    match camera.state:
        case Live(since_ns=since_ns):
            failures = 0 if now_ns - since_ns >= HEALED_NS else camera.failures
            return replace(camera, state=Live(since_ns, now_ns), failures=failures), ()
        case _:
            return replace(camera, state=Live(now_ns, now_ns), proven=True), (Action.REPORT,)


def _frozen(camera: Camera, now_ns: int) -> Step:
    camera = _heard(camera, now_ns)
    match camera.state:
        case Live(frozen_ns=None):
            return replace(camera, state=replace(camera.state, frozen_ns=now_ns)), ()
        case Live(frozen_ns=int(frozen_ns)) if now_ns - frozen_ns >= max(FROZEN_NS, camera.silence_ns):
            stalled = Stalled(now_ns, now_ns + FROZEN_REOPEN_NS, "frozen picture", now_ns, child=True)
            return replace(camera, state=stalled), (Action.REPORT,)
        case _:
            return camera, ()


def _corrupt(camera: Camera, now_ns: int) -> Step:
    """After a loss nothing may be shown up to the next keyframe; a camera may send one when it is opened again."""
    match camera.state:
        case Live(heard_ns=heard_ns) if now_ns - heard_ns >= camera.silence_ns:
            reason = "packets are lost; waiting for a whole keyframe"
            stalled = Stalled(now_ns, now_ns + CORRUPT_REOPEN_NS, reason, now_ns, child=True)
            return replace(camera, state=stalled), (Action.REPORT,)
        case Live():
            return camera, ()
        case _:
            return _heard(camera, now_ns), ()


def _wait_ns(camera: Camera) -> int:
    return backoff_ns(camera.name, camera.failures, PROVEN_CAP_NS if camera.proven else BACKOFF_CAP_NS)


def _silent(camera: Camera, now_ns: int) -> Step:
    reason = f"no frame for {camera.silence_ns / _S:.1f} s"
    if not camera.period_ns:
        reason += "; if this camera is slower than that, set its fps"
    until_ns = now_ns + _wait_ns(camera)
    stalled = Stalled(now_ns, until_ns, reason, now_ns, child=False)
    return replace(camera, state=stalled, failures=camera.failures + 1), (Action.KILL, Action.REPORT)


def _end(camera: Camera, state: Ended | Refused) -> Step:
    return replace(camera, state=state), (Action.KILL, Action.REPORT)


def _back_off(camera: Camera, reason: str, now_ns: int) -> Step:
    until_ns = now_ns + _wait_ns(camera)
    state = BackingOff(now_ns, until_ns, reason)
    return replace(camera, state=state, failures=camera.failures + 1), (Action.KILL, Action.REPORT)
