"""Debian's Prometheus scrapes a real gateway beside a real daemon; promtool judges the metrics and the rules."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.gateway import families
from tests.support.bus import free_port, wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
RULES = ROOT / "prometheus/edged.rules.yml"
SMALL = "test://3?width=128&height=64&fps=20"


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not there: apt-get install prometheus")
    return found


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Prometheus:
    def __init__(self, directory: Path, target: int) -> None:
        self.port = free_port()
        config = directory / "prometheus.yml"
        config.write_text(
            f'global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ["{RULES}"]\n'
            f'scrape_configs: [{{job_name: edged, static_configs: [{{targets: ["127.0.0.1:{target}"]}}]}}]\n'
        )
        self.process = subprocess.Popen(
            [
                needs("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory}/tsdb",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=error",
            ],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def query(self, expression: str) -> list[float]:
        """The values of each series; none while Prometheus does not answer yet."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                return [float(one["value"][1]) for one in json.load(reply)["data"]["result"]]
        except urllib.error.HTTPError as error:
            if error.code == 400:
                raise AssertionError(error.read().decode()) from error
            return []
        except urllib.error.URLError:
            return []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), {"fine": center_model(-100.0), "fast": center_model(-90.0)})


@pytest.fixture
def gateway(tmp_path: Path, bundle: Path) -> Iterator[tuple[Path, int]]:
    """(the configuration, the gateway's port); no daemon runs yet."""
    port = free_port()
    extra = (
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n[power]\nprovider = "simulated"\n'
        "[limits]\npower_w = 100\ntemperature_c = 100\n"
    )
    config = write_config(tmp_path, bundle, {"gate": SMALL, "yard": SMALL}, extra)
    process = subprocess.Popen(
        [sys.executable, "-m", "edged", "gateway", "-c", str(config)],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield config, port
    finally:
        ended(process)


def test_prometheus_counts_every_frame_also_over_a_restart(gateway: tuple[Path, int], tmp_path: Path) -> None:
    config, port = gateway
    prometheus = Prometheus(tmp_path, port)
    try:
        wait_for(lambda: prometheus.query("edged_up == 0"), 20)
        assert prometheus.query("edged_camera_frames_captured_total") == []
        for restarts in (0, 1):
            with RunningDaemon(config, tmp_path):
                wait_for(functools.partial(prometheus.query, f"edged_gateway_daemon_restarts_total == {restarts}"), 20)
                wait_for(lambda: len(prometheus.query("edged_camera_results_total > 40")) == 2, 30)
                wait_for(lambda: len(prometheus.query("edged:camera_frames_unaccounted")) == 2, 20)
                unaccounted = prometheus.query("edged:camera_frames_unaccounted")
                assert len(unaccounted) == 2 and set(unaccounted) <= {0.0, 1.0}
                over_time = "max_over_time(edged:camera_frames_unaccounted[1m])"
                assert all(value <= 1.0 for value in prometheus.query(over_time))
                assert len(prometheus.query("sum by (camera) (edged_result_age_seconds_count) > 0")) == 2
            wait_for(lambda: prometheus.query("edged_up == 0"), 20)
        assert min(prometheus.query("resets(edged_camera_results_total[5m])")) >= 1
        assert sum(prometheus.query("edged_gateway_lost_messages_total")) == 0
    finally:
        ended(prometheus.process)


QUIET = {"Agreement with the reference", "Relaxed limits, vetoes, drift"}
"""Panels of the board that are empty while the guard has no verdict and all limits hold."""


def test_every_panel_of_the_board_has_data(gateway: tuple[Path, int], tmp_path: Path) -> None:
    """Grafana itself is not among Debian's packages; its expressions are asked of Prometheus as it would ask them."""
    config, port = gateway
    board = json.loads((ROOT / "grafana/edged.json").read_text())
    prometheus = Prometheus(tmp_path, port)
    try:
        with RunningDaemon(config, tmp_path):
            for panel in board["panels"]:
                for target in panel["targets"]:
                    expression = target["expr"].replace("$instance", ".*")
                    if panel["title"] in QUIET:
                        prometheus.query(expression)  # an AssertionError if Prometheus does not understand it
                    else:
                        wait_for(functools.partial(prometheus.query, expression), 30)
    finally:
        ended(prometheus.process)


def test_promtool_finds_nothing_wrong_with_the_metrics(gateway: tuple[Path, int], tmp_path: Path) -> None:
    config, _ = gateway
    with RunningDaemon(config, tmp_path) as daemon:
        done = subprocess.run(
            [sys.executable, "-m", "edged", "metrics", "--once", "--endpoint", daemon.results],
            capture_output=True,
            timeout=100,
            check=True,
        )
    judged = subprocess.run(
        [needs("promtool"), "check", "metrics"], input=done.stdout, capture_output=True, timeout=60, check=False
    )
    assert judged.returncode == 0 and not judged.stderr, judged.stderr.decode()


@pytest.mark.parametrize("verb, file", [("check", RULES), ("test", Path(__file__).parent / "edged.rules.test.yml")])
def test_promtool_accepts_the_rules(verb: str, file: Path) -> None:
    done = subprocess.run(
        [needs("promtool"), verb, "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_board_and_the_rules_name_metrics_that_exist() -> None:
    source = "".join(path.read_text() for path in Path(families.__file__).parent.rglob("*.py"))
    board = json.loads((ROOT / "grafana/edged.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for text in [*expressions, RULES.read_text(), (ROOT / "docs/gateway.md").read_text()]:
        for name in re.findall(r"\bedged_[a-z_]+", text):
            base = re.sub(r"_(total|bucket|count)$", "", name)
            assert f'"{base}"' in source, name
