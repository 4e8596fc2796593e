"""One daemon under one attack after another, with few descriptors: it lives, answers, and its watchdog is fed.

`scripts/test tests/daemon/test_attacks.py -s` prints the table of figures. Loopback only, each attack some seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from _pytest.mark import ParameterSet

import edged
from edged.bus.control_client import request
from edged.bus.schema import Result
from edged.errors import EdgedError
from tests.support.bus import raw_peer, wait_for
from tests.support.daemon import RunningDaemon, write_config

pytestmark = pytest.mark.timeout(300)

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
FILES = 1024
GAP_S = 5.0
GROWTH_MB = 64.0
STOP_S = 15.0
HUGE = b"\x02" + (1 << 20).to_bytes(8, "big") + b"\1" + bytes(1 << 20)
MANY = b"".join(b"\0\x0b\1result/%03d" % (n % 1000) for n in range(20_000))
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
from edged.cli import main
sys.exit(main(["run", "-c", sys.argv[1]]))
"""


def slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


class Manager:
    """The service manager's end of the notify socket: when the watchdog was fed."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.5)
        self.fed: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                if b"WATCHDOG=1" in self._socket.recv(4096):
                    self.fed.append(time.monotonic())

    def longest_gap_s(self, since: float) -> float:
        times = [since, *(at for at in self.fed if at >= since), time.monotonic()]
        return max(b - a for a, b in itertools.pairwise(times))

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._socket.close()


class Attacked:
    def __init__(self, daemon: RunningDaemon, manager: Manager, config: Path) -> None:
        self.daemon, self.manager, self.config = daemon, manager, config
        self.text = config.read_text()
        self.table: list[tuple[str, float, float]] = []

    def rss_mb(self) -> float:
        words = Path(f"/proc/{self.daemon.process.pid}/status").read_text().split()
        return int(words[words.index("VmRSS:") + 1]) / 1024

    def answers(self) -> bool:
        try:
            return bool(request("snapshot", self.daemon.control, 2.0)["ok"])
        except EdgedError:
            return False

    def serves(self) -> bool:
        with self.daemon.client("result/") as client:
            return isinstance(client.receive(30.0), Result)

    @contextlib.contextmanager
    def under(self, attack: str) -> Iterator[None]:
        """Whatever happens inside: it lives, and the figures stay in their bounds."""
        begun, before = time.monotonic(), self.rss_mb()
        yield
        assert self.daemon.process.poll() is None, self.daemon.log[-2000:]
        gap_s, growth_mb = self.manager.longest_gap_s(begun), self.rss_mb() - before
        self.table.append((attack, gap_s, growth_mb))
        assert gap_s < GAP_S and growth_mb < GROWTH_MB, self.table[-1]
        wait_for(self.answers, 30)
        assert self.serves()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    directory = tmp_path_factory.mktemp("attacked")
    config = write_config(
        directory, BUNDLE, {"a": "test://7?width=320&height=240&fps=5"}, "[limits]\ndeadline_ms = 900"
    )
    manager = Manager(directory / "notify")
    notify = {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "20000000"}
    command = [sys.executable, "-c", LIMITED, str(config)]
    try:
        with RunningDaemon(config, directory, command, **notify) as daemon:
            found = Attacked(daemon, manager, config)
            yield found
            begun = time.monotonic()
            assert daemon.stop() == 0 and time.monotonic() - begun < STOP_S
            assert "Traceback" not in daemon.log
            print(f"\n{'attack':56}{'watchdog gap, s':>16}{'growth, MB':>12}")
            for attack, gap_s, growth_mb in found.table:
                print(f"{attack:56}{gap_s:16.1f}{growth_mb:12.1f}")
    finally:
        manager.close()


def crowd(path: str, count: int) -> list[socket.socket]:
    """So many connections that never say a word, or as many as can be made."""
    peers = []
    for _ in range(count):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(0.01)
        with contextlib.suppress(OSError):
            peer.connect(path)
        peers.append(peer)
    return peers


@pytest.mark.parametrize(
    "sockets", [slow(("results",)), slow(("control",)), pytest.param(("results", "control"))], ids=" and ".join
)
def test_silent_connections(attacked: Attacked, sockets: tuple[str, ...]) -> None:
    with attacked.under(f"1200 silent connections to {' and '.join(sockets)}"):
        peers = [peer for name in sockets for peer in crowd(f"{attacked.daemon.directory}/{name}.ipc", 1200)]
        time.sleep(4)  # longer than the handshake time: those in the kernel's queue take their turn
        for peer in peers:
            peer.close()


@pytest.mark.parametrize(("name", "kind"), [("results", zmq.SUB), slow("control", zmq.DEALER)])
def test_a_program_that_leaks_sockets(attacked: Attacked, name: str, kind: int) -> None:
    with attacked.under(f"1100 sockets of one program on {name}"), contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        context.set(zmq.MAX_SOCKETS, 4000)
        for _ in range(1100):
            peer = stack.enter_context(context.socket(kind))
            peer.linger = 0
            peer.connect(f"ipc://{attacked.daemon.directory}/{name}.ipc")
        time.sleep(3)


def flood(path: str, kind: bytes, chunk: bytes, seconds: float) -> None:
    """Sends and reads as fast as the other end does, and comes back when it is cut off."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, AssertionError), raw_peer(Path(path), kind) as peer:
            threading.Thread(target=read_all, args=(peer,), daemon=True).start()
            while time.monotonic() < end:
                peer.sendall(chunk)


