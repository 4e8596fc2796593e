"""Video files, RTSP and MJPEG over HTTP through FFmpeg (PyAV), decoded on one thread.

In: a path or URL. Out: NV12 frames, the planes of the decoder copied straight into the caller's memory: no conversion
at full size, which would cost more than everything else. Runs in the camera's child process. Odd sizes lose their last
row or column; the colour matrix a stream names is not looked at: everything is taken as BT.601, as OpenCV does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import av
import av.logging
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edged import clock
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.ring import MAX_SIDE
from edged.frames.source import Grabbed, SourceInfo
from edged.uri import SourceUri

av.logging.set_level(None)  # FFmpeg's own lines would carry URLs, and come thousands at a time from a bad stream

_OPEN_S: Final = 5.0
_READ_S: Final = 4.0  # the daemon notices silence earlier; this ends the child of a daemon that does not
_MAX_BAD: Final = 300  # packets in a row that cannot be decoded
_MAX_LATE_NS: Final = clock.NS_PER_S // 2
_FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG

# A playlist or redirect from outside must not make us open local files.
_RTSP: Final = {
    "rtsp_transport": "tcp", "fflags": "nobuffer", "analyzeduration": "100000",
    "probesize": "32768", "protocol_whitelist": "rtsp,rtsps,rtp,tcp,tls,crypto",
}  # fmt: skip
_HTTP: Final = {"fflags": "nobuffer", "protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto"}
_FILE: Final = {"protocol_whitelist": "file"}


@dataclass(frozen=True)
class _Decoded:
    """A frame, or (None) a packet that cannot be decoded, and when and with what capture time its packet came."""

    frame: av.VideoFrame | None
    mono_ns: int
    wall_ns: int | None = None


class _Stream:
    """An open container and its first video stream."""

    def __init__(
        self, url: str, shown: SourceUri, options: dict[str, str], timeout: tuple[float, float] | None
    ) -> None:
        self._uri = shown
        begin_ns = clock.mono_ns()
        try:
            self._container = av.open(url, options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            # FFmpeg calls a silent camera invalid data; the clock knows better. The cause would carry the URL.
            late = timeout is not None and clock.mono_ns() - begin_ns >= timeout[0] * clock.NS_PER_S
            raise EdgedError(f"no answer within {_OPEN_S:.0f} s" if late else self._explain(error)) from None
        if not self._container.streams.video:
            self.close()
            raise EdgedError("it has no video stream")
        self.stream: VideoStream = self._container.streams.video[0]
        context = self.stream.codec_context
        context.thread_count = 1
        context.thread_type = "NONE"
        context.options = {**context.options, "max_pixels": str(MAX_SIDE * MAX_SIDE)}

    @property
    def fps(self) -> float | None:
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate and 0 < rate <= 1000 else None

    def decoded(self) -> Iterator[_Decoded]:
        """Every frame to the end of the stream. Raises EdgedError when the stream breaks."""
        walls: dict[int, int] = {}
        bad = 0
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                raise EdgedError(self._explain(error)) from None
            mono_ns = clock.mono_ns()
            wall_ns = _camera_time_ns(packet)
            if wall_ns is not None and packet.pts is not None:
                if len(walls) >= 64:
                    walls.clear()
                walls[packet.pts] = wall_ns
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError) as error:
                bad += 1
                if bad > _MAX_BAD:
                    raise EdgedError(f"{_MAX_BAD} packets in a row cannot be decoded: {self._explain(error)}") from None
                yield _Decoded(None, mono_ns)
                continue
            for frame in frames:
                bad = 0
                yield _Decoded(frame, mono_ns, walls.pop(frame.pts, None) if frame.pts is not None else None)

    def close(self) -> None:
        self._container.close()

    def _explain(self, error: Exception) -> str:
        """One sentence without the URL that FFmpeg would put into it."""
        if isinstance(error, av.error.HTTPUnauthorizedError):
            return "the camera refuses the user or the password"
        if isinstance(error, av.error.ExitError | TimeoutError):
            return "no answer in time"
        if isinstance(error, av.error.InvalidDataError):
            return "it is damaged or no video that FFmpeg knows"
        text = getattr(error, "strerror", None) or type(error).__name__
        return self._uri.scrub(str(text))


def _camera_time_ns(packet: av.Packet[Any]) -> int | None:
    """Unix time of the capture by the camera's clock, from its RTCP sender reports; None until the first of them."""
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):  # PyAV before 16 does not have it
        return None
    data = bytes(packet.get_sidedata("prft"))
    if len(data) < 8:
        return None
    (microseconds,) = struct.unpack_from("=q", data)
    return microseconds * 1000 if 0 < microseconds < 1 << 52 else None


