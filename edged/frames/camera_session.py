"""Everything the daemon holds of one camera: its state, its child, its rings and its counters.

In: the child's packets and counters, the time. Out: frames by reference, and the actions of the state machine carried
out. Belongs to Cameras; runs on the engine-loop thread; nothing here blocks.
"""

from __future__ import annotations

import contextlib
import os
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
from edged.frames.child import MAX_AT_ONCE, Child
from edged.frames.frame import Frame
from edged.frames.frame_counters import FrameCounters
from edged.frames.ring import GarbageError, RingReader, StreamFigures
from edged.frames.ring_names import hold

_MAX_AHEAD_NS: Final = clock.NS_PER_S  # of now, for a capture time on this machine's clock
_KEEP_FRAMES: Final = 4  # of a new ring, before the ring before it is let go
NEVER_NS: Final = 1 << 62
_GARBAGE: Final = life.ChildFailed("the capture process left garbage in its ring")


@dataclass(frozen=True)
class Hooks:
    """What a session asks of Cameras. `stop` kills a child and forgets its socket; `ring_name` names a ring."""

    start: Callable[[str, child_protocol.StartRequest], Child]
    stop: Callable[[Child], None]
    report: Callable[[str], None]
    ring_name: Callable[[str, int], str]
    credentials: str | None


