"""The page of the gateway on a port of its own, fed by hand, with a real ring in shared memory behind its pictures."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from edged.bus.schema import Message, Result, RingRef
from edged.config import CameraConfig, Config
from edged.config.web import WebConfig
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingWriter, create, spec_of, unlink
from edged.gateway.subscription import Subscription
from edged.gateway.web.part import Page
from tests.support import messages
from tests.support.bus import free_port

WIDTH, HEIGHT = 160, 120
NOISE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


class Fed(Subscription):
    """Without a socket: what the page asks of a subscription."""

    endpoint = "ipc:///nowhere"
    lost: ClassVar = Counter({"gap": 2})

    def __init__(self) -> None:
        """No daemon."""


class Ring:
    """A camera's ring, written here."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.name = f"edged-test-{os.getpid()}-{camera}"
        create(self.name, spec_of(WIDTH, HEIGHT, PixelFormat.BGR24))
        self._writer = RingWriter(self.name)
        self._frames = 0

    def write(self, grey: int = 128, noise: bool = False) -> Result:
        """A frame, and the result of it."""
        self._frames += 1
        self._writer.begin()[:] = NOISE if noise else grey
        self._writer.commit(self._frames, time.time_ns(), time.monotonic_ns(), "arrival")
        ref = RingRef(self.name, self._frames % 4, 2 * self._frames)
        result = messages.result(self.camera, self._frames, objects=2)
        return msgspec.structs.replace(result, ring=ref, width=WIDTH, height=HEIGHT)


@contextlib.contextmanager
def ring(camera: str = "gate") -> Iterator[Ring]:
    made = Ring(camera)
    try:
        yield made
    finally:
        unlink(made.name)


class Served:
    """`feed` messages, `get` answers."""

    def __init__(self, page: Page, port: int) -> None:
        self.page, self.port = page, port

    def feed(self, *fed: Message) -> None:
        for message in fed:
            self.page.take(message, Fed())

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
        """The answer, read whole."""
        connection = self.connect()
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.text = answer.read().decode("utf-8", "replace")  # type: ignore[attr-defined]
        connection.close()
        return answer

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        answer = self.ask("GET", path, **headers)
        return answer.status, answer.text  # type: ignore[attr-defined]

    def picture(self, camera: str = "gate", query: str = "") -> tuple[int, bytes, dict[str, str]]:
        connection = self.connect()
        connection.request("GET", f"/camera/{camera}.jpg{query}")
        answer = connection.getresponse()
        found = answer.status, answer.read(), dict(answer.headers)
        connection.close()
        return found

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[tuple[str, Any]]]:
        """(name, data) of each event, as they come."""
        connection = self.connect()
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()

        def parsed() -> Iterator[tuple[str, Any]]:
            name = ""
            while line := answer.readline():
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)

        try:
            yield parsed()
        finally:
            answer.close()
            connection.close()


@contextlib.contextmanager
def serving(web: WebConfig | None = None, cameras: tuple[CameraConfig, ...] = ()) -> Iterator[Served]:
    port = free_port()
    table = msgspec.structs.replace(web or WebConfig(), listen=f"127.0.0.1:{port}")
    address = table.address
    assert address is not None
    config = Config(bundle="demo", camera=list(cameras), web=table)
    with Page(address, config, CollectorRegistry(), "ipc:///nowhere/control.ipc") as page:
        assert isinstance(page, Page)
        yield Served(page, port)
