"""An HTTP camera that answers with whatever a test wants, over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["HttpCamera", BaseHTTPRequestHandler], None]


class HttpCamera:
    """`reply(camera, request)` answers each GET. `requests` counts them. Use as a context manager."""

    def __init__(self, reply: Reply) -> None:
        self.requests = 0
        self.stopping = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silence."""

            def do_GET(self) -> None:
                camera.requests += 1
                try:
                    reply(camera, self)
                except OSError:
                    return  # the client is gone

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/video"

    def __enter__(self) -> HttpCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def single(content_type: str, body: bytes | Callable[[int], bytes], status: int = 200, **headers: str) -> Reply:
    """One answer with a length; `body` may depend on how many came before."""

    def reply(camera: HttpCamera, request: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else body(camera.requests - 1)
        request.send_response(status)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return reply


def parts(images: list[bytes], fps: float, sent: dict[int, int] | None = None) -> Reply:
    """The images over and over as multipart/x-mixed-replace. `sent`: when which was sent, monotonic ns."""

    def reply(camera: HttpCamera, request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        n = 0
        while True:
            image = images[n % len(images)]
            if sent is not None:
                sent[n] = time.monotonic_ns()
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image)
            request.wfile.write(head + image + b"\r\n")
            n += 1
            if camera.stopping.wait(1 / fps):
                return

    return reply