def read_all(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while peer.recv(1 << 16):
            continue


@pytest.mark.parametrize(
    ("attack", "name", "kind", "chunk"),
    [
        slow("subscriptions without end", "results", b"SUB", b"\x00\x04\x01zzz" * 20_000),
        slow("unsubscriptions without end", "results", b"SUB", b"\x00\x04\x00zzz" * 20_000),
        slow("subscriptions of every kind without end", "results", b"SUB", MANY),
        slow("topics of a megabyte", "results", b"SUB", HUGE),
        slow("pings", "results", b"SUB", b"\x04\x07\x04PING\0\0" * 5_000),
        ("requests without end", "control", b"DEALER", b"\x00\x0e\x81\xa2op\xa8snapshot\x00" * 5_000),
    ],
)
def test_a_flood(attacked: Attacked, attack: str, name: str, kind: bytes, chunk: bytes) -> None:
    path = f"{attacked.daemon.directory}/{name}.ipc"
    spawn = multiprocessing.get_context("spawn")
    peers = [spawn.Process(target=flood, args=(path, kind, chunk, 5.0), daemon=True) for _ in range(2)]
    with attacked.under(f"two peers with {attack}"):
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join(30)


@pytest.mark.slow
def test_subscribers_that_do_not_read(attacked: Attacked) -> None:
    with attacked.under("200 subscribers that do not read"), contextlib.ExitStack() as stack:
        for _ in range(200):
            peer = stack.enter_context(raw_peer(attacked.daemon.directory / "results.ipc"))
            peer.sendall(b"\x00\x01\x01")
        time.sleep(5)


def test_a_reload_without_end(attacked: Attacked) -> None:
    """Signals that come faster than Python's handlers are run, whatever the engine loop is at."""
    with attacked.under("SIGHUP without end"):
        end = time.monotonic() + 5
        while time.monotonic() < end and attacked.daemon.process.poll() is None:
            attacked.daemon.signal(signal.SIGHUP)
            time.sleep(0.0002)
    assert "recursion" not in attacked.daemon.log


def odd_name(attacked: Attacked) -> Path:
    (attacked.daemon.directory / "e.d").mkdir(exist_ok=True)
    return Path(os.fsdecode(os.fsencode(attacked.daemon.directory / "e.d") + b"/caf\xe9.toml"))


@pytest.mark.parametrize(
    ("attack", "spoil"),
    [
        ("a key of 500 parts", lambda a: a.config.write_text(".".join(["a"] * 500) + " = 1\n" + a.text)),
        ("a drop-in whose name is Latin-1", lambda a: odd_name(a).write_text("[limits]\ndeadlin_ms = 3\n")),
        ("a drop-in that is a pipe", lambda a: os.mkfifo(odd_name(a))),
        ("a configuration in UTF-16", lambda a: a.config.write_bytes(a.text.encode("utf-16"))),
    ],
)
def test_a_reload_of(attacked: Attacked, attack: str, spoil: Callable[[Attacked], object]) -> None:
    with attacked.under(f"a reload of {attack}"):
        spoil(attacked)
        try:
            attacked.daemon.signal(signal.SIGHUP)
            reply = request("reload", attacked.daemon.control, 10.0)
            assert not reply["ok"] and reply["error"].startswith("reload refused, the old configuration stays: ")
        finally:
            odd_name(attacked).unlink(missing_ok=True)
        wanted = 700 + len(attacked.table)
        attacked.config.write_text(attacked.text.replace("900", str(wanted)))
        attacked.daemon.signal(signal.SIGHUP)
        wait_for(lambda: attacked.daemon.ask("snapshot")["state"]["limits"]["deadline_ms"] == wanted, 20)


def test_profiles_whose_names_are_not_utf_8(attacked: Attacked) -> None:
    directory = attacked.daemon.directory / "profiles"
    directory.mkdir(exist_ok=True)
    Path(os.fsdecode(os.fsencode(directory) + b"/caf\xe9.toml")).write_bytes(b"x")
    with attacked.under("a profile whose name is Latin-1"):
        reply = request("profile", attacked.daemon.control, 10.0)
        assert reply["ok"] and any("udce9" in one["name"] and one["problem"] for one in reply["profiles"])
