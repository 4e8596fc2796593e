"""The GPU's ceiling through the real helper process on an emulated board: set, refused, and always put back."""

from __future__ import annotations

import functools
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import EdgedError
from edged.power import clock_helper
from edged.power.clocks import ClockActuator, held_ceiling
from tests.support.jetson_tree import BOARDS, JetsonTree

ME = pwd.getpwuid(os.getuid()).pw_name
HZ = BOARDS["orin_nano"].gpu_hz
MHZ = [hz / 1e6 for hz in HZ]
TOP = HZ[-1]


def wait_for(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    end_s = monotonic() + limit_s
    while not condition():
        assert monotonic() < end_s, "did not happen in time"
        threading.Event().wait(0.01)


class Helped:
    """A board and the helper process that serves it."""

    def __init__(self, directory: Path, board: str = "orin_nano") -> None:
        self.tree = JetsonTree(directory / "board", board)
        self.socket = directory / "clocks.sock"
        self.state = directory / "ceiling"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *more: str) -> list[str]:
        where = ["--socket", str(self.socket), "--state", str(self.state), "--root", str(self.tree.root)]
        return [sys.executable, "-m", "edged.power.clock_helper", "--user", ME, *where, *more]

    def start(self) -> Helped:
        self.process = subprocess.Popen(self.command(), stderr=subprocess.PIPE)
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.process and self.process.stderr
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None and self.process.stderr is not None
        self.process.send_signal(number)
        self.process.wait(10)
        self.process.stderr.close()
        self.process = None

    @property
    def ceiling(self) -> int:
        return int(self.tree.read(f"{self.tree.devfreq}/max_freq"))

    def ask(self) -> socket.socket:
        """A program of this user that speaks the protocol by hand; waits until its predecessor's place is free."""
        end_s = monotonic() + 10
        while True:
            peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(5)
            peer.connect(str(self.socket))
            if say(peer, "table").startswith("table"):
                return peer
            peer.close()
            assert self.process is not None and self.process.poll() is None
            assert monotonic() < end_s


def say(peer: socket.socket, line: str) -> str:
    try:
        peer.sendall(line.encode() + b"\n")
        return peer.recv(4096).decode().strip()
    except (ConnectionError, TimeoutError):
        return "gone"


@pytest.fixture
def helped() -> Iterator[Helped]:
    with tempfile.TemporaryDirectory(prefix="edged-clocks-") as directory:  # a socket's path must be short
        os.chmod(directory, 0o755)
        it = Helped(Path(directory)).start()
        yield it
        if it.process is not None:
            it.kill()


def test_the_table_and_a_ceiling_and_its_end(helped: Helped) -> None:
    with helped.ask() as peer:
        assert say(peer, "table") == "table " + " ".join(map(str, (TOP, *HZ)))
        assert say(peer, f"set {HZ[3]}") == f"ok {HZ[3]}"
        assert helped.ceiling == HZ[3]
        assert say(peer, "release") == f"ok {TOP}"
        assert helped.ceiling == TOP and not helped.state.exists()
        assert say(peer, f"set {HZ[0]}") == f"ok {HZ[0]}"
    wait_for(lambda: helped.ceiling == TOP)


@pytest.mark.parametrize(
    "line", ["set 613000000", "set 0", "set -1", "set", "set 1e9", "set 306000000 1", "boot", "", "set ٣"]
)
def test_only_what_the_gpu_lists_is_taken(helped: Helped, line: str) -> None:
    with helped.ask() as peer:
        assert say(peer, line).startswith("no ")
        assert helped.ceiling == TOP and not helped.state.exists()
        assert say(peer, f"set {HZ[1]}") == f"ok {HZ[1]}"


def test_never_above_what_it_was(helped: Helped) -> None:
    helped.tree.write(f"{helped.tree.devfreq}/max_freq", HZ[4])  # the power mode's own cap
    with helped.ask() as peer:
        assert say(peer, f"set {TOP}") == f"ok {HZ[4]}"
        assert say(peer, f"set {HZ[2]}") == f"ok {HZ[2]}"
        assert say(peer, f"set {TOP}") == f"ok {HZ[4]}"
    wait_for(lambda: not helped.state.exists())
    assert helped.ceiling == HZ[4]


def test_a_mode_set_meanwhile_has_the_last_word(helped: Helped) -> None:
    status = helped.tree.make("var/lib/nvpmodel/status", "pmode:0000")
    with helped.ask() as peer:
        assert say(peer, f"set {HZ[3]}") == f"ok {HZ[3]}"
        helped.tree.write(f"{helped.tree.devfreq}/max_freq", HZ[1])
        os.utime(status, ns=(1, 1))
        assert say(peer, f"set {HZ[3]}") == f"ok {HZ[1]}"
    wait_for(lambda: not helped.state.exists())
    assert helped.ceiling == HZ[1]


