"""Everything the daemon holds of one camera: its state, its child, its rings and its account.

In: the child's packets and counters, the time. Out: frames by reference, and the actions of the state machine carried
out. Belongs to Cameras; runs on the engine-loop thread; nothing here blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from edged import clock
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames import camera_state as life
from edged.frames import child_protocol
from edged.frames import ring as rings
from edged.frames.child import Child
from edged.frames.frame import Frame
from edged.frames.frame_counters import FrameCounters
from edged.frames.ring import GarbageError, RingReader

_MAX_AHEAD_NS: Final = clock.NS_PER_S  # of now, for a capture time on this machine's clock
_KEEP_FRAMES: Final = 4  # of a new ring, before the ring before it is let go
_GARBAGE: Final = life.ChildFailed("the capture process left garbage in its ring")


@dataclass(frozen=True)
class Hooks:
    """What a feed asks of Cameras. `stop` kills a child and forgets its socket."""

    start: Callable[[str, child_protocol.StartRequest], Child]
    stop: Callable[[Child], None]
    report: Callable[[str], None]
    credentials: str | None


class CameraSession:
    """One camera. `apply` is the only way its state changes."""

    def __init__(self, config: CameraConfig, ring_prefix: str, hooks: Hooks, now_ns: int) -> None:
        self.config = config
        self.account = FrameCounters()
        self.child: Child | None = None
        self.ring: RingReader | None = None
        self.last: Frame | None = None
        self._prefix, self._hooks = f"{ring_prefix}{config.name}-", hooks
        self._before: RingReader | None = None  # the ring before, for frames of it that are still in use
        self._orphan: Frame | None = None  # the last frame of the ring before, if it was not handed on yet
        self._generation = 0
        self._paced = True
        self._owed: int | None = None  # the frame of an unpaced source that was handed on and not taken yet
        self.machine, actions = life.start(config.name, now_ns)
        self._carry_out(actions, now_ns)

    # ---- its life ------------------------------------------------------------------------------------------------

    def apply(self, event: life.Event, now_ns: int) -> None:
        """Advance the state machine and do what it says."""
        self.machine, actions = life.step(self.machine, event, now_ns)
        self._carry_out(actions, now_ns)

    def restart(self, config: CameraConfig, now_ns: int) -> None:
        """Begin anew with another configuration; the counts go on."""
        self.config = config
        self.stop()
        self.machine, actions = life.start(config.name, now_ns)
        self._carry_out(actions, now_ns)

    def stop(self) -> None:
        """No child, no ring."""
        if self.child is not None:
            self._hooks.stop(self.child)
            self.child = None
        self._retire()

    def _carry_out(self, actions: tuple[life.Action, ...], now_ns: int) -> None:
        for action in actions:
            if action is life.Action.KILL:
                self.stop()
            elif action is life.Action.SPAWN:
                order = child_protocol.StartRequest(self.config, self._next_frame(), self._hooks.credentials)
                try:
                    self.child = self._hooks.start(self.config.name, order)
                except EdgedError as error:
                    self.apply(life.ChildFailed(str(error)), now_ns)
            else:
                self._hooks.report(self.config.name)

    # ---- its child -----------------------------------------------------------------------------------------------

    def readable(self, now_ns: int) -> None:
        """The child's socket has something."""
        if self.child is None:
            return
        heard = self.child.receive()
        self.look(now_ns)
        for item in heard:
            if isinstance(item, child_protocol.OpenedLine):
                self._opened(item, now_ns)
            else:
                self.apply(item, now_ns)

    def look(self, now_ns: int) -> None:
        """Take in what the child counts in its ring, and tell the state machine."""
        if self.ring is None:
            return
        try:
            moved = self.account.look(*self.ring.counts())
        except GarbageError:
            self.apply(_GARBAGE, now_ns)
            return
        if moved.frozen:
            self.apply(life.FrozenSeen(), now_ns)
        if moved.frames:
            self.apply(life.FrameSeen(), now_ns)
        if moved.rate or self._waits_for_us():
            self.apply(life.Alive(), now_ns)

    def tick(self, now_ns: int) -> None:
        wake_ns = self.machine.wake_ns()
        if wake_ns is None or now_ns < wake_ns:
            return
        self.look(now_ns)  # what it counted without a bell may show that it is well
        self.apply(life.Tick(), now_ns)

    def _opened(self, line: child_protocol.OpenedLine, now_ns: int) -> None:
        """Make the ring that the child needs and tell it the name."""
        if self.child is None:
            return
        self._retire()
        self._generation += 1
        name = f"{self._prefix}{self._generation}"
        try:
            spec = rings.spec_of(line.width, line.height, line.format)
            rings.create(name, spec, self.account.number)
        except (ValueError, EdgedError) as error:
            self.apply(life.ChildFailed(str(error)), now_ns)
            return
        self.ring = RingReader(name, self.config.name)
        self.account.new_ring()
        self._paced = line.paced
        self.child.send(msgspec.json.encode(child_protocol.RingLine(name)))
        fps = line.fps or self.config.fps  # the configured rate is a hint where the source says nothing
        self.apply(life.Opened(round(clock.NS_PER_S / fps) if fps else 0), now_ns)

    # ---- its frames ----------------------------------------------------------------------------------------------

    def fresh(self) -> Frame | None:
        """The newest frame that was not handed on, if there is one."""
        if self._orphan is not None:
            orphan, self._orphan = self._orphan, None
            return orphan
        if self.ring is None or not self.account.unseen:
            return None
        try:
            frame = self._newest(self.ring)
        except GarbageError:
            self.apply(_GARBAGE, clock.mono_ns())
            return None
        if frame is not None and not self._paced:
            self._owed = frame.seq
        if self.account.handed > self.ring.first + _KEEP_FRAMES:
            self._before = None
        return frame

    def _newest(self, ring: RingReader) -> Frame | None:
        """Hand on the ring's newest frame. None while it is being overwritten."""
        frame = ring.latest()
        if frame is None or frame.seq // 2 <= self.account.handed:
            return None
        if frame.frame < self._least_frame() or frame.mono_capture_ns > clock.mono_ns() + _MAX_AHEAD_NS:
            raise GarbageError(f"frame {frame.frame} of {frame.mono_capture_ns} cannot be")
        self.account.hand(frame.seq // 2)
        self.last = frame
        return frame

    def _least_frame(self) -> int:
        return 0 if self.last is None else self.last.frame + 1

    def _next_frame(self) -> int:
        """The id of the next child's first frame: ids count what was captured, dropped frames included."""
        return max(self.account.captured, self._least_frame())

    def _waits_for_us(self) -> bool:
        """Whether an unpaced source is silent because its last frame has not been taken yet."""
        return not self._paced and (self.account.unseen or self._owed is not None)

    def taken(self, frame: Frame) -> None:
        """Let an unpaced source go on."""
        if self._owed == frame.seq and self.child is not None:
            self._owed = None
            self.child.send(child_protocol.CREDIT)

    def ring_of(self, frame: Frame) -> RingReader | None:
        """The ring that holds the frame, or held it."""
        number = frame.seq // 2
        for ring in (self.ring, self._before):
            if ring is not None and number > ring.first:
                return ring
        return None

    def _retire(self) -> None:
        """Part with the ring. Its last frame is still handed on, if it is whole."""
        if self.ring is None:
            return
        rings.unlink(self.ring.name)
        with contextlib.suppress(GarbageError):  # then its last words do not count
            self.account.look(*self.ring.counts())
            if self.account.unseen and self._orphan is None:
                self._orphan = self._newest(self.ring)
        self.account.lose()
        self._owed = None
        self._before, self.ring = self.ring, None
