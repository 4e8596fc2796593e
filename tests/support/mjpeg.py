"""An MJPEG-over-HTTP camera on the standard library's server, with the faults that matter: silence and hang-up."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


class MjpegCamera:
    """Serves numbered pictures at http://127.0.0.1:PORT/video. Use as a context manager."""

    def __init__(self, width: int = 320, height: int = 240, fps: float = 30) -> None:
        self.stalled = threading.Event()
        self._stopping = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silence."""

            def do_GET(self) -> None:
                camera._serve(self)

        self._size, self._fps = (width, height), fps
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/video"

    def __enter__(self) -> MjpegCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        index = 0
        try:
            while not self._stopping.wait(1 / self._fps):
                if self.stalled.is_set():
                    continue
                width, height = self._size
                image = np.zeros((height, width, 3), np.uint8)
                image[:, : 10 + index * 7 % (width - 10)] = (255, 255, 255)
                jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                request.wfile.write(head.encode() + jpeg + b"\r\n")
                index += 1
        except OSError:
            return  # the client is gone
