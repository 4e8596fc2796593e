"""Every kind of source gives the right pixels at the right time, or one clear sentence."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edged import clock
from edged.config import CameraConfig
from edged.credentials import credentials_directory
from edged.errors import EdgedError, UsageError
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingSpec
from edged.frames.source import open_source, with_password
from edged.frames.sources.base import Source
from edged.synthetic.scene import Scene
from edged.uri import parse
from tests.support.clips import access_units, truncate, write_clip
from tests.support.mjpeg import MjpegCamera
from tests.support.rtsp import RtspCamera, units_of_file


def opened(source: str, first: int = 0, credentials: Path | None = None, decoder: str = "software") -> Source:
    config = CameraConfig(name="gate", source=source, decoder=decoder)  # type: ignore[arg-type]
    return open_source(config, first, credentials)


def draw(source: Source) -> NDArray[np.uint8]:
    info = source.info
    into = np.zeros(RingSpec(info.width, info.height, info.format).shape, np.uint8)
    source.retrieve(into)
    return into


def reference(path: Path, count: int) -> list[NDArray[np.uint8]]:
    """NV12 of the first frames by FFmpeg's own conversion."""
    with av.open(str(path)) as container:
        frames = (frame.reformat(format="nv12", dst_color_range="MPEG") for frame in container.decode(video=0))
        return [frame.to_ndarray() for _, frame in zip(range(count), frames, strict=False)]


def test_the_scene_goes_on_at_the_index_asked_for() -> None:
    source = opened("test://5?width=320&height=180&fps=20", first=17)
    assert (source.info.width, source.info.height, source.info.fps) == (320, 180, 20)
    first = source.grab()
    second = source.grab()
    assert first is not None and second is not None
    assert second.mono_ns - first.mono_ns == clock.NS_PER_S // 20
    expected = np.empty((180, 320, 3), np.uint8)
    Scene(5, 320, 180, 20).render(18, expected)
    assert (draw(source) == expected).all()


def test_a_file_is_drawn_as_ffmpeg_would_plane_for_plane(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", count=10)
    source = opened(f"file://{path}?pace=0")
    assert (source.info.format, source.info.codec, source.info.fps) == (PixelFormat.NV12, "h264", 30)
    for expected in reference(path, 10):
        assert source.grab() is not None
        assert (draw(source) == expected).all()
    source.close()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "width", "height"),
    [
        ("mjpeg", "yuvj422p", 320, 240),
        ("libx264", "yuv444p", 320, 240),
        ("ffv1", "yuv420p", 321, 243),
        ("ffv1", "bgr0", 319, 240),
        ("libx264", "yuv420p", 322, 242),
    ],
)
def test_other_formats_and_odd_sizes_become_nv12(
    tmp_path: Path, codec: str, pix_fmt: str, width: int, height: int
) -> None:
    path = write_clip(tmp_path / "a.mkv", (width, height), count=3, codec=codec, pix_fmt=pix_fmt)
    source = opened(f"file://{path}?pace=0")
    assert (source.info.width, source.info.height) == (width & ~1, height & ~1)
    assert source.grab() is not None
    picture = draw(source)
    luma = picture[: height & ~1].astype(int)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        full = source.info.format is PixelFormat.NV12_FULL
        gray = frame.reformat(format="gray", dst_color_range="JPEG" if full else "MPEG")
        expected = gray.to_ndarray()[: height & ~1, : width & ~1]
    assert full == (codec == "mjpeg")
    assert np.abs(luma - expected).mean() < 12
    assert np.abs(picture[height & ~1 :].astype(int) - 128).mean() < 4
    source.close()


def test_a_paced_file_is_due_by_its_time_stamps_and_loops_without_a_gap(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", fps=25, count=5)
    source = opened(str(path))
    dues = []
    for _ in range(12):
        grabbed = source.grab()
        assert grabbed is not None
        dues.append(grabbed.mono_ns)
    assert {round((b - a) / 1e6) for a, b in itertools.pairwise(dues)} == {40}
    source.close()


def test_a_file_played_once_ends(tmp_path: Path) -> None:
    source = opened(f"file://{write_clip(tmp_path / 'a.mp4', count=4)}?loop=0&pace=0")
    assert sum(1 for _ in iter(source.grab, None)) == 4
    source.close()


def test_damaged_files_are_a_sentence_or_play_as_far_as_they_go(tmp_path: Path) -> None:
    cut = truncate(write_clip(tmp_path / "noindex.mp4"), 0.5)
    with pytest.raises(EdgedError, match=r"cannot play .*noindex.mp4: it is damaged"):
        opened(str(cut))
    part = truncate(write_clip(tmp_path / "part.mp4", faststart=True), 0.5)
    source = opened(f"file://{part}?loop=0&pace=0")
    frames = [grabbed for grabbed in iter(source.grab, None)]
    assert 10 < sum(not grabbed.corrupt for grabbed in frames) < 60
    source.close()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(50_000))
    for bad in ("noise.mp4", "missing.mp4", "."):
        with pytest.raises(EdgedError, match="cannot play"):
            opened(str(tmp_path / bad))


def test_a_file_cannot_make_us_read_another(tmp_path: Path) -> None:
    inner = write_clip(tmp_path / "inner.ts", count=5)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/{inner.name}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(EdgedError):
        opened(str(playlist))


