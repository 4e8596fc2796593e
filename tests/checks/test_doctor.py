"""`edged doctor` on a machine without a GPU: what it tells, what it cannot test and why, and how it looks."""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edged.checks import device
from edged.checks import gpu as gpu_room
from edged.checks.engines import engines
from edged.checks.finding import Finding
from edged.checks.gpu import gpu
from edged.checks.open_questions import QUESTIONS, open_questions
from edged.checks.power import gpu_clock
from edged.cli import main
from edged.commands import doctor as command
from edged.config import PowerConfig
from edged.engines import cuda, ort_cuda
from edged.engines import pool as pool_module
from edged.engines.bundle import load_bundle
from edged.engines.cuda import CudaError
from edged.engines.device_profile import Conditions, device_name, profile_path
from edged.engines.manifest import InputSpec
from edged.engines.runtimes import runtimes
from edged.power.clocks import HeldElsewhereError, held_ceiling
from edged.power.host_paths import HostPaths
from tests.support.bus import wait_for
from tests.support.helped import Helper
from tests.support.host_gpu import HostGpu, HostGpuRuntime
from tests.support.jetson_tree import JetsonTree
from tests.support.models import HEIGHT, WIDTH, Tensors, center_model, manifest_for, write_bundle

HOST = PowerConfig(provider="host")
pytestmark = pytest.mark.skipif(cuda.why_not() is None, reason="a GPU is here: tests/gpu has its own")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "PAUSE_S", 0.01)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", {"fp16": center_model(1.0), "int8": center_model(2.0)})


def arguments(bundle: Path | None, **more: Any) -> argparse.Namespace:
    given = {"bundle": bundle and str(bundle), "config": None, "max_batch": 2, "json": False, "out": None}
    return argparse.Namespace(**given | more)


