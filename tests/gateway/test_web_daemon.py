"""A real gateway beside a real daemon: its own pictures, its state, and requests that it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.bus import free_port, wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

TOKEN = "0123456789abcdef"
CAMERA = "test://3?width=128&height=64&fps=20\nzones.all = { polygon = [[0, 0], [1, 0], [1, 1], [0, 1]] }"


class Asked:
    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port, self._tls = port, tls

    def __call__(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """(0, b"") while nothing listens."""
        if self._tls is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=60, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            return 0, b""
        finally:
            connection.close()

    def control(self, **request: object) -> dict[str, object]:
        status, body = self("POST", "/control", json.dumps(request))
        assert status == 200, body
        reply: dict[str, object] = json.loads(body)
        return reply


@contextlib.contextmanager
def gateway(directory: Path, web: str) -> Iterator[tuple[Path, Asked]]:
    """(the configuration, how to ask)"""
    port = free_port()
    bundle = write_bundle(directory / "bundle", {"fine": center_model(-100.0), "fast": center_model(-90.0)})
    extra = f'[metrics]\ntextfile = "edged.prom"\n[web]\nlisten = "127.0.0.1:{port}"\ntoken = true\n{web}'
    config = write_config(directory, bundle, {"gate": CAMERA, "lost": "/nowhere/clip.mp4"}, extra)
    (directory / "gateway.web").write_text(TOKEN)
    tls = ssl.create_default_context(cafile=str(directory / "c.pem")) if web else None
    process = subprocess.Popen(
        [sys.executable, "-m", "edged", "gateway", "-c", str(config)],
        env={**os.environ, "RUNTIME_DIRECTORY": str(directory), "CREDENTIALS_DIRECTORY": str(directory)},
        stderr=subprocess.DEVNULL,
    )
    try:
        asked = Asked(port, tls)
        wait_for(lambda: asked("GET", "/healthz")[0] == 503, 20)
        yield config, asked
    finally:
        process.terminate()
        try:
            assert process.wait(60) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def test_pictures_state_and_requests_of_a_daemon(tmp_path: Path) -> None:
    with gateway(tmp_path, "") as (config, asked):
        with RunningDaemon(config, tmp_path) as daemon:
            wait_for(lambda: asked("GET", "/healthz") == (200, b"ok\n"), 20)
            wait_for(lambda: asked("GET", "/camera/gate.jpg")[0] == 200, 20)
            picture = cv2.imdecode(np.frombuffer(asked("GET", "/camera/gate.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None and picture.shape == (64, 128, 3)
            status, words = asked("GET", "/camera/lost.jpg")
            assert status == 503 and b"clip.mp4" in words, "its reason"
            assert b"edged_web_pictures_total" in asked("GET", "/metrics")[1]

            assert asked.control(op="set", power_w=8)["ok"] is True
            assert daemon.ask("set", power_w=8)["limits"]["power_w"] == 8
            assert asked.control(op="pin", variant="fast")["pinned"] == "fast"
            refused = asked.control(op="set", power_w="abc")
            assert refused["ok"] is False and "power_w" in str(refused["error"])
        wait_for(lambda: asked("GET", "/healthz")[0] == 503, 20)
        wait_for(lambda: asked("GET", "/camera/gate.jpg")[0] == 503, 20)


def test_over_tls(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=edged",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "k.pem"), "-out", str(tmp_path / "c.pem")],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    with gateway(tmp_path, 'tls_certificate = "c.pem"\ntls_key = "k.pem"') as (_, asked):
        assert asked("GET", "/")[0] == 200
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(socket.create_connection(("127.0.0.1", asked.port), timeout=60))
            counted = b'edged_web_readers{kind="connection"} 6.0'
            wait_for(lambda: counted in asked("GET", "/metrics")[1], 2)  # who never begins with TLS counts too
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            Asked(asked.port, None)("GET", "/")
