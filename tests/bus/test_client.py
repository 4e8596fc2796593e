"""The client helper against a real publisher, and against one that sends garbage."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.bus.control_client import request
from edged.bus.schema import RingRef, topic_of
from edged.client import Client, Event, Result, State, bgr
from edged.errors import UsageError
from edged.frames import ring
from edged.frames.frame import PixelFormat
from tests.support import messages
from tests.support.bus import endpoint_in, publishing, wait_for


@contextlib.contextmanager
def raw_publisher(endpoint: str, client: Client) -> Iterator[zmq.Socket[bytes]]:
    """A socket that sends whatever the test likes, once the client has subscribed."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.linger = 0
        socket.bind(endpoint)
        assert socket.poll(5000)
        yield socket


def numbered(seq: int, camera: str = "gate") -> list[bytes]:
    message = msgspec.structs.replace(messages.result(camera), seq=seq)
    return [topic_of(message).encode(), msgspec.msgpack.encode(message)]


def received(client: Client, count: int) -> list[object]:
    found = [client.receive(5) for _ in range(count)]
    assert None not in found
    return list(found)


def test_messages_arrive_typed_and_iteration_ends_at_the_timeout(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher:
        publisher.publish(messages.state())
        with Client(endpoint, timeout_s=0.3) as client:
            first = client.receive(5)
            assert isinstance(first, State)
            sent = [publisher.publish(messages.result("gate", n)) for n in range(5)]
            assert list(client) == sent
            assert client.gaps.total() == client.restarts == client.garbage == 0


def test_only_the_topics_asked_for_come(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, Client(endpoint, ["event", "result/gate"]) as client:

        def subscribed() -> bool:
            publisher.publish(messages.event())
            return client.receive(0.01) is not None

        wait_for(subscribed)
        while client.receive(0.1):
            pass
        publisher.publish(messages.result("yard"))
        publisher.publish(messages.decision())
        publisher.publish(messages.result("gate"))
        message = client.receive(5)
        assert isinstance(message, Result) and message.camera == "gate"
        assert client.receive(0.1) is None


def test_lost_messages_are_counted_by_topic_and_a_restart_is_not_a_loss(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with Client(endpoint) as client, raw_publisher(endpoint, client) as socket:
        for seq in (7, 8, 11):
            socket.send_multipart(numbered(seq))
        socket.send_multipart(numbered(3, "yard"))
        received(client, 4)
        assert (dict(client.gaps), client.restarts) == ({"result/gate": 2}, 0)
        for seq in (1, 2):
            socket.send_multipart(numbered(seq))
        socket.send_multipart(numbered(1, "yard"))
        received(client, 3)
        assert (dict(client.gaps), client.restarts) == ({"result/gate": 2}, 1)


def test_another_process_of_the_daemon_is_a_restart_even_when_it_has_counted_further(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with Client(endpoint) as client, raw_publisher(endpoint, client) as socket:
        for pid, seq in ((10, 1), (10, 1), (10, 2), (11, 9)):  # the second is a greeting, repeated
            state = msgspec.structs.replace(messages.state(pid), seq=seq)
            socket.send_multipart([b"state", msgspec.msgpack.encode(state)])
        assert [getattr(message, "seq", None) for message in received(client, 3)] == [1, 2, 9]
        assert (client.gaps.total(), client.restarts) == (0, 1)


def test_garbage_is_counted_and_what_is_newer_is_passed_over(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with Client(endpoint) as client, raw_publisher(endpoint, client) as socket:
        socket.send_multipart([b"event"])
        socket.send_multipart([b"event", b"\xc1"])
        socket.send_multipart([b"event", b"\x91" * 50_000])
        socket.send_multipart([b"event", msgpack.packb({"kind": 3})])
        socket.send_multipart([b"result/yard", numbered(1, "gate")[1]])
        socket.send_multipart([b"weather", b"rain"])
        newer = {**msgspec.to_builtins(messages.event()), "v": 1, "seq": 1, "colour": "red"}
        socket.send_multipart([b"event", msgpack.packb(newer)])
        assert isinstance(client.receive(5), Event)
        assert client.garbage == 5


def test_the_very_frame_is_mapped_until_it_is_overwritten(tmp_path: Path) -> None:
    name = f"edged-test-{uuid.uuid4().hex[:12]}"
    ring.create(name, ring.spec_of(64, 48, PixelFormat.BGR24))
    try:
        writer = ring.RingWriter(name)
        writer.begin()[:] = 77
        writer.commit(5, 1, 1, "arrival")
        frame = ring.RingReader.open(name)._frame(1)
        assert frame is not None
        result = msgspec.structs.replace(messages.result(), ring=RingRef(name, frame.slot, frame.seq))
        with Client(endpoint_in(tmp_path)) as client:
            picture = client.frame(result)
            assert picture is not None and picture.shape == (48, 64, 3) and (picture == 77).all()
            for n in range(ring.SLOTS):
                writer.begin()[:] = n
                writer.commit(6 + n, 1, 1, "arrival")
            assert client.frame(result) is None
            gone = msgspec.structs.replace(result, ring=RingRef("edged-test-gone", 0, 2))
            evil = msgspec.structs.replace(result, ring=RingRef("../../etc/passwd", 0, 2))
            assert client.frame(gone) is client.frame(evil) is None
        latest = msgspec.structs.replace(result, ring=RingRef(name, ring.SLOTS % ring.SLOTS, 2 * ring.SLOTS))
        with Client(endpoint_in(tmp_path)) as client, Client("tcp://127.0.0.1:9") as far:
            assert client.frame(latest) is not None
            assert far.frame(latest) is None, "the ring of that name on another machine is another ring"
    finally:
        ring.unlink(name)


def test_rings_that_a_camera_has_left_behind_are_let_go(tmp_path: Path) -> None:
    names = [f"edged-test-{uuid.uuid4().hex[:12]}" for _ in range(3)]
    try:
        with Client(endpoint_in(tmp_path)) as client:
            for name in names:
                ring.create(name, ring.spec_of(64, 48, PixelFormat.BGR24))
                writer = ring.RingWriter(name)
                writer.begin()
                writer.commit(5, 1, 1, "arrival")
                result = msgspec.structs.replace(messages.result(), ring=RingRef(name, 1, 2))
                assert client.frame(result) is not None
                del writer
                gc.collect()
                mapped = Path("/proc/self/maps").read_text()
                assert [other for other in names if other in mapped] == [name]
    finally:
        for name in names:
            ring.unlink(name)


def test_nv12_becomes_bgr() -> None:
    nv12 = np.full((6, 4), 128, np.uint8)
    nv12[:4] = 126  # grey: luma (126 - 16) * 255 / 219 = 128, no colour
    picture = bgr(nv12, PixelFormat.NV12)
    assert picture.shape == (4, 4, 3)
    assert np.abs(picture.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("endpoint", ["nonsense", "ipc:///tmp/caf\udce9", "ipc:///" + "x" * 200])
def test_an_endpoint_that_cannot_be_is_reported(endpoint: str) -> None:
    with pytest.raises(UsageError):
        Client(endpoint)
    with pytest.raises(UsageError):
        request("snapshot", endpoint)


@pytest.fixture(scope="module")
def idle() -> Iterator[Client]:
    with Client("ipc:///nowhere/results.ipc") as client:
        yield client


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.binary(max_size=80) | st.sampled_from([b"event", b"state", b"result/gate"]), max_size=3))
def test_no_bytes_raise(idle: Client, parts: list[bytes]) -> None:
    assert idle._decode(parts) is None


def test_a_subscriber_loads_nothing_of_the_daemons_side() -> None:
    code = "import sys, edged.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"edged.config", "edged.bus.control", "edged.bus.publisher", "cv2", "onnxruntime"} & set(loaded)
