"""The fork server: children come quickly, die with it, and it comes back when it dies."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.config import CameraConfig
from edged.frames import child_protocol
from edged.frames.child import Child
from edged.frames.forkserver import ForkServer

REQUEST = child_protocol.StartRequest(CameraConfig(name="cam", source="test://1?width=64&height=64"), 0, None)


@pytest.fixture
def forkserver() -> Iterator[ForkServer]:
    forkserver = ForkServer()
    yield forkserver
    forkserver.close()


def greeted(link: socket.socket) -> tuple[Child, list[object]]:
    child = Child("gate", link)
    messages: list[object] = []
    end = time.monotonic() + 10
    while not messages:
        assert time.monotonic() < end
        select.select([link], [], [], 0.1)
        messages += child.receive()
    return child, messages


def server_pid(forkserver: ForkServer) -> int:
    assert forkserver._process is not None
    return forkserver._process.pid


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_further_child_opens_within_a_tenth_of_a_second(forkserver: ForkServer) -> None:
    started = [greeted(forkserver.start(REQUEST))[0]]
    took_s = []
    for _ in range(3):
        begin = time.monotonic()
        child, messages = greeted(forkserver.start(REQUEST))
        took_s.append(time.monotonic() - begin)
        started.append(child)
        assert isinstance(messages[0], child_protocol.OpenedLine)
    assert min(took_s) < 0.5
    pids = children(server_pid(forkserver))
    assert [Path(f"/proc/{pid}/comm").read_text() for pid in pids] == ["cam-cam\n"] * 4
    for child in started:
        child.kill()
        assert child.wait(2000)
    assert children(server_pid(forkserver)) == []  # reaped


def test_nothing_is_imported_from_where_the_daemon_was_started(
    forkserver: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise SystemExit('not mine')")
    monkeypatch.chdir(tmp_path)
    child, messages = greeted(forkserver.start(REQUEST))
    assert isinstance(messages[0], child_protocol.OpenedLine)
    child.kill()
    child.wait(2000)


def test_children_die_with_the_server_and_the_next_request_starts_another(forkserver: ForkServer) -> None:
    first, _ = greeted(forkserver.start(REQUEST))
    pid = server_pid(forkserver)
    os.kill(pid, 9)
    assert first.wait(2000)
    second, _ = greeted(forkserver.start(REQUEST))
    assert server_pid(forkserver) != pid
    for child in (first, second):
        child.kill()
        child.wait(2000)


def test_a_child_killed_before_its_greeting_is_gone_too(forkserver: ForkServer) -> None:
    child, _ = greeted(forkserver.start(REQUEST))
    Child("gate", forkserver.start(REQUEST)).kill()
    later, _ = greeted(forkserver.start(REQUEST))
    end = time.monotonic() + 5
    while len(children(server_pid(forkserver))) > 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    for one in (child, later):
        one.kill()
        one.wait(2000)


def test_a_server_that_hangs_is_replaced_and_its_children_run_on(
    forkserver: ForkServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edged.frames.forkserver._HUNG_NS", 200_000_000)
    first, _ = greeted(forkserver.start(REQUEST))
    pid = server_pid(forkserver)
    [child_pid] = children(pid)
    second, _ = greeted(forkserver.start(REQUEST))  # by now the answer to the first request has been read
    os.kill(pid, signal.SIGSTOP)
    lost = [Child("gate", forkserver.start(REQUEST))]
    end = time.monotonic() + 30
    while server_pid(forkserver) == pid:
        assert time.monotonic() < end
        time.sleep(0.05)
        lost.append(Child("gate", forkserver.start(REQUEST)))
    assert "hangs: another is started" in caplog.text
    third, messages = greeted(forkserver.start(REQUEST))
    assert isinstance(messages[0], child_protocol.OpenedLine)
    assert Path(f"/proc/{child_pid}").exists(), "a hung server's cameras go on"
    for child in (first, second, third, *lost):
        child.kill()
        child.wait(2000)
    forkserver.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