class _Picture:
    """The decoder's current frame and how it gets into the caller's memory."""

    def __init__(self) -> None:
        self.frame: av.VideoFrame | None = None

    def size(self) -> tuple[int, int]:
        assert self.frame is not None
        width, height = self.frame.width & ~1, self.frame.height & ~1
        if not (2 <= width <= MAX_SIDE and 2 <= height <= MAX_SIDE):
            raise EdgedError(f"its pictures of {width}x{height} are not within 2x2 and {MAX_SIDE}x{MAX_SIDE}")
        return width, height

    def draw(self, into: NDArray[np.uint8]) -> None:
        """Draw as NV12."""
        frame = self.frame
        assert frame is not None
        height, width = into.shape[0] * 2 // 3, into.shape[1]
        chroma = into[height:].reshape(height // 2, width // 2, 2)
        if frame.format.name == "yuv420p" and frame.color_range != _FULL_RANGE:
            luma, u, v = (_rows(plane) for plane in frame.planes)
            np.copyto(into[:height], luma[:height, :width])
            cv2.merge([u[: height // 2, : width // 2], v[: height // 2, : width // 2]], chroma)
            return
        if frame.format.name != "nv12" or frame.color_range == _FULL_RANGE:
            frame = frame.reformat(format="nv12", dst_color_range="MPEG")
        luma, uv = (_rows(plane) for plane in frame.planes)
        np.copyto(into[:height], luma[:height, :width])
        np.copyto(into[height:], uv[: height // 2, :width])


def _rows(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    """The plane in place, its padding included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


class NetworkSource:
    """RTSP (over TCP) or HTTP. Frames are there when they come; the end of the stream is a failure."""

    def __init__(self, uri: SourceUri) -> None:
        options = _RTSP if uri.kind == "rtsp" else _HTTP
        self._stream = _Stream(uri.url(), uri, dict(options), (_OPEN_S, _READ_S))
        self._frames = self._stream.decoded()
        self._picture = _Picture()
        self._next: Grabbed | None = None
        self.info = SourceInfo(2, 2, PixelFormat.NV12, None, "")
        while self._next is None or self._next.corrupt:  # only a decoded frame tells the real size
            self._next = self._advance()

    def grab(self) -> Grabbed:
        grabbed, self._next = self._next, None
        return grabbed if grabbed is not None else self._advance()

    def _advance(self) -> Grabbed:
        item = next(self._frames, None)
        if item is None:
            raise EdgedError("the camera ended the stream")
        if item.frame is None or item.frame.is_corrupt:
            return Grabbed(item.mono_ns, corrupt=True)
        self._picture.frame = item.frame
        size = self._picture.size()
        if size != (self.info.width, self.info.height):
            codec = self._stream.stream.codec_context.name
            self.info = SourceInfo(*size, PixelFormat.NV12, self._stream.fps, codec)
        return Grabbed(item.mono_ns, item.wall_ns)

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        self._stream.close()


class FileSource:
    """A video file, at its own pace or (pace=0) unpaced, over and over or (loop=0) once."""

    def __init__(self, uri: SourceUri) -> None:
        self._uri = uri
        self._paced, self._loop = uri.options["pace"] == 1, uri.options["loop"] == 1
        self._picture = _Picture()
        self._reopen()
        fps = self._stream.fps or 25.0
        self._period_ns = round(clock.NS_PER_S / fps)
        self._due_ns = clock.mono_ns() - self._period_ns
        self._last_pts: int | None = None
        self._drawn = 0  # frames since the file was opened
        context = self._stream.stream.codec_context
        size = (context.width & ~1, context.height & ~1)
        self.info = SourceInfo(*size, PixelFormat.NV12, fps, context.name, self._paced)

    def _reopen(self) -> None:
        try:
            self._stream = _Stream("file:" + self._uri.target, self._uri, dict(_FILE), None)
        except EdgedError as error:
            raise EdgedError(f"cannot play {self._uri.target}: {error}") from None
        self._frames = self._stream.decoded()
        self._drawn, self._last_pts = 0, None

    def grab(self) -> Grabbed | None:
        item = next(self._frames, None)
        if item is None:
            if not self._drawn:
                raise EdgedError(f"{self._uri.target} holds no picture that can be decoded")
            if not self._loop:
                return None
            self._stream.close()
            self._reopen()
            return self.grab()
        if item.frame is None or item.frame.is_corrupt:
            return Grabbed(clock.mono_ns(), corrupt=True)
        self._drawn += 1
        self._picture.frame = item.frame
        size = self._picture.size()
        if size != (self.info.width, self.info.height):
            self.info = SourceInfo(*size, PixelFormat.NV12, self.info.fps, self.info.codec, self._paced)
        return Grabbed(self._due(item.frame) if self._paced else clock.mono_ns())

    def _due(self, frame: av.VideoFrame) -> int:
        """When the frame is due: as far after the one before as their time stamps say, where those make sense."""
        step_ns = self._period_ns
        if frame.pts is not None and frame.time_base is not None:
            if self._last_pts is not None:
                told_ns = int((frame.pts - self._last_pts) * frame.time_base * clock.NS_PER_S)
                if 0 < told_ns < 10 * clock.NS_PER_S:
                    step_ns = told_ns
            self._last_pts = frame.pts
        self._due_ns += step_ns
        now_ns = clock.mono_ns()
        if now_ns - self._due_ns > _MAX_LATE_NS:
            self._due_ns = now_ns  # this machine cannot decode that fast: slower, rather than ever later
        return self._due_ns

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        self._stream.close()
