"""`edged camera add`: real cameras are asked; what is written is what `edged check` and the daemon read."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from edged.cli import main
from edged.commands import camera as command
from edged.config import load
from tests.support.clips import access_units
from tests.support.rtsp import RtspCamera

PASSWORD = "p@ss:w/rd"
SCENE = "test://3?width=128&height=64&fps=30"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration without a camera yet."""
    monkeypatch.setattr("edged.paths.CREDENTIALS_DIR", tmp_path / "credentials")
    monkeypatch.setattr(command, "DROP_IN", tmp_path / "edged.service.d/credentials.conf")
    monkeypatch.setattr(command, "reload_units", lambda: None)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    path = tmp_path / "my.toml"
    path.write_text('bundle = "demo"\n')
    return path


def add(config: Path, *arguments: str) -> int:
    return main(["camera", "add", *arguments, "-c", str(config)])


def test_a_camera_is_asked_and_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(config, "gate", SCENE, "fps=10", "weight=2.5", "track=true", "rotate=90") == 0
    out = capsys.readouterr().out
    assert "camera gate: test://3" in out and "64x128" in out and "edged ctl reload" in out
    (camera,) = load(config).camera
    assert (camera.name, camera.source, camera.fps, camera.weight, camera.track, camera.rotate) == (
        "gate", SCENE, 10, 2.5, True, 90,
    )  # fmt: skip
    assert add(config, "gate", SCENE) == 2
    assert "there is a camera gate already" in capsys.readouterr().err


def test_the_password_is_asked_for_and_becomes_a_credential(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, reloaded = access_units(128, 64, 20), []
    monkeypatch.setattr(command, "reload_units", lambda: reloaded.append(1))
    with RtspCamera(clip, fps=20, user="joe", password=PASSWORD) as camera:
        source = camera.url.replace("rtsp://", "rtsp://joe@")
        monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
        assert add(config, "gate", source) == 1
        assert "camera gate is not added: " in capsys.readouterr().err
        assert not (config.parent / "my.d").exists() and not (config.parent / "credentials").exists()
        (config.parent / "my.d").touch()
        monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
        assert add(config, "gate", source) == 1
        assert "my.d/camera-gate.toml: Not a directory" in capsys.readouterr().err
        assert not list((config.parent / "credentials").iterdir()), "of a camera that there is not"
        assert not reloaded, "a unit that was told of a password that is gone would not start"
        (config.parent / "my.d").unlink()
        monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
        assert add(config, "gate", source) == 0
    captured = capsys.readouterr()
    assert reloaded == [1]
    assert "128x64" in captured.out and "systemctl restart edged" in captured.out
    kept = config.parent / "credentials/camera.gate"
    assert kept.read_text() == PASSWORD + "\n" and stat.S_IMODE(kept.stat().st_mode) == 0o600
    written = (config.parent / "my.d/camera-gate.toml").read_text()
    assert load(config).camera[0].source == source
    assert PASSWORD not in written + captured.out + captured.err and "p%40" not in written + captured.out


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["gate", "rtsp://joe:secret@10.0.0.5/x"], "the source holds a password", 2),
        (["Gate 1", SCENE], "name is 'Gate 1', expected 1 to 32", 2),
        (["gate", "gopher://x"], "is not one that edged can read", 2),
        (["gate", SCENE, "fsp=3"], "fsp is not a known key", 2),
        (["gate", SCENE, "fps=0"], "fps is 0, expected frames per second", 2),
        (["gate", SCENE, "fps"], "'fps' is no KEY=VALUE of a camera", 2),
        (["gate", "/nowhere/film.mp4"], "camera gate is not added: ", 1),
    ],
)
def test_what_cannot_be_added_leaves_nothing(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, code: int
) -> None:
    assert add(config, *arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err and "hint: " in captured.err and "secret" not in captured.err
    assert not (config.parent / "my.d").exists()


def test_a_configuration_that_is_wrong_in_another_place_is_left_as_it_was(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text('bundle = "demo"\n[limits]\ndeadline_ms = 0\n')
    assert add(config, "gate", SCENE) == 2
    assert "limits.deadline_ms is 0" in capsys.readouterr().err
    assert not list((config.parent / "my.d").iterdir())
