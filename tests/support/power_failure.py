"""A failure at every step of a change: `python -m tests.support.power_failure FAILURE SCENARIO DIRECTORY`.

A child of this process makes the change. With the failure "power" it ends, without any clean-up, before its n-th step
on the file system; what it wrote and had not synced is lost. With "full" or "read-only" this step and all after it are
refused as by a disk, which must give a sentence and no traceback. Then the state is checked as the next start would
find it, for every n. No thread is started before the fork. Prints how many failures there were.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edged import clock, files
from edged.bus.curve import certificate, client_keys
from edged.cli import main
from edged.commands.credential import Store
from edged.config import Config, load
from edged.crash_guard import Starts
from edged.engines.bundle import load_bundle, verify_file
from edged.errors import EdgedError, UsageError
from edged.governor.governor import Governor
from edged.governor.messages import Tick
from edged.power.energy_meter import HorizonUse
from edged.power.energy_store import FILE as ENERGY_FILE
from edged.power.energy_store import EnergyStore
from edged.replay import log
from edged.replay.recorder import PATTERN, Recorder
from edged.replay.replayer import replay

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
DEMO = Path(files.__file__).parent / "bundles" / "demo"


class Scenario(NamedTuple):
    """`prepare` makes the state before; `change` is cut; `check` raises if a state between is not valid."""

    prepare: Callable[[Path], object]
    change: Callable[[Path], object]
    check: Callable[[Path], object]


REFUSALS = {"full": errno.ENOSPC, "read-only": errno.EROFS}


class Failure:
    """In the child, before step `last`: ends it, and takes away what was not synced; or refuses it and all others."""

    def __init__(self, root: Path, last: int, kind: str) -> None:
        self._root, self._left = str(root), last
        self._refusal = REFUSALS.get(kind)
        self.refused = False
        self._written: set[str] = set()
        self._synced: set[tuple[int, int]] = set()
        real_fsync, real_fdatasync = os.fsync, os.fdatasync

        def synced(real: Callable[[int], None]) -> Any:
            def sync(descriptor: int) -> None:
                real(descriptor)
                status = os.fstat(descriptor)
                self._synced.add((status.st_ino, status.st_size))

            return sync

        os.fsync, os.fdatasync = synced(real_fsync), synced(real_fdatasync)
        sys.addaudithook(self._step)

    def _step(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in STEPS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not path.startswith(self._root) or not writes:
            return
        if self._left == 0 and self._refusal is None:
            self._lose()
        if self._left == 0 and self._refusal is not None:
            # a full disk still removes and renames
            if self._refusal == errno.EROFS or event in ("open", "os.mkdir"):
                self.refused = True
                raise OSError(self._refusal, os.strerror(self._refusal), path)
            return
        self._left -= 1
        if event == "open":
            self._written.add(path)
        elif event == "os.rename" and path in self._written:
            self._written.add(os.fsdecode(arguments[1]))

    def _lose(self) -> None:
        self._left = -1  # these steps are not counted
        for path in self._written:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if (status.st_ino, status.st_size) not in self._synced:
                    os.truncate(path, status.st_size // 2)
        os._exit(9)


def fail_everywhere(kind: str, scenario: Scenario, directory: Path) -> int:
    """The number of failures that the scenario was put through."""
    before, root = directory / "before", directory / "root"
    before.mkdir()
    scenario.prepare(before)
    for n in range(1000):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(before, root)
        child = os.fork()
        if child == 0:
            failure = Failure(root, n, kind)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    scenario.change(root)
            except EdgedError as error:
                if not failure.refused:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    os._exit(1)
            except BaseException as error:
                print(f"before step {n}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(9 if failure.refused else 0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), f"the change failed with {code}"
        try:
            scenario.check(root)
        except Exception as error:
            raise AssertionError(f"not valid after {kind} before step {n}: {error}") from error
        if code == 0:
            return n
    raise AssertionError("it does not end")


def check_units(root: Path) -> None:
    """systemd does not start a unit whose LoadCredential= names a file that is not there."""
    drop_in = root / "unit.d" / "credentials.conf"
    if drop_in.exists():
        lines = drop_in.read_text().splitlines()
        assert lines[1:2] == ["[Service]"], lines
        for line in lines[2:]:
            path = Path(line.partition(":")[2].replace("@ROOT@", str(root)))
            assert path.read_text().strip(), path


def store(root: Path) -> Store:
    return Store(root / "credentials", root / "unit.d" / "credentials.conf")


def two_credentials(root: Path) -> None:
    store(root).put("camera.one", "a")
    store(root).put("camera.two", "b")


def change_credentials(root: Path) -> None:
    with contextlib.suppress(OSError):
        (root / "unit.d" / "credentials.conf").unlink()  # it names the directory it was made in
    two_credentials(root)
    store(root).put("camera.two", "c")
    store(root).remove("camera.one")
    store(root).remove("camera.two")


def configuration(root: Path) -> None:
    (root / "e.toml").write_text(
        'bundle = "x"\n[bus]\nresults = "tcp://127.0.0.1:1"\ncurve_secret_key = "edged.key_secret"\n'
        'curve_clients = "clients"\n[[camera]]\nname = "a"\nsource = "test://7"\n'
    )


def change_keys(root: Path) -> None:
    for words in (["new", "a", "--out", str(root)], ["new", "b", "--out", str(root)], ["revoke", "a"]):
        run("key", *words, "-c", str(root / "e.toml"))


def run(*words: str) -> None:
    """A command; EdgedError if it did not work, with what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    if code:
        raise EdgedError(said.getvalue())


