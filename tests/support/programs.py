"""Servers of Debian that tests run against; fetched where they are missing and root may fetch them."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pytest

from tests.support.bus import free_port, wait_for

Server = TypeVar("Server", bound="LocalServer")


@functools.cache
def program(name: str, package: str) -> str:
    """Its path. Skips the test, with one sentence, where it cannot be had."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    if shutil.which(name, path=path) is None and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        wait = ["-o", "DPkg::Lock::Timeout=120"]  # other tests may be at it
        subprocess.run(["apt-get", "-qq", *wait, "update"], timeout=120, check=False, **quiet)  # type: ignore[call-overload]
        command = ["apt-get", "-qq", *wait, "install", "-y", "--no-install-recommends", package]
        subprocess.run(command, timeout=200, check=False, **quiet)  # type: ignore[call-overload]
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not there: apt-get install {package}")
    return found


class LocalServer:
    """A program that listens on a port of its own and is told the rest by a file; `with` starts it and ends it. It may
    be killed, stopped and started again, with the same port and file."""

    def __init__(self, name: str, directory: Path) -> None:
        """Who inherits writes `config` before the start."""
        self._program = program(name, name)
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        self.config, self._log = directory / f"{name}.conf", directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self.config)], stdout=log, stderr=log)
        wait_for(self._listens, 20)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait(60)

    def __enter__(self: Server) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
