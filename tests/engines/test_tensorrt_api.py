"""The TensorRT adapter and builder against NVIDIA's real Python bindings of each version that matters: what they do on
the stand-in core library, and how they type-check against the real signatures. Each version in processes of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tensorrt_bindings
from tests.support.tensorrt_bindings import VERSIONS, NotHadError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


_OLDEST, *_, _NEWEST = VERSIONS  # the oldest and the newest; the others in the slow lane
_LANES = [name if name in (_OLDEST, _NEWEST) else pytest.param(name, marks=pytest.mark.slow) for name in VERSIONS]


@pytest.fixture(scope="module", params=_LANES)
def version(request: pytest.FixtureRequest) -> str:
    """One whose bindings can be had here."""
    found: str = request.param
    try:
        tensorrt_bindings.unpack(found)
        tensorrt_bindings.build_core(found)
    except NotHadError as error:
        pytest.skip(str(error))
    return found


def test_the_adapter_under_the_real_bindings(version: str) -> None:
    environment = os.environ | {"EDGED_TENSORRT_BINDINGS": version}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/trt"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


WRONG = """
import tensorrt as trt
def wrong(context: trt.IExecutionContext, runtime: trt.Runtime) -> None:
    context.set_tensor_adress("image", 1)
    context.set_tensor_address("image", "1")
    context.execute_async_v3()
    runtime.deserialize_cuda_engine(b"").create_execution_context()
"""
SEEN = ("attr-defined", "arg-type", "call-arg", "union-attr")


def test_adapter_and_builder_type_check_against_the_real_signatures_and_a_wrong_call_does_not(
    version: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A wrong name, a wrong type, a missing argument and an unchecked None are seen; nothing else is."""
    command = [sys.executable, "-m", "tests.support.tensorrt_stubs", version, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500)
    (tmp_path / "wrong.py").write_text(WRONG)
    link = ROOT / "build/mypy/edged_calibration"  # where mypy finds the package by its installed name
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to("../../calibration")
    cache = tmp_path_factory.getbasetemp() / "mypy-with-tensorrt"  # what is not TensorRT's is the same for all
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache)]
    modules = ["-m", "edged.engines.trt", "-m", "edged_calibration.tensorrt.build_plan", "-m", "wrong"]
    environment = os.environ | {"MYPYPATH": str(tmp_path)}
    done = subprocess.run([*command, *modules], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(SEEN) and all("wrong.py:" in line for line in errors), done.stdout + done.stderr
    for what in SEEN:
        assert any(f"[{what}]" in line for line in errors), done.stdout


@pytest.mark.parametrize("version", ["10.3.0"], indirect=True)
def test_the_bench_of_the_adapter_runs(version: str) -> None:
    """What it measures on a busy machine is no measurement."""
    command = [sys.executable, "-m", "scripts.benches", "trt-adapter", "--quick", "--json", "--bindings", version]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["name"] == "trt-adapter" and len(report["detail"]["figures"]) == 3
    assert report["detail"]["bindings"] == version
