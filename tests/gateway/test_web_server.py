"""The page's server: pictures from the ring, events, and readers that are hostile, slow or too many."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from edged.config import CameraConfig, Config
from edged.config.web import WebConfig
from edged.errors import EdgedError, UsageError
from edged.gateway.web import server, streams
from edged.gateway.web.handlers import ASSETS
from edged.gateway.web.part import Page
from edged.regions import Zone
from tests.support import messages
from tests.support.bus import wait_for
from tests.support.repeating import repeating
from tests.support.web_page import Ring, Served, ring, serving

TOKEN = "0123456789abcdef"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as it:
        yield it


def showing(served: Served, made: Ring, noise: bool = False) -> contextlib.AbstractContextManager[None]:
    """A camera that gives twenty frames a second; `noise`: large ones."""
    return repeating(lambda n: served.feed(made.write(5 * n % 256, noise), messages.state()), 0.05)


def test_nothing_is_encoded_until_somebody_looks(served: Served) -> None:
    with ring() as made:
        for _ in range(20):
            served.feed(made.write(), messages.state())
        assert served.get("/metrics")[0] == 200
        assert count(served, "edged_web_pictures") == 0
        status, jpeg, headers = served.picture()
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape == (120, 160, 3)
        assert (np.abs(picture.astype(int) - 128) > 40).any(), "boxes are drawn"
        assert headers["Edged-Variant"] == "int8-sparse" and float(headers["Edged-Captured"]) == 1.7e9
        assert count(served, "edged_web_pictures") == 1


def count(served: Served, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in served.page.families()
        for sample in family.samples
        if family.name == name and sample.labels == labels
    ]
    return found[0]


def test_pictures_follow_one_another_and_one_is_made_for_all(served: Served) -> None:
    with ring() as made, showing(served, made):
        wait_for(lambda: served.picture()[0] == 200)
        number = int(served.picture()[2]["Edged-Number"])
        for _ in range(3):
            status, _, headers = served.picture(query=f"?after={number}")
            if status == 200:
                assert int(headers["Edged-Number"]) > number
                number = int(headers["Edged-Number"])
        readers = [threading.Thread(target=served.picture) for _ in range(20)]
        before = count(served, "edged_web_pictures")
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert count(served, "edged_web_pictures") < before + 200


def test_a_camera_in_which_nothing_moves_is_shown_all_the_same(served: Served) -> None:
    """The motion gate writes no frames: the last result's is the newest."""
    with ring() as made:
        served.feed(made.write(), messages.state())
        assert served.picture()[0] == 200
        assert served.picture()[0] == 200, "a second reader"
        number = served.picture()[2]["Edged-Number"]
        assert served.picture(query=f"?after={number}")[0] == 204


def test_a_frame_that_got_no_result_is_shown_without_one(served: Served) -> None:
    with ring() as made:
        served.feed(made.write(), messages.state())
        for _ in range(6):
            made.write(10)  # the result's frame is overwritten
        status, _, headers = served.picture()
        assert status == 200 and "Edged-Variant" not in headers


