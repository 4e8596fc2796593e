"""A small fork server for the cameras' child processes.

The daemon (Nursery) starts it once and hands it orders; each order is forked off a process that has OpenCV, FFmpeg and
NumPy loaded and no threads, so that all cameras share those pages and start within milliseconds. multiprocessing's own
fork server would import the daemon's main program, with all its libraries, into every child.

In: an Order and one end of the child's socket pair, over a SOCK_SEQPACKET pair. Out: a child that greets the daemon
over its own pair, with its pidfd attached: a handle that, unlike a number, can never come to mean another process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
from typing import Final

import msgspec

from edged.errors import EdgedError
from edged.frames.child_protocol import HELLO, StartRequest

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_MAX_ORDER: Final = 1 << 16
_KILLED_S: Final = 1.0
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


class ForkServer:
    """The daemon's handle on the fork server. `start` never blocks: a child shows up on its own socket, or dies.

    The server lives as long as the thread that started it first, by the kernel's rule for die_with_parent.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    def start(self, order: StartRequest) -> socket.socket:
        """Have a child started; returns the daemon's end of its socket pair, non-blocking. Raises EdgedError."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise EdgedError(f"cannot start a capture process: {error.strerror}") from error
        ours.setblocking(False)
        with theirs:
            try:
                self._hand_over(msgspec.json.encode(order), theirs.fileno())
            except OSError as error:
                ours.close()
                raise EdgedError(f"cannot start a capture process: {error.strerror}") from error
        return ours

    def _hand_over(self, packet: bytes, descriptor: int) -> None:
        """Give the fork server an order; it may have died since the last, then once more to a new one."""
        try:
            socket.send_fds(self._ensure(), [packet], [descriptor], socket.MSG_NOSIGNAL)
        except ConnectionError:
            self.close()
            socket.send_fds(self._ensure(), [packet], [descriptor], socket.MSG_NOSIGNAL)

    def _ensure(self) -> socket.socket:
        if self._link is not None and self._process is not None and self._process.poll() is None:
            return self._link
        self.close()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edged.frames.forkserver"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",  # python -m looks there first: in a directory of anybody's choice a numpy.py would be loaded
                env={**os.environ, **_ONE_THREAD},
            )
        return self._link

    def close(self) -> None:
        """End the fork server; children that still run are killed with it."""
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel has it, and will end it
                self._process.wait(_KILLED_S)
        self._link = self._process = None


def serve() -> None:
    """The fork server: one thread, until the daemon closes its end."""
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the daemon watches its own sockets
    die_with_parent()
    from edged.frames import capture
    from edged.frames.sources import ffmpeg, scene

    del ffmpeg, scene  # loaded for the children's sake
    gc.collect()
    gc.freeze()  # keeps the collector from writing to, and so unsharing, the pages of what is loaded
    while True:
        packet, descriptors, _, _ = socket.recv_fds(link, _MAX_ORDER, 1)
        if not packet:
            return
        child = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            status = 1
            try:
                link.close()
                die_with_parent()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with contextlib.suppress(ConnectionError):
                    greet(child)
                    capture.main(msgspec.json.decode(packet, type=StartRequest), child)
                status = 0
            finally:
                os._exit(status)
        child.close()


def greet(link: socket.socket) -> None:
    """Give the daemon a handle on this process."""
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(link, [HELLO], [pidfd], socket.MSG_NOSIGNAL)
    os.close(pidfd)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the thread that started it ends: even a decoder that hangs must
    not outlive the daemon."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by)


def keep_out_of_core_dumps() -> None:
    """This process is about to know a password: whatever ends it, nothing of its memory is written down."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0)


if __name__ == "__main__":
    serve()
