"""HTTP cameras: JPEG after JPEG (MJPEG), or one JPEG (or PNG, or WebP) that is fetched again and again.

In: an http:// or https:// source. Out: NV12 frames; pictures that are cut or damaged are marked corrupt. What is
neither goes to FFmpeg (network.py), or is refused with what the URL gave instead. Runs in the camera's child process.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections import deque
from typing import Final
from urllib.parse import urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

import edged
from edged import clock
from edged.clock import NS_PER_S
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.http_auth import Authenticator, refusal
from edged.frames.sources.base import Grabbed, Report, SourceInfo, StreamCost
from edged.frames.sources.multipart import MAX_PART_BYTES, JpegReader, MultipartReader, Part
from edged.frames.video.decoder import DamagedError, Decoder, still_codec
from edged.frames.video.picture import Picture
from edged.uri import SourceUri

_MAX_REDIRECTS: Final = 5
_CHUNK: Final = 1 << 16
_SNIFFED: Final = 64
_PAGES: Final = re.compile(r"text/|application/(json|xml|xhtml|javascript)|.*\+(json|xml)")
_HTML: Final = re.compile(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|script)")
_NAMES: Final = {"mjpeg": "JPEG", "png": "PNG", "webp": "WebP"}
_HINTS: Final = {
    403: "the camera does not let this user see the stream",
    404: "check the path in the URL",
    503: "the camera has as many viewers as it allows: end one",
}


class Answer:
    """An open answer to a GET. `content_type` without its parameters."""

    def __init__(self, uri: SourceUri, timeout_s: float) -> None:
        """Redirects are followed within http and https, credentials given to the configured host alone. Raises
        EdgedError for anything but 200."""
        auth = Authenticator(uri.user, uri.password)
        url, first = uri.target, urlsplit(uri.target).hostname
        for _ in range(_MAX_REDIRECTS + 1):
            own = urlsplit(url).hostname == first
            connection, response = _get(url, auth if own else None, timeout_s)
            challenges = response.headers.get_all("WWW-Authenticate", [])
            if response.status == 401 and own and auth.challenged(challenges):
                connection.close()
                connection, response = _get(url, auth, timeout_s)
            location = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                break
            connection.close()
            url = urljoin(url, location)
            if urlsplit(url).scheme not in ("http", "https"):
                raise EdgedError("the camera redirects to something that is not HTTP")
        else:
            raise EdgedError(f"the camera redirects more than {_MAX_REDIRECTS} times")
        self._connection, self._response = connection, response
        if response.status != 200:
            self.close()
            if response.status == 401:
                raise refusal(uri)
            raise EdgedError(f"the camera answers with HTTP {response.status}", _HINTS.get(response.status, ""))
        self.content_type = response.headers.get_content_type().lower() if "Content-Type" in response.headers else ""
        self.boundary = str(response.headers.get_param("boundary") or "")
        self.head = b""
        """the first bytes, which were looked at and still belong to the body"""

    def sniff(self) -> bytes:
        """The first bytes, to see what it is."""
        while len(self.head) < _SNIFFED and (more := self.read()):
            self.head += more
        return self.head

    def read(self) -> bytes:
        """What has come, waiting for something; b"" at the end. EdgedError after the time-out."""
        try:
            return self._response.read1(_CHUNK)
        except TimeoutError:
            raise EdgedError("no answer in time") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EdgedError(
                f"the connection broke: {getattr(error, 'strerror', None) or type(error).__name__}"
            ) from None

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def _get(
    url: str, auth: Authenticator | None, timeout_s: float
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # cameras make their own certificates
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": f"edged/{edged.__version__}", "Accept": "*/*"}
    authorization = auth.header("GET", path) if auth is not None else None
    if authorization is not None:
        headers["Authorization"] = authorization
    try:
        connection.request("GET", path, headers=headers)
        return connection, connection.getresponse()
    except TimeoutError:
        connection.close()
        raise EdgedError(f"no answer within {timeout_s:.0f} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise EdgedError(str(getattr(error, "strerror", None) or "its answer is no HTTP")) from None


def check_is_video(answer: Answer) -> None:
    """EdgedError that names what the URL gave, if it is nothing, a page or a text. The first bytes count for more than
    the type: cameras call pictures and playlists a text, and pages a picture."""
    head, kind = answer.sniff(), answer.content_type
    if not head:
        raise EdgedError("the URL gives nothing", "use the URL of the camera's stream")
    if still_codec(head) is not None or head.lstrip().startswith(b"#EXTM3U"):
        return
    page = "html" in kind or _HTML.match(head) is not None
    if page or (_PAGES.match(kind) and b"\0" not in head):  # to many servers a .ts is a text
        what = "a web page" if page else "a text"
        raise EdgedError(
            f"the URL gives {what} ({kind or 'of no type'}), no video",
            "copy the URL of the camera's stream itself, not that of its page or its login",
        )


def open_pictures(uri: SourceUri, config: CameraConfig, read_s: float, report: Report) -> JpegSource | None:
    """The source if the URL gives pictures, as its answer shows; None for what FFmpeg is to read."""
    answer = Answer(uri, read_s)
    try:
        if answer.content_type.startswith("multipart/"):
            return JpegSource(uri, answer, MultipartReader(answer.boundary), None, read_s, report)
        check_is_video(answer)
        kind, codec = answer.content_type, still_codec(answer.sniff())
        if codec == "mjpeg" and (kind.startswith("video/") or kind.endswith("mjpeg")):
            return JpegSource(uri, answer, JpegReader(), None, read_s, report)
        if codec is not None and config.poll_s is not None:
            return JpegSource(uri, answer, None, config.poll_s, read_s, report)
        if codec is not None:
            raise EdgedError(
                f"the URL gives a single {_NAMES[codec]} picture, no stream",
                f"set poll_s = 1 for camera {config.name} to fetch it once a second, or use the URL of its stream",
            )
        if kind.startswith("image/"):
            raise EdgedError(f"the URL gives a picture ({kind}) that is no JPEG, PNG or WebP")
        if config.poll_s is not None:
            raise EdgedError("poll_s is set, and the URL gives no JPEG picture", "remove poll_s")
    except EdgedError:
        answer.close()
        raise
    answer.close()
    return None


class JpegSource:
    """Pictures by HTTP: of one long answer (`reader`), or (`poll_s`) an answer each."""

    def __init__(
        self,
        uri: SourceUri,
        answer: Answer,
        reader: MultipartReader | JpegReader | None,
        poll_s: float | None,
        read_s: float,
        report: Report,
    ) -> None:
        self._uri, self._poll_s, self._read_s = uri, poll_s, read_s
        self._answer: Answer | None = answer
        self._reader = reader
        self._pushed = False
        self._parts: deque[Part] = deque()
        self._due_ns = clock.mono_ns()
        self._codec = "mjpeg"
        self._decoder: Decoder[None] = Decoder(self._codec)
        self._picture = Picture()
        self.cost = StreamCost()
        self._first: Grabbed | None = self._next()
        while self._first.corrupt:  # only a whole one tells the size
            report("connected, pictures come, and none can be decoded")
            self._first = self._next()

    @property
    def info(self) -> SourceInfo:
        assert self._picture.info is not None, "the constructor waits for the first picture"
        return self._picture.info

    def grab(self) -> Grabbed:
        grabbed, self._first = self._first, None
        return grabbed if grabbed is not None else self._next()

    def _next(self) -> Grabbed:
        part = self._streamed(self._reader) if self._reader is not None else self._fetched()
        self.cost.bytes += len(part.data)
        codec = still_codec(part.data) or self._codec
        if codec != self._codec:
            self._codec, self._decoder = codec, Decoder(codec)
        try:
            frames = self._decoder.decode(part.data, None)
        except DamagedError:
            frames = []
        self.cost.decode_ns = self._decoder.cpu_ns
        if len(frames) != 1 or frames[0][0].is_corrupt:
            return Grabbed(part.arrival_ns, corrupt=True)
        self.cost.pictures += 1
        fps = 1 / self._poll_s if self._poll_s is not None else None
        self._picture.take(frames[0][0], 1.0, fps, self._codec)  # JFIF's density is in no use by cameras
        return Grabbed(part.arrival_ns)

    def _streamed(self, reader: MultipartReader | JpegReader) -> Part:
        assert self._answer is not None
        while not self._parts:
            data = self._answer.head if not self._pushed else self._answer.read()
            if not data and self._pushed:
                raise EdgedError("the camera ended the stream")
            self._pushed = True
            for part in reader.push(data, clock.mono_ns()):
                if part.content_type == "" or part.content_type.startswith("image/") or still_codec(part.data):
                    self._parts.append(part)
        return self._parts.popleft()

    def _fetched(self) -> Part:
        """The next single picture, when it is due."""
        assert self._poll_s is not None
        if self._answer is None:
            clock.sleep_s(max(0.0, (self._due_ns - clock.mono_ns()) / NS_PER_S))
            self._answer = Answer(self._uri, self._read_s)
            check_is_video(self._answer)  # a session that has expired gives a page
        period_ns = int(self._poll_s * NS_PER_S)
        self._due_ns = max(self._due_ns + period_ns, clock.mono_ns())
        data, arrival_ns = self._answer.head, clock.mono_ns()
        while (more := self._answer.read()) and len(data) <= MAX_PART_BYTES:
            data += more
        self._answer.close()
        self._answer = None
        return Part("image/jpeg", data, arrival_ns)

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
