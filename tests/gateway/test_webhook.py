"""A real HTTP receiver: down, failing, refusing, redirecting, hanging; each message arrives, in order."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edged.config.forward import WebhookConfig
from edged.gateway import webhook
from edged.gateway.webhook import Webhook
from tests.gateway.test_forward import Counts, numbered
from tests.support import messages
from tests.support.bus import free_port, wait_for

pytestmark = pytest.mark.timeout(300)

DRIP = 1
"""An answer that comes byte by byte and does not end."""


class Receiver(ThreadingHTTPServer):
    """Answers with `codes` first, then with 204; `got` has what it accepted."""

    def __init__(self, port: int, codes: tuple[int, ...] = ()) -> None:
        self.codes = list(codes)
        self.ended = threading.Event()
        self.got: list[tuple[str, dict[str, str], dict[str, object]]] = []
        super().__init__(("127.0.0.1", port), _Handler)

    @contextmanager
    def serving(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            self.shutdown()
            self.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.server.codes.pop(0) if self.server.codes else 204
        if code == 0:
            self.close_connection = True  # no answer at all
            return
        if code == DRIP:
            self.close_connection = True
            with contextlib.suppress(OSError):
                while not self.server.ended.wait(0.05):
                    self.wfile.write(b"x")
            return
        if code < 300:
            self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(code)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        raise AssertionError("GET")

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


@contextmanager
def posting(port: int, events: int) -> Iterator[Webhook]:
    config = WebhookConfig(url=f"http://127.0.0.1:{port}/hook?x=1")
    assert config.server is not None
    with Webhook(config, config.server) as part:
        assert isinstance(part, Webhook)
        part.take(messages.state(), Counts())
        for n in range(1, events + 1):
            part.take(numbered(messages.event(), n), Counts())
        yield part


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("edged.gateway.forward.LONGEST_PAUSE_S", 0.05)


def test_it_waits_for_its_receiver_and_posts_each_event_in_order(tmp_path: Path) -> None:
    (tmp_path / "gateway.webhook").write_text("t0ken\n")
    port = free_port()
    with posting(port, 20) as part:
        wait_for(lambda: part.link.failures > 2, 20)
        with Receiver(port).serving() as receiver:
            wait_for(lambda: part.sent == 20 and part.spool.messages == 0, 20)
    assert [body["seq"] for _, _, body in receiver.got] == list(range(1, 21))
    path, headers, body = receiver.got[0]
    assert path == "/hook?x=1" and headers["Authorization"] == "Bearer t0ken"
    assert (
        headers["Content-Type"] == "application/json" and headers["Idempotency-Key"] == body["id"] == "run1234/event/1"
    )
    assert body["topic"] == "event" and body["kind"] == "restart"


def test_failures_are_tried_again_and_refusals_given_up(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with Receiver(port, (500, 302, 0, 401, 204, 422, 429)).serving() as receiver, posting(port, 4) as part:
        wait_for(lambda: part.sent == 3 and part.spool.messages == 0, 20)
        assert [body["seq"] for _, _, body in receiver.got] == [1, 3, 4] and part.refused == 1
    reasons = [record.message.partition(": ")[2] for record in caplog.records if record.levelname == "WARNING"]
    assert reasons == [
        "it answers 500 Internal Server Error; trying again",
        "it answers 302 Found; trying again",
        "it gives no answer: Remote end closed connection without response; trying again",
        "it answers 401 Unauthorized; trying again",
        "it answers 429 Too Many Requests; trying again",
    ]


def test_an_answer_that_drips_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "POST_AT_MOST_S", 0.3)
    port = free_port()
    with Receiver(port, (DRIP,)).serving() as receiver, posting(port, 1) as part:

        def accepted() -> bool:
            part.turn()  # as the gateway's thread does each second
            return len(receiver.got) == 1

        wait_for(accepted, 20)


def test_what_was_not_accepted_is_posted_after_a_restart() -> None:
    port = free_port()
    with posting(port, 5):
        pass
    with Receiver(port).serving() as receiver, posting(port, 0) as part:
        wait_for(lambda: part.sent == 5, 20)
    assert [body["seq"] for _, _, body in receiver.got] == [1, 2, 3, 4, 5]
