"""A real `edged run` in a process of its own, on a bundle made for the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edged.bus.control_client import request
from edged.client import Client
from edged.errors import EdgedError

START_S = 100.0
STOP_S = 60.0


def write_config(
    directory: Path, bundle: Path, cameras: Mapping[str, str], extra: str = "", name: str = "e.toml"
) -> Path:
    """`cameras`: name -> source, or name -> source and more lines of TOML."""
    lines = [f'bundle = "{bundle}"', extra]
    for camera, source in cameras.items():
        first, *more = source.splitlines()
        lines += ["[[camera]]", f'name = "{camera}"', f'source = "{first}"', *more]
    path = directory / name
    path.write_text("\n".join(lines) + "\n")
    return path


class RunningDaemon:
    """`with RunningDaemon(config, directory) as daemon:`; READY and with all variants loaded when entered, ended when
    left. `command`: in the place of `edged run`."""

    early = False
    """Entered as soon as it is READY, with one variant."""

    def __init__(self, config: Path, directory: Path, command: Sequence[str] | None = None, **environment: str) -> None:
        self.directory = directory
        self.results = f"ipc://{directory}/results.ipc"
        self.control = f"ipc://{directory}/control.ipc"
        self._log = (directory / "log").open("w")
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "edged", "run", "-c", str(config)],
            env={**os.environ, "RUNTIME_DIRECTORY": str(directory), **environment},
            stderr=self._log,
            stdout=self._log,
        )

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        return request(op, self.control, 30.0, None, **arguments)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.ask("snapshot")["state"]
        return state

    def camera(self, name: str) -> dict[str, Any]:
        return next(camera for camera in self.state()["cameras"] if camera["camera"] == name)

    def client(self, *topics: str) -> Client:
        return Client(self.results, topics or ("",), timeout_s=60.0)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_S)

    def __enter__(self) -> RunningDaemon:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log}")
            try:
                state = self.ask("snapshot")["state"]
                if state is not None and (self.early or _loaded(state)):
                    return self
            except EdgedError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the daemon did not come up:\n{self.log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()


def _loaded(state: dict[str, Any]) -> bool:
    return all(variant["resident"] or variant["refused"] is not None for variant in state["variants"])


class EarlyDaemon(RunningDaemon):
    early = True
