"""Where the runtime directory is, who may own it, and where a client looks for a daemon."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edged import paths
from edged.errors import EdgedError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(paths, "SERVICE_DIR", tmp_path / "service")
    monkeypatch.setattr(paths, "TEMPORARY", tmp_path)


Listen = Callable[[Path, str], socket.socket]


@pytest.fixture
def listening() -> Iterator[Listen]:
    """Binds a socket that somebody listens on until the test is over."""
    with contextlib.ExitStack() as servers:

        def listen(directory: Path, name: str) -> socket.socket:
            directory.mkdir(parents=True, exist_ok=True)
            server = servers.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(directory / name))
            server.listen()
            return server

        yield listen


def test_systemds_directory_comes_before_the_sessions_and_that_before_tmp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert paths.runtime_dir() == tmp_path / f"edged-{os.getuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert paths.runtime_dir() == Path("/run/user/7/edged")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/edged:/run/other")
    assert paths.results_endpoint() == "ipc:///run/edged/results.ipc"
    assert paths.control_endpoint() == "ipc:///run/edged/control.ipc"


def test_a_client_finds_this_users_daemon_before_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: Listen
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    own, service = tmp_path / "session" / "edged", tmp_path / "service"
    assert paths.find_results_endpoint() == f"ipc://{own}/results.ipc"  # nothing runs: where one would be
    listening(service, "results.ipc")
    assert paths.find_results_endpoint() == f"ipc://{service}/results.ipc"
    server = listening(own, "results.ipc")
    assert paths.find_results_endpoint() == f"ipc://{own}/results.ipc"
    server.close()  # killed: its file stays, and nobody is behind it
    assert (own / "results.ipc").exists()
    assert paths.find_results_endpoint() == f"ipc://{service}/results.ipc"


def test_a_socket_in_a_directory_that_anybody_can_write_to_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: Listen
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "open"))
    listening(tmp_path / "service", "control.ipc")
    listening(tmp_path / "open", "control.ipc")
    (tmp_path / "open").chmod(0o777)
    assert paths.find_control_endpoint() == f"ipc://{tmp_path}/service/control.ipc"


def test_the_directory_is_made_private_and_taken_again(tmp_path: Path) -> None:
    made = paths.make_private(tmp_path / "a" / "edged")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o750)  # as systemd's RuntimeDirectoryMode may have it
    assert paths.make_private(made) == made


def test_a_link_a_file_and_a_world_writable_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        with pytest.raises(EdgedError, match="not safe"):
            paths.make_private(tmp_path / name)
    with pytest.raises(EdgedError, match="cannot create"):
        paths.make_private(tmp_path / "file")
