"""The watchdog follows progress: real notify sockets, and threads that really hang."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic_ns, perf_counter_ns

import pytest

from edged import clock
from edged.health import Health, Heartbeats, Notifier
from edged.worker import Worker
from tests.support.bus import PATIENCE
from tests.support.loop import built
from tests.support.models import center_model

S = clock.NS_PER_S
Notify = Callable[[Mapping[str, str]], Notifier]


class Manager:
    """The service manager's end of the notify socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(0.2)
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}

    def heard(self) -> list[str]:
        """All datagrams that have arrived; the sender is this process, so there is nothing to wait for."""
        self.socket.setblocking(False)
        told = []
        while True:
            try:
                told.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return told


@pytest.fixture
def notify() -> Iterator[Notify]:
    """Makes notifiers, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda environ: stack.enter_context(contextlib.closing(Notifier(environ)))


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    it = Manager(str(tmp_path / "notify") if request.param == "path" else f"@edged-test-{os.getpid()}")
    yield it
    it.socket.close()


def test_every_message_on_a_real_socket(notify: Notify, manager: Manager) -> None:
    notifier = notify(manager.environ)
    assert notifier.watchdog_s == 2.0
    before_us = monotonic_ns() // 1000
    notifier.extend_timeout(1.5)
    notifier.ready("engine=int8-sparse cameras=4")
    notifier.status("running")
    notifier.watchdog()
    notifier.reloading()
    notifier.ready()
    notifier.stopping("draining")
    told = manager.heard()
    assert told[:4] == [
        "EXTEND_TIMEOUT_USEC=1500000",
        "READY=1\nSTATUS=engine=int8-sparse cameras=4",
        "STATUS=running",
        "WATCHDOG=1",
    ]
    reloading = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told[4])
    assert reloading and before_us <= int(reloading[1]) <= monotonic_ns() // 1000
    assert told[5:] == ["READY=1", "STOPPING=1\nSTATUS=draining"]


def test_a_status_cannot_smuggle_in_another_message(notify: Notify, manager: Manager) -> None:
    notify(manager.environ).status("camera 'x\nMAINPID=1\r\nREADY=1' is slow")
    assert manager.heard() == ["STATUS=camera 'x MAINPID=1 READY=1' is slow"]


def test_without_a_manager_nothing_happens(notify: Notify) -> None:
    notifier = notify({})
    notifier.ready("x")
    notifier.watchdog()
    assert notifier.watchdog_s is None


def test_a_manager_that_is_gone_is_reported_once(
    notify: Notify, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = notify({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            notifier.watchdog()
    assert len(caplog.records) == 1 and "does not take notifications" in caplog.text


def test_a_full_socket_holds_the_caller_for_a_bounded_time(
    notify: Notify, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = notify(manager.environ)
    for _ in range(10_000):  # nobody reads: the socket is full long before
        begin = perf_counter_ns()
        notifier.watchdog()
        if caplog.records:
            break
    assert "does not take notifications: timed out" in caplog.text
    assert (perf_counter_ns() - begin) / S < 2.0 * PATIENCE


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_this_process_only(notify: Notify, environ: dict[str, str], expected: float | None) -> None:
    assert notify(environ).watchdog_s == expected


def test_a_socket_that_is_no_unix_socket_is_refused(notify: Notify, caplog: pytest.LogCaptureFixture) -> None:
    notify({"NOTIFY_SOCKET": "vsock:2:1234"}).ready()
    assert "neither a path nor an abstract socket" in caplog.text


def test_a_stage_is_stuck_only_with_work_and_only_beyond_its_limit() -> None:
    beats = Heartbeats({"engine": 2.0, "publisher": 5.0})
    now_ns = clock.mono_ns()
    assert beats.check(now_ns + 3600 * S).healthy, "every stage begins idle"
    beats.beat("engine")
    report = beats.check(clock.mono_ns() + S)
    assert report.healthy and 1.0 <= report.stages["engine"] < 2.0
    report = beats.check(clock.mono_ns() + 3 * S)
    assert not report.healthy and report.stuck == ("engine",) and report.stages["engine"] >= 3.0
    beats.idle("engine")
    assert beats.check(clock.mono_ns() + 3600 * S).healthy


def test_an_unknown_stage_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Heartbeats().beat("nobody")


def test_a_beat_costs_next_to_nothing() -> None:
    beats = Heartbeats({"engine": 1.0})
    best = min(_timed(beats) for _ in range(20))
    assert best < 20_000, f"{best} ns for ten beats"


def _timed(beats: Heartbeats) -> int:
    begin = perf_counter_ns()
    for _ in range(10):
        beats.beat("engine")
    return perf_counter_ns() - begin


def test_a_hung_thread_starves_the_watchdog_and_leaves_its_stack_once_per_hang(
    notify: Notify, manager: Manager, tmp_path: Path
) -> None:
    beats = Heartbeats({"engine": 1.0, "housekeeping": 1.0})
    go_on, at_work = threading.Event(), threading.Event()

    def hang_in_the_driver() -> None:
        beats.beat("engine")
        at_work.set()
        go_on.wait(30)

    thread = threading.Thread(target=hang_in_the_driver, name="engine")
    thread.start()
    assert at_work.wait(5)
    try:
        with (tmp_path / "stderr").open("w+") as stderr:
            health = Health(beats, notify(manager.environ), stderr)
            now_ns = clock.mono_ns()
            assert health.tick(now_ns).healthy
            assert manager.heard() == ["WATCHDOG=1"]
            for late_s in (2, 2.5, 3):
                assert health.tick(now_ns + int(late_s * S)).stuck == ("engine",)
            assert manager.heard() == ["STATUS=stuck: engine has work but made no progress for 2.0 s"]
            dumped = (tmp_path / "stderr").read_text()
            assert dumped.startswith("edged: engine has work but made no progress for 2.0 s; the stacks of all threads")
            assert dumped.count("hang_in_the_driver") == 1

            beats.beat("engine")  # it recovered, then hangs again: a new hang
            assert health.tick(clock.mono_ns()).healthy
            assert manager.heard() == ["WATCHDOG=1"]
            assert not health.tick(clock.mono_ns() + 2 * S).healthy
            assert (tmp_path / "stderr").read_text().count("hang_in_the_driver") == 2
    finally:
        go_on.set()
        thread.join(5)


def test_without_a_watchdog_health_is_still_reported(notify: Notify, manager: Manager) -> None:
    beats = Heartbeats({"engine": 1.0})
    health = Health(beats, notify({"NOTIFY_SOCKET": manager.environ["NOTIFY_SOCKET"]}))
    assert health.tick(clock.mono_ns()).healthy and manager.heard() == []


def test_a_thread_that_has_ended_ends_the_feeding_and_is_named(
    notify: Notify, manager: Manager, tmp_path: Path
) -> None:
    beats = Heartbeats({"engine": 1.0})
    worker = Worker("control", lambda: None)
    beats.watch(worker)
    with (tmp_path / "stderr").open("w+") as stderr:
        health = Health(beats, notify(manager.environ), stderr)
        assert health.tick(clock.mono_ns()).healthy
        worker._run = lambda: None  # type: ignore[method-assign] # no exception can: this stands for what cannot be foreseen
        worker._thread = threading.Thread(target=worker._run)
        worker.start()
        worker._thread.join(5)
        report = health.tick(clock.mono_ns())
    assert not report.healthy and report.ended == ("control",)
    assert manager.heard() == ["WATCHDOG=1", "STATUS=stuck: the thread control has ended"]
    assert (
        (tmp_path / "stderr").read_text().startswith("edged: the thread control has ended; the stacks of all threads")
    )


def test_the_threads_of_a_loop_and_of_what_surrounds_it_are_watched(tmp_path: Path) -> None:
    recorder = Worker("recorder", lambda: None)
    with built(tmp_path, {"only": center_model(-100.0)}, workers=(recorder,)) as loop:
        watched = {worker.name for worker in loop.heartbeats._workers}
    assert watched == {"power.telemetry", "connections", "variants", "recorder"}
