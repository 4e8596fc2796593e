"""The publisher with real sockets, real processes and hostile subscribers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from edged.bus.admission import Admission
from edged.bus.curve import CurveClient, ServerKeys
from edged.bus.publisher import SEND_HIGH_WATER_MARK, Publisher
from edged.errors import EdgedError, UsageError
from tests.support import messages
from tests.support.bus import (
    PATIENCE,
    curve_keys,
    drain,
    endpoint_in,
    free_port,
    publishing,
    raw_peer,
    served,
    subscribed,
    wait_for,
)
from tests.support.heap import allocated_bytes

SUBSCRIBER = Path(__file__).parents[1] / "support" / "subscriber.py"

# DESIGN: what a reader may rely on, written down here a second time on purpose.
RESULT_KEYS = {
    *(
        "v",
        "seq",
        "camera",
        "frame",
        "t_capture",
        "t_publish",
        "mono_capture_ns",
        "age_ms",
        "escalated",
        "variant",
        "batch",
    ),
    *("latency_ms", "deadline_ms", "deadline_met", "energy_mj", "width", "height", "detections", "ring"),
}


def held_mb() -> float:
    return allocated_bytes() / 2**20


def flowing(publisher: Publisher, socket: zmq.Socket[bytes]) -> None:
    """Publish events until the subscription has arrived."""

    def arrived() -> bool:
        publisher.publish(messages.event())
        return bool(socket.poll(5))

    wait_for(arrived)
    drain(socket)


def test_a_late_subscriber_is_greeted_once_with_state_and_does_not_disturb_the_first(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher:
        sent = publisher.publish(messages.state())
        publisher.publish(messages.telemetry())
        with subscribed(endpoint, b"") as first:
            assert first.poll(10_000)
            greeting = drain(first)
            assert [topic for topic, _ in greeting] == [b"state"]
            assert msgpack.unpackb(greeting[0][1])["seq"] == sent.seq == 1
            with subscribed(endpoint, b"state") as second, subscribed(endpoint, b"st") as third:
                assert [t for t, _ in drain(second, 500)] == [t for t, _ in drain(third, 500)] == [b"state"]
            assert drain(first) == []
            publisher.publish(messages.event())
            assert [t for t, _ in drain(first)] == [b"event"]


def test_an_idle_daemon_greets_twenty_subscribers_each_once_within_100_ms(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, contextlib.ExitStack() as stack:
        publisher.publish(messages.state())
        sockets, waits = [], []
        for _ in range(20):
            start = time.monotonic()
            socket = stack.enter_context(subscribed(endpoint, b"state"))
            assert socket.poll(20_000)
            waits.append(time.monotonic() - start)
            sockets.append(socket)
        assert min(waits) < 0.1
        assert [len(drain(socket, 20)) for socket in sockets] == [1] * 20


def test_a_subscriber_to_results_alone_gets_no_state_and_all_its_results(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, subscribed(endpoint, b"result/gate", b"event") as socket:
        publisher.publish(messages.state())
        flowing(publisher, socket)
        for n in range(20):
            publisher.publish(messages.result("gate", n))
            publisher.publish(messages.result("yard", n))
        received = drain(socket)
        assert {topic for topic, _ in received} == {b"result/gate"}
        assert [msgpack.unpackb(p)["seq"] for _, p in received] == list(range(1, 21))


def test_unsubscribing_ends_the_flow_and_a_departure_disturbs_nobody(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, subscribed(endpoint, b"event") as stays:
        publisher.publish(messages.state())
        flowing(publisher, stays)
        with subscribed(endpoint, b"event") as leaves:
            flowing(publisher, leaves)
            leaves.setsockopt(zmq.UNSUBSCRIBE, b"event")

            def silent() -> bool:
                publisher.publish(messages.event())
                return not leaves.poll(50)

            wait_for(silent)
        drain(stays)
        for _ in range(10):
            publisher.publish(messages.event())
            publisher.serve()
        assert len(drain(stays)) == 10


def test_the_publisher_stamps_number_time_age_and_deadline(tmp_path: Path) -> None:
    with publishing(endpoint_in(tmp_path)) as publisher:
        before = time.time()
        sent = publisher.publish(messages.result(age_ms=20))
        assert (sent.v, sent.seq) == (1, 1)
        assert before <= sent.t_publish <= time.time()
        assert 20 <= sent.age_ms < 45 and sent.deadline_met
        late = publisher.publish(messages.result(age_ms=51))
        assert (late.seq, late.deadline_met) == (2, False)
        assert publisher.publish(messages.result("yard")).seq == 1
        assert (publisher.last_seq("result/gate"), publisher.last_seq("event")) == (2, 0)


def test_a_message_that_cannot_be_encoded_takes_no_number(tmp_path: Path) -> None:
    with publishing(endpoint_in(tmp_path)) as publisher:
        with pytest.raises(OverflowError):
            publisher.publish(messages.result(frame=1 << 80))
        assert publisher.publish(messages.result()).seq == 1


def test_four_threads_share_the_publisher_without_a_gap(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, subscribed(endpoint, b"") as socket:
        flowing(publisher, socket)

        def run(camera: str) -> None:
            for n in range(15):
                publisher.publish(messages.result(camera, n))

        threads = [threading.Thread(target=run, args=(f"cam{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        received = [(topic, msgpack.unpackb(payload)["seq"]) for topic, payload in drain(socket)]
        for n in range(4):
            assert [seq for topic, seq in received if topic == f"result/cam{n}".encode()] == list(range(1, 16))


def test_a_subscriber_that_does_not_read_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    message = messages.result(objects=200)
    with publishing(endpoint) as publisher:
        publisher.publish(messages.state())
        # In a process of its own, so that what it holds itself is not taken for the publisher's memory.
        command = [sys.executable, str(SUBSCRIBER), endpoint, "", "1000000", "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            try:
                assert program.stdout is not None and program.stdout.readline()
                program.send_signal(signal.SIGSTOP)
                for _ in range(2000):
                    publisher.publish(message)
                before, start = held_mb(), time.monotonic()
                for _ in range(10_000):
                    publisher.publish(message)
                assert time.monotonic() - start < 10 * PATIENCE  # it does not wait for the reader, who never reads
                # 10,000 messages of 17 kB are 170 MB; what is kept for it is the high-water mark, 64 of them.
                assert held_mb() - before < 2 * SEND_HIGH_WATER_MARK * len(msgpack.packb([0] * 17_000)) / 2**20
                assert publisher.last_seq("result/gate") == 12_000
            finally:
                program.kill()


def test_an_independent_program_reads_every_message_with_the_documented_keys(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher:
        publisher.publish(messages.state())
        command = [sys.executable, str(SUBSCRIBER), endpoint, "", "26"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            assert json.loads(program.stdout.readline())["topic"] == "state"  # the greeting: it is there
            for n in range(20):
                publisher.publish(messages.result("gate", n))
            publisher.publish(messages.status())
            publisher.publish(messages.decision())
            publisher.publish(messages.event())
            publisher.publish(messages.telemetry())
            publisher.publish(messages.state())
            lines = [json.loads(line) for line in program.stdout]
            assert program.wait(10) == 0
    by_topic: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_topic.setdefault(line["topic"], []).append(line["message"])
    assert set(by_topic) == {"result/gate", "status/gate", "decision", "event", "telemetry", "state"}
    results = by_topic["result/gate"]
    assert [message["seq"] for message in results] == list(range(1, 21))
    for message in results:
        assert set(message) == RESULT_KEYS
        assert set(message["latency_ms"]) == {"queue", "pre", "infer", "post"}
        assert set(message["ring"]) == {"name", "slot", "seq"}
        assert set(message["detections"][0]) == {"label", "class_id", "score", "box"}
        assert message["v"] == 1 and message["energy_mj"] is None
    assert by_topic["state"][0]["seq"] == 2


@pytest.mark.parametrize("kind", [b"\1result/h%d", b"\1\xff rubbish %d", b"\0result/h%d", b"\1zzz"])
def test_who_floods_it_with_subscriptions_is_cut_off_and_others_are_served(
    tmp_path: Path, kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher:
        publisher.publish(messages.state())
        with raw_peer(tmp_path / "results.ipc") as hostile, contextlib.suppress(OSError):
            for n in range(100_000):  # is cut off long before
                message = kind % n if b"%" in kind else kind
                hostile.sendall(bytes([0, len(message)]) + message)
            pytest.fail("it may go on forever")
        wait_for(lambda: "was cut off" in caplog.text)
        assert f"process {os.getpid()} of user {os.getuid()}" in caplog.text
        with subscribed(endpoint, b"state", b"result/gate") as honest:
            publisher.publish(messages.result("gate"))
            wait_for(lambda: honest.poll(10))
            assert honest.recv_multipart()[0] == b"state"

            def served_result() -> bool:
                publisher.publish(messages.result("gate"))
                return any(topic == b"result/gate" for topic, _ in drain(honest, 20))

            wait_for(served_result)


def test_a_thousand_subscriptions_of_one_program_are_served(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    topics = [b"result/c%d" % n for n in range(1000)]
    with publishing(endpoint) as publisher, subscribed(endpoint, *topics, b"event") as socket:
        flowing(publisher, socket)
        publisher.publish(messages.result("c999"))
        assert drain(socket)[-1][0] == b"result/c999"


def test_a_subscription_too_long_to_match_is_cut_off_and_others_live_on(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, subscribed(endpoint, b"event") as honest:
        with subscribed(endpoint, b"x" * 100_000, kind=zmq.SUB):
            flowing(publisher, honest)
        with subscribed(endpoint, kind=zmq.XSUB) as hostile:
            hostile.send_multipart([b"\7not a subscription", b"", b"\1"])
            flowing(publisher, honest)


def test_the_socket_is_for_owner_and_group_in_a_private_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with publishing(endpoint_in(directory)):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "results.ipc").stat().st_mode) == 0o660


def test_a_second_publisher_is_refused_naming_the_process_and_the_first_lives_on(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with publishing(endpoint) as publisher, subscribed(endpoint, b"event") as socket, zmq.Context() as context:
        flowing(publisher, socket)
        with pytest.raises(EdgedError, match=rf"another edged \(pid {os.getpid()}\) already serves"):
            Publisher(context, endpoint)
        publisher.publish(messages.event())
        assert len(drain(socket)) == 1
    with publishing(endpoint):
        pass  # closing released it


def test_after_a_kill_the_stale_socket_is_taken_over(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    code = (
        "import sys, time, zmq; from edged.bus.publisher import Publisher\n"
        "p = Publisher(zmq.Context(), sys.argv[1]); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, endpoint], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        with zmq.Context() as context, pytest.raises(EdgedError, match=rf"pid {process.pid}\)"):
            Publisher(context, endpoint)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert (tmp_path / "results.ipc").exists()
    with publishing(endpoint) as publisher, subscribed(endpoint, b"event") as socket:
        flowing(publisher, socket)


def test_an_unsafe_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with zmq.Context() as context, pytest.raises(EdgedError, match="not safe"):
        Publisher(context, endpoint_in(tmp_path))


def test_tcp_without_keys_is_refused() -> None:
    with zmq.Context() as context, pytest.raises(UsageError, match="CURVE"):
        Publisher(context, "tcp://127.0.0.1:5999")


def test_over_tcp_only_the_holder_of_a_good_key_is_let_in(tmp_path: Path) -> None:
    keys, clients = curve_keys(tmp_path)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        admission = Admission(context, ServerKeys(keys / "edged.key_secret", clients))
        stack.callback(admission.close)
        with served(Publisher(context, endpoint, admission)) as publisher, zmq.Context() as other:
            sockets = {}
            for name in ("good", "bad", "none"):
                sockets[name] = socket = stack.enter_context(other.socket(zmq.SUB))
                socket.linger = 0
                if name != "none":
                    CurveClient(keys / f"{name}.key_secret", keys / "edged.key").secure(socket)
                socket.subscribe(b"")
                socket.connect(endpoint)
            flowing(publisher, sockets["good"])
            publisher.publish(messages.result())
            assert len(drain(sockets["good"])) == 1
            assert drain(sockets["bad"]) == drain(sockets["none"]) == []
            for socket in sockets.values():
                socket.close(linger=0)
