"""Faults of the installed daemon, on signals: a test lays this file into its environment, with a .pth that imports it.

USR1: the engine hangs in its next batch. USR2: memory grows without end. RTMIN: what the sandbox lets through is tried,
and told on stderr as one line of JSON. RTMIN+1: the thread that serves requests has an exception with the next one.
RTMIN+2: it ends with the next one.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable


def engine_that_hangs(*_: object) -> None:
    threading.Event().wait()


def hang(*_: object) -> None:
    from edged.engines.pool import Pool

    Pool.submit = engine_that_hangs  # type: ignore[assignment, method-assign]


def leak(*_: object) -> None:
    kept = []
    while True:
        kept.append(bytearray(b"x" * (16 << 20)))


def fail(*_: object) -> None:
    from edged.bus.control import ControlServer

    served = ControlServer._serve_one

    def fail_once(server: ControlServer) -> None:
        ControlServer._serve_one = served  # type: ignore[method-assign]
        raise ZeroDivisionError

    ControlServer._serve_one = fail_once  # type: ignore[assignment, method-assign]


def end(*_: object) -> None:
    from edged.worker import Worker

    def report_fails(worker: Worker, error: BaseException) -> None:
        raise ZeroDivisionError

    Worker._report = report_fails  # type: ignore[assignment, method-assign]
    fail()


def _write(path: str) -> Callable[[], object]:
    return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def _read(path: str) -> Callable[[], object]:
    return lambda: os.close(os.open(path, os.O_RDONLY))


def _open(path: str) -> Callable[[], object]:
    return lambda: os.close(os.open(path, os.O_RDWR))


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 1).close()


TRIED: dict[str, Callable[[], object]] = {
    "write /etc": _write("/etc/edged/edged.toml"),
    "write /opt": _write("/opt/edged/x"),
    "write /sys": _write("/sys/kernel/mm/transparent_hugepage/enabled"),
    "write /proc/sys": _write("/proc/sys/kernel/hostname"),
    "list /root": lambda: os.listdir("/root"),
    "read shadow": _read("/etc/shadow"),
    "read the kept password": lambda: os.listdir("/etc/edged/credentials"),
    "open fuse": _open("/dev/fuse"),
    "open video0": _open("/dev/video0"),
    "open nvmap": _open("/dev/nvmap"),
    "raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "namespace": _unshare,
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "set the clock": lambda: __import__("time").clock_settime(0, 0),
    "become root": lambda: os.setuid(0),
    "tcp": _tcp,
    "jtop": lambda: socket.socket(socket.AF_UNIX).connect("/run/jtop.sock"),
    "write state": _write("/var/lib/edged/probe"),
    "write cache": _write("/var/cache/edged/probe"),
    "shared memory": _write("/dev/shm/edged-probe"),
    "own affinity": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "read meminfo": _read("/proc/meminfo"),
    "read a sensor's place": lambda: os.listdir("/sys/class"),
}


def probe(*_: object) -> None:
    found = {}
    for name, attempt in TRIED.items():
        try:
            attempt()
            found[name] = "ok"
        except OSError as error:
            found[name] = error.strerror or type(error).__name__
    print("probe " + json.dumps(found), file=sys.stderr, flush=True)


FAULTS = {
    signal.SIGUSR1: hang,
    signal.SIGUSR2: leak,
    signal.SIGRTMIN: probe,
    signal.SIGRTMIN + 1: fail,
    signal.SIGRTMIN + 2: end,
}
for number, fault in FAULTS.items():
    signal.signal(number, fault)