def test_a_thermal_cap_of_the_kernel_is_not_taken_for_the_old_ceiling(helped: Helped) -> None:
    with helped.ask() as peer:
        assert say(peer, f"set {HZ[5]}") == f"ok {HZ[5]}"
        helped.tree.write(f"{helped.tree.devfreq}/max_freq", HZ[1])  # lower, and nobody set a mode
    wait_for(lambda: helped.ceiling == TOP)


def test_a_daemon_that_is_killed_gives_the_ceiling_back(helped: Helped) -> None:
    script = (
        "import sys, time; from pathlib import Path; from edged.power.clocks import ClockActuator\n"
        "a = ClockActuator([float(m) for m in sys.argv[2:]], Path(sys.argv[1])); a.set(2); time.sleep(60)"
    )
    daemon = subprocess.Popen([sys.executable, "-c", script, str(helped.socket), *map(str, MHZ)])
    wait_for(lambda: helped.ceiling == HZ[2])
    daemon.kill()
    daemon.wait(10)
    wait_for(lambda: helped.ceiling == TOP)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_helper_that_is_asked_to_end_gives_it_back_first(helped: Helped, number: int) -> None:
    with helped.ask() as peer:
        assert say(peer, f"set {HZ[2]}") == f"ok {HZ[2]}"
        helped.kill(number)
    assert helped.ceiling == TOP and not helped.state.exists()


def test_a_helper_that_is_killed_gives_it_back_when_it_starts_again(helped: Helped) -> None:
    with helped.ask() as peer:
        assert say(peer, f"set {HZ[2]}") == f"ok {HZ[2]}"
        helped.kill()
        assert helped.ceiling == HZ[2]
    helped.start()
    assert helped.ceiling == TOP and not helped.state.exists()


def test_and_without_starting_by_restore_alone(helped: Helped) -> None:
    with helped.ask() as peer:
        assert say(peer, f"set {HZ[2]}") == f"ok {HZ[2]}"
        helped.kill()
    subprocess.run(helped.command("--restore"), check=True, timeout=100)
    assert helped.ceiling == TOP


@pytest.mark.parametrize("text", ["", "rm -rf /", "1 2", "999 1 0", "x" * 300])
def test_a_state_that_is_nonsense_moves_nothing(helped: Helped, text: str) -> None:
    helped.kill()
    helped.state.write_text(text)
    helped.start()
    assert helped.ceiling == TOP and not helped.state.exists()


def test_one_program_at_a_time_and_the_next_when_it_leaves(helped: Helped) -> None:
    with helped.ask() as first, socket.socket(socket.AF_UNIX) as second:
        second.connect(str(helped.socket))
        assert second.recv(100) == b"no another program holds the clock\n"
        assert say(first, f"set {HZ[1]}") == f"ok {HZ[1]}"
    with helped.ask() as third:
        assert say(third, f"set {HZ[3]}") == f"ok {HZ[3]}"


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
def test_another_user_is_refused(helped: Helped) -> None:
    script = (
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX); os.setuid(65534); s.connect(sys.argv[1])\n"
        "print(s.recv(100).decode(), end='')"
    )
    command = [sys.executable, "-c", script, str(helped.socket)]
    reported = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert reported.stdout == "no user 65534 may not set the clock\n", reported.stderr
    assert helped.ceiling == TOP


def test_a_flood_and_a_program_that_does_not_read_are_dropped(helped: Helped) -> None:
    with helped.ask() as peer:
        assert say(peer, f"set {HZ[1]}") == f"ok {HZ[1]}"
        with pytest.raises(OSError):
            for _ in range(10_000):
                peer.sendall(b"x" * 4096)
    wait_for(lambda: helped.ceiling == TOP)
    with helped.ask() as peer:
        peer.settimeout(5)
        with pytest.raises(OSError):
            for _ in range(100_000):
                peer.sendall(b"table\n" * 200)
    helped.ask().close()


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_no_bytes_end_the_helper(served: Helped, data: bytes) -> None:
    with served.ask() as peer:
        try:
            peer.sendall(data + b"\n")
            peer.settimeout(0.05)
            peer.recv(4096)
        except OSError:
            pass
    with served.ask() as peer:
        assert say(peer, "release") == f"ok {TOP}"


@pytest.fixture(scope="module")
def served() -> Iterator[Helped]:
    with tempfile.TemporaryDirectory(prefix="edged-clocks-") as directory:
        it = Helped(Path(directory)).start()
        yield it
        it.kill()


def test_the_socket_may_be_systemds(helped: Helped) -> None:
    helped.kill()
    helped.socket.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(helped.socket))
        listener.listen()
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.environ['LISTEN_FDS'] = '1'; os.execv(sys.argv[2], sys.argv[2:])"
        )
        command = [sys.executable, "-c", script, str(listener.fileno()), *helped.command()]
        helped.process = subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=[listener.fileno()])
        with helped.ask() as peer:
            assert say(peer, f"set {HZ[1]}") == f"ok {HZ[1]}"
    wait_for(lambda: helped.ceiling == TOP)


