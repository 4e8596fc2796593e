"""The fork server: children come quickly, die with it, and it comes back when it dies."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.config import CameraConfig
from edged.frames import child_protocol
from edged.frames.child import Child
from edged.frames.forkserver import ForkServer

ORDER = child_protocol.StartRequest(CameraConfig(name="cam", source="test://1?width=64&height=64"), 0, None)


@pytest.fixture
def nursery() -> Iterator[ForkServer]:
    nursery = ForkServer()
    yield nursery
    nursery.close()


def greeted(link: socket.socket) -> tuple[Child, list[object]]:
    child = Child("gate", link)
    heard: list[object] = []
    end = time.monotonic() + 10
    while not heard:
        assert time.monotonic() < end
        select.select([link], [], [], 0.1)
        heard += child.receive()
    return child, heard


def server_pid(nursery: ForkServer) -> int:
    assert nursery._process is not None
    return nursery._process.pid


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_further_child_opens_within_a_tenth_of_a_second(nursery: ForkServer) -> None:
    first, _ = greeted(nursery.start(ORDER))
    begin = time.monotonic()
    second, heard = greeted(nursery.start(ORDER))
    assert time.monotonic() - begin < 0.5
    assert isinstance(heard[0], child_protocol.OpenedLine)
    pids = children(server_pid(nursery))
    assert [Path(f"/proc/{pid}/comm").read_text() for pid in pids] == ["cam-cam\n"] * 2
    for child in (first, second):
        child.kill()
        assert child.wait(2000)
    assert children(server_pid(nursery)) == []  # reaped


def test_nothing_is_imported_from_where_the_daemon_was_started(
    nursery: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise SystemExit('not mine')")
    monkeypatch.chdir(tmp_path)
    child, heard = greeted(nursery.start(ORDER))
    assert isinstance(heard[0], child_protocol.OpenedLine)
    child.kill()
    child.wait(2000)


def test_children_die_with_the_server_and_the_next_order_starts_another(nursery: ForkServer) -> None:
    first, _ = greeted(nursery.start(ORDER))
    pid = server_pid(nursery)
    os.kill(pid, 9)
    assert first.wait(2000)
    second, _ = greeted(nursery.start(ORDER))
    assert server_pid(nursery) != pid
    for child in (first, second):
        child.kill()
        child.wait(2000)


def test_a_child_killed_before_its_greeting_is_gone_too(nursery: ForkServer) -> None:
    child, _ = greeted(nursery.start(ORDER))
    Child("gate", nursery.start(ORDER)).kill()
    later, _ = greeted(nursery.start(ORDER))
    end = time.monotonic() + 5
    while len(children(server_pid(nursery))) > 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    for one in (child, later):
        one.kill()
        one.wait(2000)
