"""What a subscriber uses: topics in, typed messages out, with gaps counted and the very frame from shared memory.

Runs in any local program, on the one thread that uses the Client. What arrives is checked: a payload that does not fit
its type is counted, never raised, and topics or fields of a newer edged are passed over.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from edged import clock
from edged.bus.curve import CurveClient
from edged.bus.schema import MESSAGE_TYPES, TOPICS, Message, Result, State, topic_of
from edged.errors import EdgedError
from edged.frames.frame import Frame, PixelFormat
from edged.frames.ring import GarbageError, RingReader
from edged.paths import find_results_endpoint, ipc_path

RECEIVE_HIGH_WATER_MARK = 256
MAX_MESSAGE_BYTES = 4 << 20
MAX_RINGS = 64
MAX_TOPICS = 1024
ASK_AGAIN_MS = 1000
"""After the daemon refused the key."""


class Client:
    """Subscribes to `topics` (prefixes; none given: all). `with Client(topics=["result/gate"]) as c: for m in c: ...`

    Iteration ends when `timeout_s` passes without a message, and never if that is None.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        topics: Iterable[str] = ("",),
        timeout_s: float | None = None,
        curve: CurveClient | None = None,
    ) -> None:
        """`endpoint` None: this user's daemon, else the system service. A daemon that starts later is waited for."""
        self.endpoint = endpoint or find_results_endpoint()
        ipc_path(self.endpoint)
        self.timeout_s = timeout_s
        self.gaps: Counter[str] = Counter()
        """messages lost, by topic: this program, or the way to it, was too slow"""
        self.restarts = 0
        """times the daemon restarted its counts"""
        self.garbage = 0
        """payloads that were not what their topic says"""
        self._seqs: dict[str, int] = {}
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
            name: msgspec.msgpack.Decoder(kind) for name, kind in MESSAGE_TYPES.items()
        }
        self._rings = Rings()
        self.refused = False
        """whether the daemon has refused this client's key; it asks again each second, and when a message arrives this
        is False"""
        self._pid: int | None = None
        self._timeout_ms = -1  # libzmq's default: forever
        self._refusals: zmq.Socket[bytes] | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = RECEIVE_HIGH_WATER_MARK
        self._socket.maxmsgsize = MAX_MESSAGE_BYTES
        self._socket.linger = 0
        try:
            if curve is not None:
                curve.secure(self._socket)
                self._refusals = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
            for topic in topics:
                self._socket.subscribe(topic)
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise EdgedError(f"cannot connect to {self.endpoint}: {error.strerror}", "check the endpoint") from error
        except EdgedError:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive(self.timeout_s)) is not None:
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None when `timeout_s` passes without one (None: wait forever)."""
        deadline_ns = None if timeout_s is None else clock.mono_ns() + int(timeout_s * clock.NS_PER_S)
        while True:
            left_ns = None if deadline_ns is None else max(0, deadline_ns - clock.mono_ns())
            left_ms = -1 if left_ns is None else -(-left_ns // clock.NS_PER_MS)
            if self._refusals is not None and not 0 <= left_ms <= ASK_AGAIN_MS:
                left_ms = ASK_AGAIN_MS
            self._wait_at_most(left_ms)
            try:
                parts = self._socket.recv_multipart()
            except zmq.Again:
                self._note_refusals()
                if deadline_ns is not None and clock.mono_ns() >= deadline_ns:
                    return None
                continue
            self.refused = False
            message = self._decode(parts)
            if message is not None and self._count(message):
                return message

    def _wait_at_most(self, timeout_ms: int) -> None:
        """How long the next receive blocks. A poll before each receive would cost a third of the way of a message."""
        if timeout_ms != self._timeout_ms:
            self._socket.rcvtimeo = self._timeout_ms = timeout_ms

    def frame(self, result: Result) -> NDArray[np.uint8] | None:
        """A copy of the pixels this result was made from, as BGR; None if the camera has gone on since, or the daemon
        is not at an `ipc://` endpoint. Rows x columns x 3, uint8."""
        if not self.endpoint.startswith("ipc://"):
            return None  # of another machine, whose rings may well have the names of ours
        return self._rings.frame(result)

    def close(self) -> None:
        self._rings.clear()
        if self._refusals is not None:
            self._socket.disable_monitor()
            self._refusals.close(linger=0)
            self._refusals = None
        self._socket.close(linger=0)
        self._context.term()

    def _note_refusals(self) -> None:
        """libzmq gives a connection up for good once the key was refused; it may be let in by now."""
        if self._refusals is not None and self._refusals.poll(0):
            self._refusals.recv_multipart()
            self.refused = True
            self._socket.disconnect(self.endpoint)
            self._socket.connect(self.endpoint)

    def _decode(self, parts: list[bytes]) -> Message | None:
        if len(parts) != 2:
            self.garbage += 1
            return None
        decoder = self._decoders.get(parts[0].partition(b"/")[0].decode("ascii", "replace"))
        if decoder is None:
            return None  # a topic of a newer edged
        message: Message | None
        try:
            message = decoder.decode(parts[1])
        except (msgspec.DecodeError, ValueError, RecursionError):
            message = None
        if message is None or topic_of(message).encode() != parts[0]:
            self.garbage += 1
            return None
        return message

    def _count(self, message: Message) -> bool:
        """Book the message's number; False for a repetition, which only a greeting with `state` can be."""
        topic = topic_of(message)
        last = self._seqs.get(topic)
        if last is not None and message.seq == last and topic == TOPICS["state"].prefix:
            return False
        other_pid = isinstance(message, State) and self._pid not in (None, message.pid)
        if other_pid or (last is not None and message.seq <= last):
            self.restarts += 1
            self._seqs.clear()  # every topic starts at 1 again
            self._pid = None
        elif last is not None:
            self.gaps[topic] += message.seq - last - 1
        if isinstance(message, State):
            self._pid = message.pid
        if topic in self._seqs or len(self._seqs) < MAX_TOPICS:
            self._seqs[topic] = message.seq
        return True