def test_with_nobody_there_it_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_helper, "IDLE_EXIT_S", 0.05)
    ceiling = clock_helper.Ceiling(JetsonTree(tmp_path).root, tmp_path / "ceiling")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        clock_helper.Helper(listener, ceiling, frozenset({os.getuid()})).run()


def test_a_machine_without_a_gpu_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edged.power.clock_helper", "--user", ME, "--root", str(tmp_path)]
    reported = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert reported.returncode == 1 and "no GPU in /sys/class/devfreq" in reported.stderr


# --- the daemon's side ------------------------------------------------------------------------------------------------


@pytest.fixture
def actuator(helped: Helped) -> Iterator[ClockActuator]:
    it = ClockActuator(MHZ, helped.socket)
    yield it
    it.close()


def _confirms(actuator: ClockActuator, index: int) -> bool:
    return actuator.state.index == index


def test_an_index_becomes_a_ceiling_and_none_gives_it_back(helped: Helped, actuator: ClockActuator) -> None:
    for index in (3, 0, 6):
        actuator.set(index)
        wait_for(functools.partial(_confirms, actuator, index))
        assert helped.ceiling == HZ[index] and actuator.state.ceiling_mhz == MHZ[index]
    actuator.set(None)
    wait_for(lambda: helped.ceiling == TOP and actuator.state.index is None)


def test_the_clock_in_force_is_reported_where_the_power_mode_allows_less(
    helped: Helped, actuator: ClockActuator
) -> None:
    helped.tree.write(f"{helped.tree.devfreq}/max_freq", HZ[2])
    actuator.set(6)
    wait_for(lambda: actuator.state.index == 2)
    assert actuator.state.ceiling_mhz == MHZ[2] and actuator.state.problem is None


def test_closing_gives_it_back(helped: Helped) -> None:
    actuator = ClockActuator(MHZ, helped.socket)
    actuator.set(1)
    wait_for(lambda: helped.ceiling == HZ[1])
    actuator.close()
    wait_for(lambda: helped.ceiling == TOP)


def test_asking_costs_microseconds_even_while_the_helper_hangs(helped: Helped, actuator: ClockActuator) -> None:
    actuator.set(1)
    wait_for(lambda: actuator.state.index == 1)
    assert helped.process is not None
    helped.process.send_signal(signal.SIGSTOP)
    spent = []
    for n in range(300):
        begin = perf_counter()
        actuator.set(n % 7)
        spent.append(perf_counter() - begin)
    assert sorted(spent)[150] < 0.001  # a few microseconds; the limit is for a machine that does much else
    wait_for(lambda: actuator.state.problem is not None)
    assert "time" in str(actuator.state.problem)
    helped.process.send_signal(signal.SIGCONT)
    wait_for(lambda: actuator.state.index == 299 % 7, 20)
    assert helped.ceiling == HZ[299 % 7]


def test_a_helper_that_was_killed_is_found_again_and_asked_again(helped: Helped, actuator: ClockActuator) -> None:
    actuator.set(2)
    wait_for(lambda: actuator.state.index == 2)
    helped.kill()
    wait_for(lambda: actuator.state.problem is not None)
    assert actuator.state.index is None
    helped.start()
    wait_for(lambda: actuator.state.index == 2, 20)
    assert helped.ceiling == HZ[2]


def test_no_helper_at_all_is_a_problem_and_no_delay(tmp_path: Path) -> None:
    actuator = ClockActuator(MHZ, tmp_path / "none")
    actuator.set(1)
    wait_for(lambda: actuator.state.problem is not None)
    assert str(actuator.state.problem) == f"{tmp_path / 'none'}: No such file or directory"
    actuator.close()


def test_a_clock_that_the_gpu_does_not_have(helped: Helped) -> None:
    actuator = ClockActuator([333.0], helped.socket)
    actuator.set(0)
    wait_for(lambda: actuator.state.problem is not None)
    assert actuator.state.problem == "this GPU has no clock of 333 MHz"
    assert helped.ceiling == TOP
    actuator.close()


def test_the_reason_of_a_helper_that_closes_at_once_is_read() -> None:
    with tempfile.TemporaryDirectory(prefix="edged-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "clocks.sock"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            peer.recv(64)
            peer.sendall(b"table 900000000 400000000 900000000\n")
            closing.wait(60)
            peer.sendall(b"no more of it\n")
            peer.close()

        closing, server = threading.Event(), threading.Thread(target=serve)
        server.start()
        with held_ceiling(path) as ceiling:
            closing.set()
            server.join()
            with pytest.raises(EdgedError, match="refuses: more of it"):
                ceiling.set(0)
