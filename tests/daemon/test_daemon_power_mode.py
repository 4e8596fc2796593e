"""The daemon with power profiles, a recorder and a simulated device: a real process, asked through its socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.cli import main
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

SMALL = "test://3?width=128&height=64&fps=30"
EXTRA = """
profile = "mine"
[limits]
deadline_ms = 200
power_w = 20
[power]
provider = "simulated"
interval_s = 0.1
[record]
path = "record"
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), {"fine": center_model(-100.0), "fast": center_model(-90.0)})


def write(directory: Path, name: str, text: str) -> None:
    (directory / "profiles").mkdir(exist_ok=True)
    (directory / "profiles" / f"{name}.toml").write_text(text)


@pytest.fixture
def daemon(bundle: Path, tmp_path: Path) -> Iterator[RunningDaemon]:
    write(tmp_path, "mine", 'description = "mine"\n[limits]\ntemperature_c = 70\n')
    with RunningDaemon(write_config(tmp_path, bundle, {"gate": SMALL}, EXTRA), tmp_path) as running:
        yield running


def test_a_profile_is_taken_up_live_and_a_wrong_one_changes_nothing(daemon: RunningDaemon, tmp_path: Path) -> None:
    listed = daemon.ask("profile")
    assert listed["profile"] == "mine"
    assert [one["name"] for one in listed["profiles"]] == [
        "balanced",
        "emergency",
        "mine",
        "night",
        "performance",
        "solar",
    ]

    def in_force() -> tuple[object, ...]:
        state = daemon.state()
        limits = state["limits"]
        return state["profile"], limits["power_w"], limits["temperature_c"], limits["deadline_ms"]

    wait_for(lambda: in_force() == ("mine", 20.0, 70.0, 200.0))
    reply = daemon.ask("profile", name="night")
    assert reply["ok"] and "limits: power_w 20.0 -> 10.0" in reply["changes"]
    wait_for(lambda: in_force() == ("night", 10.0, 85.0, 200.0))
    assert daemon.ask("set", power_w=7.0)["ok"]
    wait_for(lambda: in_force() == ("night", 7.0, 85.0, 200.0))

    write(tmp_path, "bad", 'description = "bad"\n[limits]\npower_w = -1\n')
    refused = daemon.ask("profile", name="bad")
    assert not refused["ok"] and "bad.toml: limits.power_w is -1, expected watts" in refused["error"]
    write(tmp_path, "vain", 'description = "no variant reaches that"\n[limits]\nmin_accuracy = 1.0\n')
    refused = daemon.ask("profile", name="vain")
    assert not refused["ok"] and "min_accuracy = 1 cannot be held" in refused["error"]
    assert not daemon.ask("profile", name="nite")["ok"]
    assert in_force() == ("night", 7.0, 85.0, 200.0)

    # one profile is never laid over another: what night set is gone
    assert daemon.ask("profile", name="mine")["ok"]
    wait_for(lambda: in_force() == ("mine", 20.0, 70.0, 200.0))
    write(tmp_path, "mine", 'description = "mine"\nlift = ["power_w"]\n[limits]\ntemperature_c = 60\n')
    assert "limits: temperature_c 70.0 -> 60.0" in daemon.ask("reload")["changes"]
    wait_for(lambda: in_force() == ("mine", None, 60.0, 200.0))
    assert daemon.ask("profile", name=None)["ok"]
    wait_for(lambda: in_force() == (None, 20.0, None, 200.0))


def test_the_simulated_device_is_marked_and_its_log_replays(
    daemon: RunningDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def telemetry() -> dict[str, object]:
        reported: dict[str, object] = daemon.state()["telemetry"] or {}
        return reported

    wait_for(lambda: float(str(telemetry().get("power_w") or 0)) > 4.0)
    reported = telemetry()
    assert reported["provider"] == "simulated" and reported["power_estimated"] is True
    assert "power and temperature are those of a simulated orin-nano" in str(reported["missing"])
    assert daemon.ask("set", power_w=6.0)["ok"] and daemon.ask("pin", variant="fine")["ok"]
    wait_for(lambda: daemon.camera("gate")["results"] > 60)
    assert daemon.stop() == 0
    assert main(["replay", str(tmp_path / "record")]) == 0
    assert "the same, byte for byte" in capsys.readouterr().out


def test_a_wrong_profile_stops_the_start_with_its_sentence(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, bundle, {"gate": SMALL}, 'profile = "nite"')
    assert main(["run", "-c", str(config)]) == 2
    assert "there is no profile 'nite'" in capsys.readouterr().err


def test_recording_that_cannot_begin_is_reported_and_the_daemon_runs(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    extra = '[record]\npath = "file/below"'
    with RunningDaemon(write_config(tmp_path, bundle, {"gate": SMALL}, extra), tmp_path) as running:
        wait_for(lambda: running.camera("gate")["results"] > 5)
        assert "cannot record into" in running.log
        wait_for(lambda: (running.ask("snapshot")["state"] or {}).get("recording") is not None, 10)
        assert "cannot record into" in running.ask("snapshot")["state"]["recording"]["problem"]
