"""The installed service under a real systemd, in two userlands: scripts/test-systemd prepares them and runs this.

The tests of a machine build on one another, in the order they stand here: installed, tried, upgraded, removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

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
    state,
)
from tests.support.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PASSWORD = "s3cret-p@ss"
EXPOSURE = 1.6
FILES = "find / -xdev \\( -path /srv -o -path /tmp \\) -prune -o -print"

YARD = '[[camera]]\nname = "yard"\nsource = "test://8?width=320&height=240&fps=5"\n'


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(request.param, tmp_path_factory.mktemp("source")) as it:
        yield it


def files(machine: Machine) -> set[str]:
    """What lies in the machine, without what anything that runs leaves behind."""
    found = set(machine.run(FILES).splitlines())
    noise = re.compile(
        r"/var/(log|tmp|lib/systemd/(catalog|random-seed|timers|rfkill))|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|.*/__pycache__|/var/lib/private|/etc/\.pwd\.lock"
    )
    return {path for path in found if not noise.match(path)}


@pytest.fixture(scope="module")
def before(machine: Machine) -> tuple[set[str], str]:
    """The machine as it was before anything was installed: its files, its users and groups."""
    return files(machine), machine.run("cat /etc/passwd /etc/group")


def test_installed_it_runs(machine: Machine, before: tuple[set[str], str]) -> None:
    machine.write("/etc/edged/edged.toml", CONFIG)  # a configuration that is there is not overwritten
    message = machine.run(INSTALL, timeout_s=INSTALL_S)
    assert "is yours and stays as it is" in message and "edged runs release" in message
    assert machine.run("cat /etc/edged/edged.toml") == CONFIG
    shown = machine.show("ActiveState", "SubState", "Type", "User", "StatusText", "NRestarts", "UnitFileState")
    assert shown["ActiveState"] == "active" and shown["SubState"] == "running" and shown["Type"] == "notify"
    assert shown["User"] == "edged" and shown["NRestarts"] == "0" and shown["UnitFileState"] == "enabled"
    assert "fp16, int8-sparse on cpu" in shown["StatusText"]
    eventually(lambda: state(machine)["cameras"][0]["results"] > 5)


def test_installed_again_nothing_changes(machine: Machine, before: tuple[set[str], str]) -> None:
    there, pid = files(machine), main_pid(machine)
    message = machine.run(INSTALL, timeout_s=INSTALL_S)
    assert "is there already" in message and "nothing to do" in message
    assert files(machine) == there and main_pid(machine) == pid
    assert "would" not in message
    planned = machine.run(f"{INSTALL} --dry-run")
    assert files(machine) == there and "would" in planned


def test_the_systems_own_opencv_tensorrt_and_numpy_stay(machine: Machine) -> None:
    """JetPack 6: OpenCV outside of pip's sight, built for NumPy 1, which a NumPy 2 would break."""
    script = "import cv2, numpy, sys; print(cv2.__file__, numpy.__version__)"
    where, numpy_version = machine.run(f"/opt/edged/current/bin/python -I -c '{script}'").split()
    if machine.root.name == "jammy":
        assert where.startswith("/usr/lib/python3/dist-packages/") and numpy_version.startswith("1.")
        assert "10.3.0" in machine.run(
            "/opt/edged/current/bin/python -I -c 'import tensorrt; print(tensorrt.__version__)'"
        )
    else:
        assert where.startswith("/opt/edged/")


def test_the_units_are_sound_and_little_exposed(machine: Machine) -> None:
    for unit in (
        "edged.service",
        "edged-gateway.service",
        "edged-build.service",
        "edged-clocks.service",
        "edged-clocks.socket",
    ):
        done = machine.process(f"systemd-analyze verify --man=no /usr/local/lib/systemd/system/{unit}")
        assert done.returncode == 0 and not done.stderr, done.stderr
    for unit in ("edged", "edged-gateway"):
        verdict = machine.run(f"systemd-analyze security --no-pager {unit}.service").splitlines()[-1]
        found = re.search(rf"{unit}\.service: (\d+\.\d+)", verdict)
        assert found and float(found[1]) <= EXPOSURE, verdict
    # No TensorRT here: the build is skipped, and the daemon starts without it.
    assert machine.show("ConditionResult", "ActiveState", unit="edged-build")["ConditionResult"] == "no"


