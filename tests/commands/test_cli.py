"""The command line itself: exit codes, errors in two lines, help, and how it ends when somebody stops listening."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edged
from edged.cli import main

COMMANDS = ("demo", "run", "check", "watch", "status", "why", "ctl")
EDGED = (sys.executable, "-m", "edged")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([*EDGED, *arguments], capture_output=True, text=True, timeout=100, env=env)


def test_help_is_there_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; begun = time.perf_counter()\n"
        "from edged.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'cv2', 'av', 'onnxruntime', 'zmq', 'rich', 'msgspec', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print('took', time.perf_counter() - begun)"
    )
    took = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        took.append(float(done.stdout.rpartition("took ")[2]))
    assert min(took) < 0.2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"edged {command}" in capsys.readouterr().out.partition("example")[2]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"edged {edged.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        ([], "COMMAND", "see `edged --help`"),
        (["bogus"], "invalid choice: 'bogus'", "see `edged --help`"),
        (["run", "--bogus"], "unrecognized arguments: --bogus", "see `edged --help`"),
        (["watch", "--count", "0"], "whole number above 0", "see `edged watch --help`"),
        (["watch", "gate"], "there is no topic 'gate'", "result[/CAMERA]"),
        (["watch", "decision/gate"], "there is no topic 'decision/gate'", "decision"),
        (["demo", "--seconds", "1"], "from 3 to 86400", "see `edged demo --help`"),
        (["demo", "--out", "/nonexistent"], "/nonexistent is not a directory", "create it"),
        (["ctl", "set", "deadline_ms"], "'deadline_ms' is not KEY=VALUE", "deadline_ms=40"),
        (["ctl", "set", "camera.gate=5"], "camera.gate names no setting of a camera", "camera.gate.fps=5"),
        (["ctl", "set", "deadline_ms=soon"], "deadline_ms is 'soon', expected a number or none", "deadline_ms=40"),
        (["ctl", "set", "deadline_ms=inf"], "deadline_ms is 'inf', expected a number or none", "deadline_ms=40"),
        (["ctl", "set", "power_w=1", "power_w=2"], "power_w is given twice", "once"),
        (["run", "-c", "/nonexistent/edged.toml"], "/nonexistent/edged.toml: there is no such file", "-c FILE"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_2(
    arguments: list[str], says: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert first.startswith("edged: ") and says in first
    assert second.startswith("  hint: ") and hint in second


@pytest.mark.parametrize("command", [["status"], ["why"], ["ctl", "snapshot"], ["ctl", "pin", "none"]])
def test_without_a_daemon_it_says_so(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--endpoint", f"ipc://{tmp_path}/c.ipc"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"edged: no daemon answers at ipc://{tmp_path}/c.ipc: is edged running?",
        "  hint: start it with `edged run` or `systemctl start edged`",
    ]


def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*EDGED, "watch", "--endpoint", f"ipc://{tmp_path}/r.ipc"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background inherits an ignored one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("edged: no daemon answers at ipc://"), "it waits, and says so"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    config = tmp_path / "e.toml"
    config.write_text(
        'bundle = "b"\n' + "".join(f'[[camera]]\nname = "c{n}"\nsource = "test://1"\n' for n in range(2000))
    )
    with subprocess.Popen(
        [*EDGED, "check", "-c", str(config), "--print-effective"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(6) == b"bundle"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_only_declared_libraries_are_imported() -> None:
    """What happens to be installed on a developer's machine is not there on a device."""
    declared = {"numpy", "cv2", "av", "onnxruntime", "zmq", "msgspec", "rich", "lap", "argcomplete", "tomli"}
    # The system's: GStreamer's binding, refused with the fix where it is missing; systemd's, done without.
    system = {"gi", "systemd"}
    # What a GPU brings or needs, jtop and extras: their rooms say what is missing, and are done without.
    optional = {"tensorrt", "cuda", "pynvml", "jtop", "matplotlib", "prometheus_client", "aiohttp", "paho", "nats"}
    for path in Path(edged.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
            assert found <= declared | system | optional | {"edged", "tomllib"}, f"{path}: {found}"


def test_python_m_edged_is_edged() -> None:
    assert run("--version").stdout == f"edged {edged.__version__}\n"


def test_the_log_has_priorities_only_in_the_journal(tmp_path: Path) -> None:
    config = tmp_path / "e.toml"
    config.write_text('bundle = "b"\n[[camera]]\nname = "gate"\nsource = "test://1"\n')
    code = (
        "from edged import journal; import logging, pathlib; journal.SOCKET = pathlib.Path('/nowhere')\n"
        "with journal.logging_to(): logging.info('a\\nb')"
    )
    reading, writing = os.pipe()
    found = os.fstat(writing)
    for environment, expected in (
        ({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, "<6>a b\n"),
        ({}, "INFO    a b\n"),
    ):
        env = {**os.environ, **environment}
        subprocess.run([sys.executable, "-c", code], stderr=writing, env=env, timeout=100, check=True)
        line = os.read(reading, 4096).decode()
        assert line.endswith(expected) and (line == expected) == bool(environment)
    os.close(reading)
    os.close(writing)


def test_a_bundle_that_is_not_there_is_reported_without_a_traceback(tmp_path: Path) -> None:
    config = tmp_path / "e.toml"
    config.write_text('bundle = "nowhere"\n[[camera]]\nname = "gate"\nsource = "test://1"\n')
    begun = time.monotonic()
    done = run("run", "-c", str(config), RUNTIME_DIRECTORY=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "nowhere" in done.stderr
    assert time.monotonic() - begun < 10


def test_output_to_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('bundle = "b"\n[[camera]]\nname = "a"\nsource = "test://1"\n')
    with Path("/dev/full").open("w") as full:
        command = [*EDGED, "check", "--print-effective", "-c", str(config)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (1, "edged: cannot write the output: No space left on device\n")
