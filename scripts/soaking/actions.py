"""What is done to the daemon while it runs: each action with its period, and how the soaked daemon is started."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import edged
from edged import clock
from edged.bus.control_client import request
from edged.client import Client
from edged.errors import EdgedError
from scripts.soaking.measure import descendants

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
ROOT = Path(__file__).parents[2]
START_S = 60.0
FULL_S = 15.0


class Soaked:
    """The daemon, its configuration, and the service manager's end of its notify socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "e.toml"
        self.control = f"ipc://{directory}/run/control.ipc"
        self.results = f"ipc://{directory}/run/results.ipc"
        self.fed_ns: list[int] = []
        self.refused: dict[str, int] = {}
        self.received = 0
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self.write_config(("a", "b", "c"))
        environment = {
            **os.environ, "RUNTIME_DIRECTORY": str(directory / "run"), "STATE_DIRECTORY": str(directory / "state"),
            "NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "20000000",
        }  # fmt: skip
        (directory / "state").mkdir()
        self.log = (directory / "log").open("wb")
        # the log goes through a pipe: a disk that is full for the daemon must not be full for what we read
        self._tee = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=self.log)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.soaking.daemon", "run", "-c", str(self.config)],
            cwd=ROOT,
            env=environment,
            stdout=self._tee.stdin,
            stderr=self._tee.stdin,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        end_ns = clock.mono_ns() + int(START_S * clock.NS_PER_S)
        while not self.state():
            if clock.mono_ns() > end_ns or self.process.poll() is not None:
                raise EdgedError(f"the daemon did not start: see {directory / 'log'}")
            clock.sleep_s(0.1)

    def write_config(self, cameras: tuple[str, ...], deadline_ms: float = 400, more: str = "") -> None:
        lines = [f'bundle = "{BUNDLE}"', "[limits]", f"deadline_ms = {deadline_ms}", "[record]", "max_mb = 2", more]
        for n, name in enumerate(cameras):
            lines += ["[[camera]]", f'name = "{name}"', f'source = "test://{n + 1}?width=320&height=240&fps=5"']
        self.config.write_text("\n".join(lines) + "\n")

    def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        """The reply, {} if there is none; what is refused is counted by its reason."""
        try:
            reply = request(op, self.control, 10.0, None, **arguments)
        except EdgedError as error:
            reply = {"ok": False, "error": error.message}
        if not reply["ok"]:
            reason = str(reply["error"])[:60]
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return {}
        return reply

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("snapshot").get("state") or {}
        return found

    def stop(self) -> tuple[int | None, float]:
        """(exit code, seconds it took)."""
        begun_ns = clock.mono_ns()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        if self.process.poll() is None:
            self.process.kill()
        seconds = (clock.mono_ns() - begun_ns) / clock.NS_PER_S
        assert self._tee.stdin is not None
        self._tee.stdin.close()
        self._tee.wait(5)
        self.log.close()
        self._notify.close()
        return self.process.wait(), seconds

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if b"WATCHDOG=1" in self._notify.recv(4096):
                    self.fed_ns.append(clock.mono_ns())


@contextlib.contextmanager
def soaked() -> Iterator[Soaked]:
    with tempfile.TemporaryDirectory(prefix="edged-soak-") as directory:
        daemon = Soaked(Path(directory))
        try:
            yield daemon
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()


class Actions:
    """What is done to it, again and again; each gets the number of its round."""

    def __init__(self, daemon: Soaked) -> None:
        self._daemon = daemon

    def cameras(self, n: int) -> None:
        self._daemon.write_config(("a", "b", "c") if n % 2 else ("a", "b"), 400 + n % 7)
        self._daemon.process.send_signal(signal.SIGHUP)

    def wrong_reload(self, n: int) -> None:
        config = self._daemon.config
        before = config.read_text()
        config.write_bytes((b"\xff", b"x = [", b"a." * 300 + b"a = 1", b"")[n % 4])
        self._daemon.ask("reload")
        config.write_text(before)

    def profile(self, n: int) -> None:
        self._daemon.ask("profile", name=("night", None, "balanced", "absent")[n % 4])

    def limits(self, n: int) -> None:
        self._daemon.ask("set", deadline_ms=300 + 10 * (n % 20))

    def pin(self, n: int) -> None:
        variants = [variant["name"] for variant in self._daemon.state().get("variants", [])]
        self._daemon.ask("pin", variant=(None, *variants)[n % (len(variants) + 1)])

    def subscribe(self, n: int) -> None:
        """One that reads for a while and leaves; each fourth does not read for a long time."""

        def run() -> None:
            with Client(self._daemon.results, [("", "result/", "state")[n % 3]], 2.0) as client:
                if n % 4 == 0:
                    clock.sleep_s(20)
                for _ in zip(range(50), client, strict=False):
                    self._daemon.received += 1

        threading.Thread(target=run, daemon=True).start()

    def kill_camera(self, n: int) -> None:
        for descendant in descendants(self._daemon.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{descendant}/comm").read_text().startswith("cam-"):
                    os.kill(descendant, signal.SIGKILL)
                    return

    def full_disk(self, n: int) -> None:
        """For a while no file of it may grow."""
        pid = self._daemon.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        lift = threading.Timer(FULL_S, _room, [pid])
        lift.daemon = True
        lift.start()

    def clock_step(self, n: int) -> None:
        self._daemon.process.send_signal(signal.SIGUSR1)

    def silent_connections(self, n: int) -> None:
        peers = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for peer in peers:
            peer.settimeout(0.01)
            with contextlib.suppress(OSError):
                peer.connect(self._daemon.results.removeprefix("ipc://"))
        leave = threading.Timer(5.0, _close, [peers])
        leave.daemon = True
        leave.start()

    def all(self) -> list[tuple[float, Callable[[int], None]]]:
        """(period in seconds, action)."""
        return [
            (23.0, self.cameras), (47.0, self.wrong_reload), (31.0, self.profile), (13.0, self.limits),
            (17.0, self.pin), (11.0, self.subscribe), (67.0, self.kill_camera), (120.0, self.full_disk),
            (59.0, self.clock_step), (83.0, self.silent_connections),
        ]  # fmt: skip


def _room(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _close(peers: list[socket.socket]) -> None:
    for peer in peers:
        peer.close()
