"""A small machine with a real systemd as PID 1, in namespaces of its own (tests/systemd/boot). Needs root."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
BOOT_S = 30.0
STOP_S = 15.0


PARTS = (
    "edged", "calibration", "systemd", "scripts", "tests", "docs", "examples", "prometheus", "grafana",
    "pyproject.toml", "README.md", "LICENSE", "Containerfile",
)  # fmt: skip


def copy_checkout(into: Path) -> Path:
    """What scripts/install needs of this checkout, to be changed by a test."""
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copy(ROOT / name, into / name)
    return into


class Machine:
    """`with Machine(root, wheels) as machine:`; running when entered, without a trace when left."""

    def __init__(self, root: Path, wheels: Path, source: Path = ROOT) -> None:
        self.root = root
        self.source = source
        self.name = f"edged-lane-{os.getpid()}-{root.name or 'host'}"
        self._log = Path(f"/tmp/{self.name}.log")
        command = [str(ROOT / "tests/systemd/boot"), self.name, str(root), str(source), str(wheels)]
        with self._log.open("wb") as log:
            self._outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = 0

    def __enter__(self) -> Machine:
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end and self._outer.poll() is None:
            self.pid = self._inner()
            if self.pid and self.run("systemctl is-system-running", check=False).strip() == "running":
                return self
            time.sleep(0.05)
        output = self._log.read_text()
        failed = self.run("systemctl --failed --no-pager", check=False) if self.pid else ""
        self.__exit__(None, None, None)
        raise AssertionError(f"systemd did not come up:\n{output}\n{failed}")

    def _inner(self) -> int:
        """The host's number of the machine's PID 1."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid and self._outer.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGRTMIN + 4)  # systemd powers off
        try:
            self._outer.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._outer.kill()  # its child dies with it, and with that the whole machine
            self._outer.wait()
        self._log.unlink()
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        end = time.monotonic() + STOP_S
        left = [*Path("/sys/fs/cgroup").glob(f"*/{self.name}"), *Path("/sys/fs/cgroup").glob(self.name)]
        for group in left:
            for directory in sorted((path for path in (group, *group.rglob("*")) if path.is_dir()), reverse=True):
                while directory.exists() and time.monotonic() < end:
                    try:
                        directory.rmdir()
                    except OSError:
                        time.sleep(0.05)  # its last process is still being reaped

    # ---- inside ------------------------------------------------------------------------------------------------

    def process(self, script: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A shell script inside, as its root."""
        command = ["nsenter", "-t", str(self.pid), "-a", "--", "/usr/bin/env", "-i", *_ENVIRONMENT, "sh", "-ec", script]
        return subprocess.run(command, text=True, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL)

    def run(self, script: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        done = self.process(script, timeout_s)
        if check and done.returncode:
            raise AssertionError(f"{script!r} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def write(self, path: str, text: str) -> None:
        command = [
            "nsenter",
            "-t",
            str(self.pid),
            "-a",
            "--",
            "sh",
            "-ec",
            f'mkdir -p "$(dirname {path})"; cat >{path}',
        ]
        subprocess.run(command, input=text, text=True, check=True, timeout=10)

    def show(self, *properties: str, unit: str = "edged") -> dict[str, str]:
        shown = self.run(f"systemctl show {unit} " + " ".join(f"-p {name}" for name in properties))
        return dict(line.split("=", 1) for line in shown.splitlines())

    def until(self, timeout_s: float = 30.0, unit: str = "edged", **wanted: str) -> dict[str, str]:
        """Wait until the unit shows these properties."""
        end = time.monotonic() + timeout_s
        while (found := self.show(*wanted, unit=unit)) != wanted:
            if time.monotonic() > end:
                raise AssertionError(f"{unit} shows {found}, not {wanted}:\n" + self.journal_text())
            time.sleep(0.1)
        return found

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        self.run("journalctl --sync")
        rows = self.run("journalctl -o json --all --no-pager " + " ".join(matches)).splitlines()
        return [json.loads(row) for row in rows]

    def journal_text(self) -> str:
        return self.run("journalctl -o short-monotonic --no-pager -n 60")


_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root")
