"""The page in the gateway's sandbox: pictures from the daemon's rings, the token by systemd, requests of who has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lane import CONFIG, INSTALL, INSTALL_S, MACHINES, booted, eventually, makes_results
from tests.support.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "0123456789abcdef"
WEB = '[web]\nlisten = "127.0.0.1:8080"\ntoken = true\n'
ASK = """
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8080" + sys.argv[1], sys.argv[2].encode() or None)
request.add_header("Authorization", "Bearer " + sys.argv[3])
request.add_header("Content-Type", "application/json")
with urllib.request.urlopen(request, timeout=60) as answer:
    print(answer.headers["Content-Type"], answer.read(200))
"""


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(request.param, tmp_path_factory.mktemp("source")) as it:
        it.write("/etc/edged/edged.toml", CONFIG + WEB)
        it.run(INSTALL, timeout_s=INSTALL_S)
        it.write("/tmp/ask.py", ASK)
        yield it


def ask(machine: Machine, path: str, body: str = "", token: str = TOKEN) -> str:
    return machine.run(f"/opt/edged/current/bin/python -I /tmp/ask.py {path} '{body}' {token}", check=False)


def test_without_its_token_it_does_not_start(machine: Machine) -> None:
    makes_results(machine)
    machine.process("systemctl start edged-gateway")
    eventually(lambda: machine.show("ActiveState", unit="edged-gateway")["ActiveState"] == "failed")
    assert "there is no credential gateway.web" in str(machine.journal("-u edged-gateway"))


def test_pictures_and_requests_pass_the_sandbox(machine: Machine) -> None:
    machine.run(f"echo {TOKEN} | edged credential set gateway.web")
    machine.run("systemctl reset-failed edged-gateway; systemctl restart edged-gateway")
    eventually(lambda: ask(machine, "/healthz").startswith("text/plain"))
    eventually(lambda: "image/jpeg" in ask(machine, "/camera/gate.jpg"))
    assert '"ok": true' in ask(machine, "/control", '{"op": "set", "deadline_ms": 60}')
    assert ask(machine, "/camera/gate.jpg", token="wrong") == ""
    assert machine.show("NRestarts", unit="edged-gateway")["NRestarts"] == "0"