def test_members_of_the_group_may_subscribe_and_others_may_not(machine: Machine) -> None:
    machine.run("useradd friend; usermod -aG edged friend; useradd stranger")
    try:
        assert "healthy" in machine.run("su friend -s /bin/sh -c 'edged status'")
        assert "gate #" in machine.run("su friend -s /bin/sh -c 'edged watch result --count 1'")
        done = machine.process("su stranger -s /bin/sh -c 'edged status'")
        assert done.returncode == 1 and "hint" in done.stderr and "Traceback" not in done.stderr
    finally:
        machine.run("userdel friend; userdel stranger; rm -rf /home/friend /home/stranger /var/mail/friend")


def test_a_good_reload_is_done_when_it_returns(machine: Machine) -> None:
    pid = main_pid(machine)
    machine.write("/etc/edged/edged.d/10-yard.toml", YARD)
    machine.run("chgrp edged /etc/edged/edged.d/10-yard.toml; chmod 640 /etc/edged/edged.d/10-yard.toml")
    machine.run("systemctl reload edged")
    assert any("camera yard: added" in row["MESSAGE"] for row in machine.journal("-u edged"))
    eventually(lambda: [c["camera"] for c in state(machine)["cameras"]] == ["gate", "yard"])
    assert main_pid(machine) == pid and machine.show("ActiveState")["ActiveState"] == "active"


def test_a_bad_reload_fails_and_changes_nothing(machine: Machine) -> None:
    pid = main_pid(machine)
    machine.write("/etc/edged/edged.toml", CONFIG.replace("fps=10", "fps=-1"))
    machine.write("/etc/edged/edged.d/10-yard.toml", YARD + "weigth = 2\n")
    done = machine.process("systemctl reload edged")
    assert done.returncode != 0
    rows = [row["MESSAGE"] for row in machine.journal("-u edged")]
    assert any("weigth is not a known key" in row for row in rows) and "  hint: did you mean weight?" in rows, rows
    assert main_pid(machine) == pid and machine.show("ActiveState", "SubState") == {
        "ActiveState": "active",
        "SubState": "running",
    }
    machine.write("/etc/edged/edged.toml", CONFIG)
    machine.write("/etc/edged/edged.d/10-yard.toml", YARD)
    machine.run("systemctl reload edged")


def test_the_journal_has_fields_to_filter_by(machine: Machine) -> None:
    rows = machine.journal("EDGED_CAMERA=gate")
    assert any(row["MESSAGE"].startswith("camera gate is live") for row in rows)
    assert all(row["_SYSTEMD_UNIT"] == "edged.service" and row["SYSLOG_IDENTIFIER"] == "edged" for row in rows)
    assert machine.journal("EDGED_VARIANT=fp16") and not machine.journal("EDGED_CAMERA=nobody")
    # In one machine through systemd-python, in the other by the native protocol: large entries and tracebacks too.
    code = (
        "import logging\\nfrom edged import journal\\nsend = journal._open_sender()\\nprint(type(send).__name__)\\n"
        'handler = journal.JournalHandler(send, __import__("sys").stderr)\\n'
        "logging.getLogger().addHandler(handler)\\n"
        'logging.error("x" * 500000, extra={"EDGED_CAMERA": "large"})\\n'
    )
    sender = machine.run(f"printf '{code}' | /opt/edged/current/bin/python -I -").strip()
    assert sender == ("NativeSender" if machine.root.name == "jammy" else "function")
    eventually(lambda: machine.journal("EDGED_CAMERA=large"))
    (row,) = machine.journal("EDGED_CAMERA=large")
    assert row["MESSAGE"] == "x" * 500000 and row["PRIORITY"] == "3"


