"""Sources are read exactly, refused in one sentence, and never show a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import UsageError
from edged.uri import is_plain_path, parse, redact

HOSTILE = ["p@ss", "p]w[", "a:b", "100%", "%40", "p@s@s:w]%", "::", "@", "ü€", "a b", "%2F%zz"]


@pytest.mark.parametrize("password", HOSTILE)
def test_a_hostile_password_written_plainly_is_understood_or_needs_no_escape(password: str) -> None:
    uri = parse(f"rtsp://root:{password}@10.0.0.5:554/live?x=1")
    assert uri.user == "root"
    assert uri.target == "rtsp://10.0.0.5:554/live?x=1"
    # what FFmpeg gets is escaped and comes back as the same
    again = parse(uri.url())
    assert (again.user, again.password, again.target) == (uri.user, uri.password, uri.target)


@pytest.mark.parametrize("password", ["p/w", "12/x", "w?x", "h#1"])
def test_a_password_with_a_slash_is_refused_without_showing_it(password: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"rtsp://root:{password}@10.0.0.5/live")
    assert password not in str(caught.value)
    assert "root" not in str(caught.value)
    assert "%2F" in caught.value.hint


SECRETS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=6, max_size=30).map(
    lambda s: "Zq" + s + "Xj"
)


@given(SECRETS, st.sampled_from(["rtsp", "RTSP", "http", "https", "rtps", "ftp", "rtsp:"]))
def test_no_message_ever_shows_a_password(secret: str, scheme: str) -> None:
    source = f"{scheme}://admin:{secret}@cam.local/stream"
    assert "Zq" not in redact(source)
    try:
        uri = parse(source)
    except UsageError as error:
        assert "Zq" not in str(error)
    else:
        assert "Zq" not in repr(uri)
        assert "Zq" not in uri.scrub(f"cannot open {uri.url()} with {uri.password}")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    redact(text)
    try:
        parse(text)
    except UsageError as error:
        assert error.message


def test_secrets_in_a_query_are_hidden() -> None:
    source = "http://cam/mjpg?user=admin&Password=hunter2&fps=5"
    assert redact(source) == "http://cam/mjpg?user=***&Password=***&fps=5"
    assert "hunter2" not in parse(source).scrub("404 for /mjpg?Password=hunter2")


@pytest.mark.parametrize(
    ("source", "kind", "target", "options"),
    [
        ("test://7", "test", "7", {}),
        ("test://7?width=640&height=360&fps=12.5", "test", "7", {"width": 640, "height": 360, "fps": 12.5}),
        ("clips/a@b.mp4", "file", "clips/a@b.mp4", {"pace": 1, "loop": 1}),
        ("file:///a%20b.mp4?pace=0", "file", "/a b.mp4", {"pace": 0, "loop": 1}),
        ("v4l2:///dev/video0?width=640", "v4l2", "/dev/video0", {"width": 640}),
        ("csi://1", "csi", "1", {}),
        ("rtsps://[fe80::1]:322/x", "rtsp", "rtsps://[fe80::1]:322/x", {}),
    ],
)
def test_what_is_supported(source: str, kind: str, target: str, options: dict[str, float]) -> None:
    uri = parse(source)
    assert (uri.kind, uri.target, dict(uri.options)) == (kind, target, options)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("ftp://x/y", "rtsp(s)://HOST"),
        ("test://abc", "not a number"),
        ("test://1?width=99999", "from 2 to 8192"),
        ("test://1?width=nan", "width"),
        ("test://1?width=64.5", "whole number"),
        ("test://1?colour=1", "options: width, height, fps"),
        ("file://a.mp4", "file:///absolute/path"),
        ("rtsp:///x", "no valid host"),
        ("rtsp://h:99999999/x", "no valid host"),
        ("rtsp://h:99999/x", "99999 is no port"),
        ("https://h:0/x", "0 is no port"),
        ("rtsp://h/x\n", "control character"),
    ],
)
def test_what_is_not_supported_is_reported_in_a_sentence(source: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(source)
    assert says in str(caught.value)


@pytest.mark.parametrize("source", ["rtsp//admin:Zq7@cam/x", "HTTPS//admin:Zq7@cam/x", "rtsp:/admin:Zq7@cam/x"])
def test_a_url_gone_wrong_is_no_path_that_could_be_shown(source: str) -> None:
    assert not is_plain_path(source)
    with pytest.raises(UsageError) as refused:
        parse(source)
    assert "Zq7" not in str(refused.value)
