"""`edged top`: what is on the screen, in which room, and the real program on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edged.bus.schema import Agreement, BudgetState, Guard, State
from edged.cli import main
from edged.commands.top import View, screen
from tests.support import messages
from tests.support.bus import PATIENCE, endpoint_in, publishing


def state(cameras: int = 1, uptime_s: float = 1.0, captured: int = 10, **changes: object) -> State:
    statuses = [
        msgspec.structs.replace(
            messages.status(f"cam{n}"), captured=captured, results=captured - 2, drops={"late": captured // 10}
        )
        for n in range(cameras)
    ]
    return msgspec.structs.replace(messages.state(), cameras=statuses, uptime_s=uptime_s, **changes)


def drawn(view: View, width: int = 80, height: int = 24) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    out.print(screen(view, out))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def viewed(*received: State) -> View:
    view = View("ipc:///x")
    for one in received:
        view.take(one)
    return view


def row(lines: list[str], name: str) -> list[str]:
    return next(line.split() for line in lines if line.startswith(name))


def test_rates_and_ages_are_of_the_time_between_two_states() -> None:
    view = viewed(state(uptime_s=1.0, captured=10))
    for age_ms in (10.0, 20.0, 90.0):
        assert not view.take(msgspec.structs.replace(messages.result("cam0"), age_ms=age_ms))
    assert view.take(state(uptime_s=3.0, captured=40))
    assert row(drawn(view, 120), "cam0") == ["cam0", "live", "15.0", "15.0", "20", "90", "1.5", "late", "3"]


def test_unknown_is_a_dash_and_not_0() -> None:
    assert row(drawn(viewed(state()), 120), "cam0") == ["cam0", "live", "-", "-", "-", "-", "-", "-"]
    restarted = viewed(state(captured=900), state(captured=10, pid=9))
    assert row(drawn(restarted, 120), "cam0")[2:5] == ["-", "-", "-"], "counts of two daemons are not subtracted"


def test_limits_beside_what_was_measured() -> None:
    budgets = [
        BudgetState("power", 10.0, 12.5, "W", True, ""),
        BudgetState("temperature", 85.0, None, "C", False, ""),
        BudgetState("energy", None, None, "Wh", False, ""),
    ]
    lines = drawn(viewed(state(budgets=budgets)))
    assert any(line.startswith("mean power") and "~12.5 W" in line and "of 10 W" in line for line in lines)
    assert any(line.startswith("temperature") and "unknown" in line and "of 85 C" in line for line in lines)
    assert not any(line.startswith("energy") for line in lines)


def test_a_veto_is_beside_its_variant() -> None:
    guard = Guard("ref", 1, None, 0.0, {}, [Agreement("cam0", "fp32", 0.3, 0.2, 0.4, 9, 0.9, True)], [])
    assert any("vetoed on 1: cam0" in line for line in drawn(viewed(state(guard=guard))))


@pytest.mark.parametrize("cameras", [1, 5, 64])
def test_it_fits_80_by_24_and_says_how_many_cameras_are_left_out(cameras: int) -> None:
    base = state(cameras)
    broken = msgspec.structs.replace(
        base.cameras[-1], state="backoff", reason="connection refused by a far camera " * 3
    )
    limits = [BudgetState(name, 1.0, 0.5, "W", False, "") for name in ("power", "energy", "temperature")]
    view = viewed(msgspec.structs.replace(base, cameras=[*base.cameras[:-1], broken], budgets=limits))
    lines = drawn(view)
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert row(lines, f"cam{cameras - 1} ")[1] == "backoff", "faults come first"
    shown = sum(line.startswith("cam") and not line.startswith("camera") for line in lines)
    assert shown == cameras or f"and {cameras - shown} more" in lines


def test_control_characters_of_a_camera_do_not_reach_the_terminal() -> None:
    base = state()
    evil = msgspec.structs.replace(base.cameras[0], state="backoff", reason="\x1b[2Jgone")
    assert "\x1b[2J" not in "\n".join(drawn(viewed(msgspec.structs.replace(base, cameras=[evil])), 160))


def test_a_daemon_that_is_silent_is_reported() -> None:
    assert "no daemon answers at ipc:///x" in drawn(View("ipc:///x"))[0]
    view = viewed(state())
    view.silent = True
    assert "no longer answers" in drawn(view)[0]


def test_it_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top"]) == 2
    assert "edged status" in capsys.readouterr().err


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal of 80 x 24."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        yield here, there
    finally:
        os.close(here)
        os.close(there)


def test_the_program_draws_what_the_bus_says_and_ends_at_ctrl_c(terminal: tuple[int, int], tmp_path: Path) -> None:
    here, there = terminal
    with publishing(endpoint_in(tmp_path)) as publisher:
        program = subprocess.Popen(
            [sys.executable, "-m", "edged", "top", "--endpoint", endpoint_in(tmp_path)],
            stdin=there,
            stdout=there,
            stderr=there,
            env={**os.environ, "TERM": "xterm"},
        )
        try:
            text, end = b"", time.monotonic() + 10 * PATIENCE
            while b"late 1" not in text:
                assert time.monotonic() < end, text
                publisher.publish(state(captured=10, uptime_s=1.0))
                publisher.publish(state(captured=20, uptime_s=2.0))
                if select.select([here], [], [], 0.2)[0]:
                    text += os.read(here, 65536)
            program.send_signal(signal.SIGINT)
            while program.poll() is None:
                assert time.monotonic() < end
                if select.select([here], [], [], 0.05)[0]:
                    os.read(here, 65536)
            assert program.returncode == 130
        finally:
            program.kill()
            program.wait()