def test_a_password_is_handed_over_and_seen_nowhere(machine: Machine) -> None:
    machine.write("/root/camera.py", _CAMERA)
    machine.run("systemd-run -q --unit=camera -E PYTHONPATH=/srv/edged /opt/edged/current/bin/python /root/camera.py")
    try:
        machine.write("/root/password", PASSWORD + "\n")
        machine.run("edged credential set camera.door </root/password; rm /root/password")
        source = 'source = "rtsp://admin@127.0.0.1:8554/cam"'
        machine.write("/etc/edged/edged.d/20-door.toml", f'[[camera]]\nname = "door"\n{source}\n')
        machine.run("chgrp -R edged /etc/edged/edged.d; systemctl restart edged")
        eventually(lambda: state(machine)["cameras"][2]["results"] > 3)
        seen = machine.run(
            "edged check --print-effective; systemctl show edged; systemctl cat edged; edged status --json;"
            "edged why --json; edged credential list; ps axwwe;"
            "for f in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do tr '\\0' ' ' <$f; done"
        )
        seen += json.dumps(machine.journal(""))
        assert "rtsp://***@127.0.0.1:8554/cam" in seen and "camera.door" in seen
        assert PASSWORD not in seen and PASSWORD.replace("@", "%40") not in seen
        child = machine.run("pgrep -x cam-door").strip()
        assert machine.run(f"stat -c %U /proc/{child}/mem").strip() == "root", "no core dump of what knows a password"
        assert (
            machine.run("stat -c '%a %U' /etc/edged/credentials /etc/edged/credentials/camera.door")
            == "700 root\n600 root\n"
        )
        # `edged check` as root finds the password too, though systemd does not hand it over.
        findings = json.loads(machine.process("edged check --json").stdout)["findings"]
        assert any(f["subject"] == "camera door" and f["level"] == "ok" for f in findings), findings
        machine.run("edged credential remove camera.door; rm /etc/edged/edged.d/20-door.toml; systemctl restart edged")
    finally:
        machine.run("systemctl stop camera; rm /root/camera.py")


_CAMERA = f"""
import threading
from tests.support.clips import access_units
from tests.support.rtsp import RtspCamera
with RtspCamera(access_units(320, 240, 30), fps=15, port=8554, user="admin", password={PASSWORD!r}):
    threading.Event().wait()
"""


def test_the_sandbox_refuses_what_it_forbids_and_the_camera_still_gives_frames(machine: Machine) -> None:
    # Nodes with the numbers of a stand-in that is there: what is not named must stay shut although it exists.
    machine.run("mknod -m 666 /dev/fuse c 10 229; mknod -m 666 /dev/video0 c 81 0; mknod -m 666 /dev/nvmap c 1 3")
    machine.run("groupadd -f jtop; " + _JTOP)
    break_in(machine)
    machine.run("systemctl kill -s RTMIN --kill-who=main edged")
    eventually(lambda: any("probe {" in row["MESSAGE"] for row in machine.journal("-u edged")))
    line = next(row["MESSAGE"] for row in machine.journal("-u edged") if "probe {" in row["MESSAGE"])
    found = json.loads(line.partition("probe ")[2])
    refused = {
        name
        for name, how in found.items()
        if how in ("Operation not permitted", "Permission denied", "Read-only file system")
    }
    assert {
        "write /etc",
        "write /opt",
        "write /sys",
        "write /proc/sys",
        "read shadow",
        "list /root",
        "open fuse",
        "read the kept password",
        "namespace",
        "real time",
        "set the clock",
        "become root",
        "jtop",
    } <= refused, found
    assert found["raw packets"] == "Address family not supported by protocol"
    assert all(
        found[name] == "ok"
        for name in (
            "open nvmap",
            "tcp",
            "write state",
            "write cache",
            "shared memory",
            "own affinity",
            "read meminfo",
            "read a sensor's place",
        )
    ), found
    makes_results(machine)


_JTOP = (
    '/usr/bin/python3 -c \'import grp, os, socket; s = socket.socket(socket.AF_UNIX); s.bind("/run/jtop.sock"); '
    's.listen(); os.chown("/run/jtop.sock", 0, grp.getgrnam("jtop").gr_gid); os.chmod("/run/jtop.sock", 0o660)\''
)


def test_a_stage_that_hangs_starves_the_watchdog_and_the_daemon_comes_back(machine: Machine) -> None:
    drop_in(machine, "WatchdogSec=3")
    pid = main_pid(machine)
    eventually(lambda: state(machine)["cameras"][0]["results"] > 3)
    machine.run("systemctl kill -s USR1 --kill-who=main edged")
    machine.until(NRestarts="1", SubState="running")
    assert main_pid(machine) != pid
    reported = "\n".join(str(row["MESSAGE"]) for row in machine.journal("-u edged"))
    assert "pipeline has work but made no progress" in reported and "in engine_that_hangs" in reported
    assert "Watchdog timeout" in reported and "watchdog" in reported
    eventually(lambda: state(machine)["cameras"][0]["results"] > 3)
    assert machine.run("ls /dev/shm | wc -l").strip() != "0"


