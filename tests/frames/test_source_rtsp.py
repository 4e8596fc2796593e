"""RTSP cameras over a real socket: the first keyframe, no hidden period, losses, and the habits of bad cameras."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged import clock
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.ring import RingSpec
from edged.frames.source import open_source
from edged.frames.sources.base import Source
from tests.support.clips import AccessUnits, coded, number_of, numbered
from tests.support.rtsp import RtspCamera

DEADLINE_S = 40


def opened(camera: RtspCamera, **keys: Any) -> Source:
    return open_source(CameraConfig(name="cam", source=camera.url, **keys))


def seen(source: Source, count: int) -> list[int | None]:
    """The numbers in the next pictures; None for a corrupt one."""
    found: list[int | None] = []
    end = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < end, found
        grabbed = source.grab()
        assert grabbed is not None
        found.append(None if grabbed.corrupt else number_of(drawn(source)))
    return found


def drawn(source: Source) -> np.ndarray[Any, np.dtype[np.uint8]]:
    info = source.info
    picture = np.empty(RingSpec(info.width, info.height, info.format).shape, np.uint8)
    source.retrieve(picture)
    return picture[: info.height]


@pytest.fixture(scope="module")
def clips() -> dict[str, AccessUnits]:
    return {codec: coded(numbered(60), 20, 10, codec) for codec in ("h264", "hevc")}


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_every_picture_from_the_first_keyframe_on(clips: dict[str, AccessUnits], codec: str, transport: str) -> None:
    with RtspCamera(clips[codec], fps=20, codec=codec) as camera:
        source = opened(camera, transport=transport)
        assert seen(source, 15) == list(range(15))
        assert (source.info.codec, source.info.fps, source.info.width) == (codec, 20, 320)
        assert source.cost is not None
        assert (source.cost.pictures, source.cost.lost_packets) == (15, 0)
        assert source.cost.bytes > 1000 and source.cost.decode_ns > 0 and source.cost.keyframe_interval_ns > 1e8
        source.close()


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_picture_is_there_before_the_next_one_is_sent(clips: dict[str, AccessUnits], codec: str) -> None:
    with RtspCamera(clips[codec], fps=2, codec=codec) as camera:
        source = opened(camera)
        for _ in range(3):
            grabbed = source.grab()
            number = number_of(drawn(source))
            assert grabbed is not None
            assert number + 1 not in camera.sent_ns, "half a second is left until then"
            assert abs(grabbed.mono_ns - camera.sent_ns[number]) < 400e6
        source.close()


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_after_a_loss_nothing_is_right_until_the_next_whole_keyframe(
    clips: dict[str, AccessUnits], codec: str, transport: str
) -> None:
    with RtspCamera(clips[codec], fps=20, codec=codec) as camera:
        camera.faults.lose = lambda frame: frame == 10  # a keyframe
        source = opened(camera, transport=transport)
        assert seen(source, 25) == [*range(10), *[None] * 10, *range(20, 25)]
        assert source.cost is not None and source.cost.lost_packets == 1
        source.close()


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_stream_with_intra_refresh_is_right_again_after_its_cycle(codec: str) -> None:
    units = coded(numbered(60), 30, 8, codec, "intra-refresh=1", sei=True)
    with RtspCamera(units, fps=30, codec=codec) as camera:
        camera.faults.lose = lambda frame: frame == 10
        source = opened(camera)
        found = seen(source, 40)
        assert found[:10] == list(range(10)) and found[10] is None
        back = next(n for n in range(10, 40) if found[n] is not None)
        assert back <= 10 + 3 * 8 and found[back:] == list(range(back, 40))
        source.close()


def test_packets_out_of_order_by_udp_are_no_loss(clips: dict[str, AccessUnits]) -> None:
    with RtspCamera(clips["h264"], fps=20) as camera:
        camera.faults.swap = True
        source = opened(camera, transport="udp")
        assert seen(source, 20) == list(range(20))
        source.close()


def test_a_whole_picture_that_never_came_spoils_what_follows(clips: dict[str, AccessUnits]) -> None:
    units = [*clips["h264"]]
    with RtspCamera(units, fps=20) as camera:
        camera.faults.lose = lambda frame: frame == 13  # of one packet
        assert sum(map(len, units[13])) < 1400
        source = opened(camera)
        found = seen(source, 20)
        assert found[:13] == list(range(13)) and 14 not in found and found[-1] not in (None, 14)
        source.close()


@pytest.mark.parametrize("markers", ["each NAL unit", "none"])
def test_cameras_that_set_the_marker_wrongly_still_give_their_pictures(
    clips: dict[str, AccessUnits], markers: Any
) -> None:
    with RtspCamera(clips["h264"], fps=20) as camera:
        camera.faults.markers = markers
        source = opened(camera)
        found = seen(source, 30)
        assert found[-10:] == list(range(int(found[-10] or 0), int(found[-10] or 0) + 10))
        source.close()


def test_parameter_sets_from_the_description_alone(clips: dict[str, AccessUnits]) -> None:
    for codec, clip in clips.items():
        with RtspCamera(clip, fps=20, codec=codec) as camera:
            camera.faults.headers_in_stream = False
            source = opened(camera)
            assert seen(source, 3) == [0, 1, 2]
            source.close()


def test_parameter_sets_with_time_stamps_of_their_own_damage_nothing() -> None:
    units: AccessUnits = []
    for unit in coded(numbered(20), 20, 5):
        sets = [nal for nal in unit if nal[0] & 31 in (7, 8)]
        units += [sets, [nal for nal in unit if nal not in sets]] if sets else [unit]
    with RtspCamera(units, fps=30) as camera:
        source = opened(camera)
        assert seen(source, 15) == list(range(15))
        source.close()


def test_no_keyframe_yet_is_reported_and_then_waited_for() -> None:
    clip = coded(numbered(120), 20, 60)
    reports: list[str] = []
    with RtspCamera(clip, fps=20, first=10) as camera:
        source = open_source(CameraConfig(name="cam", source=camera.url), report=reports.append)
        assert seen(source, 1) == [60]
        assert set(reports) == {"connected, packets come, no keyframe yet"}
        source.close()


def test_digest_and_a_wrong_password(clips: dict[str, AccessUnits], tmp_path: Path) -> None:
    with RtspCamera(clips["h264"], user="root", password="a:b", digest=True) as camera:
        secret = camera.url.replace("://", "://root:a%3Ab@")
        source = open_source(CameraConfig(name="cam", source=secret))
        assert seen(source, 1) == [0]
        source.close()
        with pytest.raises(EdgedError, match="refuses the user or the password"):
            open_source(CameraConfig(name="cam", source=secret.replace("a%3Ab", "wrong")))


def test_an_unknown_path_and_a_transport_that_is_not_there(clips: dict[str, AccessUnits]) -> None:
    with RtspCamera(clips["h264"]) as camera:
        answer = camera._answer

        def other(method: str, headers: dict[str, str], way: Any) -> bytes:
            status = {"DESCRIBE": b"404 Not Found", "SETUP": b"461 Unsupported Transport"}.get(refused[0])
            refuse = method == refused[0]
            return b"RTSP/1.0 " + (status or b"") + b"\r\nCSeq: 1\r\n\r\n" if refuse else answer(method, headers, way)

        camera._answer = other  # type: ignore[method-assign]
        refused = ["DESCRIBE"]
        with pytest.raises(EdgedError, match="answers DESCRIBE with 404 Not Found") as caught:
            opened(camera)
        assert "path" in caught.value.hint
        refused[0] = "SETUP"
        with pytest.raises(EdgedError, match="461 Unsupported Transport") as caught:
            opened(camera)
        assert 'transport = "udp"' in caught.value.hint


def test_udp_packets_that_never_arrive_are_a_sentence(clips: dict[str, AccessUnits]) -> None:
    with RtspCamera(clips["h264"]) as camera:
        camera.faults.loss = 1.0
        begin = clock.mono_ns()
        with pytest.raises(EdgedError, match="none of its packets arrives by UDP") as caught:
            opened(camera, transport="udp")
        assert 3e9 < clock.mono_ns() - begin < 20e9
        assert 'transport = "tcp"' in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers at this port"),
        (b'RTSP/1.0 401 No\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="c"\r\n\r\n', "asks for a user and a password"),
    ],
)
def test_answers_of_a_wrong_port_and_to_no_user(clips: dict[str, AccessUnits], answer: bytes, says: str) -> None:
    with RtspCamera(clips["h264"]) as camera:
        camera._answer = lambda method, headers, way: answer  # type: ignore[method-assign]
        with pytest.raises(EdgedError, match=says):
            opened(camera)


def test_a_camera_that_calls_every_nonce_stale_is_not_asked_for_ever(clips: dict[str, AccessUnits]) -> None:
    asked: list[str] = []

    def stale(method: str, headers: dict[str, str], way: Any) -> bytes:
        asked.append(method)
        challenge = f'Digest realm="c", nonce="n{len(asked)}", stale=true'
        return f"RTSP/1.0 401 No\r\nCSeq: {headers['cseq']}\r\nWWW-Authenticate: {challenge}\r\n\r\n".encode()

    with RtspCamera(clips["h264"]) as camera:
        camera._answer = stale  # type: ignore[method-assign]
        with pytest.raises(EdgedError, match="refuses the user or the password"):
            open_source(CameraConfig(name="cam", source=camera.url.replace("://", "://a:b@")))
    assert len(asked) < 10


def test_packets_of_another_stream_than_the_one_described_are_a_sentence(clips: dict[str, AccessUnits]) -> None:
    with RtspCamera(clips["h264"]) as camera:
        described = camera._sdp
        camera._sdp = lambda: described().replace("96", "97")  # type: ignore[method-assign]
        with pytest.raises(EdgedError, match="none of them is of the video that the camera offers"):
            opened(camera)


def test_a_camera_may_be_silent_for_as_long_as_the_rate_that_it_describes(clips: dict[str, AccessUnits]) -> None:
    with RtspCamera(clips["h264"], fps=0.2) as camera:
        source = opened(camera)
        assert seen(source, 2) == [0, 1]
        source.close()
