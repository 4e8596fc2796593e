"""The daemon's end of one camera's child process: its messages, checked; the messages to it; its end.

In: packets of the child (child_protocol.py), which are hostile until they fit. Out: events for the camera's state
machine and the `opened` lines. Runs on the engine-loop thread; nothing here blocks.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Final

import msgspec

from edged.frames import child_protocol
from edged.frames.camera_state import ChildFailed, ChildGone, EndOfFile, Waiting

MAX_AT_ONCE: Final = 256  # packets in one turn: a child that floods must not hold up the loop

Message = child_protocol.OpenedLine | Waiting | ChildFailed | ChildGone | EndOfFile

_decoder = msgspec.json.Decoder(child_protocol.Line)


class Child:
    """The process of a camera, on the other end of `link`."""

    def __init__(self, camera: str, link: socket.socket) -> None:
        self.camera = camera
        self.link = link
        self._pidfd: int | None = None

    def receive(self, packets: int = MAX_AT_ONCE) -> list[Message]:
        """What the child sent since the last call, of at most so many packets; notifications are left out, they only
        wake us up."""
        messages: list[Message] = []
        for _ in range(packets):
            try:
                packet = self._packet()
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if packet == child_protocol.NOTIFY or packet == child_protocol.HELLO:
                continue
            messages.append(_meaning(packet))
            if not packet:
                break
        return messages

    def _packet(self) -> bytes:
        """The next packet. The first brings the pidfd; later ones may bring nothing, the kernel closes it."""
        if self._pidfd is not None:
            return self.link.recv(child_protocol.MAX_PACKET)
        packet, descriptors, _, _ = socket.recv_fds(self.link, child_protocol.MAX_PACKET, 1)
        if descriptors:
            self._pidfd, *others = descriptors
            for other in others:
                os.close(other)
        return packet

    def send(self, packet: bytes) -> None:
        """Send to the child. One that is gone, or does not read, is found out by its silence."""
        with contextlib.suppress(ConnectionError, BlockingIOError):
            self.link.send(packet, socket.MSG_NOSIGNAL)

    def kill(self) -> None:
        """End it at once; a child so young that it has not greeted yet ends when it finds the socket closed."""
        if self._pidfd is not None:
            # It is dead already, or this is no pidfd: then the closed socket ends it.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.link.close()

    def wait(self, timeout_ms: int) -> bool:
        """Whether a killed child is gone, waiting no longer than that."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(max(0, timeout_ms)):
                return False
            os.close(self._pidfd)
            self._pidfd = None
        return True


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _meaning(packet: bytes) -> Message:
    if not packet:
        return ChildGone()
    try:
        line = _decoder.decode(packet)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ChildFailed("the capture process sent garbage")
    if line.opened is not None:
        return line.opened
    if line.waiting is not None:
        return Waiting(_printable(line.waiting))
    if line.failed is not None:
        return ChildFailed(_printable(line.failed), line.final)
    if line.ended:
        return EndOfFile()
    return ChildFailed("the capture process sent an empty line")
