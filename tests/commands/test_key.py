"""Keys that let a client in, and no longer: through the command line, a real socket and a reload."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path

import pytest
import zmq

from edged.bus.admission import Admission
from edged.bus.control import ControlServer
from edged.bus.control_client import request
from edged.bus.curve import CurveClient, ServerKeys
from edged.bus.publisher import Publisher
from edged.bus.replies import LimitsReply
from edged.cli import main
from edged.client import Client
from edged.config import Limits
from edged.errors import EdgedError
from tests.support import messages
from tests.support.bus import free_port, wait_for


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "edged.toml"
    path.write_text(
        f"""bundle = "x"
[bus]
results = "tcp://127.0.0.1:{free_port()}"
curve_secret_key = "edged.key_secret"
curve_clients = "clients"
[[camera]]
name = "a"
source = "test://7"
"""
    )
    return path


def key(*words: str, config: Path) -> int:
    return main(["key", *words, "-c", str(config)])


def test_new_list_revoke(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = config.parent / "out"
    out.mkdir()
    assert key("new", "dashboard", "--out", str(out), config=config) == 0
    secrets = [config.parent / "edged.key_secret", out / "dashboard.key_secret"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in secrets] == [0o600, 0o600]
    assert "edged ctl reload" in capsys.readouterr().out
    assert key("list", "--json", config=config) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed["keys"]] == ["dashboard"] and listed["problems"] == []
    before = (config.parent / "edged.key_secret").read_text()
    assert key("new", "logger", "--out", str(out), config=config) == 0
    assert (config.parent / "edged.key_secret").read_text() == before, "the daemon keeps its key"
    assert key("revoke", "dashboard", config=config) == 0
    capsys.readouterr()
    assert key("list", config=config) == 0
    assert capsys.readouterr().out.split()[0] == "logger"


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", "a b", "x" * 65, "a\nb"])
def test_a_name_cannot_lead_elsewhere(config: Path, name: str) -> None:
    assert key("new", name, config=config) == 2
    assert key("revoke", name, config=config) == 2


def test_a_key_that_is_there_is_not_overwritten(config: Path) -> None:
    out = str(config.parent)
    assert key("new", "a", "--out", out, config=config) == 0
    before = (config.parent / "clients" / "a.key").read_text()
    assert key("new", "a", "--out", out, config=config) == 2
    assert (config.parent / "clients" / "a.key").read_text() == before


def test_a_directory_that_cannot_be_written_is_a_sentence(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "clients").write_text("a file")
    assert key("new", "a", "--out", str(config.parent), config=config) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_reload_lets_in_whom_it_finds_and_cuts_off_who_is_gone(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, clients = config.parent, config.parent / "clients"
    for name in ("staying", "leaving"):
        assert key("new", name, "--out", str(directory), config=config) == 0
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    curve = {
        n: CurveClient(directory / f"{n}.key_secret", directory / "edged.key") for n in ("staying", "leaving", "coming")
    }

    def may(name: str) -> bool:
        try:
            return bool(request("snapshot", endpoint, 2.0, curve=curve[name])["ok"])
        except EdgedError as error:
            assert "refuses this client's key" in error.message
            return False

    with zmq.Context() as context:
        admission = Admission(context, ServerKeys(directory / "edged.key_secret", clients))
        server = ControlServer(context, endpoint, lambda _: LimitsReply(limits=Limits()), admission)
        try:
            with zmq.Context() as other, other.socket(zmq.DEALER) as connected:
                connected.linger = 0
                curve["leaving"].secure(connected)
                connected.connect(endpoint)
                ask = b"\x81\xa2op\xa8snapshot"
                connected.send(ask)
                assert connected.poll(5000)
                connected.recv()
                assert may("staying") and may("leaving")

                assert key("revoke", "leaving", config=config) == 0
                assert key("new", "coming", "--out", str(directory), config=config) == 0
                (clients / "broken.key").write_bytes(b"\xff\xfe")
                (clients / "staying.key").rename(clients / "renamed.key")
                changes = admission.reload()
                assert changes[:2] == ["client key coming: added", "client key leaving: removed"]
                assert "broken.key" in changes[2]
                wait_for(lambda: may("staying") and may("coming"), 10)
                assert not may("leaving")
                with contextlib.suppress(zmq.Again):
                    connected.send(ask, zmq.DONTWAIT)
                assert not connected.poll(500), "it was connected, and is cut off"
        finally:
            server.close()
            admission.close()
    assert "was refused: its public key" in caplog.text


def test_a_subscriber_learns_that_its_key_is_refused(config: Path) -> None:
    directory, clients = config.parent, config.parent / "clients"
    assert key("new", "a", "--out", str(directory), config=config) == 0
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with zmq.Context() as context:
        admission = Admission(context, ServerKeys(directory / "edged.key_secret", clients))
        publisher = Publisher(context, endpoint, admission)
        curve = CurveClient(directory / "a.key_secret", directory / "edged.key")
        try:
            (clients / "a.key").rename(directory / "elsewhere.key")
            admission.reload()
            with Client(endpoint, ["event"], 0.1, curve) as client:
                wait_for(lambda: client.receive(0.1) is None and client.refused)
                (directory / "elsewhere.key").rename(clients / "a.key")
                admission.reload()

                def arrives() -> bool:
                    publisher.serve()
                    publisher.publish(messages.event())
                    return client.receive(0.05) is not None

                wait_for(arrives, 15)
                assert not client.refused
        finally:
            publisher.close()
            admission.close()


def test_keys_of_a_directory_that_is_gone_are_kept(config: Path) -> None:
    assert key("new", "a", "--out", str(config.parent), config=config) == 0
    keys = ServerKeys(config.parent / "edged.key_secret", config.parent / "clients")
    (config.parent / "clients" / "a.key").unlink()
    (config.parent / "clients").rmdir()
    with pytest.raises(EdgedError, match="not a readable directory"):
        keys.reload()
    assert list(keys.names.values()) == ["a"]
