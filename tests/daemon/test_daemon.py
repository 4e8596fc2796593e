"""The daemon whole: a real process, real cameras, a real bus. What a user, an operator and systemd would see."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.bus.schema import Event, Result
from edged.client import Decision, State, Status
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

SMALL = "test://3?width=128&height=64&fps=30"
COLLECTING = """
import gc, sys
from edged import cli, daemon

def collected(phase, info):
    if phase == "stop" and info["generation"] == 2:
        print("a full collection", flush=True)

daemon.COLLECT_EVERY_NS //= 600
gc.callbacks.append(collected)
sys.exit(cli.main(["run", "-c", sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), {"fine": center_model(-100.0), "fast": center_model(-90.0)})


@pytest.fixture
def daemon(bundle: Path, tmp_path: Path) -> Iterator[RunningDaemon]:
    with RunningDaemon(write_config(tmp_path, bundle, {"gate": SMALL, "yard": SMALL}), tmp_path) as running:
        yield running


def test_results_come_and_every_frame_is_accounted_for(daemon: RunningDaemon) -> None:
    seen: Counter[str] = Counter()
    frames: dict[str, int] = {}
    with daemon.client("result") as client:
        for message in client:
            assert isinstance(message, Result)
            assert message.frame > frames.get(message.camera, -1), "a frame is inferred at most once"
            frames[message.camera] = message.frame
            assert (message.width, message.height) == (128, 64)
            assert 0 <= message.age_ms < 1000
            assert message.deadline_met == (message.age_ms <= message.deadline_ms)
            spent = message.latency_ms
            assert spent.queue + spent.pre + spent.infer <= message.age_ms + 0.001
            seen[message.camera] += 1
            if min(seen["gate"], seen["yard"]) >= 20:
                break
        assert not any(client.gaps.values())
    assert daemon.stop() == 0


def test_garbage_and_what_python_keeps_of_it_are_collected_again_and_again(bundle: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, {"gate": SMALL})
    with RunningDaemon(config, tmp_path, [sys.executable, "-c", COLLECTING, str(config)]) as daemon:
        before = daemon.log.count("a full collection")
        wait_for(lambda: daemon.log.count("a full collection") >= before + 3)
        assert daemon.stop() == 0


def test_the_last_state_adds_up_and_nothing_is_left_behind(bundle: Path, tmp_path: Path) -> None:
    with RunningDaemon(write_config(tmp_path, bundle, {"gate": SMALL}), tmp_path) as daemon:
        last: State | None = None
        ring = ""
        with daemon.client("state", "result") as client:
            while not ring:
                message = client.receive(10.0)
                assert message is not None
                if isinstance(message, Result):
                    ring = message.ring.name
            wait_for(lambda: daemon.camera("gate")["results"] > 20)
            daemon.signal(signal.SIGTERM)
            client.timeout_s = 2.0  # silence: it has ended
            for message in client:
                if isinstance(message, State):
                    last = message
        assert daemon.process.wait(5) == 0
        assert last is not None
        [camera] = last.cameras
        assert camera.captured == camera.results + sum(camera.drops.values())
        assert not (Path("/dev/shm") / ring).exists()
        assert not (tmp_path / "results.ipc").exists()


def test_an_operator_sets_pins_and_asks_why(daemon: RunningDaemon) -> None:
    assert daemon.ask("pin", variant="fast") == {"ok": True, "pinned": "fast", "loading": False}
    with daemon.client("result") as client:
        wait_for(lambda: isinstance(m := client.receive(1.0), Result) and m.variant == "fast")
    assert daemon.ask("why", n=1)["decisions"][-1]["pinned"] is True
    refused = daemon.ask("pin", variant="none-such")
    assert not refused["ok"] and "none-such" in refused["error"]
    assert daemon.ask("pin", variant=None)["ok"]

    assert daemon.ask("set", deadline_ms=75.5)["limits"]["deadline_ms"] == 75.5
    wait_for(lambda: daemon.state()["limits"]["deadline_ms"] == 75.5)
    refused = daemon.ask("set", min_accuracy=0.99)
    assert not refused["ok"] and "accuracy" in refused["error"]
    assert daemon.ask("set", deadline_ms=-1)["error"]
    wait_for(lambda: daemon.state()["limits"] == daemon.state()["limits"] | {"deadline_ms": 75.5, "min_accuracy": 0.0})


def test_a_daemon_starts_with_the_profile_of_the_hour(bundle: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, {"gate": SMALL}, '[schedule]\n"12:34" = "night"')
    with RunningDaemon(config, tmp_path) as daemon:
        wait_for(lambda: daemon.ask("snapshot")["state"] is not None)
        state = daemon.state()
        assert state["profile"] == "night"
        schedule = {"profile": "night", "since": "12:34", "next_profile": "night", "next_at": "12:34", "problem": None}
        assert state["schedule"] == schedule


def test_a_reload_takes_what_is_right_and_refuses_what_is_wrong(bundle: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, {"gate": SMALL})
    with RunningDaemon(config, tmp_path) as daemon, daemon.client("event", "status") as client:
        write_config(tmp_path, bundle, {"gate": SMALL, "door": SMALL}, "[limits]\ndeadline_ms = 80")
        reply = daemon.ask("reload")
        assert reply["ok"] and len(reply["changes"]) == 2 and reply["needs_restart"] == []
        wait_for(lambda: daemon.state()["limits"]["deadline_ms"] == 80)
        wait_for(lambda: daemon.camera("door")["results"] > 0)

        config.write_text("bundle = 3\n")
        daemon.signal(signal.SIGHUP)
        wait_for(lambda: isinstance(m := client.receive(5.0), Event) and m.kind == "reload_refused")
        assert not daemon.ask("reload")["ok"]
        assert daemon.state()["limits"]["deadline_ms"] == 80
        results = daemon.camera("gate")["results"]
        wait_for(lambda: daemon.camera("gate")["results"] > results)

        write_config(tmp_path, bundle, {"door": SMALL})
        assert daemon.ask("reload")["ok"]
        wait_for(lambda: [c["camera"] for c in daemon.state()["cameras"]] == ["door"])


def test_a_variant_that_fails_is_left_and_the_frames_are_counted(tmp_path: Path) -> None:
    # The reference cannot take a bright first pixel, which the warm-up's grey does not have.
    bundle = write_bundle(tmp_path / "b", {"brittle": center_model(spoil="gather"), "sound": center_model()})
    picture = bright_picture(tmp_path)
    refused = {"brittle": True, "sound": False}
    with RunningDaemon(write_config(tmp_path, bundle, {"gate": f"file://{picture}?pace=0"}), tmp_path) as daemon:
        with daemon.client("result", "event", "decision") as client:
            wait_for(lambda: isinstance(m := client.receive(5.0), Result) and m.variant == "sound")
        wait_for(lambda: {v["name"]: bool(v["refused"]) for v in daemon.state()["variants"]} == refused)
        wait_for(lambda: daemon.camera("gate")["drops"].get("engine") == 3)
        wait_for(lambda: daemon.camera("gate")["results"] > 10)
        assert daemon.ask("why", n=1)["decisions"][-1]["variant"] == "sound"


def test_a_stage_that_hangs_starves_the_watchdog_and_shows_its_stacks(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", {"endless": center_model(spoil="hang")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20.0)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        config = write_config(tmp_path, bundle, {"gate": f"file://{bright_picture(tmp_path)}"})
        with RunningDaemon(config, tmp_path, **environment) as daemon, daemon.client("state") as client:
            wait_for(lambda: b"stuck: pipeline" in manager.recv(4096), 20.0)
            wait_for(lambda: "run_with_iobinding" in daemon.log, 5.0)
            assert "pipeline has work but made no progress" in daemon.log
            wait_for(lambda: isinstance(m := client.receive(1.0), State) and not m.healthy)
            manager.settimeout(1.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    assert b"WATCHDOG" not in manager.recv(4096), "a hanging daemon is not fed"
            assert daemon.state()["healthy"] is False, "control answers still"
            daemon.process.kill()


def bright_picture(directory: Path) -> Path:
    """A moving, white video: every frame differs."""
    import av
    import numpy as np

    path = directory / "white.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for index in range(60):
            picture = np.full((64, 128, 3), 255, np.uint8)
            picture[40:60, index : index + 20] = index * 4
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def test_a_second_daemon_is_refused_and_the_first_goes_on(daemon: RunningDaemon, bundle: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, {"gate": SMALL}, name="second.toml")
    second = subprocess.run(
        [sys.executable, "-m", "edged", "run", "-c", str(config)],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert second.returncode == 1
    assert str(daemon.process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    results = daemon.camera("gate")["results"]
    wait_for(lambda: daemon.camera("gate")["results"] > results)


def test_systemd_is_notified_in_order(bundle: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10.0)
        config = write_config(tmp_path, bundle, {"gate": SMALL})
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        with RunningDaemon(config, tmp_path, **environment) as daemon:
            reported: list[str] = []
            while "WATCHDOG" not in reported:
                reported.append(manager.recv(4096).decode().partition("=")[0])
            daemon.ask("reload")
            while "RELOADING" not in reported or reported[-1] != "READY":
                reported.append(manager.recv(4096).decode().partition("=")[0])
            daemon.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                while reported[-1] != "STOPPING":
                    reported.append(manager.recv(4096).decode().partition("=")[0])
    order = [word for word in reported if word not in ("STATUS", "EXTEND_TIMEOUT_USEC")]
    assert [word for word in order if word != "WATCHDOG"] == ["READY", "RELOADING", "READY", "STOPPING"]


def test_a_camera_that_cannot_be_is_reported_and_the_others_run(bundle: Path, tmp_path: Path) -> None:
    cameras = {"gate": SMALL, "lost": f"file://{tmp_path}/none-such.mp4"}
    with RunningDaemon(write_config(tmp_path, bundle, cameras), tmp_path) as daemon:
        with daemon.client("status/lost") as client:
            for message in client:
                assert isinstance(message, Status)
                if message.state in ("backoff", "refused"):
                    break
        assert isinstance(message, Status) and message.reason and "none-such.mp4" in message.reason
        wait_for(lambda: daemon.camera("gate")["results"] > 5)


def test_decisions_are_published_when_they_change(daemon: RunningDaemon) -> None:
    with daemon.client("decision") as client:
        assert client.receive(0.3) is None  # nothing changes
        daemon.ask("pin", variant="fast")
        message = client.receive(5.0)
        assert isinstance(message, Decision) and message.pinned and message.variant == "fast"
        assert {a.variant for a in message.alternatives} >= {"fine"}


def test_frames_are_not_lost_to_silence_under_a_load_that_passes(daemon: RunningDaemon) -> None:
    """What the governor learnt under load must not keep the frames out when the load has gone."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        end = time.monotonic() + 3.0
        wait_for(lambda: time.monotonic() > end, 5.0)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    results = daemon.camera("gate")["results"]
    wait_for(lambda: daemon.camera("gate")["results"] > results + 15, 5.0)
