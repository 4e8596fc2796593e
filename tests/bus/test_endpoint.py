"""Which endpoints may be bound, and with which keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
import zmq.auth

from edged.bus.admission import Admission
from edged.bus.curve import ServerKeys, server_keys
from edged.bus.endpoint import Binding
from edged.config.bus import BusConfig
from edged.errors import EdgedError, UsageError
from edged.paths import ipc_path
from tests.support.bus import free_port


@pytest.mark.parametrize("bad", ["ipc://relative", "inproc://x", "http://x", "", "tcp://", "ipc:///run/" + "x" * 110])
def test_an_endpoint_that_cannot_be_is_refused(bad: str) -> None:
    with pytest.raises(UsageError):
        ipc_path(bad)


def test_the_path_of_an_ipc_endpoint_and_none_of_a_tcp_one() -> None:
    assert ipc_path("ipc:///run/edged/results.ipc") == Path("/run/edged/results.ipc")
    assert ipc_path("ipc:///" + "x" * 106) == Path("/" + "x" * 106)
    assert ipc_path("tcp://127.0.0.1:1") is None


def test_closing_removes_the_socket_and_lets_the_next_one_in(tmp_path: Path) -> None:
    path = tmp_path / "a.ipc"
    with zmq.Context() as context:
        for _ in range(3):
            binding = Binding(context.socket(zmq.XPUB), f"ipc://{path}", None, 10)
            assert path.is_socket()
            binding.close()
            assert not path.exists()


def test_what_somebody_puts_in_place_of_a_socket_keeps_no_daemon_from_ending(tmp_path: Path) -> None:
    path = tmp_path / "a.ipc"
    with zmq.Context() as context:  # which ends once every socket is closed
        binding = Binding(context.socket(zmq.XPUB), f"ipc://{path}", None, 10)
        path.unlink()
        for name in ("a.ipc", "a.ipc.full"):
            (tmp_path / name).mkdir()
        binding.close()
        with (
            context.socket(zmq.XPUB) as socket,
            pytest.raises(EdgedError, match="something that is no socket") as caught,
        ):
            Binding(socket, f"ipc://{path}", None, 10)
        assert caught.value.hint == f"remove {path}"


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a.ipc.lock").symlink_to(victim)
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket, pytest.raises(EdgedError, match="lock file"):
        Binding(socket, f"ipc://{tmp_path}/a.ipc", None, 10)
    assert victim.read_text() == "precious"


def test_a_port_in_use_and_an_address_that_is_not_ours_are_reported(tmp_path: Path) -> None:
    zmq.auth.create_certificates(tmp_path, "edged")
    (tmp_path / "clients").mkdir()
    port = free_port()
    with zmq.Context() as context, context.socket(zmq.XPUB) as first, context.socket(zmq.XPUB) as second:
        keys = BusConfig(curve_secret_key=f"{tmp_path}/edged.key_secret", curve_clients=f"{tmp_path}/clients")
        assert server_keys(BusConfig()) is None
        admission = Admission(context, server_keys(keys))
        try:
            first.bind(f"tcp://127.0.0.1:{port}")
            with pytest.raises(EdgedError, match="in use by another program"):
                Binding(second, f"tcp://127.0.0.1:{port}", admission, 10)
            with pytest.raises(EdgedError, match=r"cannot open tcp://192\.0\.2\.1:1"):
                Binding(second, "tcp://192.0.2.1:1", admission, 10)
        finally:
            admission.close()


def test_keys_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    zmq.auth.create_certificates(tmp_path, "edged")
    with pytest.raises(UsageError, match="holds no secret key"):
        ServerKeys(tmp_path / "edged.key", tmp_path)
    with pytest.raises(UsageError, match="cannot read the CURVE key"):
        ServerKeys(tmp_path / "none", tmp_path)
    with pytest.raises(UsageError, match="not a readable directory"):
        ServerKeys(tmp_path / "edged.key_secret", tmp_path / "none")
