"""[web]: other machines may reach it only with a token or TLS, each refusal one sentence with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config import load
from edged.config.web import WebConfig
from edged.credentials import read_credential
from edged.errors import UsageError

BASE = 'bundle = "demo"\n[[camera]]\nname = "gate"\nsource = "test://7"\n[web]\n'


def loaded(directory: Path, lines: str) -> WebConfig:
    file = directory / "e.toml"
    file.write_text(BASE + lines)
    return load(file).web


def test_by_default_there_is_no_page(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").address is None


@pytest.mark.parametrize(
    "lines, address",
    [
        ('listen = "localhost:8080"', ("127.0.0.1", 8080)),
        ('listen = "[::1]:1"', ("::1", 1)),
        ('listen = "0.0.0.0:80"\ntoken = true', ("0.0.0.0", 80)),
        ('listen = "[::]:443"\ntls_certificate = "c.pem"\ntls_key = "k.pem"', ("::", 443)),
    ],
)
def test_where_it_listens(tmp_path: Path, lines: str, address: tuple[str, int]) -> None:
    assert loaded(tmp_path, lines).address == address


def test_relative_files_count_from_the_configuration(tmp_path: Path) -> None:
    web = loaded(tmp_path, 'tls_certificate = "c.pem"\ntls_key = "/k.pem"')
    assert (web.tls_certificate, web.tls_key) == (str(tmp_path / "c.pem"), "/k.pem")


@pytest.mark.parametrize(
    "lines, key",
    [
        ('listen = "0.0.0.0:8080"', "web.token"),
        ('listen = "[::]:8080"', "web.token"),
        ('listen = "192.168.1.4:8080"\ntoken = false', "web.token"),
        ('listen = "example.org:8080"', "web.listen"),
        ('listen = "127.0.0.1"', "web.listen"),
        ('tls_key = "k.pem"', "web.tls_certificate"),
        ('tls_certificate = "c.pem"', "web.tls_key"),
        ('token = "s3cret"', "web.token"),
    ],
)
def test_what_is_refused(tmp_path: Path, lines: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, lines)
    assert str(tmp_path / "e.toml") in caught.value.message and key in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("content, problem", [(None, "there is no credential"), ("\n", "is empty"), ("\xff", "read")])
def test_a_credential_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, problem: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if content is not None:
        (tmp_path / "gateway.web").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=problem):
        read_credential("gateway.web")
    (tmp_path / "gateway.web").write_text("s3cret\n")
    assert read_credential("gateway.web") == "s3cret"
