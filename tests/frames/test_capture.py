"""The child's main, run on a thread of the test with the test as its daemon: what it says and what it writes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from edged.config import CameraConfig
from edged.frames import child_protocol
from edged.frames import ring as rings
from edged.frames.capture import StreamMeter, _is_frozen, _RateLimit
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingReader, RingSpec, RingWriter
from edged.frames.sources.base import SourceInfo, StreamCost
from edged.synthetic.scene import Scene
from tests.support.clips import write_clip

MAIN = """
import socket, sys, msgspec
from edged.frames import capture, child_protocol
link = socket.socket(fileno=int(sys.argv[1]))
capture.main(msgspec.json.decode(sys.argv[2].encode(), type=child_protocol.StartRequest), link)
"""


class Daemon:
    """The daemon's end, by hand."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.process: subprocess.Popen[bytes] | None = None
        self.names: list[str] = []

    def start(self, source: str, first: int = 0, fps: float | None = None) -> None:
        request = child_protocol.StartRequest(CameraConfig(name="cam", source=source, fps=fps), first, None)
        arguments = [str(self.theirs.fileno()), msgspec.json.encode(request).decode()]
        self.process = subprocess.Popen([sys.executable, "-c", MAIN, *arguments], pass_fds=[self.theirs.fileno()])
        self.theirs.close()

    def packet(self, within_s: float = 10) -> bytes:
        assert select.select([self.link], [], [], within_s)[0], "the child says nothing"
        return self.link.recv(child_protocol.MAX_PACKET)

    def line(self) -> child_protocol.Line:
        while (packet := self.packet()) == child_protocol.NOTIFY:
            pass
        return msgspec.json.decode(packet, type=child_protocol.Line)

    def ring(self) -> RingReader:
        opened = self.line().opened
        assert opened is not None
        name = f"edged-test{uuid4().hex[:8]}-cam-1"
        rings.create(name, rings.spec_of(opened.width, opened.height, opened.format))
        self.names.append(name)
        self.link.send(msgspec.json.encode(child_protocol.RingLine(name)))
        return RingReader(name, "cam")

    def until(self, reader: RingReader, count: int, which: int, within_s: float = 10) -> None:
        """Read notifications until a counter of the ring (0 frames, 1 rate, 2 corrupt, 3 frozen) is that high."""
        end = time.monotonic() + within_s
        while reader.counts()[which] < count:
            assert time.monotonic() < end, reader.counts()
            if select.select([self.link], [], [], 0.05)[0]:
                self.link.recv(child_protocol.MAX_PACKET)

    def close(self) -> None:
        self.link.close()
        if self.process is not None:
            self.process.wait(8)
        for name in self.names:
            rings.unlink(name)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


def test_the_id_of_a_scene_frame_is_its_index_and_the_pixels_are_right(daemon: Daemon) -> None:
    daemon.start("test://4?width=320&height=180&fps=50", first=100)
    reader = daemon.ring()
    daemon.until(reader, 5, 0)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)  # or it would overwrite what a slow machine has not read yet
    frame = reader.latest()
    assert frame is not None
    assert frame.frame == 100 + frame.seq // 2 - 1
    expected = np.empty((180, 320, 3), np.uint8)
    Scene(4, 320, 180, 50).render(frame.frame, expected)
    pixels = reader.copy(frame.slot, frame.seq)
    assert pixels is not None
    assert (pixels == expected).all()
    assert abs(frame.t_capture_ns - time.time_ns()) < 60e9
    assert 0 <= time.monotonic_ns() - frame.mono_capture_ns < 60e9
    daemon.process.send_signal(signal.SIGCONT)


def test_it_ends_when_the_daemon_goes_away(daemon: Daemon) -> None:
    daemon.start("test://4?width=320&height=180&fps=0.1")
    daemon.until(daemon.ring(), 1, 0)
    daemon.link.close()
    assert daemon.process is not None
    daemon.process.wait(8)  # and not after the ten seconds to its next frame


