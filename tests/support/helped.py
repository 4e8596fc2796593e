"""The real clock helper, as a process of its own, on an emulated board; and both command lines on that board."""

from __future__ import annotations

import argparse
import os
import pwd
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

from edged import journal
from edged.config import load
from edged.daemon import Daemon
from edged.engines.ort import OrtRuntime
from edged.power.host_paths import HostPaths
from edged_calibration.commands import profile
from tests.support.clocked_engine import load_at_the_ceiling
from tests.support.daemon import write_config
from tests.support.jetson_tree import JetsonTree

ME = pwd.getpwuid(os.getuid()).pw_name
START_S = 100.0


class Helper:
    """Serves the GPU of `tree` at `directory`/clocks.sock, a short path."""

    def __init__(self, directory: Path, tree: JetsonTree) -> None:
        self.tree = tree
        self.socket = directory / "clocks.sock"
        self._state = directory / "ceiling"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ["--socket", str(self.socket), "--state", str(self._state), "--root", str(self.tree.root)]
        command = [sys.executable, "-m", "edged.power.clock_helper", "--user", ME, *where]
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        end_s = monotonic() + START_S
        while not self.socket.exists():
            assert self._process.poll() is None and monotonic() < end_s, "the helper does not start"
            threading.Event().wait(0.01)

    def kill(self) -> None:
        """As the out-of-memory killer would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    @property
    def ceiling_mhz(self) -> float:
        return int(self.tree.read(f"{self.tree.devfreq}/max_freq")) / 1e6


def profile_on(helper: Helper, bundle: Path, json: bool = False) -> int:
    """The exit code of `edged-calibrate profile BUNDLE` on the helper's board, with single frames."""
    arguments = argparse.Namespace(
        bundle=bundle,
        config=None,
        seconds=1,
        batches=(1,),
        threads=None,
        device="cpu",
        keep_clock=False,
        soak=None,
        json=json,
    )
    return profile.run(arguments, HostPaths(helper.tree.root, helper.socket, str(helper.tree.bin)))


def command_on(tree: JetsonTree, helper_socket: Path, config: Path, *, clocked: bool = False) -> list[str]:
    """In the place of `edged run -c CONFIG`, for a daemon on that board. `clocked`: its engines are as fast as the
    clock."""
    command = [sys.executable, "-m", "tests.support.helped", str(tree.root), str(helper_socket), str(config)]
    return [*command, "clocked"] if clocked else command


def clocked_config(directory: Path, bundle: Path, limit_w: float, window_s: float) -> Path:
    """Four cameras with three times the frames that the most accurate of the clocked engines can do at the lowest clock
    of a Thor, under a power limit. The motion gate, which would take that load away, is off."""
    lines = f"""
[limits]
deadline_ms = 200
power_w = {limit_w}
power_window_s = {window_s}
[power]
interval_s = 0.2
clock_control = true
[motion]
gate = "off"
"""
    names = "gate", "yard", "road", "shed"
    cameras = {name: f"test://{n}?width=128&height=64&fps=24" for n, name in enumerate(names)}
    return write_config(directory, bundle, cameras, lines)


def main(root: str, helper: str, config: str, clocked: str = "") -> None:
    if clocked:
        setattr(OrtRuntime, "load", load_at_the_ceiling(Path(root)))  # noqa: B010 - mypy knows no other way
    with journal.logging_to():
        machine = HostPaths(Path(root), Path(helper), str(Path(root) / "bin"))
        daemon = Daemon(Path(config), load(Path(config)), machine)
        with daemon.signals():
            daemon.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
