"""One RTSP connection (RFC 2326): requests and answers, and the packets interleaved with them.

In: a camera's address and credentials. Out: answers, and interleaved packets with their arrival. Blocks with deadlines;
runs in the camera's child process.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import edged
from edged import clock
from edged.clock import NS_PER_MS, NS_PER_S
from edged.errors import EdgedError
from edged.frames.http_auth import Authenticator
from edged.uri import SourceUri

_CHUNK: Final = 1 << 17
_MAX_HEAD: Final = 1 << 16
_MAX_BODY: Final = 1 << 20
_MAX_PACKETS: Final = 4096
_MAX_TRIES: Final = 3  # of a request: a camera may call each nonce stale


@dataclass(frozen=True)
class Response:
    """`headers` by lower-case name; of several of one name all, in order."""

    status: int
    reason: str
    headers: dict[str, list[str]]
    body: str

    def header(self, name: str) -> str:
        return self.headers.get(name, [""])[0]


class DisconnectedError(EdgedError):
    """The camera closed the connection."""


class RtspConnection:
    """Open as long as the object is; `close` is idempotent. Every method raises EdgedError when the camera is gone."""

    def __init__(self, uri: SourceUri, timeout_s: float) -> None:
        parts = urlsplit(uri.target)
        self._auth = Authenticator(uri.user, uri.password)
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._sequence = 0
        self.packets: deque[tuple[int, bytes]] = deque()
        """interleaved packets that are here, as (channel, data), for `wait` to fill and the reader to empty"""
        self.session = ""
        self.keep_alive_method = "OPTIONS"
        self.arrival_ns = 0
        self.fresh = True
        port = parts.port or (322 if parts.scheme == "rtsps" else 554)
        try:
            plain = socket.create_connection((parts.hostname or "", port), timeout_s)
        except TimeoutError:
            raise EdgedError(f"no answer within {timeout_s:.0f} s") from None
        except OSError as error:
            raise EdgedError(str(error.strerror or error)) from None
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = _encrypted(plain, parts.hostname) if parts.scheme == "rtsps" else plain
        except OSError as error:
            plain.close()
            raise EdgedError(f"the camera does not answer with TLS: {error.strerror or error}") from None
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    @property
    def peer(self) -> str:
        return str(self._socket.getpeername()[0])

    @property
    def local(self) -> str:
        return str(self._socket.getsockname()[0])

    def fileno(self) -> int:
        return self._socket.fileno()

    # ---- requests ------------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, headers: dict[str, str] | None = None) -> Response:
        """Send it and wait for the answer; once more with credentials if the camera asks for them."""
        deadline_ns = clock.mono_ns() + int(self._timeout_s * NS_PER_S)
        for _ in range(_MAX_TRIES):
            self.send_request(method, url, headers)
            response = self._response(deadline_ns)
            if response.status != 401:
                break
            if not self._auth.challenged(response.headers.get("www-authenticate", [])):
                break
        return response

    def learn_methods(self, url: str) -> None:
        """Ask what the camera can do; one that does not say is kept alive by OPTIONS."""
        if "GET_PARAMETER" in self.request("OPTIONS", url).header("public"):
            self.keep_alive_method = "GET_PARAMETER"

    def send_request(self, method: str, url: str, headers: dict[str, str] | None = None) -> None:
        """Send it; its answer will be read among the packets (keep-alive)."""
        self._sequence += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._sequence}", f"User-Agent: edged/{edged.__version__}"]
        authorization = self._auth.header(method, url)
        lines += [f"Authorization: {authorization}"] if authorization else []
        lines += [f"Session: {self.session}"] if self.session else []
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        """Send bytes; a camera that does not read for the time-out is gone."""
        view = memoryview(data)
        deadline_ns = clock.mono_ns() + int(self._timeout_s * NS_PER_S)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if clock.mono_ns() > deadline_ns:
                    raise EdgedError(f"the camera has read nothing for {self._timeout_s:.0f} s") from None
                clock.sleep_s(0.01)
            except OSError as error:
                raise DisconnectedError(f"the camera closed the connection: {error.strerror}") from None

    def _response(self, deadline_ns: int) -> Response:
        while True:  # a camera may send its first packets before the answer to PLAY
            response = self._parsed()
            if response is not None:
                return response
            if len(self.packets) >= _MAX_PACKETS or not self._fill(deadline_ns):
                raise EdgedError(f"no answer within {self._timeout_s:.0f} s")

    # ---- packets -------------------------------------------------------------------------------------------------

    def wait(self, deadline_ns: int) -> bool:
        """Wait until there are `packets`; False at the deadline."""
        while not self.packets:
            response = self._parsed()
            if response is not None:
                if response.status == 401:  # the nonce of a keep-alive has become stale
                    self._auth.challenged(response.headers.get("www-authenticate", []))
            elif not self.packets and not self._fill(deadline_ns):
                return False
        return True

    def absorb(self) -> None:
        """Read what has come without waiting: answers to keep-alives while the packets come by UDP."""
        self.wait(clock.mono_ns())
        self.packets.clear()

    def _parsed(self) -> Response | None:
        """Take whole packets out of the buffer, up to an answer, which is returned. What is neither is passed over."""
        buffer = self._buffer
        while buffer:
            if buffer[0] == 0x24:
                if not self._take_packets():
                    return None
                continue
            if buffer.startswith(b"HTTP/"):
                raise EdgedError(
                    "a web server answers at this port, no camera's stream",
                    "use the port of RTSP in the URL: 554 unless the camera's manual says otherwise",
                )
            if not buffer.startswith(b"RTSP/"[: len(buffer)]):
                following = [at for at in (buffer.find(b"$", 1), buffer.find(b"RTSP/", 1)) if at > 0]
                del buffer[: min(following, default=len(buffer))]
                continue
            return self._parsed_response()
        return None

    def _take_packets(self) -> bool:
        """Those at the beginning of the buffer; whether there were any, and room for more."""
        buffer, packets, start, size = self._buffer, self.packets, 0, len(self._buffer)
        while start + 4 <= size and buffer[start] == 0x24 and len(packets) < _MAX_PACKETS:
            end = start + 4 + (buffer[start + 2] << 8 | buffer[start + 3])
            if end > size:
                break
            packets.append((buffer[start + 1], bytes(buffer[start + 4 : end])))
            start = end
        del buffer[:start]
        return start > 0 and len(packets) < _MAX_PACKETS

    def _parsed_response(self) -> Response | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise EdgedError("the camera's answer is no RTSP")
            return None
        first, *lines = self._buffer[:end].decode("utf-8", "replace").split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), []).append(value.strip())
        length = headers.get("content-length", ["0"])[0]
        size = int(length) if length.isdecimal() else 0
        if size > _MAX_BODY:
            raise EdgedError("the camera's answer is too long")
        if len(self._buffer) < end + 4 + size:
            return None
        body = self._buffer[end + 4 : end + 4 + size].decode("utf-8", "replace")
        del self._buffer[: end + 4 + size]
        _, _, status = first.partition(" ")
        code, _, reason = status.partition(" ")
        return Response(int(code) if code.isdecimal() else 0, reason, headers, body)

    def _fill(self, deadline_ns: int) -> bool:
        """Read more; False at the deadline."""
        self.fresh = False
        while True:
            try:
                data = self._socket.recv(_CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                left_ns = deadline_ns - clock.mono_ns()
                if left_ns <= 0:
                    return False
                self.fresh = True
                self._poll.poll(left_ns / NS_PER_MS)
                continue
            except OSError as error:
                raise DisconnectedError(f"the connection broke: {error.strerror or error}") from None
            self.arrival_ns = clock.mono_ns()
            if not data:
                raise DisconnectedError("the camera ended the stream")
            self._buffer += data
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _encrypted(plain: socket.socket, host: str | None) -> socket.socket:
    """TLS as cameras have it: encrypted, with a certificate of their own making that nobody can check."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=host)