def test_rtsp_gives_its_first_frame_at_once_and_the_cameras_own_time() -> None:
    with RtspCamera(access_units(), fps=30) as camera:
        camera.faults.skew_s = 123.456
        begin = time.monotonic()
        source = opened(camera.url)
        grabbed = source.grab()
        first_s = time.monotonic() - begin
        assert grabbed is not None
        assert draw(source)[:240].std() > 10
        deadline = time.monotonic() + 3
        while grabbed is None or grabbed.wall_ns is None:
            assert time.monotonic() < deadline
            grabbed = source.grab()
        arrival_ns = clock.wall_ns() - (clock.mono_ns() - grabbed.mono_ns)
        assert abs((grabbed.wall_ns - arrival_ns) / 1e9 - 123.456) < 0.15
        assert grabbed.clock == "camera"
        assert first_s < 1.5
        source.close()


def test_without_sender_reports_it_is_the_arrival() -> None:
    with RtspCamera(access_units()) as camera:
        camera.faults.reports = False
        source = opened(camera.url)
        grabbed = [source.grab() for _ in range(20)]
        assert {g.clock for g in grabbed if g} == {"arrival"}
        source.close()


@pytest.mark.parametrize("password", ["p@ss/w]rd:%", "%41", "ü #?"])
def test_a_hostile_password_from_a_credential_reaches_the_camera(tmp_path: Path, password: str) -> None:
    (tmp_path / "camera.gate").write_text(password + "\n", encoding="utf-8")
    with RtspCamera(access_units(), user="root", password=password) as camera:
        source = opened(camera.url.replace("://", "://root@"), credentials=tmp_path)
        assert source.grab() is not None
        source.close()
        (tmp_path / "camera.gate").write_text("wrong", encoding="utf-8")
        with pytest.raises(EdgedError, match="refuses the user or the password") as caught:
            opened(camera.url.replace("://", "://root@"), credentials=tmp_path)
        assert "wrong" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_where_the_password_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.paths.CREDENTIALS_DIR", tmp_path / "etc")
    uri = parse("rtsp://root@h/x")
    gate = CameraConfig(name="gate", source="rtsp://root@h/x")
    site = CameraConfig(name="gate", source="rtsp://root@h/x", password_credential="site")
    assert with_password(uri, gate, None).password is None
    assert with_password(uri, gate, tmp_path).password is None
    with pytest.raises(EdgedError, match="no credential site") as caught:
        with_password(uri, site, tmp_path)
    assert caught.value.hint == "sudo edged credential set site"
    (tmp_path / "site").write_text("shared\n")
    assert with_password(uri, site, tmp_path).password == "shared"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/camera.gate").write_text("root's\n")
    assert with_password(uri, gate, None).password == "root's", "`sudo edged check` finds what the service will have"
    (tmp_path / "camera.gate").write_bytes(b"\xff\xfe")
    with pytest.raises(EdgedError, match="cannot read the password of camera gate"):
        with_password(uri, gate, tmp_path)
    assert with_password(parse("rtsp://root:own@h/x"), gate, tmp_path).password == "own"
    assert credentials_directory({"CREDENTIALS_DIRECTORY": "/run/c"}) == Path("/run/c")
    assert credentials_directory({}) is None


def test_a_camera_that_never_answers_is_given_up_within_its_deadline() -> None:
    with RtspCamera(access_units()) as camera:
        camera.faults.mute = True
        begin = time.monotonic()
        with pytest.raises(EdgedError, match="no answer within 5 s"):
            opened(camera.url)
        assert 4 < time.monotonic() - begin < 60
    with pytest.raises(EdgedError, match="Connection refused"):
        opened(camera.url)


def test_a_camera_that_hangs_up_is_a_failure_not_an_end() -> None:
    with RtspCamera(access_units()) as camera:
        source = opened(camera.url)
        assert source.grab() is not None
        camera.drop_clients()
        with pytest.raises(EdgedError):
            for _ in range(100):
                source.grab()
        source.close()


def test_mjpeg_over_http() -> None:
    with MjpegCamera() as camera:
        source = opened(camera.url)
        pictures = []
        for _ in range(5):
            assert source.grab() is not None
            pictures.append(draw(source)[:240].astype(int))
        assert source.info.codec == "mjpeg"
        assert source.info.format is PixelFormat.NV12_FULL
        assert pictures[-1].max() >= 250 and pictures[-1].min() <= 5
        assert (pictures[0] > 128).mean() < (pictures[-1] > 128).mean()
        source.close()


@pytest.mark.parametrize(
    ("source", "decoder", "error", "says"),
    [
        ("v4l2:///dev/video99", "software", EdgedError, "cannot open /dev/video99"),
        ("test://1", "hardware", UsageError, "does not go with a test source"),
        ("ftp://x/y", "software", UsageError, "sources: test://SEED"),
    ],
)
def test_what_cannot_be_opened(source: str, decoder: str, error: type[EdgedError], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(source, decoder=decoder)


def test_a_file_can_be_served_by_the_test_camera(tmp_path: Path) -> None:
    units = units_of_file(str(write_clip(tmp_path / "a.mp4", count=8)))
    assert len(units) == 8
    with RtspCamera(units) as camera:
        source = opened(camera.url)
        assert source.grab() is not None
        source.close()
