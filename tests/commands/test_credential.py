"""Passwords are kept for root alone, named in the unit's drop-in, and never seen in an argument or an output."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from edged.cli import main
from edged.commands import credential
from edged.commands.credential import Store
from edged.errors import EdgedError, UsageError

SECRET = "p@ss wörd/?#"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("edged.paths.CREDENTIALS_DIR", tmp_path / "credentials")
    monkeypatch.setattr(credential, "DROP_IN", tmp_path / "edged.service.d/credentials.conf")
    monkeypatch.setattr(credential, "reload_units", lambda: None)
    return tmp_path


def test_set_list_remove(places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("camera.gate", "site"):
        monkeypatch.setattr("sys.stdin", io.StringIO(SECRET + "\n"))
        assert main(["credential", "set", name]) == 0
    kept = places / "credentials/camera.gate"
    assert kept.read_text() == SECRET + "\n" and stat.S_IMODE(kept.stat().st_mode) == 0o600
    drop_in = places / "edged.service.d/credentials.conf"
    assert drop_in.read_text().splitlines()[1:] == [
        "[Service]",
        f"LoadCredential=camera.gate:{kept}",
        f"LoadCredential=site:{places}/credentials/site",
    ]
    assert main(["credential", "list"]) == 0
    assert main(["credential", "remove", "site"]) == 0 and main(["credential", "remove", "camera.gate"]) == 0
    assert not drop_in.exists() and not list((places / "credentials").iterdir())
    out, err = capsys.readouterr()
    assert "camera.gate\nsite\n" in out and "systemctl restart edged" in out
    assert SECRET not in out + err


def test_the_gateways_secrets_are_handed_to_its_own_unit(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(places / "credentials", places / "edged.service.d/credentials.conf")
    store.put("gateway.web", "0123456789abcdef")
    store.put("camera.gate", "one")
    drop_in = places / "edged-gateway.service.d/credentials.conf"
    assert "LoadCredential=gateway.web:" in drop_in.read_text() and "camera.gate" not in drop_in.read_text()
    assert "gateway.web" not in (places / "edged.service.d/credentials.conf").read_text()
    assert main(["credential", "remove", "gateway.web"]) == 0 and not drop_in.exists()
    assert "systemctl restart edged-gateway" in capsys.readouterr().out


def test_a_second_set_replaces_and_leaves_no_other_file(places: Path) -> None:
    store = Store(places / "credentials", places / "d/c.conf")
    store.put("camera.gate", "one")
    store.put("camera.gate", "two")
    assert (places / "credentials/camera.gate").read_text() == "two\n"
    assert [entry.name for entry in (places / "credentials").iterdir()] == ["camera.gate"]


@pytest.mark.parametrize("name", ["../shadow", "", ".hidden", "Gate", "a b", "a\nUser=root", "x" * 65, "a:b"])
def test_a_name_cannot_lead_elsewhere(places: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        Store(places / "credentials", places / "c.conf").put(name, "x")


@pytest.mark.parametrize("given", ["", "\n", "a\tb\n", "x" * 1025 + "\n"])
def test_what_is_no_password_is_refused(places: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert main(["credential", "set", "camera.gate"]) == 2
    assert not (places / "credentials").exists()


def test_who_may_not_is_shown_how(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgedError, match="cannot write") as caught:
        Store(tmp_path / "file/credentials", tmp_path / "c.conf").put("camera.gate", "x")
    assert "sudo" in caught.value.hint
