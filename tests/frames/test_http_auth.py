"""Basic and Digest, held against the examples of their RFCs, and what a second refusal means."""

from __future__ import annotations

import pytest

from edged.frames.http_auth import Authenticator

DIGEST_2069 = (
    'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
    'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)


def test_basic() -> None:
    auth = Authenticator("Aladdin", "open sesame")
    assert auth.header("GET", "/") is None
    assert auth.challenged(['Basic realm="camera"'])
    assert auth.header("GET", "/") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert not auth.challenged(['Basic realm="camera"']), "the same again means that the password is wrong"


def test_digest_without_qop_is_the_example_of_rfc_2069() -> None:
    auth = Authenticator("Mufasa", "CircleOfLife")
    assert auth.challenged([DIGEST_2069])
    header = auth.header("GET", "/dir/index.html") or ""
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in header
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in header and "qop" not in header


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_with_qop_is_the_example_of_rfc_7616(
    algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr("edged.frames.http_auth.secrets.token_hex", lambda size: client_nonce)
    auth = Authenticator("Mufasa", "Circle of Life")
    assert auth.challenged(
        [
            f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
            'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
        ]
    )
    assert f'response="{response}"' in (auth.header("GET", "/dir/index.html") or "")
    assert "nc=00000002" in (auth.header("GET", "/dir/index.html") or "")


def test_digest_is_preferred_and_an_unknown_algorithm_passed_over() -> None:
    auth = Authenticator("u", "p")
    assert auth.challenged(['Basic realm="x"', 'Digest realm="x", nonce="1", qop="auth"'])
    assert (auth.header("GET", "/") or "").startswith("Digest ")
    other = Authenticator("u", "p")
    assert other.challenged(['Digest realm="x", nonce="1", algorithm=SHA-512-256', 'Basic realm="x"'])
    assert (other.header("GET", "/") or "").startswith("Basic ")


def test_a_stale_nonce_is_tried_again_and_a_wrong_password_is_not() -> None:
    auth = Authenticator("u", "p")
    assert auth.challenged(['Digest realm="x", nonce="1"'])
    assert auth.challenged(['Digest realm="x", nonce="2", stale=true'])
    assert not auth.challenged(['Digest realm="x", nonce="2"'])
    assert not Authenticator(None, None).challenged(['Basic realm="x"'])


def test_quotes_in_a_user_do_not_end_the_field() -> None:
    auth = Authenticator('a"b\\c', "p")
    auth.challenged(['Digest realm="x", nonce="1"'])
    assert r'username="a\"b\\c"' in (auth.header("GET", "/") or "")
