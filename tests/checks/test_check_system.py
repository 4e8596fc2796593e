"""What `edged check` says of the machine: each fault with the command that fixes it, and nothing else."""

from __future__ import annotations

import importlib.util
import os
import pwd
import types
from pathlib import Path

import pytest

from edged.checks import system
from edged.checks.finding import Finding
from edged.checks.system import try_system
from edged.config import CameraConfig, Config


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr("edged.paths.CREDENTIALS_DIR", tmp_path / "credentials")


def config(source: str = "test://1", **more: object) -> Config:
    camera = CameraConfig(name="gate", source=source, **more)  # type: ignore[arg-type]
    return Config(bundle="/nowhere", camera=[camera])


def found(root: Path, reported: Config | None = None) -> list[Finding]:
    return list(try_system(root / "my.toml", reported or config(), root))


def test_where_nothing_is_wrong_nothing_is_reported(tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_a_user_without_a_password_is_shown_how_to_give_one(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, config("rtsp://admin@10.0.0.5/x"))
    assert finding.level == "warning" and finding.subject == "camera gate"
    assert finding.fix == "sudo edged credential set camera.gate"
    (finding,) = found(tmp_path, config("rtsp://admin@10.0.0.5/x", password_credential="site"))
    assert finding.fix == "sudo edged credential set site"
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/site").write_text("x")
    assert found(tmp_path, config("rtsp://admin@10.0.0.5/x", password_credential="site")) == []


def test_a_password_in_the_configuration_is_advised_against_and_not_shown(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, config("rtsp://admin:s3cret@10.0.0.5/x"))
    assert finding.level == "warning" and "s3cret" not in repr(finding)
    assert "sudo edged credential set camera.gate" in finding.fix


def test_a_gpu_that_is_not_for_this_user_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvmap").touch(mode=0o000)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may always
    (finding,) = [one for one in found(tmp_path) if one.subject == "devices"]
    assert "/dev/nvmap" in finding.text
    assert finding.fix == f"sudo usermod -aG {(tmp_path / 'dev/nvmap').group()} $USER, and log in again"


def test_jetpacks_tensorrt_is_seen_or_its_absence_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (finding,) = found(tmp_path)
    assert finding.fix == "sudo apt-get install python3-libnvinfer"
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
    (finding,) = found(tmp_path)
    assert "scripts/install" in finding.fix
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert [one.level for one in found(tmp_path)] == ["ok"]


@pytest.mark.parametrize(
    ("shown", "level", "words"),
    [
        ({"LoadState": "not-found"}, "warning", "sudo scripts/install"),
        ({"LoadState": "loaded", "ActiveState": "failed", "StatusText": "no such file"}, "warning", "no such file"),
        ({"LoadState": "loaded", "ActiveState": "active", "NeedDaemonReload": "yes"}, "warning", "daemon-reload"),
        ({"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"}, "warning", "enable --now"),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}, "ok", "starts with the machine"),
    ],
)
def test_the_state_of_the_service(
    shown: dict[str, str], level: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    monkeypatch.setattr(system, "show_unit", lambda unit, *properties: shown)
    (finding,) = system._service()
    assert finding.level == level and words in finding.text + finding.fix


def test_a_file_that_only_root_can_read_fails_for_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, dropped = tmp_path / "edged.toml", tmp_path / "edged.d/10 gate.toml"
    dropped.parent.mkdir()
    for path in (file, dropped):
        path.write_text("")
    dropped.chmod(0o600)
    file.chmod(0o644)
    service = types.SimpleNamespace(pw_uid=os.getuid() + 4711, pw_gid=os.getgid() + 4711)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: service)
    (finding,) = system._readable_by_service(file, config())
    assert finding.level == "failed" and str(dropped) in finding.text
    assert finding.fix == f"sudo chgrp edged '{dropped}'; sudo chmod 640 '{dropped}'"
