"""Starts that crash are counted, and after three edged starts without the GPU. Real daemons, really killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from edged import crash_guard
from edged.config import Config, EngineConfig, Limits
from edged.crash_guard import CRASHES, FILE, Starts, state_directory
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

CONFIG = Config(bundle="/b", engine=EngineConfig(device="cuda", threads=2), limits=Limits(power_w=9.0))


def test_after_three_crashes_it_goes_without_the_gpu(tmp_path: Path) -> None:
    crashed = []
    for crashes in range(CRASHES + 2):
        found = Starts(tmp_path)
        assert found.crashes == crashes
        config = found.relied_on(CONFIG)
        assert config.engine == EngineConfig(device="cuda" if crashes < CRASHES else "cpu", threads=2)
        assert config.limits == CONFIG.limits
        crashed.append(found.counted())
        crashed[-1].__enter__()  # and never left
    assert found.crashes == CRASHES + 1


def test_an_orderly_end_and_a_refusal_clear_the_count(tmp_path: Path) -> None:
    Starts(tmp_path)._write(2)
    with pytest.raises(RuntimeError), Starts(tmp_path).counted():
        assert Starts(tmp_path).crashes == 3
        raise RuntimeError
    assert Starts(tmp_path).crashes == 0 and not list(tmp_path.iterdir())


def test_a_start_that_lasts_clears_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_guard, "STABLE_AFTER_S", 0.05)
    with Starts(tmp_path).counted():
        wait_for(lambda: Starts(tmp_path).crashes == 0)


@pytest.mark.parametrize("text", [b"", b"-1", b"soon", b"\xff\xfe", b"99999999999999"])
def test_a_count_that_is_none_is_no_crash_and_no_reason_to_fail(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE).write_bytes(text)
    assert Starts(tmp_path).crashes in (0, 99999999)


def test_without_a_state_directory_nothing_is_counted(tmp_path: Path) -> None:
    assert state_directory({}) is None and state_directory({"STATE_DIRECTORY": "/a:/b"}) == Path("/a")
    with Starts(None).counted():
        assert Starts(None).relied_on(CONFIG) == CONFIG
    with Starts(tmp_path / "gone").counted():
        pass


def test_a_daemon_that_is_killed_three_times_starts_smaller_the_fourth(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, write_bundle(tmp_path / "bundle", {"fp16": center_model()}), {"gate": "test://1?width=64&height=48"}
    )
    for _ in range(CRASHES):
        with RunningDaemon(config, tmp_path, STATE_DIRECTORY=str(tmp_path)) as daemon:
            assert "starts crashed" not in daemon.log
            daemon.signal(signal.SIGKILL)
            daemon.process.wait(10)
    with RunningDaemon(config, tmp_path, STATE_DIRECTORY=str(tmp_path)) as daemon:
        assert "the last 3 starts crashed" in daemon.log
        assert daemon.state()["cameras"][0]["state"] in ("opening", "live")
        daemon.stop()
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_stopped_is_orderly_and_no_crash(tmp_path: Path, number: signal.Signals) -> None:
    bundle = write_bundle(tmp_path / "bundle", {"fp16": center_model()})
    config = write_config(tmp_path, bundle, {"gate": "test://1?width=64&height=48"})
    starting = RunningDaemon(config, tmp_path, STATE_DIRECTORY=str(tmp_path))
    try:
        wait_for(lambda: (tmp_path / FILE).exists() or starting.process.poll() is not None, 20)
        starting.signal(number)
        assert starting.process.wait(60) == 0, starting.log
        assert not (tmp_path / FILE).exists() and not list(tmp_path.glob("*.ipc"))
    finally:
        starting.process.kill()
        starting.__exit__(None, None, None)
