"""Generated clips: H.264 access units for the RTSP camera, and files in containers. Needs PyAV with libx264."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

AccessUnits = list[list[bytes]]


def pattern(index: int, width: int, height: int, noise: int = 6) -> NDArray[np.uint8]:
    """A moving yuv420p picture as PyAV wants it, (height * 3 // 2, width); without noise, still a new one each time."""
    rng = np.random.default_rng(index)
    yy, xx = np.mgrid[0:height, 0:width]
    luma = (np.sin((xx + 3 * index) / 17) + np.cos(yy / 23)) * 50 + 128
    if noise:
        luma = luma + rng.integers(-noise, noise + 1, (height, width))
    picture = np.full((height * 3 // 2, width), 128, np.uint8)
    picture[:height] = np.clip(luma, 16, 235)
    return picture


def _encoder_options(context: av.VideoCodecContext, width: int, height: int, fps: int, bitrate: int) -> None:
    context.width, context.height, context.pix_fmt, context.bit_rate = width, height, "yuv420p", bitrate
    context.time_base, context.framerate, context.gop_size = Fraction(1, fps), Fraction(fps, 1), fps
    context.options = {"preset": "veryfast", "tune": "zerolatency", "threads": "1"}


def access_units(
    width: int = 320, height: int = 240, fps: int = 30, count: int = 60, bitrate: int = 1_000_000, frozen: bool = False
) -> AccessUnits:
    """`count` frames of H.264 as lists of NAL units without start codes. `frozen`: the same picture `count` times, each
    an intra frame of its own so that it decodes to the very same pixels."""
    encoder = av.CodecContext.create("libx264", "w")
    _encoder_options(encoder, width, height, fps, bitrate)
    if frozen:
        encoder.gop_size, count = 1, 1
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(pattern(index, width, height), format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    units = []
    for packet in packets:
        nals = bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
        units.append([nal for nal in nals if nal and nal[0] & 31 != 6])
    return units


def coded(
    pictures: Iterable[NDArray[np.uint8]], fps: int, gop: int, codec: str = "h264", more: str = "", sei: bool = False
) -> AccessUnits:
    """BGR pictures as access units, a keyframe every `gop`. `more`: further x264 or x265 parameters."""
    encoder: Any = av.CodecContext.create({"h264": "libx264", "hevc": "libx265"}[codec], "w")
    common = f"keyint={gop}:min-keyint={gop}:scenecut=0:repeat-headers=1:bframes=0{more and ':' + more}"
    own = ":slices=1:sliced-threads=0:aud=0" if codec == "h264" else ":log-level=none:pools=1"
    params = "x264-params" if codec == "h264" else "x265-params"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "22", params: common + own}
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, fps), Fraction(fps, 1)
    packets = []
    for index, picture in enumerate(pictures):
        if not index:
            encoder.height, encoder.width = picture.shape[:2]
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    units = [re.split(rb"\x00\x00\x00?\x01", bytes(packet)) for packet in packets]
    return [[nal for nal in unit if nal and (sei or not _is_sei(nal, codec))] for unit in units]


def _is_sei(nal: bytes, codec: str) -> bool:
    return nal[0] & 31 == 6 if codec == "h264" else nal[0] >> 1 & 63 in (39, 40)


def numbered(count: int, width: int = 320, height: int = 240) -> list[NDArray[np.uint8]]:
    """BGR pictures: a rough wall, two squares that move before it, and the picture's number in blocks at the top."""
    rough = np.random.default_rng(5).integers(40, 216, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    wall = np.kron(rough, np.ones((8, 8, 1), np.uint8))[:height, :width]
    found = []
    for n in range(count):
        picture = wall.copy()
        for k in range(2):
            x, y = (n * (3 + 2 * k) + 130 * k) % (width - 40), height // 3 * (k + 1)
            picture[y : y + 40, x : x + 40] = (30 + 200 * k, 60, 220 - 180 * k)
        side = width // 40
        for bit in range(12):
            picture[:side, bit * side : (bit + 1) * side] = 235 if n >> (11 - bit) & 1 else 16
        found.append(picture)
    return found


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number of a picture of `numbered`, from its luma or BGR at any scale."""
    side, number = picture.shape[1] / 40, 0
    rows = slice(int(side * 0.3), int(side * 0.7) + 1)
    for bit in range(12):
        number = number << 1 | int(picture[rows, int((bit + 0.3) * side) : int((bit + 0.7) * side) + 1].mean() > 125)
    return number


def write_clip(
    path: Path,
    size: tuple[int, int] = (320, 240),
    fps: int = 30,
    count: int = 60,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    still: bool = False,
    faststart: bool = False,
) -> Path:
    """A video file of `count` frames; `still`: all of them the same; `faststart`: its index comes first."""
    width, height = size
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream(codec, rate=fps)
        if codec == "libx264":
            _encoder_options(stream.codec_context, width, height, fps, 1_000_000)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for index in range(count):
            even = pattern(0 if still else index, width + width % 2, height + height % 2, noise=0 if still else 6)
            frame = av.VideoFrame.from_ndarray(even, format="yuv420p")
            if pix_fmt != "yuv420p" or width % 2 or height % 2:
                frame = frame.reformat(width=width, height=height, format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_pictures(
    path: Path,
    shown: list[Any],
    fps: int = 15,
    stamps: Callable[[int], int] = lambda n: n,
    setup: Callable[[Any], None] = lambda stream: None,
    options: str = "",
) -> Path:
    """BGR pictures as a file of H.264. `stamps`: the time of each, in periods. `setup`: changes to the stream before it
    is written. `options`: of x264."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt, stream.options = (
            "yuv420p",
            {"preset": "ultrafast", "tune": "zerolatency", "crf": "15", "g": "15"},
        )
        if options:
            stream.options = {**stream.options, "x264-params": options}
        setup(stream)
        for n, picture in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = stamps(n), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def truncate(path: Path, share: float) -> Path:
    """Cut the file to a share of its length."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