def test_zones_are_drawn() -> None:
    camera = CameraConfig(name="gate", source="test://1", zones={"all": Zone([(0, 0), (1, 0), (1, 1), (0, 1)])})
    with serving(cameras=(camera,)) as served, ring() as made:
        served.feed(msgspec.structs.replace(made.write(), detections=[]), messages.state())
        picture = cv2.imdecode(np.frombuffer(served.picture()[1], np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and np.ptp(picture[60, 20].astype(int)) > 10, "tinted, and no longer grey"


@pytest.mark.parametrize("state, words", [("backoff", "no answer in time"), ("stalled", "frozen picture")])
def test_a_camera_with_a_fault_gives_its_reason_and_no_old_picture(served: Served, state: str, words: str) -> None:
    with ring() as made:
        served.feed(made.write(), messages.state())
        assert served.picture()[0] == 200
        status = msgspec.structs.replace(messages.status(), state=state, reason=words)
        served.feed(msgspec.structs.replace(messages.state(), cameras=[status]))
        wait_for(lambda: served.picture()[0] == 503)
        assert words.encode() in served.picture()[1]


def test_a_stream_sends_one_picture_after_another(served: Served) -> None:
    with ring() as made, showing(served, made):
        wait_for(lambda: served.picture()[0] == 200)
        connection = served.connect()
        connection.request("GET", "/camera/gate.mjpg")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
        for _ in range(3):
            while not (line := answer.readline()).startswith(b"Content-Length"):
                assert line
            answer.readline()
            jpeg = answer.read(int(line.split()[1]))
            assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
        connection.close()
        wait_for(lambda: count(served, "edged_web_readers", kind="stream") == 0, 20)


def test_events_begin_with_the_past(served: Served) -> None:
    served.feed(messages.result(), messages.event(), messages.state())
    with served.events() as events:
        assert next(events) == ("welcome", {"may_change": False})
        name, rows = next(events)
        assert name == "history" and len(rows) == 1 and rows[0]["age_ms"] == 0.0
        name, update = next(events)
        assert name == "update" and update["state"]["cameras"][0]["camera"] == "gate"
        assert update["events"][0]["text"] == "gate: camera gate was started again"
        served.feed(messages.state(99))
        assert next(events)[1]["state"]["pid"] == 99
        assert next(events)[0] == "silent"


def test_health_follows_the_daemon(served: Served) -> None:
    assert served.get("/healthz") == (503, "the daemon does not answer\n")
    served.feed(messages.state())
    assert served.get("/healthz") == (200, "ok\n")
    served.feed(msgspec.structs.replace(messages.state(), healthy=False))
    assert served.get("/healthz")[0] == 503


def test_every_file_is_served_with_the_policy_and_nothing_else(served: Served) -> None:
    for name in ("", *(name for name in ASSETS if not name.endswith(".html"))):
        answer = served.ask("GET", f"/{name}")
        assert answer.status == 200, name
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert served.get(f"/{name}", If_None_Match=answer.headers["ETag"])[0] == 304
    for path in ("/uplot.LICENSE", "/../part.py", "/%2e%2e/part.py", "/camera/..%2fgate.jpg", "/camera/GATE.jpg", "/x"):
        assert served.get(path)[0] == 404, path


def test_pages_do_nothing_that_the_policy_forbids() -> None:
    from edged.gateway import web

    for path in (Path(web.__file__).parent / "page").glob("*.html"):
        text = path.read_text()
        assert "<style" not in text and " style=" not in text and "onclick" not in text and "javascript:" not in text
        assert text.count("<script") == text.count("<script src=") + text.count('<script type="module" src=')
    for path in (Path(web.__file__).parent / "page").glob("*.js"):
        if path.name != "uplot.js":
            assert "innerHTML" not in path.read_text() and "http" not in path.read_text().replace("https://", "!")


def test_another_sites_name_is_refused(served: Served) -> None:
    status, text = served.get("/", Host="evil.example")
    assert status == 421 and "localhost" in text
    assert count(served, "edged_web_refused", cause="host") == 1


def test_without_a_token_nothing_can_be_changed(served: Served) -> None:
    answer = served.ask("POST", "/control", '{"op": "pin", "variant": null}', Content_Type="application/json")
    assert answer.status == 403


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "gateway.web").write_text(TOKEN)
    with serving(WebConfig(token=True)) as it:
        yield it


def test_with_a_token_nothing_is_shown_to_others(guarded: Served) -> None:
    guarded.feed(messages.state())
    for path in ("/events", "/metrics", "/camera/gate.jpg", "/camera/gate.mjpg", "/page.js"):
        assert guarded.get(path)[0] == 401, path
        assert guarded.get(path, Authorization="Bearer wrong")[0] == 401
    assert guarded.get("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert guarded.get("/healthz")[0] == 200
    answer = guarded.ask("GET", "/")
    assert answer.status == 303 and answer.headers["Location"] == "/login"
    assert guarded.get("/login")[0] == 200
    assert count(guarded, "edged_web_refused", cause="token") == 5


def test_a_browser_logs_in_with_a_form(guarded: Served) -> None:
    form = "application/x-www-form-urlencoded"
    wrong = guarded.ask("POST", "/login", "token=nonsense", Content_Type=form)
    assert wrong.headers["Location"] == "/login?wrong" and "Set-Cookie" not in wrong.headers
    right = guarded.ask("POST", "/login", f"token={TOKEN}", Content_Type=form)
    cookie = right.headers["Set-Cookie"]
    assert right.status == 303 and "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert guarded.get("/", Cookie=cookie.partition(";")[0])[0] == 200


@pytest.mark.parametrize(
    "body, status",
    [
        ('{"op": "reload"}', 400),
        ("[]", 400),
        ("{", 400),
        ("[" * 4000, 400),
        ('{"op": []}', 400),
        ("x" * 5000, 413),
        ('{"op": "set", "endpoint": "ipc:///x"}', 200),
        ('{"op": "set", "power_w": 8}', 200),
    ],
)
def test_requests_are_checked(guarded: Served, body: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = guarded.ask("POST", "/control", body, Content_Type="application/json", **headers)
    assert answer.status == status
    if status == 200:
        assert json.loads(answer.text)["ok"] is False, "no daemon is there"  # type: ignore[attr-defined]
    assert guarded.ask("POST", "/control", body, Content_Type="text/plain", **headers).status == 415


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 5000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /control HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ],
)
def test_garbage_disturbs_nobody(served: Served, sent: bytes) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as peer:
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                peer.recv(1000)
    assert served.get("/")[0] == 200


def test_too_many_pages_are_told_so(served: Served) -> None:
    served.feed(messages.state())
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            next(stack.enter_context(served.events()))
        status, text = served.get("/events")
        assert status == 503 and text.startswith("64 pages are open")
        assert served.get("/")[0] == 200
    wait_for(lambda: count(served, "edged_web_readers", kind="page") == 0, 20)
    with served.events() as events:
        assert next(events)[0] == "welcome"


def test_too_many_connections_are_told_so_and_leave_room_when_they_go(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)  # so few that none is idle for long before the last is there
    with contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60)) for _ in range(30)
        ]
        wait_for(lambda: count(served, "edged_web_refused", cause="connections") > 0, 20)
        refused = select.select(peers, [], [], 60)[0]  # nobody else is answered: they have asked for nothing
        assert refused and b"503" in refused[0].recv(1000)
    wait_for(lambda: served.get("/healthz")[0] == 503 and served.get("/")[0] == 200, 20)


def test_a_reader_that_does_not_read_is_cut_off_and_delays_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SLOW_S", 0.5)
    with ring() as made, showing(served, made, noise=True):
        wait_for(lambda: served.picture()[0] == 200)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            slow.connect(("127.0.0.1", served.port))
            slow.sendall(b"GET /camera/gate.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_for(lambda: count(served, "edged_web_readers", kind="stream") == 1, 20)
            assert served.picture()[0] in (200, 204)
            wait_for(lambda: count(served, "edged_web_readers", kind="stream") == 0, 100)


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        page = Page(taken.getsockname(), Config(bundle="x"), CollectorRegistry(), None)
        with pytest.raises(EdgedError, match="set another port"):
            page.__enter__()


def test_files_that_are_no_certificate_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    for key in ("c.pem", "missing.pem"):
        web = WebConfig(tls_certificate=str(tmp_path / "c.pem"), tls_key=str(tmp_path / key))
        with pytest.raises(UsageError, match="cannot be used"), serving(web):
            pass
