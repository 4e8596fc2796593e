"""The installed daemon under attack, under a real systemd: scripts/test-systemd prepares the machines and runs this.

The unit's watchdog is set to five seconds: who starves it for longer has the daemon restarted, and that is what is
looked at. The tests of a machine build on one another, in the order they stand here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.support.lane import (
    CONFIG,
    INSTALL,
    INSTALL_S,
    MACHINES,
    booted,
    break_in,
    drop_in,
    eventually,
    main_pid,
    makes_results,
)
from tests.support.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GROWTH_MB = 64.0
WATCHDOG = "WatchdogSec=5"
FETCH = """/opt/edged/current/bin/python -c '
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9108/metrics").read().decode())'
"""
PROGRAMS = "/usr/local/lib/lane"
DEEP = ".".join(["a"] * 500) + " = 1\n"


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(request.param, tmp_path_factory.mktemp("source")) as it:
        it.write("/etc/edged/edged.toml", CONFIG)
        it.run(INSTALL, timeout_s=INSTALL_S)
        it.run("useradd friend; usermod -aG edged friend; useradd stranger")
        it.run(f"mkdir {PROGRAMS}; cp -r /srv/edged/tests {PROGRAMS}; chmod -R a+rX {PROGRAMS}")
        yield it


def memory_mb(machine: Machine, pid: str, key: str) -> float:
    return int(machine.run(f"grep {key}: /proc/{pid}/status").split()[1]) / 1024


def fed(machine: Machine) -> int:
    """When the watchdog was fed last, microseconds."""
    return int(machine.show("WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"])


@contextlib.contextmanager
def unharmed(machine: Machine) -> Iterator[None]:
    """Whatever happens inside: the same process gives results afterwards, its watchdog is fed, and it has not grown."""
    makes_results(machine)
    pid = main_pid(machine)
    machine.run(f"echo 5 >/proc/{pid}/clear_refs")  # VmHWM is from here on
    before_mb = memory_mb(machine, pid, "VmRSS")
    yield
    at = fed(machine)
    eventually(lambda: fed(machine) > at)
    eventually(lambda: "healthy" in machine.run("su friend -s /bin/sh -c 'edged status'", check=False))
    makes_results(machine)
    assert main_pid(machine) == pid and machine.show("NRestarts")["NRestarts"] == "0", machine.journal_text()
    growth_mb = memory_mb(machine, pid, "VmHWM") - before_mb
    assert growth_mb < GROWTH_MB, f"it grew by {growth_mb:.0f} MB"
    assert not any("Traceback" in str(row["MESSAGE"]) for row in machine.journal(f"_PID={pid}"))


def attack(machine: Machine, name: str) -> None:
    program = f"/opt/edged/current/bin/python -m tests.systemd.attacks {name} /run/edged"
    machine.run(f"cd {PROGRAMS}; su friend -s /bin/sh -c '{program}'", timeout_s=120)


def test_more_connections_than_descriptors(machine: Machine) -> None:
    drop_in(machine, f"{WATCHDOG}\nLimitNOFILE=1024")
    with unharmed(machine):
        attack(machine, "connections")
    assert any("as many as it may" in str(row["MESSAGE"]) for row in machine.journal("-u edged"))
    drop_in(machine, WATCHDOG)
    soft = machine.run(f"grep 'open files' /proc/{main_pid(machine)}/limits").split()[3]
    assert int(soft) > 4096, "as many as the unit asks for, or as this machine allows"


def test_a_flood_of_subscriptions(machine: Machine) -> None:
    with unharmed(machine):
        attack(machine, "subscriptions")
    assert any("was cut off from" in str(row["MESSAGE"]) for row in machine.journal("-u edged"))


def test_files_that_no_reader_expects(machine: Machine) -> None:
    with unharmed(machine):
        machine.write("/etc/edged/edged.d/40-deep.toml", DEEP)
        assert machine.process("systemctl reload edged").returncode != 0
        machine.run("mv /etc/edged/edged.d/40-deep.toml \"$(printf '/etc/edged/edged.d/caf\\351.toml')\"")
        assert machine.process("systemctl reload edged").returncode != 0
        machine.run("systemctl kill -s HUP --kill-who=main edged")
        at = fed(machine)
        eventually(lambda: fed(machine) > at)
        machine.run("rm /etc/edged/edged.d/caf*; systemctl reload edged")
    rows = [str(row["MESSAGE"]) for row in machine.journal("-u edged")]
    assert sum("reload refused, the old configuration stays: " in row for row in rows) >= 3, rows[-10:]


def test_an_exception_in_a_thread_does_not_end_it(machine: Machine) -> None:
    break_in(machine)
    pid = main_pid(machine)
    makes_results(machine)
    machine.run("systemctl kill -s RTMIN+1 --kill-who=main edged")
    makes_results(machine)  # which asks it
    rows = [str(row["MESSAGE"]) for row in machine.journal("-u edged")]
    assert sum("the thread control had ZeroDivisionError and continues" in row for row in rows) == 1, rows[-10:]
    assert main_pid(machine) == pid


def test_a_thread_that_ends_all_the_same_has_the_daemon_restarted(machine: Machine) -> None:
    pid = main_pid(machine)
    machine.run("systemctl kill -s RTMIN+2 --kill-who=main edged")
    machine.process("edged status")
    machine.until(NRestarts="1", SubState="running")
    assert main_pid(machine) != pid
    rows = "\n".join(str(row["MESSAGE"]) for row in machine.journal("-u edged"))
    assert "the thread control has ended; the stacks of all threads follow" in rows
    makes_results(machine)


def test_foreign_files_by_the_names_of_rings(machine: Machine) -> None:
    rings = machine.run("cd /dev/shm; ls -d edged-*").split()
    assert rings
    machine.run("systemctl stop edged")
    for name in (*rings, "edged-gate", "edged-00000000-gate"):
        machine.run(f"su stranger -s /bin/sh -c 'umask 077; echo mine >/dev/shm/{name}'")
    machine.run("systemctl start edged")
    makes_results(machine)
    for name in rings:
        assert machine.run(f"stat -c %U /dev/shm/{name}; cat /dev/shm/{name}") == "stranger\nmine\n"
        machine.run(f"rm /dev/shm/{name}")


def test_the_gateway_runs_in_its_sandbox(machine: Machine) -> None:
    machine.run("systemctl start edged-gateway")
    eventually(lambda: 'edged_camera_results_total{camera="gate"}' in machine.run(FETCH, check=False))
    shown = machine.show("ActiveState", "NRestarts", "MainPID", unit="edged-gateway")
    assert shown["ActiveState"] == "active" and shown["NRestarts"] == "0"
    status = machine.run(f"grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/{shown['MainPID']}/status")
    assert re.search(r"Uid:\s+(?!0\b)\d+", status) and re.search(r"CapEff:\s+0{16}", status)
    assert re.search(r"NoNewPrivs:\s+1", status) and re.search(r"Seccomp:\s+2", status)
    machine.run("systemctl restart edged")
    eventually(lambda: "edged_up 1.0" in machine.run(FETCH, check=False))
    machine.run("systemctl stop edged-gateway")
    assert machine.show("Result", unit="edged-gateway")["Result"] == "success"
