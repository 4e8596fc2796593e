"""HTTP cameras: MJPEG with damaged pictures, slow ones, single pictures, and URLs that give something else."""

from __future__ import annotations

import base64
import struct
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from edged import clock
from edged.bus.client import bgr
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingSpec
from edged.frames.source import open_source
from edged.frames.sources.base import Source
from tests.support.clips import number_of, numbered, write_clip, write_pictures
from tests.support.engine_loop import EngineLoop
from tests.support.http_camera import HttpCamera, parts, single


def jpeg(picture: np.ndarray[Any, Any]) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


JPEGS = [jpeg(picture) for picture in numbered(30)]


PNG = bytes(cv2.imencode(".png", numbered(1)[0])[1].tobytes())


def opened(url: str, **keys: Any) -> Source:
    return open_source(CameraConfig(name="cam", source=url, **keys))


def seen(source: Source, count: int) -> list[int | None]:
    found: list[int | None] = []
    for _ in range(count):
        grabbed = source.grab()
        assert grabbed is not None
        picture = np.empty(RingSpec(source.info.width, source.info.height, source.info.format).shape, np.uint8)
        if not grabbed.corrupt:
            source.retrieve(picture)
        found.append(None if grabbed.corrupt else number_of(picture[: source.info.height]))
    return found


def cut(image: bytes) -> bytes:
    return image[: len(image) // 2]


def holed(image: bytes) -> bytes:
    return image[: len(image) // 3] + image[len(image) // 2 :]


@pytest.mark.parametrize(
    "spoil", [cut, holed, lambda image: cut(image) + b"\xff\xd9"], ids=["cut", "hole", "cut, ended"]
)
def test_a_damaged_jpeg_is_corrupt_and_the_whole_ones_are_not(spoil: Any) -> None:
    images = [image if n % 2 == 0 else spoil(image) for n, image in enumerate(JPEGS)]
    with HttpCamera(parts(images, 30)) as camera:
        source = opened(camera.url)
        assert seen(source, 10) == [0, None, 2, None, 4, None, 6, None, 8, None]
        assert source.info.format is PixelFormat.NV12_FULL
        source.close()


def test_a_picture_is_there_before_the_next_one_is_sent() -> None:
    sent: dict[int, int] = {}
    with HttpCamera(parts(JPEGS, 2, sent)) as camera:
        source = opened(camera.url)
        for n in range(3):
            assert seen(source, 1) == [n]
            assert n + 1 not in sent, "half a second is left until then"
        source.close()


def test_a_slow_camera_of_a_known_rate_is_live_throughout() -> None:
    with (
        HttpCamera(parts(JPEGS, 0.4)) as camera,
        EngineLoop(CameraConfig(name="cam", source=camera.url, fps=0.4)) as loop,
    ):
        loop.until(lambda: loop.status().results >= 4, 30)
        assert [state for _, _, state, _ in loop.changes] == ["opening", "live"]
        assert loop.status().reconnects == 0


def test_a_slow_camera_of_an_unknown_rate_says_what_to_set() -> None:
    with HttpCamera(parts(JPEGS, 0.3)) as camera, EngineLoop(CameraConfig(name="cam", source=camera.url)) as loop:
        loop.until_state("stalled", 20)
        assert loop.status().reason == "no frame for 2.0 s; if this camera is slower than that, set its fps"


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("text/html; charset=utf-8", b"<html>log in</html>", "a web page (text/html), no video"),
        ("application/json", b"{}", "a text (application/json), no video"),
        ("text/plain", b"moved", "a text (text/plain), no video"),
        ("image/jpeg", JPEGS[0], "a single JPEG picture, no stream"),
        ("application/octet-stream", JPEGS[0], "a single JPEG picture, no stream"),
        ("image/png", PNG, "a single PNG picture, no stream"),
        ("image/gif", b"GIF89a" + bytes(100), "a picture (image/gif) that is no JPEG, PNG or WebP"),
        ("image/jpeg", b"\r\n<!DOCTYPE html><title>log in", "a web page (image/jpeg), no video"),
        ("application/octet-stream", b"<html>" + bytes(100), "a web page (application/octet-stream), no video"),
        ("video/mp4", b"", "the URL gives nothing"),
        ("application/octet-stream", b"\x01" * 5000, "damaged or no video"),
    ],
)
def test_what_the_url_gives_is_named(content_type: str, body: bytes, says: str) -> None:
    with HttpCamera(single(content_type, body)) as camera, pytest.raises(EdgedError) as caught:
        opened(camera.url)
    assert says in caught.value.message


