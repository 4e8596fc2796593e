"""Tokens, sessions and the names under which a page without a token may be asked."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from edged import clock
from edged.errors import UsageError
from edged.gateway.web.access import SESSION_S, Access, read_token

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.3.2.1", "[::1]:9"])
def test_this_machine_may_be_named(host: str) -> None:
    assert Access(None, guarded=False).is_known_host(host)


@pytest.mark.parametrize(
    "host", [None, "", "example.org", "localhost.example.org", "10.0.0.1", "127.0.0.1.evil", "[::2]"]
)
def test_another_name_is_known_only_where_something_guards_the_page(host: str | None) -> None:
    assert not Access(None, guarded=False).is_known_host(host)
    assert Access(TOKEN, guarded=True).is_known_host(host)


def test_without_a_token_all_may_read_and_none_may_change() -> None:
    access = Access(None, guarded=False)
    assert access.is_allowed(None, None) and not access.may_change and not access.is_token("")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        "Basic é",
        "Basic /w==",
        f"Bearer {TOKEN}x",
        "Bearer \udcff",
        TOKEN,
    ],
)
def test_what_is_no_token(authorization: str | None) -> None:
    assert not Access(TOKEN, guarded=True).is_allowed(authorization, None)


def test_the_token_and_a_session_are_let_in() -> None:
    access = Access(TOKEN, guarded=True)
    assert access.may_change and access.is_allowed(f"bearer {TOKEN}", None)
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert access.is_allowed(f"Basic {basic}", None), "what a player can send"
    session = access.new_session()
    assert TOKEN not in session and access.is_allowed(None, session)
    assert Access(TOKEN, guarded=True).is_allowed(None, session), "also after a restart"
    assert not Access(TOKEN + "x", guarded=True).is_allowed(None, session), "another token ends it"


def test_sessions_cannot_be_made_up_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(TOKEN, guarded=True)
    ends, signature = access.new_session().split(".")
    for wrong in (
        "",
        ".",
        f"{int(ends) + 1}.{signature}",
        f"{ends}.",
        f"{ends}.{signature}0",
        "²." + signature,
        "a.b.c",
    ):
        assert not access.is_allowed(None, wrong), wrong
    after_ns = clock.wall_ns() + (SESSION_S + 5) * clock.NS_PER_S
    monkeypatch.setattr(clock, "wall_ns", lambda: after_ns)
    assert not access.is_allowed(None, f"{ends}.{signature}")


def test_a_short_token_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "gateway.web").write_text("short\n")
    with pytest.raises(UsageError, match="5 characters"):
        read_token()
    (tmp_path / "gateway.web").write_text(TOKEN + "\n")
    assert read_token() == TOKEN