def outcomes(findings: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


def test_it_says_exactly_what_could_not_be_tested_and_what_is_missing_for_it(bundle: Path) -> None:
    found = list(command.examine(bundle, HOST, 2))
    reported = outcomes(found)
    assert reported["machine"] == reported["fp16 on cpu"] == reported["int8 on cpu"] == "ok"
    assert reported["gpu"] == reported["engines on cuda"] == reported["engines on tensorrt"] == "untested"
    texts = {finding.subject: finding.text for finding in found}
    assert "driver" in texts["gpu"] and "TensorRT's Python package is not here" in texts["engines on tensorrt"]
    last = found[-1]
    assert last.subject == "open questions" and "untested here: " in last.text
    assert "engines on cuda, engines on tensorrt" in last.text
    assert set(last.figures) == {question.name for question in QUESTIONS}
    cpu = next(finding for finding in found if finding.subject == "fp16 on cpu")
    assert list(cpu.figures) == ["batch 1_ms", "batch 2_ms"] and all(float(ms or 0) > 0 for ms in cpu.figures.values())


def test_the_report_is_json_and_exit_0_where_nothing_failed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_CONFIG", str(tmp_path / "none.toml"))
    assert main(["doctor", "--bundle", str(bundle), "--json", "--out", str(tmp_path / "report.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["at"] > 1_700_000_000
    assert {finding["outcome"] for finding in report["findings"]} == {"ok", "untested"}
    assert main(["doctor", "--bundle", str(bundle), "--out", str(tmp_path / "no" / "report.json")]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_a_damaged_variant_fails_and_the_rest_is_tested(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "int8.onnx").write_bytes(center_model(3.0))
    assert command.run(arguments(bundle)) == 1
    reported = capsys.readouterr().out
    assert "failed    int8 on cpu: " in reported and "SHA-256" in reported and "ok        fp16 on cpu: runs" in reported


def test_a_bundle_of_which_nothing_runs_names_each_variant(bundle: Path) -> None:
    for path in bundle.glob("*.onnx"):
        path.write_bytes(b"damaged")
    reported = outcomes(list(engines(load_bundle(bundle), 2)))
    assert reported["fp16 on cpu"] == reported["int8 on cpu"] == "failed"


def test_no_bundle_is_a_failure_and_the_machine_is_reported_all_the_same(tmp_path: Path) -> None:
    found = list(command.examine(tmp_path / "none", HOST, 2))
    assert outcomes(found)["bundle"] == "failed" and outcomes(found)["machine"] == "ok"
    assert found[-1].subject == "open questions"


def test_no_provider_is_a_failure_of_that_alone(bundle: Path) -> None:
    found = list(command.examine(bundle, PowerConfig(provider="nvml"), 2))
    (failed,) = [finding for finding in found if finding.level == "failed"]
    assert failed.subject == "sensors" and '[power] provider = "nvml"' in failed.text
    assert outcomes(found)["fp16 on cpu"] == "ok"


def test_an_input_that_only_a_gpu_prepares_is_untested_here(tmp_path: Path) -> None:
    content = center_model(tensors=Tensors(nchw=True, input_type=10))
    manifest = manifest_for({"a": content})
    manifest["input"] |= {"dtype": "float16", "layout": "NCHW"}
    found = list(engines(load_bundle(write_bundle(tmp_path / "b", {"a": content}, manifest)), 2))
    assert found[0] == Finding("untested", "engines on cpu", "the bundle's input is float16, which a GPU prepares")


def test_the_gpu_is_held_against_the_cpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On host memory that plays the GPU's: the same findings as on one."""
    opened: list[HostGpu] = []

    def open_gpu() -> HostGpu:
        opened.append(HostGpu())
        return opened[-1]

    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(gpu_room, "Gpu", open_gpu)
    found = list(gpu(InputSpec("image", WIDTH, HEIGHT)))
    assert [finding.subject for finding in found] == [
        "gpu",
        "kernel, BGR24",
        "camera's memory, BGR24",
        "kernel, NV12",
        "camera's memory, NV12",
        "kernel, NV12_FULL",
        "kernel, NV12_709",
        "kernel, NV12_709_FULL",
    ]
    assert {finding.level for finding in found} == {"ok"} and opened[0].calls[-1] == "close"
    monkeypatch.setattr(gpu_room, "Gpu", lambda: raised("CUDA: initialization error (3)"))
    assert list(gpu(InputSpec("image", WIDTH, HEIGHT))) == [Finding("failed", "gpu", "CUDA: initialization error (3)")]
    half = HostGpu()
    monkeypatch.setattr(half, "kernel", lambda *_: raised("CUDA's compiler: nothing"))
    monkeypatch.setattr(gpu_room, "Gpu", lambda: half)
    assert [finding.level for finding in gpu(InputSpec("image", WIDTH, HEIGHT))] == ["ok", "failed"]
    assert half.calls[-1] == "close"


def raised(message: str) -> Any:
    raise CudaError(message)


def test_each_variant_is_compared_with_the_cpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = runtimes
    monkeypatch.setattr(ort_cuda, "why_not", lambda: None)
    monkeypatch.setattr(
        pool_module,
        "runtimes",
        lambda config, manifest: iter([HostGpuRuntime()]) if config.device == "cuda" else cpu(config, manifest),
    )
    found = {finding.subject: finding for finding in engines(load_bundle(bundle), 2)}
    same = found["fp16 on cuda"]
    assert (same.level, same.text) == ("ok", "agrees with the CPU") and same.figures["against the cpu_db"] == 200.0
    load = HostGpuRuntime.load
    other = center_model(60.0)
    monkeypatch.setattr(HostGpuRuntime, "load", lambda self, content, *rest: load(self, other, *rest))
    wrong = {finding.subject: finding for finding in engines(load_bundle(bundle), 2)}["fp16 on cuda"]
    assert (wrong.level, wrong.text) == ("failed", "does not agree")


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    with tempfile.TemporaryDirectory(prefix="edged-") as directory:  # a socket's path must be short
        os.chmod(directory, 0o755)
        it = Helper(Path(directory), JetsonTree(Path(directory) / "board"))
        it.start()
        yield it
        it.kill()


def report(board: Helper, bundle: Path) -> dict[str, Finding]:
    place = HostPaths(board.tree.root, board.socket, f"{board.tree.bin}:/usr/bin:/bin")
    return {finding.subject: finding for finding in command.examine(bundle, PowerConfig(), 1, place)}


def test_on_a_jetson_it_reports_what_somebody_far_away_must_know(board: Helper, bundle: Path) -> None:
    tree = board.tree
    tree.make("sys/class/power_supply/BAT0/type", "Battery")
    for name, value in {"energy_full": 50_000_000, "energy_now": 20_000_000, "power_now": 8_200_000}.items():
        tree.make(f"sys/class/power_supply/BAT0/{name}", value)
    tree.make("sys/class/power_supply/BAT0/status", "Discharging")
    found = report(board, bundle)
    machine, power, rest = (found[name] for name in ("machine", "power", "sensors"))
    assert machine.text == tree.board.model
    assert machine.figures["module"] == "Jetson Orin Nano" and machine.figures["memory_mib"] == 7620
    assert machine.figures["jetson linux"] == "R36 (release), REVISION: 4.4"
    assert machine.figures["board"] == "nvidia,p3768-0000+p3767-0005-super"
    assert power.figures["VDD_IN_w"] == power.figures["total_w"] == 7.006
    assert (power.figures["battery_percent"], power.figures["battery draw_w"]) == (40.0, 8.2)
    assert rest.figures["tj-thermal_c"] == 48.093 and rest.figures["gpu clock's ceiling_mhz"] == 1020.0
    assert rest.figures["throttle events, under_voltage"] == 0 and rest.figures["throttled now"] == "no"
    modes, clock, profile = (found[name] for name in ("power modes", "GPU clock", "device profile on cpu"))
    assert modes.text.startswith("15W of 15W, 25W, MAXN_SUPER, 7W")
    assert clock.text.startswith("8 ceilings from 306 to 1020 MHz")
    assert profile.level == "untested" and "edged-calibrate profile" in profile.fix
    assert "send this report" in found["open questions"].text
    assert "1421424000001" not in repr(found), "the serial number is nobody's business"


def test_what_is_broken_on_a_jetson_is_named(board: Helper, bundle: Path) -> None:
    tree = board.tree
    tree.make("state/nvpmodel.fail", 1)
    tree.write(tree.rail("VDD_IN").replace("curr", "in"), 0)
    board.kill()
    board.socket.unlink()
    old = b'{"version": 1}'
    profile_path(bundle, Conditions(device_name(), "cpu")).write_bytes(old)
    found = report(board, bundle)
    assert found["power"].level == "untested" and "VDD_IN: its voltage reads 0 V" in found["power"].text
    assert found["power modes"].level == "warning" and "exit code 255: NVPM ERROR" in found["power modes"].text
    assert found["GPU clock"].level == "warning" and "there is no clock helper" in found["GPU clock"].text
    profile = found["device profile on cpu"]
    assert profile.level == "failed" and "is of an older form" in profile.text and "edged-calibrate" in profile.fix


def test_a_clock_that_a_daemon_holds_is_no_fault(board: Helper) -> None:
    with held_ceiling(board.socket) as ceiling:
        ceiling.set(0)
        finding = gpu_clock(board.socket)
        assert finding.level == "ok" and "by another program" in finding.text
        with pytest.raises(HeldElsewhereError, match="another program holds the clock"), held_ceiling(board.socket):
            pytest.fail("two hold it")
    wait_for(lambda: board.ceiling_mhz == 1020)


def test_a_device_s_report_leaves_open_what_it_did_not_answer() -> None:
    found = [
        Finding("ok", "int8 on tensorrt", ""),
        Finding("failed", "int8, its layers", ""),
        Finding("untested", "gpu", ""),
    ]
    left = open_questions(found, is_jetson=True)
    assert "send this report" in left.text and "untested here: gpu" in left.text
    assert set(left.figures) == {q.name for q in QUESTIONS} - {"plan results", "sparse kernels"}


def test_it_is_readable_at_80_columns() -> None:
    out = Console(file=io.StringIO(), width=80, highlight=False)
    figures: dict[str, float | int | str | None] = {
        "edged": "0.1.0",
        "numpy": "2.4.6",
        "batch 1_ms": 3.2,
        "total_w": None,
        "cuda-bindings": None,
    }
    long = "a sentence that is too long to be a figure and so stands alone, however long it is"
    figures |= {"why": long, "x\x1b[31m": "y"}
    command._show(out, Finding("untested", "a subject", "word " * 30, figures=figures))
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in lines) and all(line.startswith(" " * 10) for line in lines[1:])
    assert lines[0].startswith("untested  a subject: word word")
    assert "          edged 0.1.0, numpy 2.4.6, batch 1 3.2 ms, x?[31m y" in lines
    assert "          why: a sentence that is too long" in "\n".join(lines)
    assert lines[-1] == "          unknown or not there: total, cuda-bindings"
