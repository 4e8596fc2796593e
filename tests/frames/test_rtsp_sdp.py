"""What cameras write into their descriptions, and the URLs they mean."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.rtsp.sdp import resolve, video_track

SPS, PPS = b"\x67\x42\x00\x1f", b"\x68\xce\x38\x80"
SETS = f"{base64.b64encode(SPS).decode()},{base64.b64encode(PPS).decode()}"
H264 = (
    "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\na=control:rtsp://10.0.0.5/all\r\n"
    "m=audio 0 RTP/AVP 8\r\na=control:trackID=1\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=framerate:12.5\r\n"
    f"a=fmtp:96 packetization-mode=1; sprop-parameter-sets={SETS}; profile-level-id=42001f\r\na=control:trackID=0\r\n"
)


def test_the_first_video_track_with_its_parameters() -> None:
    track = video_track(H264)
    assert track is not None
    assert (track.codec, track.payload_type, track.clock_hz, track.fps) == ("H264", 96, 90_000, 12.5)
    assert (track.control, track.session_control) == ("trackID=0", "rtsp://10.0.0.5/all")
    assert track.parameter_sets == b"\0\0\0\1" + SPS + b"\0\0\0\1" + PPS


def test_h265_jpeg_and_nothing() -> None:
    hevc = "v=0\nm=video 0 RTP/AVP 97\na=rtpmap:97 H265/90000\na=fmtp:97 sprop-vps=QAE=;sprop-sps=QgE=;sprop-pps=RAE=\n"
    track = video_track(hevc)
    assert track is not None and track.codec == "H265"
    assert track.parameter_sets == b"\0\0\0\1\x40\x01\0\0\0\1\x42\x01\0\0\0\1\x44\x01"
    jpeg = video_track("v=0\r\nm=video 0 RTP/AVP 26\r\n")
    assert jpeg is not None and (jpeg.codec, jpeg.clock_hz, jpeg.parameter_sets) == ("JPEG", 90_000, b"")
    assert video_track("v=0\r\nm=audio 0 RTP/AVP 8\r\n") is None


def test_nonsense_in_parameters_is_passed_over() -> None:
    track = video_track(
        "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 sprop-parameter-sets=!!,Z0I=\na=framerate:x\n"
    )
    assert track is not None
    assert (track.parameter_sets, track.fps) == (b"\0\0\0\1\x67\x42", None)


@given(st.text(max_size=300))
def test_any_text_gives_a_track_or_none(text: str) -> None:
    video_track("m=video 0 RTP/AVP 96\n" + text)


@pytest.mark.parametrize(
    ("base", "control", "url"),
    [
        ("rtsp://h/live/", "track1", "rtsp://h/live/track1"),
        ("rtsp://h/live", "track1", "rtsp://h/live/track1"),
        ("rtsp://h/cam?channel=1", "trackID=0", "rtsp://h/cam?channel=1/trackID=0"),
        ("rtsp://h/live", "*", "rtsp://h/live"),
        ("rtsp://h/live", "rtsp://other/x", "rtsp://other/x"),
        ("rtsp://h", "/x", "rtsp://h/x"),
    ],
)
def test_control_urls(base: str, control: str, url: str) -> None:
    assert resolve(base, control) == url
