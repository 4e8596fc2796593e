"""The privileged end of the GPU's clock ceiling: a process of its own, as root, that can do this one thing.

    python -m edged.power.clock_helper --user edged

In: lines on a Unix socket, from one program at a time, which must belong to root or to `--user` (SO_PEERCRED). Out: the
GPU's devfreq `max_freq`, never above what it was before and only at a frequency the GPU lists. Answers are one line.

    table            -> table OLD F1 F2 ...    the previous ceiling, and the frequencies in Hz
    set FREQUENCY    -> ok FREQUENCY           the ceiling in force
    release          -> ok FREQUENCY           the previous ceiling, in force again
    anything wrong   -> no REASON

The previous ceiling is restored when the program asks for it, closes its end or dies, when this process is terminated,
and, if this process was killed, when it starts again: until then the previous ceiling is kept in `--state`. One thread.
The socket is systemd's (LISTEN_FDS) or, without it, made at `--socket`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pwd
import selectors
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from edged import files
from edged.errors import EdgedError
from edged.power.gpu import clocks_hz, find_gpu
from edged.power.sysfs_reader import SysfsReader, whole

SOCKET: Final = Path("/run/edged-clocks/clocks.sock")
STATE: Final = Path("/run/edged-clocks/ceiling")
HELD: Final = "another program holds the clock"
LISTEN_FD: Final = 3
LONGEST_LINE: Final = 64
IDLE_EXIT_S: Final = 30.0
"""Without a program for so long, this process ends; systemd starts it again for the next one."""
MODE_STATUS: Final = "var/lib/nvpmodel/status"
"""Written by nvpmodel whenever it sets a mode, and with it a ceiling of its own."""

log = logging.getLogger("edged-clocks")


class Ceiling:
    """`max_freq` of the GPU under `root`: lowered, and restored. EdgedError if this machine has none."""

    def __init__(self, root: Path, state: Path) -> None:
        self._files = SysfsReader(root)
        self._state = state
        directory = find_gpu(self._files)
        if directory is None:
            raise EdgedError("this machine has no GPU in /sys/class/devfreq", "clock_control is for Jetson boards")
        self._file = directory / "max_freq"
        self.table = clocks_hz(self._files, directory)
        if not self.table:
            raise EdgedError(f"{self._files.shown(directory)} does not list its available_frequencies")
        self._held: tuple[int, int, int] | None = None  # the old ceiling, what was written, when nvpmodel last ran
        self._recover()

    @property
    def old(self) -> int:
        """The ceiling as other programs have set it."""
        now = self._now()
        if self._held is None:
            return now
        old, written, mode_ns = self._held
        # Another program has set it since: it is higher, or nvpmodel has set a mode. A lower reading alone proves
        # nothing: the kernel shows its own thermal caps in the same file.
        return now if now > written or self._mode_ns() != mode_ns else old

    def set(self, hz: int) -> int:
        """Returns the ceiling in force, which is the old one if that is lower."""
        if hz not in self.table:
            raise EdgedError(f"{hz} Hz is not a frequency of this GPU")
        old = self.old
        hz = min(hz, old)
        self._remember(
            old, hz
        )  # before the write: if killed in between, the next start restores what is in force already
        self._write(hz)
        return self._now()

    def restore(self) -> int:
        """Restore the previous ceiling, if it was lowered."""
        if self._held is not None:
            self._write(self.old)
            self._held = None
            self._state.unlink(missing_ok=True)
            log.info("GPU clock ceiling restored: %d MHz", self._now() // 1_000_000)
        return self._now()

    def _remember(self, old: int, written: int) -> None:
        self._held = old, written, self._mode_ns()
        files.write_atomic(self._state, " ".join(map(str, self._held)) + "\n")

    def _recover(self) -> None:
        """Restore what a helper left lowered that was killed."""
        try:
            with files.open_regular(self._state) as file:
                words = [whole(word) for word in file.read(200).decode("ascii", "replace").split()]
        except FileNotFoundError:
            return
        match words:
            case [int(old), int(written), int(mode_ns)] if old in self.table:
                self._held = old, written, mode_ns
                self.restore()
            case _:
                log.warning("%s was not written by this program; the ceiling is left as it is", self._state)
                self._state.unlink()

    def _mode_ns(self) -> int:
        try:
            return self._files.path(MODE_STATUS).stat().st_mtime_ns
        except OSError:
            return 0  # no nvpmodel here

    def _now(self) -> int:
        problems: list[str] = []
        hz = self._files.integer(self._file, problems)
        if hz is None:
            raise EdgedError(problems[0])
        return hz

    def _write(self, hz: int) -> None:
        try:
            with self._file.open("r+b", buffering=0) as file:
                file.write(f"{hz}\n".encode())
        except OSError as error:
            raise EdgedError(f"{self._files.shown(self._file)} cannot be written: {error.strerror}") from error


class Helper:
    """Serves one program at a time on `listener`."""

    def __init__(self, listener: socket.socket, ceiling: Ceiling, uids: frozenset[int]) -> None:
        self._listener = listener
        self._ceiling = ceiling
        self._uids = uids
        self._client: socket.socket | None = None
        self._buffer = b""

    def run(self) -> None:
        """Until no program has connected for IDLE_EXIT_S, or SystemExit."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(None if self._client else IDLE_EXIT_S)}
                if not ready and self._client is None:
                    return
                # the connected program first: a daemon that was killed and restarts must find the place free
                if self._client in ready and not self._serve():
                    selector.unregister(self._client)
                    self._leave()
                if self._listener in ready and self._accept():
                    selector.register(self._client, selectors.EVENT_READ)  # type: ignore[arg-type]

    def _accept(self) -> bool:
        peer, _ = self._listener.accept()
        peer.setblocking(False)
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        refusal = ""
        if uid not in self._uids:
            refusal = f"user {uid} may not set the clock"
        elif self._client is not None:
            refusal = HELD
        if refusal:
            log.warning("refused: %s", refusal)
            with peer, contextlib.suppress(OSError):  # it may have closed already
                peer.send(f"no {refusal}\n".encode())
            return False
        self._client, self._buffer = peer, b""
        return True

    def _serve(self) -> bool:
        """Answer what was received; False when the program has closed or violates the protocol."""
        assert self._client is not None
        try:
            data = self._client.recv(4096)
            self._buffer += data
            *lines, self._buffer = self._buffer.split(b"\n")
            if not data or len(self._buffer) > LONGEST_LINE:
                return False
            for line in lines:
                self._client.send(f"{self._answer(line)}\n".encode(), socket.MSG_NOSIGNAL)
        except OSError:  # it died, or does not read its answers
            return False
        return True

    def _answer(self, line: bytes) -> str:
        try:
            match line[:LONGEST_LINE].split():
                case [b"table"]:
                    return " ".join(["table", str(self._ceiling.old), *map(str, self._ceiling.table)])
                case [b"set", word] if (hz := whole(word.decode("ascii", "replace"))) is not None:
                    return f"ok {self._ceiling.set(hz)}"
                case [b"release"]:
                    return f"ok {self._ceiling.restore()}"
                case _:
                    return "no such request: table, set FREQUENCY or release"
        except EdgedError as error:
            return f"no {error.message}"
        except OSError as error:  # the state could not be written: then the clock must not be changed either
            return f"no {error.filename}: {error.strerror}"

    def _leave(self) -> None:
        assert self._client is not None
        self._client.close()
        self._client = None
        self._ceiling.restore()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edged.power.clock_helper", description="Sets the GPU's ceiling.")
    parser.add_argument("--user", default="edged", help="who may ask, besides root (default: edged)")
    parser.add_argument("--socket", type=Path, default=SOCKET, help="made here unless systemd passes one")
    parser.add_argument("--state", type=Path, default=STATE, help="keeps the previous ceiling while it is lowered")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where /sys is found")
    parser.add_argument("--restore", action="store_true", help="restore what a killed helper left lowered, then exit")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO)
    try:
        ceiling = Ceiling(given.root, given.state)  # restores what a killed helper left lowered
        if given.restore:
            return 0
        uids = frozenset({0, pwd.getpwnam(given.user).pw_uid})
        with _listener(given.socket) as listener, _restored(ceiling):
            Helper(listener, ceiling, uids).run()
    except (EdgedError, KeyError) as error:
        log.error("%s", error)
        return 1
    return 0


@contextlib.contextmanager
def _restored(ceiling: Ceiling) -> Iterator[None]:
    """The previous ceiling is restored however this process ends, except by SIGKILL."""

    def end(number: int, frame: FrameType | None) -> None:
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_IGN)
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        ceiling.restore()


def _listener(path: Path) -> socket.socket:
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=LISTEN_FD)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o666)  # access is decided by the peer's user, not by the mode of the socket
    listener.listen(4)
    return listener


if __name__ == "__main__":
    raise SystemExit(main())
