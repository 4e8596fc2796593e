"""The main of a camera's child process: from its source into its ring, and one byte to the daemon for each frame.

In: a StartRequest and one end of a SOCK_SEQPACKET pair (child_protocol.py). Out: frames in the ring the daemon
names. Whatever goes wrong ends as one `failed` line without credentials. The process ends when the daemon's end of the
pair is closed.
"""

from __future__ import annotations

import select
import signal
import socket
import traceback
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.errors import EdgedError, UsageError
from edged.frames import child_protocol
from edged.frames.motion_gate import MotionGate, Verdict
from edged.frames.prctl import keep_out_of_core_dumps, name_process
from edged.frames.ring import RingWriter
from edged.frames.source import open_source
from edged.frames.sources.base import Grabbed, Source, SourceInfo, StreamCost
from edged.uri import parse, redact

_ANSWER_S = 10.0  # for the daemon to take a line or name a ring
_ROW_STEP = 48
_RATE_SLACK = 0.1  # of a period: a camera's jitter must not cost a frame


class _DaemonGoneError(Exception):
    """The other end of the socket is closed: nobody wants the frames."""


def main(request: child_protocol.StartRequest, link: socket.socket) -> None:
    """Capture until the source ends or the daemon goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the daemon decides when we stop
    cv2.setNumThreads(1)
    name_process(f"cam-{request.camera.name}")
    link.setblocking(False)
    capture = _Capture(request, link)
    try:
        capture.run()
    except _DaemonGoneError:
        return
    except Exception as error:
        capture.fail(error)


class _Capture:
    def __init__(self, request: child_protocol.StartRequest, link: socket.socket) -> None:
        self._request, self._link = request, link
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._links = (link,)
        self._index = request.first_frame - 1
        self._limit = _RateLimit(request.camera.fps)
        self._credits = 1
        self._rate = self._corrupt = self._frozen = self._still = 0
        self._gate = MotionGate(request.camera.motion)
        self._gate.enabled = request.gate
        self._meter = StreamMeter()

    # ---- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        credentials = Path(self._request.credentials) if self._request.credentials else None
        if parse(self._request.camera.source).user is not None:
            keep_out_of_core_dumps()
        source = open_source(self._request.camera, self._request.first_frame, credentials, self._report)
        info: SourceInfo | None = None
        while (grabbed := source.grab()) is not None:
            self._index += 1
            if source.info is not info:
                info = source.info
                ring = self._open_ring(info)
            if source.cost is not None:
                self._meter.look(source.cost, ring, grabbed.mono_ns)
            if grabbed.corrupt:
                self._corrupt += 1
            elif not self._limit.admits(grabbed.mono_ns):
                self._rate += 1
            else:
                self._write(source, ring, grabbed)
                continue
            self._count(ring)
            self._wait(0)
        self._send_line(child_protocol.Line(ended=True))
        source.close()

    def _write(self, source: Source, ring: RingWriter, grabbed: Grabbed) -> None:
        """Draw the frame into the ring ahead of its time, then publish it when due, unless it is frozen or still."""
        paced = source.info.paced
        picture = ring.begin()
        source.retrieve(picture)
        if paced:
            self._wait(grabbed.mono_ns)
            if _is_frozen(picture, ring, source.info):
                self._frozen += 1
                self._count(ring)
                self._notify()
                return
        verdict = self._gate.judge(luma_of(picture, source.info), grabbed.mono_ns / clock.NS_PER_S)
        if verdict is Verdict.STILL:
            self._still += 1
            self._count(ring)
            self._notify()
            return
        if not paced:
            self._await_credit()
        mono_ns = grabbed.mono_ns if paced else clock.mono_ns()
        wall_ns = grabbed.wall_ns or clock.wall_ns() - (clock.mono_ns() - mono_ns)
        ring.commit(self._index, wall_ns, mono_ns, grabbed.clock, still=verdict is Verdict.KEEP_ALIVE)
        self._notify()

    def _count(self, ring: RingWriter) -> None:
        ring.count(self._rate, self._corrupt, self._frozen, self._still)

    # ---- the daemon ----------------------------------------------------------------------------------------------

    def _open_ring(self, info: SourceInfo) -> RingWriter:
        """Tell the daemon what is coming and map the ring that it makes for it."""
        opened = child_protocol.OpenedLine(
            info.width, info.height, int(info.format), info.fps, info.codec[:40], info.paced
        )
        self._send_line(child_protocol.Line(opened=opened))
        until_ns = clock.mono_ns() + int(_ANSWER_S * clock.NS_PER_S)
        while clock.mono_ns() < until_ns:
            if self._poll.poll(100):
                packet = self._receive()
                self._obey(packet)
                if packet.startswith(b"{"):
                    self._rate = self._corrupt = self._frozen = self._still = 0
                    return RingWriter(child_protocol.RING_LINES.decode(packet).ring)
        raise EdgedError(f"the daemon named no ring within {_ANSWER_S:.0f} s")

    def _wait(self, until_ns: int) -> None:
        """Wait until then, or not at all; notice in either case when the daemon is gone."""
        while True:
            left_ns = max(0, until_ns - clock.mono_ns())
            # poll knows whole milliseconds only
            if select.select(self._links, (), (), left_ns / clock.NS_PER_S)[0]:
                self._take_packet()
            elif clock.mono_ns() >= until_ns:
                return

    def _await_credit(self) -> None:
        """Wait until the daemon has taken the frame before. It may take its time; it may not disappear."""
        while self._credits == 0:
            if self._poll.poll(1000):
                self._take_packet()
        self._credits -= 1

    def _take_packet(self) -> None:
        packet = self._receive()
        if packet == child_protocol.CREDIT:
            self._credits = min(self._credits + 1, 1)
        else:
            self._obey(packet)

    def _obey(self, packet: bytes) -> None:
        """What the daemon wants of the motion gate and the rate."""
        if packet in (child_protocol.GATE_ON, child_protocol.GATE_OFF):
            self._gate.enabled = packet == child_protocol.GATE_ON
        elif packet == child_protocol.TRIGGER:
            self._gate.trigger(clock.mono_ns() / clock.NS_PER_S)
        elif packet.startswith(child_protocol.FPS):
            self._limit = _RateLimit(child_protocol.fps_of(packet))

    def _receive(self) -> bytes:
        try:
            packet = self._link.recv(child_protocol.MAX_PACKET)
        except ConnectionError:
            packet = b""
        if not packet:
            raise _DaemonGoneError
        return packet

    def _notify(self) -> None:
        """Wake the daemon. A full socket is no harm: it has not read the notifications before."""
        try:
            self._link.send(child_protocol.NOTIFY, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._wait(0)
        except ConnectionError:
            raise _DaemonGoneError from None

    def _report(self, waiting: str) -> None:
        self._send_line(child_protocol.Line(waiting=waiting[: child_protocol.MAX_REASON]))

    def _send_line(self, line: child_protocol.Line) -> None:
        """A line is not to be lost: wait for room."""
        writable = select.poll()
        writable.register(self._link, select.POLLOUT)
        if not writable.poll(_ANSWER_S * 1000):
            raise _DaemonGoneError  # it does not read any more: the same to us
        try:
            self._link.send(msgspec.json.encode(line), socket.MSG_NOSIGNAL)
        except (ConnectionError, BlockingIOError):
            raise _DaemonGoneError from None

    def fail(self, error: Exception) -> None:
        """Say why, in words that hold no credential."""
        if isinstance(error, EdgedError):
            source = self._request.camera.source
            reason = str(error).replace(source, redact(source))
        else:  # its text may quote anything: only where it happened
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__} in the capture process, {Path(place.filename).name}:{place.lineno}"
        try:
            self._send_line(
                child_protocol.Line(failed=reason[: child_protocol.MAX_REASON], final=isinstance(error, UsageError))
            )
        except _DaemonGoneError:
            return


class StreamMeter:
    """What the stream costs, written into the ring once a second."""

    def __init__(self) -> None:
        self._since_ns = 0
        self._before = StreamCost()

    def look(self, cost: StreamCost, ring: RingWriter, now_ns: int) -> None:
        elapsed_ns = now_ns - self._since_ns
        if elapsed_ns < clock.NS_PER_S:
            return
        before, self._before = self._before, replace(cost)
        first, self._since_ns = self._since_ns == 0, now_ns
        if first:  # nothing to compare with
            return
        pictures = cost.pictures - before.pictures
        bits = 8 * (cost.bytes - before.bytes)
        decode_us = (cost.decode_ns - before.decode_ns) // pictures // 1000 if pictures else 0
        bitrate = bits * clock.NS_PER_S // elapsed_ns
        ring.figures(cost.lost_packets, decode_us, bitrate, cost.keyframe_interval_ns // clock.NS_PER_MS)


class _RateLimit:
    """At most `fps` frames a second, evenly, whatever the camera's jitter."""

    def __init__(self, fps: float | None) -> None:
        self._period_ns = round(clock.NS_PER_S / fps) if fps else 0
        self._next_ns = 0

    def admits(self, now_ns: int) -> bool:
        if now_ns < self._next_ns - int(self._period_ns * _RATE_SLACK):
            return False
        behind = now_ns - self._next_ns > self._period_ns
        self._next_ns = (now_ns if behind else self._next_ns) + self._period_ns
        return True


def _is_frozen(picture: NDArray[np.uint8], ring: RingWriter, info: SourceInfo) -> bool:
    """Whether the brightness of the picture is that of the one before, pixel for pixel.

    A few rows settle nearly every case within microseconds; only where they are equal are the pictures compared as a
    whole, since something small may have moved between those rows.
    """
    previous = ring.previous()
    if previous is None:
        return False
    rows = info.height if info.format.is_nv12 else None
    now, before = picture[:rows], previous[:rows]
    return np.array_equal(now[::_ROW_STEP], before[::_ROW_STEP]) and np.array_equal(now, before)


def luma_of(picture: NDArray[np.uint8], info: SourceInfo) -> NDArray[np.uint8]:
    """The brightness [height, width]: of NV12 its own rows, of BGR the green, which makes most of it."""
    return picture[: info.height] if info.format.is_nv12 else picture[:, :, 1]
