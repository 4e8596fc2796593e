"""The power is cut while a daemon records and keys and passwords come and go: a real file system on a loop device.

A cut is a copy of the device at a moment in which who writes to it is stopped: what was not written to it by then is
lost, as with the page cache of a machine without power. Each copy is mounted, which replays its journal, checked, and a
daemon is started on it. As root.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edged.cli import main
from edged.commands.credential import Store
from edged.engines.bundle import load_bundle, verify_file
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon
from tests.support.models import center_model, write_bundle
from tests.support.power_failure import check_keys, check_record, check_units

CUTS = 100
IMAGE_MB = 32
NEEDED = ("mkfs.ext4", "mount", "umount")
CONFIG = """bundle = "bundle"
[bus]
curve_secret_key = "edged.key_secret"
curve_clients = "clients"
[limits]
energy_wh = 100
[record]
path = "record"
max_mb = 0.5
[[camera]]
name = "a"
source = "test://7?width=64&height=48&fps=10"
"""


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device can be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def running(root: Path, runtime: Path) -> RunningDaemon:
    runtime.mkdir(exist_ok=True)
    return RunningDaemon(root / "e.toml", runtime, STATE_DIRECTORY=str(root / "state"))


def change(root: Path) -> None:
    """Keys and passwords come and go, for ever."""
    store, config = Store(root / "credentials", root / "unit.d" / "credentials.conf"), str(root / "e.toml")
    n = 0
    while True:
        n += 1
        assert main(["key", "new", f"k{n}", "--out", str(root), "-c", config]) == 0
        store.put(f"camera.{n % 3}", f"password {n}")
        assert main(["key", "revoke", f"k{n}", "-c", config]) == 0
        store.remove(f"camera.{n % 3}")


def copied(image: Path, to: Path, writers: Sequence[int]) -> None:
    """The image as it is at one moment: what changes while it is copied is no copy of any."""
    for pid in writers:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(100):
            shutil.copyfile(image, to)
            if filecmp.cmp(image, to, shallow=False):
                return
        raise AssertionError("the device never rests")
    finally:
        for pid in writers:
            os.kill(pid, signal.SIGCONT)


def check(root: Path, original: Path, runtime: Path) -> None:
    """As the next boot would find it."""
    drop_in = root / "unit.d" / "credentials.conf"
    if drop_in.exists():
        drop_in.write_text(drop_in.read_text().replace(str(original), str(root)))
    check_units(root)
    check_keys(root)
    bundle = load_bundle(root / "bundle")
    for variant in bundle.manifest.variants:
        verify_file(bundle, variant.files[0])
    if (root / "record").exists():
        check_record(root)
    with running(root, runtime) as daemon:
        wait_for(lambda: daemon.camera("a")["results"] > 0, 30)
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.getuid() != 0 or not all(map(shutil.which, NEEDED)), reason="mounting needs root")
def test_every_restart_after_a_cut_is_clean(tmp_path: Path) -> None:
    image, cut = tmp_path / "disk", tmp_path / "cut"
    with image.open("wb") as disk:
        disk.truncate(IMAGE_MB << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    chance = random.Random(7)
    changing = "import sys, pathlib; from tests.daemon.test_power_cut import change; change(pathlib.Path(sys.argv[1]))"
    with mounted(image, tmp_path / "root") as root:
        write_bundle(root / "bundle", {"fine": center_model()})
        (root / "e.toml").write_text(CONFIG)
        os.sync()
        command = [sys.executable, "-c", changing, str(root)]
        changes = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
        try:
            with running(root, tmp_path / "run") as daemon:
                for _ in range(CUTS):
                    time.sleep(chance.uniform(0.0, 0.5))  # the moment is the test's own choice
                    copied(image, cut, (changes.pid, daemon.process.pid))
                    with mounted(cut, tmp_path / "found") as found:
                        check(found, root, tmp_path / "run-found")
                    assert changes.poll() is None
        finally:
            changes.kill()
            changes.wait()
