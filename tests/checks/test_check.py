"""`edged check`, and `edged run` refusing to start: each thing that may be wrong, its sentence and its exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq.auth

from edged import clock
from edged.cli import main
from edged.engines.device_profile import Conditions, DeviceProfile, ProfiledRun, device_name, profile_path
from edged.paths import runtime_dir
from edged.power.host import HostProvider
from edged.power.telemetry import Sample
from tests.support.bus import free_port
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

SMALL = "test://3?width=128&height=64&fps=30"
Findings = dict[str, list[dict[str, str]]]
Check = Callable[[Path], tuple[int, Findings]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), {"fine": center_model(-100.0), "fast": center_model(-90.0)})


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))

    def run(config: Path) -> tuple[int, Findings]:
        code = main(["check", "-c", str(config), "--json"])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert told["ok"] == (code == 0)
        findings: Findings = {}
        for finding in told["findings"]:
            findings.setdefault(finding["subject"], []).append(finding)
        return code, findings

    return run


def test_a_good_configuration_would_run(check: Check, bundle: Path, tmp_path: Path) -> None:
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL, "yard": SMALL}))
    assert code == 0, found
    assert [found[s][0]["level"] for s in ("config", "bus results", "bus control", "bundle", "variant fine")] == [
        "ok"
    ] * 5
    assert "fine.onnx: digest right, fp32 on onnxruntime cpu, warm " in found["variant fine"][0]["text"]
    assert "map50 0.900" in found["variant fine"][0]["text"] and "map50 0.800" in found["variant fast"][0]["text"]
    assert "128x64" in found["camera gate"][0]["text"] and "arrival" in found["camera gate"][0]["text"]
    fps = float(found["camera gate"][0]["text"].partition("128x64, ")[2].partition(" fps")[0])
    assert 15 < fps < 45
    assert "would run fine: the most accurate" in found["limits"][0]["text"]
    assert "2 cameras" in found["limits"][0]["text"]
    assert found["power"][0]["text"].startswith("provider host, this is no Jetson: ")
    assert not list(runtime_dir().glob(f"rings-check_{os.getpid()}.*")), "its claim on ring names is released"


def test_the_device_profile_is_named_missing_refused_or_in_use(check: Check, bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(bundle, tmp_path / "bundle")  # the others have none
    config = write_config(tmp_path, bundle, {"gate": SMALL})
    (missing,) = check(config)[1]["device profile"]
    assert missing["level"] == "ok" and missing["text"].startswith("none of this device")
    assert missing["fix"] == f"for a better start: edged-calibrate profile {bundle}"
    manifest = json.loads((bundle / "manifest.json").read_text())
    runs = [
        ProfiledRun(variant["name"], variant["files"][0]["sha256"], batch, 0, 5.0, 5.5, 6.0, 50, 0.02)
        for variant in manifest["variants"]
        for batch in (1, 2)
    ]
    here = Conditions(device_name(), "cpu")
    profile = DeviceProfile(2, here.device, "cpu", runs, idle_w=[4.0])
    profile_path(bundle, here).write_bytes(msgspec.json.encode(profile))
    (used,) = check(config)[1]["device profile"]
    assert used["level"] == "ok" and used["text"].endswith("cpu: batches to 2, 1 clock, without thermal constants")
    config.write_text(config.read_text() + "\n[engine]\nthreads = 2\n")
    (refused,) = check(config)[1]["device profile"]
    assert refused["level"] == "warning" and "was measured with 1 threads" in refused["text"]
    assert refused["fix"].endswith("--device cpu --threads 2")


def test_for_people(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, bundle, {"gate": SMALL}, f'[bus]\nresults = "ipc://{tmp_path}/r"')
    main(["check", "-c", str(config)])
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["ok", "config", f"{config}:", "1", "camera"]
    assert out.splitlines()[-1] == "This would run."


def test_the_effective_configuration_shows_defaults_and_no_password(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, bundle, {"gate": "rtsp://user:hunter2@camera/stream"})
    assert main(["check", "-c", str(config), "--print-effective"]) == 0
    out = capsys.readouterr().out
    assert "deadline_ms = 50.0" in out and "rtsp://***@camera/stream" in out and "hunter2" not in out


CAMERA = '[[camera]]\nname = "gate"\nsource = "test://1"\n'


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            f'bundle = "b"\n[limits]\ndeadline_ms = "soon"\n{CAMERA}',
            "limits.deadline_ms is 'soon', expected milliseconds",
        ),
        (f'bundle = "b"\n[limits]\ndeadlin_ms = 5\n{CAMERA}', "limits.deadlin_ms is not a known key"),
        (f'bundle = "b"\n{CAMERA}{CAMERA}', "camera.2.name is 'gate', which is there twice"),
        (f"bundle = b\n{CAMERA}", "is not valid TOML"),
        (CAMERA, "bundle is missing"),
    ],
)
def test_a_wrong_configuration_is_exit_2(
    command: str, text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "e.toml"
    config.write_text(text)
    assert main([command, "-c", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"edged: {config}: ") and says in err.splitlines()[0]
    assert err.splitlines()[1].startswith("  hint: ")


def test_a_configuration_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(tmp_path)]) == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err
    assert main(["check", "-c", str(tmp_path), "--json"]) == 2
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["level"] == "failed" and "Is a directory" in finding["text"] and finding["fix"]


def test_a_missing_bundle(check: Check, tmp_path: Path) -> None:
    code, found = check(write_config(tmp_path, tmp_path / "nowhere", {"gate": SMALL}))
    assert code == 1
    assert "nowhere" in found["bundle"][0]["text"] and "manifest.json" in found["bundle"][0]["fix"]
    assert found["camera gate"][0]["level"] == "ok", "the rest is tried all the same"


def test_a_corrupt_model_costs_its_variant_and_says_so(check: Check, tmp_path: Path) -> None:
    directory = write_bundle(tmp_path / "b", {"fine": center_model(-100.0), "fast": center_model(-90.0)})
    model = bytearray((directory / "fast.onnx").read_bytes())
    model[-1] ^= 1
    (directory / "fast.onnx").write_bytes(model)
    code, found = check(write_config(tmp_path, directory, {"gate": SMALL}))
    assert code == 1
    assert found["variant fast"][0]["level"] == "failed" and "fast.onnx" in found["variant fast"][0]["text"]
    assert "would run fine" in found["limits"][0]["text"]


def test_an_accuracy_floor_that_none_reaches(check: Check, bundle: Path, tmp_path: Path) -> None:
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}, "[limits]\nmin_accuracy = 0.99"))
    assert code == 1
    assert (
        found["limits"][0]["level"] == "failed" and "min_accuracy = 0.99 cannot be held" in found["limits"][0]["text"]
    )


def test_what_the_variants_take_is_reported_beside_the_limit(check: Check, bundle: Path, tmp_path: Path) -> None:
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}))
    (memory,) = found["memory"]
    assert code == 0 and memory["level"] == "ok" and " MB" in memory["text"] and "shared by all" in memory["text"]
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}, "[limits]\nmemory_mb = 5"))
    (memory,) = found["memory"]
    assert code == 0 and memory["level"] == "warning" and "memory_mb is 5" in memory["text"] and memory["fix"]


def test_a_limit_that_cannot_be_held_here_is_a_warning(
    check: Check, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostProvider, "read", lambda self: Sample("host", clock.mono_ns(), missing=("no meter",)))
    limits = "[limits]\npower_w = 5\ntemperature_c = 80"
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}, limits))
    assert code == 0
    warned = [f["text"] for f in found["limits"] if f["level"] == "warning"]
    assert any("power_w" in text and "cannot be held" in text for text in warned), warned
    assert any("temperature_c" in text and "cannot be held" in text for text in warned), warned
    assert all(f["fix"] for f in found["limits"] if f["level"] == "warning")


def test_a_temperature_that_is_read_can_be_limited(
    check: Check, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostProvider, "read", lambda self: Sample("host", clock.mono_ns(), temperature_c=50.0))
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}, "[limits]\ntemperature_c = 80"))
    assert code == 0 and not any("cannot be held" in f["text"] for f in found["limits"])


def test_on_a_simulated_device_its_limits_can_be_held(check: Check, bundle: Path, tmp_path: Path) -> None:
    extra = 'profile = "balanced"\n[power]\nprovider = "simulated"'
    config = write_config(tmp_path, bundle, {"gate": SMALL})
    config.write_text(extra.split("\n")[0] + "\n" + config.read_text() + "\n" + "\n".join(extra.split("\n")[1:]))
    code, findings = check(config)
    assert code == 0 and not [one for one in findings["limits"] if "cannot be held" in one["text"]]
    made_up = next(one for one in findings["power"] if "simulated" in one["text"] and one["level"] == "warning")
    assert made_up["level"] == "warning" and "published as estimated" in made_up["fix"]


def test_sources_that_cannot_work(check: Check, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage.mp4").write_bytes(b"no video" * 100)
    cameras = {
        "odd": "gopher://host/x",
        "none": f"file://{tmp_path}/none.mp4",
        "garbage": f"file://{tmp_path}/garbage.mp4",
        "good": SMALL,
    }
    code, found = check(write_config(tmp_path, bundle, cameras))
    assert code == 1
    assert {name: found[f"camera {name}"][0]["level"] for name in cameras} == {
        "odd": "failed",
        "none": "failed",
        "garbage": "failed",
        "good": "ok",
    }
    assert "gopher://host/x" in found["camera odd"][0]["text"] and "rtsp" in found["camera odd"][0]["fix"]
    assert "none.mp4" in found["camera none"][0]["text"] and "No such file" in found["camera none"][0]["text"]
    assert "damaged or no video" in found["camera garbage"][0]["text"]


def test_an_endpoint_held_by_something_else(check: Check, bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (tmp_path / "clients").mkdir()
        bus = f'[bus]\nresults = "tcp://127.0.0.1:{other.getsockname()[1]}"\ncurve_clients = "clients"\n'
        config = write_config(tmp_path, bundle, {"gate": SMALL}, bus + 'curve_secret_key = "gone"')
        code, found = check(config)
    assert code == 1
    assert "is held by another program" in found["bus results"][0]["text"]
    assert "cannot read the CURVE key" in found["bus keys"][0]["text"] and "gone" in found["bus keys"][0]["text"]


def test_the_wrong_half_of_a_key_is_found_before_the_daemon_stumbles_over_it(
    check: Check, bundle: Path, tmp_path: Path
) -> None:
    zmq.auth.create_certificates(tmp_path, "edged")
    (tmp_path / "clients").mkdir()
    bus = f'[bus]\nresults = "tcp://127.0.0.1:{free_port()}"\ncurve_clients = "clients"\n'
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}, bus + 'curve_secret_key = "edged.key"'))
    assert code == 1 and "holds no secret key" in found["bus keys"][0]["text"]
    code, found = check(write_config(tmp_path, bundle, {"gate": SMALL}, bus + 'curve_secret_key = "edged.key_secret"'))
    assert code == 0 and "bus keys" not in found


def test_a_daemon_that_runs_already_is_news_for_check_and_a_fault_for_run(
    check: Check, bundle: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    config = write_config(tmp_path, bundle, {"gate": SMALL})
    with RunningDaemon(config, directory) as daemon:
        code, found = check(config)
        assert code == 0
        for name in ("results", "control"):
            assert f"the daemon that runs now (pid {daemon.process.pid}" in found[f"bus {name}"][0]["text"]
        second_daemon = [sys.executable, "-m", "edged", "run", "-c", str(config)]
        done = subprocess.run(second_daemon, stderr=subprocess.PIPE, text=True, timeout=100)
        assert done.returncode == 1
        first, second = done.stderr.splitlines()
        assert first == f"edged: another edged (pid {daemon.process.pid}) already serves {daemon.results}"
        assert second.startswith("  hint: ")
        assert daemon.state()["healthy"]
