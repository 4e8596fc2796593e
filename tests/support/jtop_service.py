"""The real jtop service of jetson-stats, unmodified, on an emulated board: started, stopped, frozen by tests.

As a program (`python -m tests.support.jtop_service ROOT`) this redirects what the service reads and starts to the tree
under ROOT, at the level of Python's calls, and then hands over to the package's own main program. Its socket is
ROOT/run/jtop.sock. Neither root nor namespaces are needed. `plain=True` goes without any of that: the package's own
command in namespaces of its own, in which the tree is mounted over /sys, /run, /etc and /usr/bin; not every machine
allows it.
"""

from __future__ import annotations

import builtins
import contextlib
import grp
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import monotonic
from typing import Any

REDIRECTED = (
    "/sys/", "/proc/device-tree/", "/proc/stat", "/proc/driver/nvidia/", "/etc/nv_tegra_release",
    "/etc/nvfancontrol.conf", "/etc/systemd/system/nvfancontrol.service", "/var/lib/nvfancontrol/",
)  # fmt: skip
START_S = 100.0


class JtopService:
    """The service on the board under `root`."""

    def __init__(self, root: Path, plain: bool = False) -> None:
        self.root = root
        self.plain = plain
        self.socket = root / "run/jtop.sock"
        self.log = root / "jtop.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tests.support.jtop_service", str(self.root)]
            if self.plain:
                command = _in_namespaces(self.root)
            here = Path(__file__).parent.parent.parent
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=here, start_new_session=True)
        end_s = monotonic() + START_S
        while not (self.socket.exists() and "service ready" in self.log.read_text()):
            assert self._process.poll() is None, f"the service died:\n{self.log.read_text()}"
            assert monotonic() < end_s, f"the service does not start:\n{self.log.read_text()}"
            threading.Event().wait(0.05)

    def signal(self, number: int) -> None:
        """To all three of its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)  # its children outlive it otherwise
        self._process.wait(10)
        self._process = None


NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--fork", "--kill-child"]
_MOUNTS = """
mount --rbind "$1/sys" /sys
mount --bind "$1/run" /run
mount -t overlay overlay -o lowerdir=/etc,upperdir="$1/over/etc",workdir="$1/over/etc.work" /etc
mount -t overlay overlay -o lowerdir="$1/bin":/usr/bin /usr/bin
mount -t overlay overlay -o lowerdir="$2",upperdir="$1/over/prefix",workdir="$1/over/prefix.work" "$2"
JTOP_SERVICE=True exec "$3" --force
"""


def namespaces_allowed() -> bool:
    """Whether this machine lets its users make namespaces and mount overlays in them."""
    with tempfile.TemporaryDirectory() as directory:
        script = f"mount -t tmpfs none {directory} && cd {directory} && mkdir a b c && " + (
            "mount -t overlay overlay -o lowerdir=/etc,upperdir=a,workdir=b c"
        )
        try:
            tried = subprocess.run([*NAMESPACES, "sh", "-c", script], capture_output=True, timeout=100, check=False)
        except OSError:
            return False
        return tried.returncode == 0


def _in_namespaces(root: Path) -> list[str]:
    for name in ("run", "over/etc/systemd/system", "over/etc.work", "over/prefix", "over/prefix.work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("nv_tegra_release", "nvfancontrol.conf", "systemd/system/nvfancontrol.service"):
        shutil.copy(root / "etc" / name, root / "over/etc" / name)
    (root / "over/etc/group").write_text(Path("/etc/group").read_text() + "jtop:x:0:\n")
    vendor = root / "sys/devices/virtual/dmi/id"  # a PC's, which it asks of anything that is not aarch64
    vendor.mkdir(parents=True, exist_ok=True)
    (vendor / "product_name").write_text("emulated\n")
    prefix = "/usr/local" if sys.base_prefix == "/usr" else sys.base_prefix  # where it keeps its settings
    jtop = str(Path(sys.executable).with_name("jtop"))
    return [*NAMESPACES, "sh", "-ec", _MOUNTS, "sh", str(root), prefix, jtop]


def _redirect(root: Path) -> None:
    """What the service reads below REDIRECTED, it reads below `root`."""

    def moved(path: Any) -> Any:
        return f"{root}{path}" if isinstance(path, str) and (path.startswith(REDIRECTED) or path == "/sys") else path

    def wrap(module: Any, name: str) -> None:
        original = getattr(module, name)
        setattr(module, name, lambda path, *rest, **named: original(moved(path), *rest, **named))

    wrap(builtins, "open")
    for name in ("stat", "lstat", "listdir", "scandir", "access", "readlink", "remove"):
        wrap(os, name)
    for name in ("isfile", "isdir", "exists", "lexists", "islink", "realpath"):  # in C since 3.12: they miss os.stat
        wrap(os.path, name)


def _disguise(root: Path) -> None:
    """As root on an aarch64 board with a group "jtop", for what the service asks about that."""
    os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["JTOP_SERVICE"] = "True"
    platform.machine = lambda: "aarch64"
    if os.getuid() != 0:
        os.getuid = lambda: 0
        os.chown = lambda *given, **named: None
    group = grp.getgrnam
    jtop = grp.struct_group(("jtop", "x", os.getgid(), []))
    grp.getgrnam = lambda name: jtop if name == "jtop" else group(name)


class _Eeprom:
    """The module's part number on I2C bus 0, as smbus2 would give it."""

    root = Path()

    def __init__(self, bus: int, force: bool = False) -> None:
        if bus != 0:
            raise OSError("there is no such bus")

    def read_i2c_block_data(self, address: int, offset: int, length: int) -> list[int]:
        return list((self.root / "eeprom").read_bytes().strip()[:length])


def main(root: Path) -> None:
    (root / "run").mkdir(exist_ok=True)
    _redirect(root)
    _disguise(root)
    import jtop.core.config
    import jtop.core.jetson_clocks
    import jtop.core.jetson_variables
    import jtop.service
    from jtop.__main__ import main as service

    _Eeprom.root = root
    jtop.core.jetson_variables.SMBus = _Eeprom
    jtop.service.getgrnam = grp.getgrnam
    jtop.service.JTOP_PIPE = str(root / "run/jtop.sock")
    jtop.core.config.get_config_service = lambda data_folder="": str(root / "state/jtop")
    jtop.core.jetson_clocks.PATH_JETSON_CLOCKS[:] = [str(root / "bin/jetson_clocks")]
    sys.argv = ["jtop", "--force"]
    service()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