def add_cameras(root: Path) -> None:
    for name in ("b", "c"):
        run("camera", "add", name, "test://7?width=64&height=48", "-c", str(root / "e.toml"))


def check_cameras(root: Path) -> None:
    """The configuration can be read, with the cameras that were added so far."""
    names = [camera.name for camera in load(root / "e.toml").camera]
    assert names in (["a"], ["a", "b"], ["a", "b", "c"]), names


def check_keys(root: Path) -> None:
    """The daemon starts: a key is whole or not there, and a client that is let in has its secret key."""
    bus = load(root / "e.toml").bus
    assert bus.curve_secret_key is not None and bus.curve_clients is not None
    if Path(bus.curve_secret_key).exists():
        certificate(Path(bus.curve_secret_key))
    if (root / "clients").exists():
        keys = client_keys(root / "clients")
        assert not keys.problems, keys.problems
        for name in keys.names.values():
            certificate(root / f"{name}.key_secret")


def count_crashes(root: Path) -> None:
    for _ in range(3):
        with contextlib.suppress(ZeroDivisionError), Starts(root).counted():
            raise ZeroDivisionError


def demo_bundle(root: Path) -> None:
    shutil.copytree(DEMO, root / "bundle")


def replace_bundle(root: Path) -> None:
    staging = root / ".bundle-new"
    shutil.copytree(DEMO, staging)
    for path in (*staging.iterdir(), staging):
        files.sync(path)
    files.replace_directory(staging, root / "bundle")


def check_bundle(root: Path) -> None:
    bundle = load_bundle(root / "bundle")
    for variant in bundle.manifest.variants:
        for file in variant.files:
            verify_file(bundle, file)


def record(root: Path) -> None:
    from tests.replay.test_replay import BUDGET, VARIANTS, drive

    recorder = Recorder(root / "record", 0.03, "b" * 64, lambda kind, text: None)
    governor = Governor(VARIANTS, BUDGET, 0, None, recorder.on_call)
    for k in range(3):
        drive(governor, 1, k * 5_000_000_000)
        while not recorder._queue.empty():  # its thread's work, on this one
            recorder._take(recorder._queue.get_nowait())
        sys.audit("os.truncate", str(root / "record"))  # a step of its own: writing alone is not announced
        recorder._write(0)
        sys.audit("os.truncate", str(root / "record"))
        recorder._sync()
        governor.observe(Tick(), (k * 5 + 4) * 1_000_000_000)


def check_record(root: Path) -> None:
    """The next start records, and each file replays or is left out with a sentence."""
    recorder = Recorder(root / "record", 0.03, "b" * 64, lambda kind, text: None)
    recorder._next_file(0)
    assert recorder.close()
    for path in (root / "record").glob(PATTERN):
        with path.open("rb") as source, contextlib.suppress(UsageError):
            outcome = replay(log.read(source, log.header(source, path.name)))
            assert outcome.difference is None, outcome.difference


def use_energy(root: Path, *spent_j: float) -> None:
    """Writes of a minute each; the horizon began now."""
    store = EnergyStore(root)
    assert store.load() is not None or not (root / ENERGY_FILE).exists()
    for joules in spent_j:
        store._write(HorizonUse(clock.mono_ns(), 3600.0, joules, 60.0))  # its thread's work, on this one


def check_energy(root: Path) -> None:
    """What was used is never forgotten: the figure before or one after, and the next start writes on."""
    use = EnergyStore(root).load()
    assert use is not None and use.spent_j in (100.0, 150.0, 200.0), use
    use_energy(root, 250.0)
    kept = EnergyStore(root).load()
    assert kept is not None and kept.spent_j == 250.0


SCENARIOS = {
    "credentials": Scenario(two_credentials, change_credentials, check_units),
    "keys": Scenario(configuration, change_keys, check_keys),
    "cameras": Scenario(configuration, add_cameras, check_cameras),
    "crash count": Scenario(lambda root: None, count_crashes, lambda root: Starts(root).relied_on(Config("x"))),
    "bundle": Scenario(demo_bundle, replace_bundle, check_bundle),
    "energy": Scenario(lambda root: use_energy(root, 100.0), lambda root: use_energy(root, 150.0, 200.0), check_energy),
    "record": Scenario(lambda root: (root / "record").mkdir(), record, check_record),
}


if __name__ == "__main__":
    print(fail_everywhere(sys.argv[1], SCENARIOS[sys.argv[2]], Path(sys.argv[3])))
