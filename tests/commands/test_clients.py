"""watch, status, why and ctl against a real daemon: what a field engineer reads, and what a program does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edged.bus import schema
from edged.bus.schema import Recording, ScheduleState, Stream
from edged.cli import main
from edged.commands.status import show
from edged.commands.watch import line
from tests.support import messages
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

SMALL = "test://3?width=128&height=64&fps=30"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    home = tmp_path_factory.mktemp("d")
    bundle = write_bundle(home / "b", {"fine": center_model(-100.0), "fast": center_model(-90.0)})
    config = write_config(home, bundle, {"gate": SMALL, "gate2": SMALL, "gone": f"file://{home}/gone.mp4"})
    with RunningDaemon(config, home) as running:
        yield running


@pytest.fixture
def run(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in the daemon's runtime directory -> (exit code, stdout, stderr)."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(daemon.directory))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def test_watch_prints_a_line_for_each_message(run: Run) -> None:
    code, out, err = run("watch", "result/gate", "--count", "5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 5
    for text in lines:
        when, kind, camera, frame, *rest = text.split()
        assert (kind, camera, frame[0]) == ("result", "gate", "#"), "and not gate2, whose topic begins the same"
        assert when.count(":") == 2 and rest[1] == "ms"


def test_watch_json_is_one_typed_object_a_line(run: Run) -> None:
    _, out, _ = run("watch", "result", "--count", "10", "--json")
    seen = [json.loads(text) for text in out.splitlines()]
    assert len(seen) == 10 and {m["topic"] for m in seen} == {"result/gate", "result/gate2"}
    for message in seen:
        assert message["v"] == 1 and message["topic"] == f"result/{message['camera']}"
        assert message["variant"] in ("fine", "fast") and isinstance(message["detections"], list)


def test_watch_takes_every_topic(run: Run) -> None:
    for topic in ("state", "telemetry", "status", "status/gone"):
        code, out, _ = run("watch", topic, "--count", "1", "--json")
        assert code == 0 and json.loads(out)["topic"].startswith(topic)
    _, out, _ = run("watch", "--count", "3")
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("message", "has"),
    [
        (messages.result(objects=2), ["result    gate #1", "int8-sparse", "2 objects: gear 0.51, gear 0.50"]),
        (messages.status(), ["status    gate live for 1.0 s: frames arrive (captured 10, results 8", "superseded 1"]),
        (messages.decision(), ["decision  the most accurate that fits [bound: accuracy]"]),
        (messages.event(), ["event     restart (gate): camera gate was started again"]),
        (
            messages.telemetry(),
            ["telemetry host: power unknown, temperature 41.0 C, GPU 38 % at 612 MHz, CPU 12 %, memory free 1024 MB"],
        ),
        (messages.state(), ["state     healthy, 1 of 1 cameras live, running fp32, up 1.0 s"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_message_has_its_line(message: schema.Message, has: list[str]) -> None:
    text = line(message)
    assert "\n" not in text
    for part in has:
        assert part in text


def test_a_hostile_camera_cannot_move_the_cursor() -> None:
    status = msgspec.structs.replace(messages.status(), state="backoff", reason="no\x1b[2Jthing\nhere")
    assert "backoff for 1.0 s: no?[2Jthing?here" in line(status)


def test_watch_to_a_reader_that_leaves_is_no_error(daemon: RunningDaemon) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m edged watch result | head -3"],
        env={**os.environ, "RUNTIME_DIRECTORY": str(daemon.directory)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 3)


def test_tables_to_a_reader_that_is_gone_are_no_error(daemon: RunningDaemon) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m edged status | true"],
        env={**os.environ, "RUNTIME_DIRECTORY": str(daemon.directory)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_status_shows_cameras_variants_and_what_is_unknown(run: Run, daemon: RunningDaemon) -> None:
    wait_for(lambda: daemon.camera("gate")["state"] == "live", 20)
    code, out, _ = run("status")
    assert code == 0
    rows = {text.split()[0]: text for text in reversed(out.splitlines()) if text.strip()}  # the first of a name
    assert "live" in rows["gate"] and "128x64" in rows["gate"]
    assert 20 < float(rows["gate"].split()[2]) < 40, "frames per second"
    assert "No such file" in " ".join(out.split()) and "gone" in rows and "live" not in rows["gone"].split()
    assert "0.900" in rows["fine"] and "0.800" in rows["fast"]
    assert rows["decision"].split()[1].startswith(("fine", "fast"))
    assert "99 %" in rows["on"] and "within 50 ms" in rows["on"], "on time"
    assert "none" in rows["mean"], "no power limit"
    assert "host: power " in rows["device"] and "healthy" in out.splitlines()[0]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_status_on_a_narrow_terminal_keeps_the_reasons(width: int) -> None:
    gone = msgspec.structs.replace(
        messages.status("a-camera-with-a-long-name"), state="backoff", reason="no answer in time"
    )
    state = msgspec.structs.replace(messages.state(), cameras=[messages.status(), gone])
    console = Console(width=width, record=True, file=io.StringIO())
    show(console, state, state)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "no answer in time" in text and "backoff" in text


def test_status_tells_what_ran_and_whether_it_is_recorded() -> None:
    def reported(recording: Recording | None) -> str:
        before = messages.state()
        faster = msgspec.structs.replace(before.variants[0], name="int8", results=0)
        before = msgspec.structs.replace(before, variants=[*before.variants, faster])
        more = [msgspec.structs.replace(v, results=v.results + n) for v, n in zip(before.variants, (1, 3), strict=True)]
        console = Console(width=100, record=True, file=io.StringIO())
        show(console, msgspec.structs.replace(before, variants=more, recording=recording), before)
        return " ".join(console.export_text().split())

    assert "ran fp32 25%, int8 75% of the last 4 results" in reported(None) and "recording" not in reported(None)
    assert "recording /var/x, 3.2 MB, 7 records lost to a slow disk" in reported(Recording("/var/x", 3.21, 7, None))
    assert "recording stopped: cannot write to /var/x: No space" in reported(
        Recording("/var/x", 1, 0, "cannot write to /var/x: No space")
    )


def test_status_shows_the_schedule() -> None:
    def shown(profile: str | None, schedule: ScheduleState) -> str:
        console = Console(file=io.StringIO(), width=100)
        state = msgspec.structs.replace(messages.state(), profile=profile, schedule=schedule)
        show(console, state, state)
        return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]

    entry = ScheduleState("night", "22:00", None, "06:00", None)
    assert "schedule night since 22:00; no profile at 06:00" in shown("night", entry)
    assert "schedule day by hand; no profile at 06:00" in shown("day", entry)
    refused = ScheduleState("night", "22:00", "day", "06:00", "no variant is accurate enough")
    assert "schedule night of 22:00 is refused: no variant is accurate enough; day at 06:00" in shown("day", refused)


def test_status_shows_what_the_streams_cost() -> None:
    before = messages.state()
    stream = Stream(lost_packets=3, decode_ms=2.5, mbit_s=4.0, keyframe_interval_s=1.0)
    cameras = [msgspec.structs.replace(camera, stream=stream) for camera in before.cameras[:1]]
    console = Console(width=120, record=True, file=io.StringIO())
    show(console, msgspec.structs.replace(before, cameras=cameras), before)
    shown = " ".join(console.export_text().split())
    name = before.cameras[0].camera
    assert f"streams {name}: 2.5 ms to decode a picture, 4.0 Mbit/s, a keyframe every 1.0 s, 3 packets lost" in shown


def test_status_json_is_the_state(run: Run, daemon: RunningDaemon) -> None:
    _, out, _ = run("status", "--json")
    state = json.loads(out)
    assert state["pid"] == daemon.process.pid and {c["camera"] for c in state["cameras"]} == {"gate", "gate2", "gone"}
    assert run("ctl", "snapshot")[0] == 0


def test_pin_and_release_are_carried_out_and_explained(run: Run, daemon: RunningDaemon) -> None:
    assert run("ctl", "pin", "fast") == (0, "fast is pinned\n", "")
    with daemon.client("result/gate") as client:
        assert any(message.variant == "fast" for message in client if isinstance(message, schema.Result))
    assert run("ctl", "pin", "none") == (0, "the governor chooses again\n", "")
    code, out, _ = run("why", "-n", "2")
    assert code == 0
    heads = [text for text in out.splitlines() if text and not text.startswith(" ")]
    assert len(heads) == 2
    assert heads[0].split()[1] == "fast" and "  pinned by an operator" in heads[0]
    assert "fast runs next: pinned by an operator" in out
    marked = [text.split() for text in out.splitlines() if text.strip().startswith(">")]
    assert marked[0][1:5] == ["fast:", "accuracy", "0.800,", "predicted"] and marked[0][6] == "ms"
    last = json.loads(run("why", "-n", "1", "--json")[1])
    assert len(last) == 1 and last[0]["pinned"] is False
    assert [a["variant"] for a in last[0]["alternatives"]] == ["fine", "fast"]


def test_set_changes_limits_until_the_reload(run: Run, daemon: RunningDaemon) -> None:
    assert run("ctl", "set", "deadline_ms=75", "power_w=8") == (0, "deadline_ms = 75\npower_w = 8\n", "")
    assert run("ctl", "set", "power_w=none")[1] == "power_w = none\n"
    assert run("ctl", "set", "camera.gate.fps=20", "power_w=9")[1] == "camera.gate.fps = 20\npower_w = 9\n"
    assert run("ctl", "set", "camera.gate.fps=none", "power_w=none")[1] == "camera.gate.fps = none\npower_w = none\n"
    code, _, err = run("ctl", "set", "camera.gat.fps=5")
    assert code == 1 and "there is no camera 'gat'" in err and "cameras are gate, gate2, gone" in err
    reply = json.loads(run("ctl", "set", "deadline_ms=80", "--json")[1])
    assert reply["ok"] is True and reply["limits"]["deadline_ms"] == 80
    assert run("ctl", "reload")[0] == 0
    with daemon.client("state") as client:
        assert any(m.limits["deadline_ms"] == 50 for m in client if isinstance(m, schema.State))


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["set", "deadlin_ms=5"], "deadlin_ms", "deadline_ms"),
        (["set", "deadline_ms=-5"], "deadline_ms", ""),
        (["set", "min_accuracy=0.999"], "min_accuracy = 0.999 cannot be held", "min_accuracy"),
        (["pin", "fastest"], "fastest", "fine, fast"),
    ],
)
def test_what_the_daemon_refuses_is_exit_1_with_its_hint(run: Run, arguments: list[str], says: str, hint: str) -> None:
    code, out, err = run("ctl", *arguments)
    first, second = err.splitlines()
    assert (code, out) == (1, "")
    assert first.startswith("edged: ") and says in first
    assert second.startswith("  hint: ") and hint in second


def test_a_wrong_configuration_changes_nothing_on_reload(run: Run, daemon: RunningDaemon) -> None:
    config = daemon.directory / "e.toml"
    good = config.read_text()
    try:
        config.write_text(good.replace("[[camera]]", "[[kamera]]", 1))
        code, _, err = run("ctl", "reload")
        assert code == 1 and "kamera" in err
    finally:
        config.write_text(good)
    assert run("ctl", "reload")[0] == 0


def test_watch_says_what_was_lost(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    from edged.bus.client import Client

    class Forgetful(Client):
        """Loses every result whose number can be divided by 3."""

        def _count(self, message: schema.Message) -> bool:
            return not (isinstance(message, schema.Result) and message.seq % 3 == 0) and super()._count(message)

    monkeypatch.setattr("edged.commands.watch.Client", Forgetful)
    code, out, err = run("watch", "result/gate", "--count", "8")
    assert code == 0 and len(out.splitlines()) == 8
    assert 3 <= len(err.splitlines()) <= 4
    assert set(err.splitlines()) == {"edged: lost 1 message of result/gate: this program is too slow"}


def test_watch_tells_whether_a_daemon_answers(tmp_path: Path, daemon: RunningDaemon) -> None:
    endpoint = f"ipc://{tmp_path}/r.ipc"
    with subprocess.Popen(
        [sys.executable, "-m", "edged", "watch", "event", "--endpoint", endpoint], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            first = f"edged: no daemon answers at {endpoint}; waiting (start one with `edged run`)\n"
            assert process.stderr.readline() == first
            os.symlink(daemon.directory / "results.ipc", tmp_path / "r.ipc")
            assert process.stderr.readline() == f"edged: the daemon at {endpoint} answers\n"
        finally:
            process.kill()
