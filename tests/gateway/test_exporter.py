"""The metrics of `edged gateway` and `edged metrics`, as processes and commands, on a real publisher."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.bus.publisher import Publisher
from edged.cli import main
from tests.support import messages
from tests.support.bus import endpoint_in, free_port, publishing, wait_for
from tests.support.repeating import repeating


@contextlib.contextmanager
def gateway(directory: Path, metrics: str) -> Iterator[subprocess.Popen[str]]:
    config = directory / "e.toml"
    config.write_text(f'bundle = "demo"\n[metrics]\n{metrics}\n[[camera]]\nname = "gate"\nsource = "test://7"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "edged", "gateway", "-c", str(config)],
        env={**os.environ, "RUNTIME_DIRECTORY": str(directory)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def page(port: int) -> str:
    """The metrics; empty while nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
            return str(reply.read().decode())
    except urllib.error.URLError:
        return ""


def reporting(publisher: Publisher) -> contextlib.AbstractContextManager[None]:
    """A state ten times a second, as a daemon would once."""

    def report(n: int) -> None:
        publisher.publish(messages.result())
        publisher.publish(messages.state())

    return repeating(report, 0.1)


def test_it_serves_before_the_daemon_is_there_and_ends_at_once(tmp_path: Path) -> None:
    port = free_port()
    with gateway(tmp_path, f'listen = "127.0.0.1:{port}"') as process:
        wait_for(lambda: "edged_up 0.0" in page(port), 20)
        assert "edged_healthy" not in page(port)
        with publishing(endpoint_in(tmp_path)) as publisher, reporting(publisher):
            wait_for(lambda: 'edged_result_age_seconds_count{camera="gate"' in page(port), 20)
            wait_for(lambda: 'edged_camera_frames_captured_total{camera="gate"} 10.0' in page(port))
    assert process.returncode == 0


def test_readers_that_send_nothing_do_not_keep_others_out(tmp_path: Path) -> None:
    port = free_port()
    with gateway(tmp_path, f'listen = "127.0.0.1:{port}"'):
        wait_for(lambda: page(port), 20)
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            assert "edged_up" in page(port)


def test_readers_that_break_off_leave_no_traceback(tmp_path: Path) -> None:
    port = free_port()
    with gateway(tmp_path, f'listen = "127.0.0.1:{port}"') as process:
        wait_for(lambda: page(port), 20)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as reader:
                reader.sendall(b"GET /metrics")
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
        assert "edged_up" in page(port)
        process.terminate()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_the_file_for_node_exporter(tmp_path: Path) -> None:
    with gateway(tmp_path, 'textfile = "edged.prom"'):
        file = tmp_path / "edged.prom"
        wait_for(lambda: file.exists() and "edged_up" in file.read_text(), 20)


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with gateway(tmp_path, f'listen = "127.0.0.1:{port}"') as process:
            assert process.wait(100) == 1
            assert process.stderr is not None
            reported = process.stderr.read()
    assert f"cannot listen on 127.0.0.1:{port}" in reported and "Traceback" not in reported


def test_metrics_prints_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with publishing(endpoint_in(tmp_path)) as publisher, reporting(publisher):
        assert main(["metrics", "--once", "--endpoint", endpoint_in(tmp_path)]) == 0
    assert "edged_up 1.0" in capsys.readouterr().out


def test_without_a_daemon_metrics_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    assert main(["metrics", "--once", "--endpoint", endpoint_in(tmp_path)]) == 1
    assert "no daemon answers" in capsys.readouterr().err and time.monotonic() - begun < 60


def test_a_daemon_on_the_network_needs_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "e.toml"
    config.write_text(
        'bundle = "demo"\n[bus]\nresults = "tcp://127.0.0.1:5555"\ncurve_secret_key = "k"\ncurve_clients = "c"\n'
        '[[camera]]\nname = "gate"\nsource = "test://7"\n'
    )
    assert main(["gateway", "-c", str(config)]) == 2
    assert "needs a key" in capsys.readouterr().err


def test_without_prometheus_client_the_extra_is_named() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None\nfrom edged.cli import main\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "sys.exit(main(['metrics', '--once']))"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2 and "edged[gateway]" in done.stderr