def test_a_single_picture_is_fetched_again_and_again() -> None:
    with HttpCamera(single("image/jpeg", lambda n: JPEGS[n])) as camera:
        source = opened(camera.url, poll_s=0.1)
        begin = time.monotonic()
        assert seen(source, 5) == list(range(5))
        assert time.monotonic() - begin > 0.3 and camera.requests == 5
        assert source.info.fps == 10
        source.close()
    none = single("video/mp2t", b"G" * 1000)
    with HttpCamera(none) as camera, pytest.raises(EdgedError, match="the URL gives no JPEG picture"):
        opened(camera.url, poll_s=1)


@pytest.mark.parametrize("kind", [".png", ".webp", ".jpg"])
def test_single_pictures_of_other_codecs_whatever_their_type_says(kind: str) -> None:
    images = [bytes(cv2.imencode(kind, picture)[1].tobytes()) for picture in numbered(5)]
    with HttpCamera(single("text/html", lambda n: images[n])) as camera:
        source = opened(camera.url, poll_s=0.1)
        assert seen(source, 5) == list(range(5))
        source.close()


def test_a_polled_url_that_gives_a_page_one_day_says_so() -> None:
    with HttpCamera(single("image/jpeg", lambda n: JPEGS[n] if n < 2 else b"<html>" + bytes(100))) as camera:
        source = opened(camera.url, poll_s=0.1)
        assert seen(source, 2) == [0, 1]
        with pytest.raises(EdgedError, match="the URL gives a web page"):
            source.grab()
        source.close()


def test_pictures_of_which_none_can_be_decoded_are_reported() -> None:
    reports: list[str] = []
    spoilt = [cut(image) for image in JPEGS[:5]]
    with HttpCamera(parts([*spoilt, *JPEGS[5:]], 30)) as camera:
        source = open_source(CameraConfig(name="cam", source=camera.url), report=reports.append)
        assert seen(source, 1) == [5]
        assert set(reports) == {"connected, pictures come, and none can be decoded"}
        source.close()