class Rings:
    """Frames of a daemon on this machine, by the results that name them. One thread."""

    def __init__(self) -> None:
        self._rings: OrderedDict[str, RingReader] = OrderedDict()

    def frame(self, result: Result) -> NDArray[np.uint8] | None:
        """A copy of the pixels this result was made from, as BGR; None if the camera has gone on since."""
        ring = self._ring(result)
        pixels = None if ring is None else ring.copy(result.ring.slot, result.ring.seq)
        return None if ring is None or pixels is None else bgr(pixels, ring.spec.format)

    def newest(self, result: Result) -> tuple[Frame, NDArray[np.uint8]] | None:
        """The newest frame of the ring that this result names, and a copy of its pixels as BGR; it may never get a
        result. None if there is none."""
        ring = self._ring(result)
        try:
            frame = None if ring is None else ring.latest()
        except GarbageError:
            frame = None  # of a camera's process that is dying
        if ring is None or frame is None:
            return None
        pixels = ring.copy(frame.slot, frame.seq)
        return None if pixels is None else (frame, bgr(pixels, ring.spec.format))

    def clear(self) -> None:
        self._rings.clear()

    def _ring(self, result: Result) -> RingReader | None:
        """One for each camera: a ring that is still mapped keeps its memory, long after the daemon removed it."""
        ring = self._rings.pop(result.camera, None)
        if ring is None or ring.name != result.ring.name:
            try:
                ring = RingReader.open(result.ring.name)
            except EdgedError:
                return None  # removed with its camera
        self._rings[result.camera] = ring
        if len(self._rings) > MAX_RINGS:
            self._rings.popitem(last=False)
        return ring


def bgr(pixels: NDArray[np.uint8], pixel_format: PixelFormat) -> NDArray[np.uint8]:
    """Pixels as a ring holds them -> rows x columns x 3, blue first. BGR24 comes back as it is."""
    if pixel_format is PixelFormat.BGR24:
        return pixels
    from edged.frames.colour import Nv12ToBgr  # only programs that look at NV12 pictures pay for loading OpenCV

    height, width = pixels.shape[0] * 2 // 3, pixels.shape[1]
    picture = np.empty((height, width, 3), np.uint8)
    chroma = pixels[height:].reshape(height // 2, width // 2, 2)
    Nv12ToBgr(width, height).convert(pixels[:height], chroma, pixel_format, picture)
    return picture
