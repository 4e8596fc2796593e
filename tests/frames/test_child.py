"""The daemon's end of a child: whatever comes over the socket is an event, never an exception."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.frames import child_protocol
from edged.frames.camera_state import ChildFailed, ChildGone, EndOfFile
from edged.frames.child import Child
from edged.frames.forkserver import greet


@pytest.fixture
def pair() -> Iterator[tuple[Child, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs:
        yield Child("gate", ours), theirs


def test_lines_become_events(pair: tuple[Child, socket.socket]) -> None:
    child, other = pair
    opened = child_protocol.OpenedLine(640, 480, 2, 30.0, "h264", True)
    other.send(child_protocol.NOTIFY)
    for line in (
        child_protocol.Line(opened=opened),
        child_protocol.Line(ended=True),
        child_protocol.Line(failed="a\x1b[2Jb", final=True),
    ):
        other.send(msgspec.json.encode(line))
    assert child.receive() == [opened, EndOfFile(), ChildFailed("a [2Jb", final=True)]
    other.close()
    assert child.receive() == [ChildGone()]


@pytest.mark.parametrize(
    "packet",
    [
        b"{}",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"x" * 4096,
        b"{" * 4000,
        b'{"opened":null}',
        b'{"ended":true,"x":1}',
        b'{"opened":{"width":8193,"height":2,"format":1,"fps":30,"codec":"","paced":true}}',
        b'{"opened":{"width":640,"height":480,"format":1,"fps":-1,"codec":"","paced":true}}',
        b'{"failed":"' + b"x" * 500 + b'"}',
    ],
)
def test_garbage_is_a_failure_in_words(pair: tuple[Child, socket.socket], packet: bytes) -> None:
    child, other = pair
    other.send(packet)
    (event,) = child.receive()
    assert isinstance(event, ChildFailed)
    assert event.reason.startswith("the capture process sent")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=6000), max_size=5))
def test_any_packets_are_survived(pair: tuple[Child, socket.socket], packets: list[bytes]) -> None:
    child, other = pair
    for packet in packets:
        other.send(packet)
    child.receive()


def test_a_flood_does_not_hold_up_the_loop(pair: tuple[Child, socket.socket]) -> None:
    child, other = pair
    other.setblocking(False)
    sent = 0
    try:
        while True:
            other.send(child_protocol.NOTIFY)
            sent += 1
    except BlockingIOError:
        pass
    assert 0 < sent < 2000  # the kernel bounds it, and the child does not mind a full socket
    assert child.receive() == []


def test_a_child_is_killed_by_a_handle_that_only_means_it(pair: tuple[Child, socket.socket]) -> None:
    child, other = pair
    pid = os.fork()
    if pid == 0:
        greet(other)
        signal.pause()
        os._exit(0)
    other.close()
    while child._pidfd is None:
        child.receive()
    assert not child.wait(0)
    child.kill()
    assert child.wait(1000)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert child.wait(0)


def test_stray_descriptors_are_closed(pair: tuple[Child, socket.socket]) -> None:
    child, other = pair
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as null:
        greet(other)
        child.receive()
        for _ in range(5):
            socket.send_fds(other, [child_protocol.HELLO], [null.fileno(), null.fileno()])
            child.receive()
    assert len(os.listdir("/proc/self/fd")) == before + 1  # the pidfd
    os.close(child._pidfd or -1)