class CameraSession:
    """One camera. `apply` is the only way its state changes; `wake_ns` is when it is to get a tick at the latest."""

    machine: life.Camera
    wake_ns: int

    def __init__(self, config: CameraConfig, hooks: Hooks, now_ns: int) -> None:
        self.config = config
        self.counters = FrameCounters()
        self.child: Child | None = None
        self.ring: RingReader | None = None
        self.last: Frame | None = None
        self._hooks = hooks
        self._before: RingReader | None = None  # the ring before, for frames of it that are still in use
        self._orphan: Frame | None = None  # the last frame of the ring before, if it was not handed on yet
        self._generation = 0
        self._ring_lock: int | None = None
        self._paced = True
        self.still_since_ns: int | None = None
        """while the camera gives only frames in which nothing moves: since when"""
        self._gate = False
        self._awaited: int | None = None  # the frame of an unpaced source that was handed on and not taken yet
        self._enter(life.start(config.name, now_ns, _slowest_ns(config)), now_ns)

    # ---- its life ------------------------------------------------------------------------------------------------

    def apply(self, event: life.Event, now_ns: int) -> None:
        """Advance the state machine and do what it says."""
        self._enter(life.step(self.machine, event, now_ns), now_ns)

    def restart(self, config: CameraConfig, now_ns: int) -> None:
        """Start again with another configuration; the counts go on."""
        self.config = config
        self.stop()
        self._enter(life.start(config.name, now_ns, _slowest_ns(config)), now_ns)

    def tune(self, config: CameraConfig) -> None:
        """Take another rate and weight; the camera goes on."""
        if config.fps != self.config.fps:
            self._order(child_protocol.fps_packet(config.fps))
            self.machine = msgspec.structs.replace(self.machine, slowest_ns=_slowest_ns(config))
        self.config = config

    def stop(self) -> None:
        """No child, no ring."""
        if self.child is not None:
            self._hooks.stop(self.child)
            self.child = None
        self._retire()

    def _enter(self, step: life.Step, now_ns: int) -> None:
        self.machine, actions = step
        wake_ns = self.machine.wake_ns()
        self.wake_ns = NEVER_NS if wake_ns is None else wake_ns
        for action in actions:
            if action is life.Action.KILL:
                self.stop()
            elif action is life.Action.SPAWN:
                request = child_protocol.StartRequest(
                    self.config, self._next_frame(), self._hooks.credentials, self._gate
                )
                try:
                    self.child = self._hooks.start(self.config.name, request)
                except EdgedError as error:
                    self.apply(life.ChildFailed(str(error)), now_ns)
            else:
                self._hooks.report(self.config.name)

    def set_gate(self, on: bool) -> None:
        """Turn the motion gate on or off."""
        if on != self._gate:
            self._gate = on
            self._order(child_protocol.GATE_ON if on else child_protocol.GATE_OFF)
            self.still_since_ns = None

    def trigger(self) -> None:
        """Open the motion gate for some seconds."""
        self._order(child_protocol.TRIGGER)

    def _order(self, packet: bytes) -> None:
        if self.child is not None:
            self.child.send(packet)

    # ---- its child -----------------------------------------------------------------------------------------------

    def readable(self, now_ns: int) -> None:
        """The child's socket has something."""
        child = self.child
        if child is None:
            return
        notified = self.look(now_ns)
        if self.child is not child:  # what it left in its ring was the end of it
            return
        # mostly the notification of one frame: to read on until there is nothing would cost as much again
        for item in child.receive(1 if notified == 1 else MAX_AT_ONCE):
            if isinstance(item, child_protocol.OpenedLine):
                self._opened(item, now_ns)
            else:
                self.apply(item, now_ns)

    def look(self, now_ns: int) -> int:
        """Take in what the child counts in its ring, and tell the state machine; of how many frames the child has
        notified us."""
        if self.ring is None:
            return 0
        try:
            moved = self.counters.look(*self.ring.counts())
        except GarbageError:
            self.apply(_GARBAGE, now_ns)
            return 0
        if moved.frozen:
            self.apply(life.FrozenSeen(), now_ns)
        if moved.corrupt and not moved.frames:
            self.apply(life.CorruptSeen(), now_ns)
        if moved.frames:
            self.apply(life.FrameSeen(), now_ns)
        if moved.still and self.still_since_ns is None:
            self.still_since_ns = now_ns
        if moved.rate or moved.still or self._waits_for_us():
            self.apply(life.Alive(), now_ns)
        return moved.frames + moved.frozen + moved.still

    def tick(self, now_ns: int) -> None:
        """To be called from `wake_ns` on."""
        self.look(now_ns)  # what it counted without a notification may show that it is well
        self.apply(life.Tick(), now_ns)

    def _opened(self, line: child_protocol.OpenedLine, now_ns: int) -> None:
        """Make the ring that the child needs and send it the name."""
        if self.child is None:
            return
        self._retire()
        self._generation += 1
        name = self._hooks.ring_name(self.config.name, self._generation)
        try:
            spec = rings.spec_of(line.width, line.height, line.format)
            rings.create(name, spec, self.counters.number)
            self._ring_lock = hold(name)
            self.ring = RingReader(name, self.config.name)
        except (OSError, ValueError, EdgedError) as error:
            if self._ring_lock is not None:
                rings.unlink(name)
                self._unlock_ring()
            self.apply(life.ChildFailed(str(error)), now_ns)
            return
        self.counters.new_ring()
        self._paced = line.paced
        self.child.send(msgspec.json.encode(child_protocol.RingLine(name)))
        fps = line.fps or self.config.fps or (1 / self.config.poll_s if self.config.poll_s else None)
        self.apply(life.Opened(round(clock.NS_PER_S / fps) if fps else 0), now_ns)

    # ---- its frames ----------------------------------------------------------------------------------------------

    def fresh(self) -> Frame | None:
        """The newest frame that was not handed on, if there is one."""
        if self._orphan is not None:
            orphan, self._orphan = self._orphan, None
            return orphan
        if self.ring is None or not self.counters.unseen:
            return None
        try:
            frame = self._newest(self.ring)
        except GarbageError:
            self.apply(_GARBAGE, clock.mono_ns())
            return None
        if frame is not None and not self._paced:
            self._awaited = frame.seq
        if self.counters.handed > self.ring.first + _KEEP_FRAMES:
            self._before = None
        return frame

    def _newest(self, ring: RingReader) -> Frame | None:
        """Hand on the ring's newest frame. None while it is being overwritten."""
        frame = ring.latest()
        if frame is None or frame.seq // 2 <= self.counters.handed:
            return None
        if frame.frame < self._least_frame() or frame.mono_capture_ns > clock.mono_ns() + _MAX_AHEAD_NS:
            raise GarbageError(f"frame {frame.frame} of {frame.mono_capture_ns} cannot be")
        self.counters.hand(frame.seq // 2)
        self.last = frame
        if not frame.still:
            self.still_since_ns = None
        return frame

    def _least_frame(self) -> int:
        return 0 if self.last is None else self.last.frame + 1

    def _next_frame(self) -> int:
        """The id of the next child's first frame: ids count what was captured, dropped frames included."""
        return max(self.counters.captured, self._least_frame())

    def _waits_for_us(self) -> bool:
        """Whether an unpaced source is silent because its last frame has not been taken yet."""
        return not self._paced and (self.counters.unseen or self._awaited is not None)

    def taken(self, frame: Frame) -> None:
        """Let an unpaced source go on."""
        if self._awaited == frame.seq and self.child is not None:
            self._awaited = None
            self.child.send(child_protocol.CREDIT)

    def stream_figures(self) -> StreamFigures | None:
        """What its stream costs; None while there is none, or nothing is known."""
        return None if self.ring is None else self.ring.stream_figures()

    def ring_of(self, frame: Frame) -> RingReader | None:
        """The ring that holds the frame, or held it."""
        number = frame.seq // 2
        for ring in (self.ring, self._before):
            if ring is not None and number > ring.first:
                return ring
        return None

    def _unlock_ring(self) -> None:
        if self._ring_lock is not None:
            os.close(self._ring_lock)
            self._ring_lock = None

    def _retire(self) -> None:
        """Let the ring go. Its last frame is still handed on, if it is whole."""
        if self.ring is None:
            return
        rings.unlink(self.ring.name)
        self._unlock_ring()
        with contextlib.suppress(GarbageError):  # then what it counted last is lost
            self.counters.look(*self.ring.counts())
            if self.counters.unseen and self._orphan is None:
                self._orphan = self._newest(self.ring)
        self.counters.lose()
        self._awaited = None
        self._before, self.ring = self.ring, None


def _slowest_ns(config: CameraConfig) -> int:
    """The longest period that the configuration lets us expect; 0 where it says nothing."""
    fps_ns = round(clock.NS_PER_S / config.fps) if config.fps else 0
    return min(life.MAX_PERIOD_NS, max(fps_ns, int((config.poll_s or 0.0) * clock.NS_PER_S)))
