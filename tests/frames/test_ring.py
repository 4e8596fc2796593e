"""The ring: what is read is whole or known to be torn, under a fast writer, a dead writer and a full /dev/shm."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import EdgedError
from edged.frames import ring as rings
from edged.frames.frame import PixelFormat
from edged.frames.ring import GarbageError, RingReader, RingSpec, RingWriter

SMALL = RingSpec(64, 48, PixelFormat.NV12)


@pytest.fixture
def name() -> Iterator[str]:
    name = f"edged-test{uuid4().hex[:8]}-cam-1"
    yield name
    rings.unlink(name)


def put(writer: RingWriter, value: int, frame: int) -> None:
    writer.begin()[:] = value
    writer.commit(frame, 1_000 + frame, 2_000 + frame, "camera")


def test_a_frame_goes_through_with_everything_it_carries(name: str) -> None:
    rings.create(name, SMALL, first=40)
    writer, reader = RingWriter(name), RingReader(name, "cam")
    assert reader.latest() is None
    put(writer, 7, 123)
    frame = reader.latest()
    assert frame is not None
    assert (frame.camera, frame.frame, frame.t_capture_ns, frame.mono_capture_ns) == ("cam", 123, 1_123, 2_123)
    assert (frame.width, frame.height, frame.format, frame.clock) == (64, 48, PixelFormat.NV12, "camera")
    assert frame.seq == 2 * 41  # frame numbers go on after those of the ring before
    pixels = reader.pixels(frame.slot)
    assert pixels.shape == (72, 64)
    assert (pixels == 7).all()
    assert not pixels.flags.writeable
    assert RingReader(name).latest() is not None  # also for who comes late


def test_a_frame_stays_until_its_slot_comes_round_again(name: str) -> None:
    rings.create(name, SMALL)
    writer, reader = RingWriter(name), RingReader(name)
    put(writer, 1, 1)
    frame = reader.latest()
    assert frame is not None
    for n in range(2, rings.SLOTS + 1):
        put(writer, n, n)
        assert reader.intact(frame.slot, frame.seq)
        assert np.all(reader.copy(frame.slot, frame.seq) == 1)
    writer.begin()
    assert not reader.intact(frame.slot, frame.seq)
    assert reader.copy(frame.slot, frame.seq) is None
    latest = reader.latest()  # what is being written is not the latest
    assert latest is not None
    assert latest.frame == rings.SLOTS


def test_a_frame_begun_and_not_committed_is_never_seen(name: str) -> None:
    rings.create(name, SMALL)
    writer, reader = RingWriter(name), RingReader(name)
    put(writer, 1, 1)
    writer.begin()[:] = 99
    writer.begin()[:] = 98
    put(writer, 2, 2)
    frame = reader.latest()
    assert frame is not None
    assert (frame.frame, frame.seq) == (2, 4)


def _write_for_ever(name: str) -> None:
    writer = RingWriter(name)
    for n in range(1, 1 << 40):
        put(writer, n % 251, n)


def test_a_torn_read_is_always_noticed_under_a_fast_writer(name: str) -> None:
    rings.create(name, RingSpec(640, 480, PixelFormat.BGR24))
    reader = RingReader(name)
    process = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(name,), daemon=True)
    process.start()
    whole = torn = 0
    end = time.monotonic() + 60
    try:
        while whole < 50 or torn < 5:
            assert time.monotonic() < end, (whole, torn)
            frame = reader.latest()
            if frame is None:
                continue
            pixels = reader.pixels(frame.slot).copy()
            if torn < 5:
                while reader.intact(frame.slot, frame.seq):  # until the writer has come round
                    assert time.monotonic() < end
                pixels[240:] = reader.pixels(frame.slot)[240:]
            if reader.intact(frame.slot, frame.seq):
                whole += 1
                assert (pixels == frame.frame % 251).all()
                assert frame.mono_capture_ns == 2_000 + frame.frame
            else:
                torn += 1
    finally:
        process.kill()
        process.join()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 55), st.integers(0, 2**64 - 1)), max_size=40))
def test_garbage_in_the_header_gives_a_frame_none_or_an_error(garbage: list[tuple[int, int]]) -> None:
    name = f"edged-test{uuid4().hex[:8]}-cam-1"
    rings.create(name, SMALL)
    try:
        writer, reader = RingWriter(name), RingReader(name)
        put(writer, 1, 1)
        for word, value in garbage:
            writer.words[word] = value
        reader.counts()
        try:
            frame = reader.latest()
        except GarbageError:
            return
        if frame is not None:
            assert 0 <= frame.slot < rings.SLOTS
            assert reader.pixels(frame.slot).shape == SMALL.shape
    finally:
        rings.unlink(name)


def test_the_figures_of_a_stream_go_through_and_garbage_is_none(name: str) -> None:
    rings.create(name, SMALL)
    writer, reader = RingWriter(name), RingReader(name)
    empty = reader.stream_figures()
    assert empty is not None and (empty.decode_ms, empty.mbit_s, empty.keyframe_interval_s, empty.words()) == (
        None,
        None,
        None,
        "",
    )
    writer.figures(lost_packets=3, decode_us=2500, bitrate=4_100_000, keyframe_ms=1000)
    figures = reader.stream_figures()
    assert figures is not None
    assert figures.words() == "2.5 ms to decode a picture, 4.1 Mbit/s, a keyframe every 1.0 s, 3 packets lost"
    writer.figures(1 << 60, 0, 0, 0)
    assert reader.stream_figures() is None


def test_a_file_that_is_no_ring_is_refused(tmp_path: Path) -> None:
    rings.create("edged-a-b-1", SMALL, directory=tmp_path)
    path = tmp_path / "edged-a-b-1"
    assert path.stat().st_mode & 0o777 == 0o640
    whole = path.read_bytes()
    for bad in (b"", whole[:-1], b"X" + whole[1:], whole[:32] + b"\xff" * 8 + whole[40:]):
        path.write_bytes(bad)
        with pytest.raises(EdgedError):
            RingReader("edged-a-b-1", directory=tmp_path)
    with pytest.raises(EdgedError, match="not the name"):
        RingReader.open("edged-/../../etc/passwd")
    with pytest.raises(EdgedError, match="No such file"):
        RingReader.open("edged-gone-x-1")


def test_a_ring_is_not_made_twice_or_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "edged-a-b-1").symlink_to("/dev/null")
    with pytest.raises(EdgedError, match="File exists"):
        rings.create("edged-a-b-1", SMALL, directory=tmp_path)


@pytest.mark.parametrize(("width", "height", "format_"), [(1, 2, 1), (8193, 2, 1), (3, 2, 2), (2, 3, 2), (2, 2, 6)])
def test_sizes_that_no_ring_has(width: int, height: int, format_: int) -> None:
    with pytest.raises(ValueError):
        rings.spec_of(width, height, format_)


def test_a_full_shm_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """The file size limit stands for a full file system where we may not mount one."""
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
        ).returncode
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        with pytest.raises(EdgedError, match=r"cannot reserve 5\.3 MiB") as caught:
            rings.create("edged-a-b-1", RingSpec(1280, 720, PixelFormat.NV12), directory=tmp_path)
        assert "fewer or smaller cameras" in caught.value.hint
        assert list(tmp_path.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if mounted:
            subprocess.run(["umount", str(tmp_path)], check=True)


def test_nothing_is_allocated_per_frame_but_small_objects(name: str) -> None:
    import tracemalloc

    rings.create(name, RingSpec(640, 480, PixelFormat.NV12))
    writer, reader = RingWriter(name), RingReader(name)
    tracemalloc.start()
    try:
        for n in range(1, 200):
            put(writer, n % 250, n)
            frame = reader.latest()
            assert frame is not None
            reader.intact(frame.slot, frame.seq)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()
    assert np.shares_memory(reader.pixels(0), reader.slots[0])
