"""Profiles beside the engines: found by the device's name, tied to digests, hostile until checked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.engines import device_profile
from edged.engines.device_profile import DeviceProfile, ProfiledRun, device_name, load_profile, profile_path
from edged.errors import EdgedError

ONE, OTHER = "1" * 64, "2" * 64
DEVICE = "NVIDIA Jetson Orin Nano (8GB)"


def run(sha256: str = ONE, clock: int = 0) -> ProfiledRun:
    return ProfiledRun("fp16", sha256, 1, clock, 3.0, 3.5, 4.0, 100, 0.02)


def written(bundle: Path, profile: DeviceProfile | bytes) -> Path:
    path = profile_path(bundle, DEVICE)
    path.write_bytes(profile if isinstance(profile, bytes) else msgspec.json.encode(profile))
    return path


def test_the_file_is_named_after_the_device(tmp_path: Path) -> None:
    assert profile_path(tmp_path, DEVICE).name == "profile.nvidia-jetson-orin-nano-8gb.json"
    assert profile_path(tmp_path, "///").name == "profile.unknown.json"
    assert len(profile_path(tmp_path, "x" * 500).name) < 120


def test_only_runs_of_known_files_are_taken(tmp_path: Path) -> None:
    written(tmp_path, DeviceProfile(1, DEVICE, [run(ONE), run(OTHER)]))
    found = load_profile(tmp_path, DEVICE, [OTHER])
    assert found is not None and [entry.sha256 for entry in found.runs] == [OTHER]
    assert load_profile(tmp_path, DEVICE, ["3" * 64]) is None


def test_no_profile_is_none(tmp_path: Path) -> None:
    assert load_profile(tmp_path, DEVICE, [ONE]) is None


@pytest.mark.parametrize(
    "profile",
    [
        DeviceProfile(1, DEVICE, [run()], clocks_mhz=[300.0, 600.0], idle_w=[4.0]),
        DeviceProfile(1, DEVICE, [run(clock=2)], clocks_mhz=[300.0, 600.0]),
        DeviceProfile(1, DEVICE, [run(clock=1)]),
    ],
    ids=["too few idle powers", "a clock that is not there", "a clock where there is none"],
)
def test_what_does_not_hold_together_is_refused(tmp_path: Path, profile: DeviceProfile) -> None:
    written(tmp_path, profile)
    with pytest.raises(EdgedError, match="do not fit clocks_mhz") as refused:
        load_profile(tmp_path, DEVICE, [ONE])
    assert "edged-calibrate profile" in refused.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2}', b"[]", b"\xff"])
def test_a_file_that_is_no_profile_is_told(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    with pytest.raises(EdgedError, match="is not a device profile") as refused:
        load_profile(tmp_path, DEVICE, [ONE])
    assert str(path) in refused.value.message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    profile_path(tmp_path, DEVICE).mkdir()
    with pytest.raises(EdgedError, match="cannot be read"):
        load_profile(tmp_path, DEVICE, [ONE])


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_profile, "MAX_BYTES", 64)
    written(tmp_path, DeviceProfile(1, DEVICE, [run()]))
    with pytest.raises(EdgedError, match="is not a device profile"):
        load_profile(tmp_path, DEVICE, [ONE])


@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_profile_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    written(tmp_path_factory.getbasetemp(), content)
    with pytest.raises(EdgedError):
        load_profile(tmp_path_factory.getbasetemp(), DEVICE, [ONE])


def test_this_machine_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"NVIDIA Jetson AGX Orin\0")
    monkeypatch.setattr(device_profile, "MODEL_FILES", (str(tmp_path / "none"), str(model)))
    assert device_name() == "NVIDIA Jetson AGX Orin"
    monkeypatch.setattr(device_profile, "MODEL_FILES", ())
    assert device_name() and len(device_name()) < 200
