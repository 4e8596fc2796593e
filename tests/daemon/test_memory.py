"""A daemon under a memory limit of the kernel, with a bundle that does not fit into it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import EarlyDaemon, RunningDaemon, write_config
from tests.support.memory_group import memory_group
from tests.support.models import heavy_model, write_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LIMIT_MB = 480
EXTRA = '[limits]\ndeadline_ms = 2000\n[engine]\ndevice = "cpu"\n[record]\nmax_mb = 0\n'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {"fp32": heavy_model(150), "fp16": heavy_model(75, 1.0), "int8": heavy_model(30, 2.0)}
    return write_bundle(tmp_path_factory.mktemp("heavy") / "bundle", models)


def wait_for(daemon: RunningDaemon, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    end_s = time.monotonic() + 120
    while True:
        state = daemon.state()
        if condition(state):
            return state
        assert daemon.process.poll() is None, daemon.log
        assert time.monotonic() < end_s, daemon.log
        time.sleep(0.2)


def resident(state: dict[str, Any]) -> set[str]:
    return {variant["name"] for variant in state["variants"] if variant["resident"]}


def test_a_bundle_that_does_not_fit_into_the_services_memory_is_served_by_what_does(
    bundle: Path, tmp_path: Path
) -> None:
    """All three take 255 MB, and loading the largest last 450 MB more than the daemon has: it would be killed."""
    config = write_config(tmp_path, bundle, {"gate": "test://7"}, EXTRA)
    with memory_group(LIMIT_MB) as group:
        if group is None:
            pytest.skip("no memory control group can be made here: it takes root and a cgroup tree that is writable")
        command = ["sh", "-c", f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -m edged run -c {config}"]
        with EarlyDaemon(config, tmp_path, command) as daemon:
            wait_for(daemon, lambda state: resident(state) == {"int8", "fp16"} and state["cameras"][0]["results"] > 30)
            state = wait_for(daemon, lambda state: state["decision"]["variant"] == "fp16")
            assert state["memory"]["available_mb"] < LIMIT_MB
            assert daemon.stop() == 0


def test_under_memory_mb_the_process_is_never_above_it(bundle: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path, bundle, {"gate": "test://7"}, EXTRA.replace("[engine]", "memory_mb = 450\n[engine]")
    )
    peak_kb = 0
    with EarlyDaemon(config, tmp_path) as daemon:

        def seen(state: dict[str, Any]) -> bool:
            nonlocal peak_kb
            peak_kb = max(peak_kb, held_kb(daemon.process.pid))
            return state["cameras"][0]["results"] > 100

        state = wait_for(daemon, seen)
        assert resident(state) == {"int8", "fp16"}
        daemon.ask("set", memory_mb=None)
        wait_for(daemon, lambda state: resident(state) == {"int8", "fp16", "fp32"})
        daemon.ask("set", memory_mb=350)
        state = wait_for(daemon, lambda state: state["memory"]["held_mb"] <= 350)
        assert "fp32" in resident(state) and "int8" not in resident(state)  # what is needed most stays
    assert peak_kb * 1024 <= 450e6


def held_kb(process: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile"))