def test_memory_without_end_is_stopped_and_the_daemon_comes_back(machine: Machine) -> None:
    drop_in(machine, "MemoryMax=500M\nMemoryHigh=infinity")
    pid = main_pid(machine)
    machine.run("systemctl kill -s USR2 --kill-who=main edged")
    machine.until(NRestarts="1", SubState="running")
    assert main_pid(machine) != pid
    reported = [str(row["MESSAGE"]) for row in machine.journal("-u edged")]
    assert any("status=9/KILL" in row for row in reported), reported[-10:]
    eventually(lambda: state(machine)["cameras"][0]["results"] > 3)
    machine.run("rm -r /run/systemd/system/edged.service.d; systemctl daemon-reload; systemctl restart edged")


def test_it_starts_with_what_is_there(machine: Machine) -> None:
    """A camera that is not there and a variant that is broken: said, and the rest runs."""
    machine.write("/etc/edged/edged.d/30-gone.toml", '[[camera]]\nname = "gone"\nsource = "v4l2:///dev/video9"\n')
    machine.run(
        "chgrp -R edged /etc/edged/edged.d; truncate -s 1000 /var/lib/edged/bundles/demo/fp16.onnx;"
        "systemctl restart edged"
    )
    machine.until(SubState="running", NRestarts="0")
    eventually(lambda: state(machine)["cameras"][0]["results"] > 3)
    rows = {row["MESSAGE"]: row for row in machine.journal("-u edged", "-p warning")}
    assert any("variant fp16 is refused" in text for text in rows)
    eventually(lambda: machine.journal("EDGED_CAMERA=gone", "-p warning"))
    machine.run(f"rm /etc/edged/edged.d/30-gone.toml -r /var/lib/edged/bundles/demo; {INSTALL}", timeout_s=INSTALL_S)
    machine.run("systemctl restart edged")
    assert "fp16" in machine.show("StatusText")["StatusText"]


def test_a_wrong_configuration_stops_at_once_with_its_reason(machine: Machine) -> None:
    machine.write("/etc/edged/edged.toml", CONFIG.replace("gate", "Not A Name"))
    assert machine.process("systemctl restart edged").returncode != 0
    machine.until(ActiveState="failed", NRestarts="0")
    shown = machine.show("ExecMainStatus", "StatusText")
    assert shown["ExecMainStatus"] == "2" and "camera.1.name" in shown["StatusText"]
    assert any(row["PRIORITY"] == "3" and "lower-case" in row["MESSAGE"] for row in machine.journal("-u edged"))
    machine.write("/etc/edged/edged.toml", CONFIG)
    machine.run("systemctl reset-failed edged; systemctl start edged")


def test_upgraded_rolled_back_and_saved_from_a_bad_release(machine: Machine, before: tuple[set[str], str]) -> None:
    old = machine.run("readlink /opt/edged/current").strip()
    _edit(machine.source / "edged/__init__.py", r'__version__ = "[^"]*"', '__version__ = "9.9.9"')
    machine.run(INSTALL, timeout_s=INSTALL_S)
    assert state(machine)["version"] == "9.9.9" and machine.run("edged --version") == "edged 9.9.9\n"
    assert machine.run("cat /etc/edged/edged.toml") == CONFIG
    machine.run("cd /srv/edged && scripts/install --rollback")
    assert machine.run("readlink /opt/edged/current").strip() == old and state(machine)["version"] != "9.9.9"

    _edit(
        machine.source / "edged/daemon.py",
        r"(?m)^    def run\(self\) -> None:$",
        "    def run(self) -> None:\n        raise SystemExit(3)\n\n    def _run(self) -> None:",
    )
    done = machine.process(INSTALL, INSTALL_S)
    assert done.returncode == 1 and "does not start: going back" in done.stderr, done.stderr
    machine.until(SubState="running")
    assert machine.run("readlink /opt/edged/current").strip() == old and state(machine)["healthy"]


def _edit(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text())
    assert count == 1, f"{pattern} is {count} times in {path}"
    path.write_text(changed)


def test_removed_it_leaves_nothing(machine: Machine, before: tuple[set[str], str]) -> None:
    was, accounts = before
    machine.run("cd /srv/edged && scripts/install --uninstall")
    left = files(machine) - was
    assert left and all(path.startswith(("/etc/edged", "/var/lib/edged", "/var/cache/edged")) for path in left), left
    assert machine.process("systemctl status edged").returncode == 4, "no such unit"
    machine.run(
        "cd /srv/edged && scripts/install --uninstall --purge;"
        "rm -f /dev/fuse /dev/video0 /dev/nvmap; groupdel jtop || true"
    )
    left = files(machine) ^ was
    assert not left, left
    assert machine.run("cat /etc/passwd /etc/group") == accounts
    assert machine.run("ls /dev/shm /run | grep edged || true") == ""
