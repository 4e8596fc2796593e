"""Profiles beside the engines: found by their conditions, tied to digests, refused with the reason, hostile input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.engines import device_profile
from edged.engines.device_profile import (
    Conditions,
    DeviceProfile,
    ProfiledRun,
    device_name,
    load_profile,
    profile_path,
)
from edged.errors import EdgedError

ONE, OTHER = "1" * 64, "2" * 64
DEVICE = "NVIDIA Jetson Orin Nano (8GB)"
HERE = Conditions(DEVICE, "tensorrt", "15W")


def run(variant: str = "fp16", sha256: str = ONE, clock: int = 0, batch: int = 1) -> ProfiledRun:
    return ProfiledRun(variant, sha256, batch, clock, 3.0, 3.5, 4.0, 100, 0.02)


def profile(*runs: ProfiledRun, **changes: Any) -> DeviceProfile:
    return DeviceProfile(
        **{  # type: ignore[arg-type]
            "version": 2,
            "device": DEVICE,
            "runtime": "tensorrt",
            "runs": list(runs or [run()]),
            "power_mode": "15W",
        }
        | changes
    )


def write(bundle: Path, found: DeviceProfile | bytes, here: Conditions = HERE) -> Path:
    path = profile_path(bundle, here)
    path.write_bytes(found if isinstance(found, bytes) else msgspec.json.encode(found))
    return path


def refusal(bundle: Path, here: Conditions = HERE, digests: dict[str, str] | None = None) -> str:
    with pytest.raises(EdgedError) as refused:
        load_profile(bundle, here, digests or {"fp16": ONE})
    return refused.value.message


def test_the_file_is_named_after_what_it_holds_for(tmp_path: Path) -> None:
    assert profile_path(tmp_path, HERE).name == "profile.nvidia-jetson-orin-nano-8gb.tensorrt.15w.json"
    assert profile_path(tmp_path, Conditions("///", "cpu")).name == "profile.unknown.cpu.json"
    assert len(profile_path(tmp_path, Conditions("x" * 500, "cuda", "y" * 500)).name) < 200


def test_the_runs_of_the_variants_that_run_are_taken(tmp_path: Path) -> None:
    write(tmp_path, profile(run(), run("int8", OTHER)))
    found = load_profile(tmp_path, HERE, {"int8": OTHER})
    assert found is not None and [entry.variant for entry in found.runs] == ["int8"]
    assert found.conditions == HERE


def test_the_runtimes_and_modes_have_a_profile_each(tmp_path: Path) -> None:
    for here in (HERE, Conditions(DEVICE, "cpu", "15W"), Conditions(DEVICE, "tensorrt", "25W")):
        write(tmp_path, profile(runtime=here.runtime, power_mode=here.power_mode), here)
        found = load_profile(tmp_path, here, {"fp16": ONE})
        assert found is not None and found.conditions == here


def test_a_bundle_without_a_profile_of_this_device_has_none(tmp_path: Path) -> None:
    assert load_profile(tmp_path, HERE, {"fp16": ONE}) is None
    other = Conditions("NVIDIA Jetson Orin NX", "tensorrt", "15W")
    write(tmp_path, profile(device=other.device), other)
    assert load_profile(tmp_path, HERE, {"fp16": ONE}) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"runtime": "cpu"}, "was measured on cpu; the engines run on tensorrt"),
        ({"power_mode": "25W"}, "was measured in power mode 25W; the mode is 15W"),
        ({"power_mode": None}, "was measured in power mode unknown; the mode is 15W"),
    ],
)
def test_a_profile_of_other_conditions_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path, found := profile(**changes), found.conditions)
    assert refusal(tmp_path) == f"{path}: {reason}"
    path = write(tmp_path, found)  # a copy under the name of this one
    assert refusal(tmp_path) == f"{path}: {reason}"


def test_a_profile_of_another_device_under_this_one_s_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, profile(device="NVIDIA Jetson Orin NX"))
    assert "was measured on NVIDIA Jetson Orin NX; this is NVIDIA Jetson Orin Nano (8GB)" in refusal(tmp_path)


def test_threads_matter_on_the_cpu_alone(tmp_path: Path) -> None:
    here = Conditions(DEVICE, "cpu", None, 2)
    write(tmp_path, profile(runtime="cpu", power_mode=None), here)
    assert "was measured with 1 threads; [engine] threads is 2" in refusal(tmp_path, here)
    write(tmp_path, profile())
    assert load_profile(tmp_path, msgspec.structs.replace(HERE, threads=2), {"fp16": ONE}) is not None


def test_a_profile_of_another_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, profile())
    assert "measured another file of fp16: SHA-256 111111111111..., here 222222222222..." in refusal(
        tmp_path, digests={"fp16": OTHER}
    )
    write(tmp_path, profile(run(), run(sha256=OTHER, batch=2)))
    assert "measured another file of fp16: SHA-256 222222222222..." in refusal(tmp_path)


def test_a_variant_that_was_not_measured_refuses_the_whole(tmp_path: Path) -> None:
    write(tmp_path, profile())
    assert "has no measurement of int8 with batch 1" in refusal(tmp_path, digests={"fp16": ONE, "int8": OTHER})
    write(tmp_path, profile(run(batch=2)))
    assert "has no measurement of fp16 with batch 1" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["profile.nvidia-jetson-orin-nano-8gb.json", profile_path(Path(), HERE).name])
def test_an_older_form_is_refused_with_the_command_that_makes_a_new_one(tmp_path: Path, name: str) -> None:
    old = {"version": 1, "device": DEVICE, "runs": [], "accuracy_slope": {}}
    (tmp_path / name).write_bytes(msgspec.json.encode(old))
    with pytest.raises(EdgedError, match=r"is of an older form \(version 1; this edged reads 2\)") as refused:
        load_profile(tmp_path, HERE, {"fp16": ONE})
    assert refused.value.hint == f"measure it: edged-calibrate profile {tmp_path} --device tensorrt"


@pytest.mark.parametrize(
    "changes",
    [
        {"clocks_mhz": [300.0, 600.0], "idle_w": [4.0], "runs": [run(clock=1)]},
        {"clocks_mhz": [300.0, 600.0], "runs": [run(clock=2)]},
        {"runs": [run(clock=1)]},
        {"clocks_mhz": [600.0, 300.0], "runs": [run(clock=1)]},
        {"clocks_mhz": [600.0, 600.0], "runs": [run(clock=1)]},
    ],
    ids=["too few idle powers", "a clock that is not there", "a clock where there is none", "descending", "twice"],
)
def test_what_does_not_hold_together_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, profile(**changes))
    assert "clocks_mhz" in refusal(tmp_path)


DEEP = b'{"version": 2, "device": ' + b"[" * 100_000


NONE = (b"", b"{", b'{"version": 3}', b'{"version": true}', b"[]", b"\xff", DEEP, b"1e999")


@pytest.mark.parametrize("content", NONE, ids=range(len(NONE)))
def test_a_file_that_is_no_profile_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    assert refusal(tmp_path).startswith(f"{path}: is ")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    profile_path(tmp_path, HERE).mkdir()
    assert "cannot be read" in refusal(tmp_path)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_profile, "MAX_BYTES", 64)
    write(tmp_path, profile())
    assert "is not a device profile" in refusal(tmp_path)


@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_profile_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    write(tmp_path_factory.getbasetemp(), content)
    with pytest.raises(EdgedError):
        load_profile(tmp_path_factory.getbasetemp(), HERE, {"fp16": ONE})


def test_this_machine_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"NVIDIA Jetson AGX Orin\0")
    monkeypatch.setattr(device_profile, "MODEL_FILES", ("none", "model"))
    assert device_name(tmp_path) == "NVIDIA Jetson AGX Orin"
    monkeypatch.setattr(device_profile, "MODEL_FILES", ())
    assert device_name() and len(device_name()) < 200
