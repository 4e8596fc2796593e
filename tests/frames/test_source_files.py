"""Video files as users have them: pauses, covers, turned, anamorphic, interlaced, of other colours; and wrong paths."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from edged.bus.client import bgr
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingSpec
from edged.frames.source import open_source
from edged.frames.sources.base import Source
from tests.support.clips import number_of, numbered, write_pictures

S = 1_000_000_000


def opened(path: Path, options: str = "", **keys: Any) -> Source:
    return open_source(CameraConfig(name="cam", source=f"file://{path}{options}", **keys))


def picture_of(source: Source) -> np.ndarray[Any, np.dtype[np.uint8]]:
    assert source.grab() is not None
    info = source.info
    pixels = np.empty(RingSpec(info.width, info.height, info.format).shape, np.uint8)
    source.retrieve(pixels)
    source.close()
    return bgr(pixels, info.format)


@pytest.mark.parametrize("pause_s", [3, 30, 7200])
def test_a_pause_in_the_time_stamps_is_cut_to_a_second(tmp_path: Path, pause_s: int) -> None:
    clip = write_pictures(tmp_path / "a.mp4", numbered(20), stamps=lambda n: n if n < 10 else n + 15 * pause_s)
    source = opened(clip)
    dues = [grabbed.mono_ns for _ in range(25) if (grabbed := source.grab()) is not None]
    steps = np.diff(dues) / S
    assert steps.max() <= 1.5 and np.argmax(steps) == 9
    assert np.allclose(np.delete(steps, 9), 1 / 15, atol=0.01), "also where it begins again"
    source.close()


def test_a_slow_recording_keeps_its_own_pace(tmp_path: Path) -> None:
    source = opened(write_pictures(tmp_path / "a.mp4", numbered(5), fps=1, stamps=lambda n: 3 * n))
    dues = [grabbed.mono_ns for _ in range(4) if (grabbed := source.grab()) is not None]
    assert np.allclose(np.diff(dues) / S, 3, atol=0.1)
    source.close()


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a, b, c, d of the display matrix into an mp4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd")
    at += 4 + 4 + (32 if data[at + 4] else 20) + 16
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[Any], Any]]] = {
    "90": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "180": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "270": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_a_picture_is_shown_as_its_file_says(tmp_path: Path, kind: str) -> None:
    matrix, expected = MATRICES[kind]
    lying = numbered(3)
    clip = turn(write_pictures(tmp_path / "a.mp4", lying), matrix)
    shown = picture_of(opened(clip))
    wanted = expected(lying[0])
    assert shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).mean() < 12
    plain = picture_of(opened(clip, rotate=0))
    assert np.abs(plain.astype(int) - lying[0]).mean() < 12


def test_an_anamorphic_picture_gets_square_pixels(tmp_path: Path) -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(20, 11)

    squeezed = [cv2.resize(p, (176, 240), interpolation=cv2.INTER_AREA) for p in numbered(2)]
    shown = picture_of(opened(write_pictures(tmp_path / "a.mp4", squeezed, setup=wide)))
    assert shown.shape == (240, 320, 3)
    assert np.abs(shown.astype(int) - numbered(1)[0]).mean() < 20
    forced = opened(tmp_path / "a.mp4", aspect="1:1")
    assert (forced.info.width, forced.info.height) == (240, 240)
    forced.close()


def test_a_shape_that_changes_within_a_transport_stream_is_followed(tmp_path: Path) -> None:
    data = b""
    for n, shape in enumerate((Fraction(1, 1), Fraction(4, 3))):
        clip = tmp_path / f"{n}.ts"
        with av.open(str(clip), "w") as container:
            stream: Any = container.add_stream("mpeg2video", rate=25)
            stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
            stream.codec_context.sample_aspect_ratio = shape
            for k, picture in enumerate(numbered(20)):
                frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        data += clip.read_bytes()
    (tmp_path / "all.ts").write_bytes(data)
    source, widths = opened(tmp_path / "all.ts", "?loop=0&pace=0"), []
    while (grabbed := source.grab()) is not None:
        widths += [] if grabbed.corrupt else [source.info.width]
    source.close()
    assert widths == sorted(widths) and set(widths) == {320, 426} and 15 <= widths.count(426) <= 20


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    data = write_pictures(tmp_path / "a.mp4", numbered(8)).read_bytes()
    cover = bytes(cv2.imencode(".jpg", np.full((90, 90, 3), 80, np.uint8))[1].tobytes())
    item = box(b"covr", box(b"data", struct.pack(">II", 13, 0) + cover))
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    meta = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", item)))
    at = data.index(b"moov") - 4
    (tmp_path / "b.mp4").write_bytes(data[:at] + box(b"moov", meta + data[at + 8 :]))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    source = opened(tmp_path / "b.mp4", "?pace=0")
    assert (source.info.width, source.info.codec) == (320, "h264")
    source.close()
    audio = tmp_path / "c.mka"
    with av.open(str(audio), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        frame: Any = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(EdgedError, match="it has no video stream"):
        opened(audio)


@pytest.mark.parametrize(
    ("matrix", "full", "format_"),
    [
        ("bt709", False, PixelFormat.NV12_709),
        ("bt709", True, PixelFormat.NV12_709_FULL),
        ("smpte170m", True, PixelFormat.NV12_FULL),
        ("smpte170m", False, PixelFormat.NV12),
        (None, False, PixelFormat.NV12),
    ],
)
def test_colours_are_those_that_the_stream_signals(
    tmp_path: Path, matrix: str | None, full: bool, format_: PixelFormat
) -> None:
    colour = (40, 160, 220)
    picture = np.full((64, 64, 3), colour, np.uint8)
    params = (f"colormatrix={matrix}:" if matrix else "") + f"range={'pc' if full else 'tv'}"
    space = {"bt709": "ITU709", "smpte170m": "ITU601", None: "ITU601"}[matrix]
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=15)
        stream.height = stream.width = 64
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "4", "preset": "ultrafast", "x264-params": params}
        stream.codec_context.color_range = 2 if full else 1
        for n in range(3):
            frame: Any = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(
                format="yuv420p", dst_colorspace=space, dst_color_range="JPEG" if full else "MPEG"
            )
            frame.pts, frame.time_base = n, Fraction(1, 15)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = opened(path, "?pace=0")
    assert source.info.format is format_
    assert np.abs(picture_of(source)[20:40, 20:40].astype(int) - colour).max() <= 5


@pytest.mark.parametrize("kind", ["yuv420p", "yuv422p", "yuv420p10le"])
def test_colours_of_an_ultra_hd_matrix_are_right_too(tmp_path: Path, kind: str) -> None:
    red, blue = 0.2627, 0.0593  # shares of luma, ITU-R BT.2020-2
    b, g, r = (channel / 255 for channel in (40, 160, 220))
    luma = red * r + blue * b + (1 - red - blue) * g
    depth = 4 if "10" in kind else 1
    values = (16 + 219 * luma, 128 + 112 * (b - luma) / (1 - blue), 128 + 112 * (r - luma) / (1 - red))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=15)
        stream.height, stream.width, stream.pix_fmt = 64, 96, kind
        stream.options = {"crf": "2", "preset": "ultrafast", "x264-params": "colormatrix=bt2020nc"}
        for n in range(3):
            frame: Any = av.VideoFrame(96, 64, kind)
            for plane, value in zip(frame.planes, values, strict=True):
                size = plane.buffer_size // (2 if depth > 1 else 1)
                plane.update(np.full(size, round(depth * value), np.uint16 if depth > 1 else np.uint8).tobytes())
            frame.pts, frame.time_base = n, Fraction(1, 15)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = opened(tmp_path / "a.mp4", "?pace=0")
    assert source.info.format is PixelFormat.NV12_709
    assert np.abs(picture_of(source)[20:40, 30:60].astype(int) - (40, 160, 220)).max() <= 5


def test_an_interlaced_picture_has_no_comb(tmp_path: Path) -> None:
    """Two fields of a moment each: a bar that has moved between them is torn into lines."""
    combed = []
    for n in range(4):
        fields = [np.full((120, 160, 3), 30, np.uint8) for _ in range(2)]
        for k, field in enumerate(fields):
            field[:, 20 + 20 * n + 12 * k : 50 + 20 * n + 12 * k] = 220
        picture = fields[0].copy()
        picture[1::2] = fields[1][1::2]
        combed.append(picture)

    def comb(picture: np.ndarray[Any, Any]) -> float:
        lines = picture[..., 0].astype(int)
        return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())

    shown = picture_of(opened(write_pictures(tmp_path / "a.mp4", combed, options="tff=1"), "?pace=0"))
    assert comb(combed[0]) > 20 and comb(shown) < 2
    assert shown.shape == (120, 160, 3)


def test_the_configured_view_of_a_file(tmp_path: Path) -> None:
    clip = write_pictures(tmp_path / "a.mp4", numbered(2))
    shown = picture_of(opened(clip, rotate=90, crop=(0.5, 0.0, 1.0, 0.5)))
    wanted = np.rot90(numbered(1)[0], -1)[:160, 120:]
    assert shown.shape == wanted.shape and np.abs(shown.astype(int) - wanted).mean() < 12
    assert number_of(picture_of(opened(clip))) == 0


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4", "libx264"])
def test_pictures_of_a_file_with_b_frames_come_in_order(tmp_path: Path, codec: str) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 240, 320, "yuv420p", 4_000_000
        stream.options = {"bf": "2", "g": "12"}
        for n, picture in enumerate(numbered(24)):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = opened(tmp_path / "a.mkv", "?pace=0&loop=0")
    found = []
    while (grabbed := source.grab()) is not None:
        assert not grabbed.corrupt
        pixels = np.empty(RingSpec(320, 240, source.info.format).shape, np.uint8)
        source.retrieve(pixels)
        found.append(number_of(pixels[:240]))
    assert found == list(range(24))
    source.close()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("place", [0.3, 0.45, 0.6, 0.75, 0.9])
def test_nothing_smeared_is_shown_of_a_transport_stream_that_lost_a_packet(
    tmp_path: Path, codec: str, place: float
) -> None:
    """With B frames and open GOPs: their parser says of a neighbour that it is damaged, and keyframes have followers
    that are shown before them."""
    whole, lossy = tmp_path / "a.ts", tmp_path / "b.ts"
    with av.open(str(whole), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 240, 320, "yuv420p", 2_000_000
        own = {
            "libx264": {"x264-params": "open-gop=1:keyint=9:min-keyint=1"},
            "libx265": {"x265-params": "keyint=10:log-level=none:pools=1"},
        }
        stream.options = {"bf": "2", "g": "10", "preset": "ultrafast", **own.get(codec, {})}
        for n, picture in enumerate(numbered(60)):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = whole.read_bytes()
    lost = 188 * int(place * len(data) / 188)
    lossy.write_bytes(data[:lost] + data[lost + 188 :])

    def shown(path: Path) -> list[Any]:
        source, found = opened(path, "?pace=0&loop=0"), []
        while (grabbed := source.grab()) is not None:
            if not grabbed.corrupt:
                pixels = np.empty(RingSpec(320, 240, source.info.format).shape, np.uint8)
                source.retrieve(pixels)
                found.append(pixels[:240].astype(int))
        source.close()
        return found

    right = shown(whole)
    seen = shown(lossy)
    assert len(right) == 60 and 25 < len(seen) < 60
    for picture in seen:
        assert min(np.abs(picture - other).max() for other in right) < 40


def test_paths_that_users_write_by_mistake(tmp_path: Path) -> None:
    clip = write_pictures(tmp_path / "a.mp4", numbered(2))
    for source, says, hint in (
        (str(tmp_path), "it is a directory", "name one video file"),
        (f"{tmp_path}/*.mp4", "a pattern names no file", "name one video file"),
        (f"{tmp_path}/cam[12].mp4", "a pattern names no file", "name one video file"),
        (f"{clip}?loop=0", "a path takes no options", f"write file://{clip}?loop=0"),
    ):
        with pytest.raises(EdgedError) as caught:
            open_source(CameraConfig(name="cam", source=source))
        assert says in caught.value.message and hint in caught.value.hint
    odd = tmp_path / "what?[1]*.mp4"
    odd.write_bytes(clip.read_bytes())
    open_source(CameraConfig(name="cam", source=str(odd))).close()
