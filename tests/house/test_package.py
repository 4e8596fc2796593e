"""The Debian package in the machines of scripts/test-systemd: made, put in use, removed and purged by dpkg; and the
image on one of their root directories, where buildah is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lane import CACHE, MACHINES, booted, eventually
from tests.support.machine import Machine, copy_checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

BUILD_S = 900.0
FILES = "find / -xdev \\( -path /srv -o -path /tmp -o -path /var/log -o -path /var/cache \\) -prune -o -print"
NOISE = re.compile(
    r"/var/(tmp|lib/(systemd|dpkg|private))|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|/etc/\.pwd|.*__pycache__"
)


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(request.param, tmp_path_factory.mktemp("source")) as it:
        yield it


def files(machine: Machine) -> set[str]:
    return {path for path in machine.run(FILES).splitlines() if not NOISE.match(path)}


def results(machine: Machine) -> int:
    done = machine.process("edged status --json")
    return json.loads(done.stdout)["cameras"][0]["results"] if done.returncode == 0 else 0


def test_a_package_is_made_used_removed_and_purged(machine: Machine) -> None:
    before, users = files(machine), machine.run("cat /etc/passwd /etc/group")
    machine.run("cd /srv/edged && scripts/deb /tmp/made --wheels /srv/wheels", timeout_s=BUILD_S)
    assert files(machine) == before, "making it changes nothing else"
    machine.run("dpkg --install /tmp/made/edged_*.deb", timeout_s=BUILD_S)
    shown = machine.show("ActiveState", "UnitFileState", "User")
    assert shown == {"ActiveState": "active", "UnitFileState": "enabled", "User": "edged"}
    eventually(lambda: results(machine) > 5, 60)
    machine.run("test -s /usr/local/share/man/man1/edged-ctl.1 -a -s /opt/edged/current/share/edged/edged.schema.json")
    assert machine.run("head -1 /opt/edged/current/bin/edged-calibrate").startswith("#!/opt/edged/releases/")
    assert "/tmp" not in machine.run("grep -rIl /tmp/tmp /opt/edged/current/bin /opt/edged/current/pyvenv.cfg || true")
    assert machine.run("edged-calibrate --version || /opt/edged/bin/edged-calibrate --help | head -1")

    machine.run("echo '# mine' >>/etc/edged/edged.toml")
    machine.run("dpkg --install /tmp/made/edged_*.deb", timeout_s=BUILD_S)  # the same again
    assert machine.show("ActiveState") == {"ActiveState": "active"}
    machine.run("dpkg --remove edged", timeout_s=BUILD_S)
    assert machine.process("systemctl is-active edged").returncode != 0
    left = files(machine) - before
    assert all(path.startswith(("/etc/edged", "/var/lib/edged")) for path in left), left
    assert machine.run("tail -1 /etc/edged/edged.toml") == "# mine\n"
    machine.run("dpkg --purge edged", timeout_s=BUILD_S)
    assert files(machine) | {"/opt"} == before, "dpkg removes /opt with the last that was in it"
    assert machine.run("cat /etc/passwd /etc/group") == users


@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
@pytest.mark.skipif(os.geteuid() != 0 or not (CACHE / "key").exists(), reason="needs root and scripts/test-systemd")
def test_an_image_is_made_and_finds_everything_in_order(tmp_path: Path) -> None:
    def buildah(*arguments: str | Path) -> str:
        done = subprocess.run(
            ["buildah", *map(str, arguments)], capture_output=True, text=True, timeout=BUILD_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    context = copy_checkout(tmp_path)
    shutil.copytree(CACHE / "wheels", context / "wheels")
    made: list[str] = []
    try:
        base = buildah("from", "scratch")
        made.append(base)
        buildah("add", base, CACHE / "noble", "/")
        buildah("commit", base, "localhost/edged-lane-base")
        options = ("--build-arg", "BASE=localhost/edged-lane-base", "--build-arg", "WHEELS=wheels")
        buildah("build", "--isolation", "chroot", *options, "-t", "localhost/edged-lane", context)
        made.append(buildah("from", "localhost/edged-lane"))
        message = buildah("run", "--isolation", "chroot", made[-1], "--", "edged", "check")
    finally:
        subprocess.run(["buildah", "rm", *made], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["buildah", "rmi", "localhost/edged-lane", "localhost/edged-lane-base"], check=False)
    assert "gate" in message and "1280x720" in message and "/var/lib/edged/bundles/demo" in message
