"""The machine around edged, tried for `edged check`: the service, its user's rights, passwords, JetPack's parts.

A configuration in, findings out, each with the command that fixes it; what is right gives no finding. Reads files and
asks systemctl, with a deadline. What belongs to the cameras, the engines or the sensors themselves is tried elsewhere.
"""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edged import paths
from edged.checks.finding import Finding
from edged.config import DEFAULT_PATH, Config, files_of
from edged.credentials import credentials_directory
from edged.errors import EdgedError
from edged.uri import parse

SERVICE: Final = "edged.service"
SERVICE_USER: Final = "edged"
_SYSTEMCTL_S: Final = 5.0
_GPU_NODES: Final = ("dev/nvmap", "dev/nvhost-*", "dev/nvgpu/*/ctrl", "dev/nvidiactl", "dev/dri/renderD*")


def try_system(path: Path, config: Config, root: Path = Path("/")) -> Iterator[Finding]:
    """`root` is where /dev, /run and /usr are looked up."""
    if path == DEFAULT_PATH:
        yield from _service()
        yield from _readable_by_service(path, config)
    yield from _passwords(config)
    yield from _devices(root)
    yield from _jetpack(root)


def _service() -> Iterator[Finding]:
    """Only where it is installed: edged runs without systemd too."""
    if not Path("/run/systemd/system").is_dir():
        return
    shown = show_unit(SERVICE, "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "Result", "StatusText")
    if shown.get("LoadState") != "loaded":
        yield Finding("warning", "service", "edged is not installed as a service", "sudo scripts/install")
        return
    state = shown.get("ActiveState", "unknown")
    if state == "failed":
        why = shown.get("StatusText") or f"result {shown.get('Result', 'unknown')}"
        fix = "fix that, then: sudo systemctl reset-failed edged; sudo systemctl start edged (journalctl -u edged)"
        yield Finding("warning", "service", f"{SERVICE} has failed: {why}", fix)
    elif shown.get("NeedDaemonReload") == "yes":
        fix = "sudo systemctl daemon-reload; sudo systemctl restart edged"
        yield Finding("warning", "service", f"{SERVICE} has changed on disk since it was read", fix)
    elif shown.get("UnitFileState") != "enabled":
        fix = "sudo systemctl enable --now edged"
        yield Finding("warning", "service", f"{SERVICE} is {state} and does not start with the machine", fix)
    else:
        yield Finding("ok", "service", f"{SERVICE} is {state} and starts with the machine")


def show_unit(unit: str, *properties: str) -> dict[str, str]:
    """What systemd knows of a unit; nothing if it does not answer."""
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in properties)]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMCTL_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)


def _readable_by_service(path: Path, config: Config) -> Iterator[Finding]:
    """root reads everything; the service, which runs as its own user, does not."""
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return
    groups = {user.pw_gid} | {group.gr_gid for group in grp.getgrall() if SERVICE_USER in group.gr_mem}
    for file in (*files_of(path), Path(config.bundle) / "manifest.json"):
        with contextlib.suppress(OSError):  # a missing file is reported where it is read
            found = file.stat()
            bit = stat.S_IROTH
            if found.st_uid == user.pw_uid:
                bit = stat.S_IRUSR
            elif found.st_gid in groups:
                bit = stat.S_IRGRP
            if not found.st_mode & bit:
                name = shlex.quote(str(file))
                fix = f"sudo chgrp edged {name}; sudo chmod 640 {name}"
                yield Finding("failed", "service", f"{file} cannot be read by the user {SERVICE_USER}", fix)


def _passwords(config: Config) -> Iterator[Finding]:
    directory = credentials_directory() or paths.CREDENTIALS_DIR
    if not os.access(directory.parent, os.X_OK) or (directory.exists() and not os.access(directory, os.X_OK)):
        return  # not readable by this user
    for camera in config.camera:
        with contextlib.suppress(EdgedError):  # a wrong source is reported when it is tried
            uri = parse(camera.source)
            name = camera.password_credential or f"camera.{camera.name}"
            if uri.user is not None and uri.password is None and not (directory / name).exists():
                text = "its source names a user, and there is no password for it"
                yield Finding("warning", f"camera {camera.name}", text, f"sudo edged credential set {name}")
            elif uri.password is not None and camera.password_credential is None:
                text = "its password is in the configuration, readable by all who may read that"
                fix = f"take it out of source, then: sudo edged credential set {name}"
                yield Finding("warning", f"camera {camera.name}", text, fix)


def _devices(root: Path) -> Iterator[Finding]:
    nodes = [node for pattern in _GPU_NODES for node in sorted(root.glob(pattern))]
    shut = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if shut:
        groups = sorted({_group(node) for node in shut})
        text = f"this user may not use the GPU: {', '.join('/' + str(node.relative_to(root)) for node in shut)}"
        yield Finding("warning", "devices", text, f"sudo usermod -aG {','.join(groups)} $USER, and log in again")


def _group(node: Path) -> str:
    try:
        return node.group()
    except KeyError:
        return str(node.stat().st_gid)


def _jetpack(root: Path) -> Iterator[Finding]:
    """TensorRT lies in the system's Python packages, and a venv sees those only if it was made to."""
    if not (root / "etc/nv_tegra_release").exists():
        return
    if importlib.util.find_spec("tensorrt") is not None:
        yield Finding("ok", "jetpack", "its TensorRT can be used")
    elif list(root.glob("usr/lib/python3*/dist-packages/tensorrt")):
        fix = "sudo scripts/install (or: python3 -m venv --system-site-packages)"
        yield Finding("warning", "jetpack", "its TensorRT cannot be seen from this Python environment", fix)
    else:
        fix = "sudo apt-get install python3-libnvinfer"
        yield Finding("warning", "jetpack", "TensorRT's Python package is not installed", fix)