def test_a_frozen_picture_is_counted_and_not_written(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start(str(write_clip(tmp_path / "still.mkv", codec="ffv1", count=20, still=True)))
    reader = daemon.ring()
    daemon.until(reader, 25, 3)
    assert reader.counts()[0] == 1


def test_the_rate_is_capped_evenly_and_counted(daemon: Daemon) -> None:
    daemon.start("test://4?width=320&height=180&fps=60", fps=20)
    reader = daemon.ring()
    daemon.until(reader, 20, 0)
    written, rate, *_ = reader.counts()
    assert 1.8 <= rate / written <= 2.1
    frame = reader.latest()
    assert frame is not None
    assert frame.frame % 3 == 0


def test_an_unpaced_source_is_at_most_one_frame_ahead_and_drops_none(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start(f"file://{write_clip(tmp_path / 'a.mp4', count=12)}?pace=0&loop=0")
    reader = daemon.ring()
    for index in range(12):
        assert daemon.packet() == child_protocol.NOTIFY
        if index < 11:  # it waits for the credit; after the last frame it says that it has ended
            assert not select.select([daemon.link], [], [], 0.02)[0]
        frame = reader.latest()
        assert frame is not None
        assert (frame.frame, frame.seq) == (index, 2 * index + 2)
        daemon.link.send(child_protocol.CREDIT)
    assert daemon.line().ended


@pytest.mark.parametrize(
    ("source", "says", "final"),
    [
        ("/missing.mp4", "cannot play /missing.mp4: No such file or directory", False),
        ("csi://0", "apt-get install", True),
        ("rtsp://u:secret@127.0.0.1:1/x", "Connection refused", False),
    ],
)
def test_why_it_gives_up(daemon: Daemon, source: str, says: str, final: bool) -> None:
    daemon.start(source)
    line = daemon.line()
    assert line.failed is not None
    assert says in line.failed
    assert "secret" not in line.failed
    assert line.final == final
    assert daemon.packet() == b""


def test_a_daemon_that_names_a_ring_which_is_not_there(daemon: Daemon) -> None:
    daemon.start("test://1?width=64&height=64")
    assert daemon.line().opened is not None
    daemon.link.send(msgspec.json.encode(child_protocol.RingLine("edged-none-cam-1")))
    assert "cannot open the frame ring" in (daemon.line().failed or "")


def test_a_small_movement_between_the_rows_compared_first_is_no_freeze() -> None:
    name = f"edged-test{os.getpid()}-cam-1"
    rings.create(name, RingSpec(320, 240, PixelFormat.NV12))
    try:
        ring, info = RingWriter(name), SourceInfo(320, 240, PixelFormat.NV12, 30, "")
        first = ring.begin()
        first[:] = 50
        assert not _is_frozen(first, ring, info)
        ring.commit(0, 1, 1, "arrival")
        second = ring.begin()
        second[:] = 50
        assert _is_frozen(second, ring, info)
        second[101, 77] = 51
        assert not _is_frozen(second, ring, info)
    finally:
        rings.unlink(name)


def test_what_a_stream_costs_is_measured_once_a_second() -> None:
    name = f"edged-test{os.getpid()}-cam-2"
    rings.create(name, RingSpec(64, 48, PixelFormat.NV12))
    try:
        ring, reader = RingWriter(name), RingReader(name)
        meter, cost = StreamMeter(), StreamCost()
        for n in range(31):
            meter.look(cost, ring, 10**9 + n * 10**8)
            cost.pictures += 1
            cost.decode_ns += 3_000_000
            cost.bytes += 50_000
        cost.lost_packets, cost.keyframe_interval_ns = 2, 2 * 10**9
        meter.look(cost, ring, 5 * 10**9)
        figures = reader.stream_figures()
        assert figures is not None
        assert (figures.decode_ms, figures.lost_packets, figures.keyframe_interval_s) == (3.0, 2, 2.0)
        assert figures.mbit_s is not None and 0 < figures.mbit_s <= 4.0
    finally:
        rings.unlink(name)


def test_the_rate_limit_keeps_every_frame_of_a_jittering_camera_at_its_own_rate() -> None:
    rng = np.random.default_rng(1)
    period = 1e9 / 15
    limit = _RateLimit(15)
    times = [int(n * period + rng.uniform(-0.04, 0.04) * period) + 10**9 for n in range(300)]
    assert sum(limit.admits(t) for t in times) == 300
    half = _RateLimit(7.5)
    assert sum(half.admits(t) for t in times) == 150
    odd = _RateLimit(10)
    assert 198 <= sum(odd.admits(t) for t in times) <= 202
    assert all(_RateLimit(None).admits(t) for t in (0, 0, 0))
