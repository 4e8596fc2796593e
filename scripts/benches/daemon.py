"""A real daemon in a process of its own, for a benchmark to watch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import edged
from edged.bus.control_client import request
from edged.errors import EdgedError

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
START_S = 60.0


class RunningDaemon:
    """`edged run` on these cameras (name -> source), until the context ends. `extra`: more lines of [limits]."""

    def __init__(
        self,
        cameras: dict[str, str],
        deadline_ms: float = 1000.0,
        fps: float | None = None,
        extra: str = "",
        bundle: Path = BUNDLE,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="edged-bench-"))
        self.results = f"ipc://{self.directory}/results.ipc"
        self.control = f"ipc://{self.directory}/control.ipc"
        lines = [f'bundle = "{bundle}"', "[limits]", f"deadline_ms = {deadline_ms}", extra]
        for name, source in cameras.items():
            lines += ["[[camera]]", f'name = "{name}"', f'source = "{source}"']
            lines += [f"fps = {fps}"] if fps else []
        config = self.directory / "edged.toml"
        config.write_text("\n".join(lines) + "\n")
        self._log = (self.directory / "log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edged", "run", "-c", str(config)],
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.directory)},
            stderr=self._log,
        )
        self.pid = self._process.pid

    def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        reply = request(op, self.control, 5.0, None, **arguments)
        if not reply["ok"]:
            raise EdgedError(reply["error"])
        return reply

    def counted(self) -> tuple[int, dict[str, int]]:
        """Results so far, and drops by cause, of all cameras; as of the last second."""
        results, drops = 0, dict[str, int]()
        for camera in self.ask("snapshot")["state"]["cameras"]:
            results += camera["results"]
            for cause, n in camera["drops"].items():
                drops[cause] = drops.get(cause, 0) + n
        return results, drops

    def wait_live(self, cameras: Sequence[str]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise EdgedError(f"the daemon ended: {(self.directory / 'log').read_text()[-2000:]}")
            try:
                state = self.ask("snapshot")["state"]
            except EdgedError:
                continue
            if state and sum(c["state"] == "live" and c["results"] > 0 for c in state["cameras"]) == len(cameras):
                return
            time.sleep(0.1)
        raise EdgedError(f"not all cameras became live within {START_S:.0f} s")

    def __enter__(self) -> RunningDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