def test_jpeg_after_jpeg_without_parts() -> None:
    def reply(camera: HttpCamera, request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "video/x-motion-jpeg")
        request.end_headers()
        for image in JPEGS:
            request.wfile.write(image)
            camera.stopping.wait(0.03)

    with HttpCamera(reply) as camera:
        source = opened(camera.url)
        assert seen(source, 20) == list(range(20))
        source.close()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_shown_as_its_exif_says(orientation: int) -> None:
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x112, 3, 1, orientation) + bytes(4)
    image = JPEGS[3][:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEGS[3][2:]
    upright = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert upright is not None
    with HttpCamera(single("image/jpeg", image)) as camera:
        source = opened(camera.url, poll_s=0.1)
        assert source.grab() is not None
        picture = np.empty(RingSpec(source.info.width, source.info.height, source.info.format).shape, np.uint8)
        source.retrieve(picture)
        shown = bgr(picture, source.info.format)
        source.close()
    if tuple(av.library_versions["libavcodec"]) >= (62,):  # earlier ones leave the mark alone
        assert shown.shape == upright.shape and np.abs(shown.astype(int) - upright).mean() < 12


def test_redirects_basic_authentication_and_refusals() -> None:
    token = base64.b64encode(b"root:p@ss").decode()

    def guarded(camera: HttpCamera, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Authorization") == f"Basic {token}":
            parts(JPEGS, 30)(camera, request)
        else:
            single("text/plain", b"", 401, WWW_Authenticate='Basic realm="camera"')(camera, request)

    with HttpCamera(guarded) as camera:
        source = opened(camera.url.replace("://", "://root:p%40ss@"))
        assert seen(source, 2) == [0, 1]
        source.close()
        with pytest.raises(EdgedError, match="refuses the user or the password"):
            opened(camera.url.replace("://", "://root:no@"))
        moved = single("text/plain", b"", 302, Location=camera.url)
        with HttpCamera(moved) as elsewhere, pytest.raises(EdgedError, match="asks for a user and a password"):
            opened(elsewhere.url)
    for status, says in ((404, "HTTP 404"), (302, "redirects to something that is not HTTP")):
        answer = single("text/plain", b"", status, Location="file:///etc/passwd")
        with HttpCamera(answer) as camera, pytest.raises(EdgedError, match=says):
            opened(camera.url)


def transport_stream(path: Path, count: int) -> bytes:
    write_clip(path, fps=20, count=count)
    return path.read_bytes()


def test_a_transport_stream_begins_with_its_first_keyframe_and_plays_at_its_own_pace(tmp_path: Path) -> None:
    data = transport_stream(tmp_path / "a.ts", 60)
    with HttpCamera(single("video/mp2t", data)) as camera:
        source = opened(camera.url)
        dues = []
        with pytest.raises(EdgedError, match="ended the stream"):
            while (grabbed := source.grab()) is not None:
                assert not grabbed.corrupt
                dues.append(grabbed.mono_ns)
        assert len(dues) == 60
        assert dues[-1] - dues[0] > 2e9, "three seconds, of which half a second may be ahead"
        source.close()


def whole_of(source: Source) -> tuple[list[int | None], list[int]]:
    """(the numbers of all pictures, when they are due) of a source that is played to its end."""
    found: list[int | None] = []
    dues: list[int] = []
    with pytest.raises(EdgedError, match="ended the stream"):
        while (grabbed := source.grab()) is not None:
            picture = np.empty(RingSpec(source.info.width, source.info.height, source.info.format).shape, np.uint8)
            source.retrieve(picture)
            found.append(None if grabbed.corrupt else number_of(picture[: source.info.height]))
            dues.append(grabbed.mono_ns)
    source.close()
    return found, dues


@pytest.mark.parametrize("kind", ["ts", "flv"])
def test_the_age_of_a_live_stream_hides_no_period(tmp_path: Path, kind: str) -> None:
    """Each picture is sent with the time of its own, 10 a second."""
    clip = write_pictures(tmp_path / f"a.{kind}", numbered(30), fps=10)
    data = clip.read_bytes()
    with av.open(str(clip)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    sent: dict[int, int] = {}

    def reply(camera: HttpCamera, request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/octet-stream")
        request.end_headers()
        for n, (start, end) in enumerate(zip([0, *starts[1:]], [*starts[1:], len(data)], strict=True)):
            sent[n] = clock.mono_ns()
            request.wfile.write(data[start:end])
            camera.stopping.wait(0.1)

    with HttpCamera(reply) as camera:
        source, hidden = opened(camera.url), []
        for _ in range(25):
            grabbed = source.grab()
            assert grabbed is not None and not grabbed.corrupt
            picture = np.empty(RingSpec(source.info.width, source.info.height, source.info.format).shape, np.uint8)
            source.retrieve(picture)
            hidden.append((grabbed.mono_ns - sent[number_of(picture[: source.info.height])]) / 1e6)
        source.close()
    assert 0 <= min(hidden[10:]) < 60, "the least: a busy machine only adds"


def test_a_file_whose_index_is_at_its_end_says_so(tmp_path: Path) -> None:
    clip = write_pictures(tmp_path / "a.mp4", numbered(40, 640, 480))
    with HttpCamera(single("video/mp4", clip.read_bytes())) as camera, pytest.raises(EdgedError, match="its index"):
        opened(camera.url)


@pytest.mark.parametrize("name", ["seg%d.ts", "live/%d", "get.cgi?n=%d"])
def test_a_playlist_is_played_whole_however_its_segments_are_named(tmp_path: Path, name: str) -> None:
    """Each segment numbers its packets anew, as cameras do that write one after the other."""
    segments = {
        name % k: write_pictures(
            tmp_path / f"{k}.ts", numbered(40)[20 * k : 20 * k + 20], stamps=(20 * k).__add__
        ).read_bytes()
        for k in range(2)
    }
    entries = "".join(f"#EXTINF:2,\n{segment}\n" for segment in segments)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{entries}#EXT-X-ENDLIST\n".encode()

    def reply(camera: HttpCamera, request: BaseHTTPRequestHandler) -> None:
        segment = segments.get(request.path[1:])
        single("video/mp2t" if segment else "text/plain", segment or playlist)(camera, request)

    with HttpCamera(reply) as camera:
        found, _ = whole_of(opened(camera.url + ".m3u8"))
        assert found == list(range(40))


@pytest.mark.parametrize("kind", ["ts", "mkv", "avi"])
def test_a_pause_in_a_recording_on_a_server_is_cut_to_a_second(tmp_path: Path, kind: str) -> None:
    clip = write_pictures(tmp_path / f"a.{kind}", numbered(20), stamps=lambda n: n if n < 10 else n + 100)
    with HttpCamera(single("text/vnd.trolltech.linguist", clip.read_bytes())) as camera:
        found, dues = whole_of(opened(camera.url))
        assert found == list(range(20))
        assert np.diff(dues).max() < 4e9, "6.7 s by the time stamps"


def test_a_part_without_a_picture_costs_none_of_the_next() -> None:
    with HttpCamera(parts([JPEGS[0], b"", *JPEGS[1:]], 30)) as camera:
        source = opened(camera.url)
        assert seen(source, 4) == [0, None, 1, 2]
        source.close()


def test_grey_and_odd_jpegs_are_pictures_too() -> None:
    grey = bytes(cv2.imencode(".jpg", np.full((49, 65), 90, np.uint8))[1].tobytes())
    with HttpCamera(parts([grey], 30)) as camera:
        source = opened(camera.url)
        assert (source.info.width, source.info.height) == (64, 48)
        assert seen(source, 1) != [None]
        source.close()


def test_pyav_still_reports_damage_with_explode() -> None:
    """What the capture process stands on: without that option libavcodec keeps silent about a cut JPEG."""
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    with pytest.raises(av.FFmpegError):
        decoder.decode(av.Packet(cut(JPEGS[0])))
