"""What the tests of the systemd lane share: prepared machines, and the installed service in them."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Machine, copy_checkout

MACHINES = ("jammy", "noble")
INSTALL = "cd /srv/edged && scripts/install --wheels /srv/wheels"
INSTALL_S = 400.0
CONFIG = """
bundle = "/var/lib/edged/bundles/demo"
[[camera]]
name = "gate"
source = "test://7?width=320&height=240&fps=10"
"""

CACHE = Path(os.environ.get("EDGED_SYSTEMDCACHE", Path.home() / ".cache/edged/systemd"))


@contextlib.contextmanager
def booted(name: str, source: Path) -> Iterator[Machine]:
    """One of MACHINES, running; `source` becomes its copy of the project. Skips the test where there is none."""
    if os.geteuid() != 0 or not (CACHE / "key").exists():
        pytest.skip("needs root and prepared machines: scripts/test-systemd")
    with Machine(CACHE / name, CACHE / "wheels", copy_checkout(source)) as machine:
        yield machine


def eventually(what: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def state(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("edged status --json"))
    return found


def makes_results(machine: Machine) -> None:
    """Wait until the first camera has more results than now."""
    before = state(machine)["cameras"][0]["results"]
    eventually(lambda: state(machine)["cameras"][0]["results"] > before)


def main_pid(machine: Machine) -> str:
    return machine.show("MainPID")["MainPID"]


def break_in(machine: Machine) -> None:
    """Lay the faults into the installed environment and start again."""
    site = machine.run("echo /opt/edged/current/lib/python3*/site-packages").strip()
    machine.run(
        f"cp /srv/edged/tests/systemd/faults.py {site}/edged_faults.py;"
        f"echo 'import edged_faults' >{site}/edged_faults.pth"
    )
    machine.run("systemctl reset-failed edged; systemctl restart edged")


def drop_in(machine: Machine, text: str) -> None:
    machine.write("/run/systemd/system/edged.service.d/test.conf", f"[Service]\n{text}\n")
    machine.run("systemctl daemon-reload; systemctl reset-failed edged; systemctl restart edged")
