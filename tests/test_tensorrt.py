"""The TensorRT adapter against NVIDIA's real Python bindings of each version that matters, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tensorrt_bindings
from tests.support.tensorrt_bindings import VERSIONS, NotHadError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("version", VERSIONS)
def test_the_adapter_under_the_real_bindings(version: str, tmp_path: Path) -> None:
    try:
        tensorrt_bindings.unpack(version)
        tensorrt_bindings.build_core(version, tmp_path)
    except NotHadError as error:
        pytest.skip(str(error))
    environment = os.environ | {"EDGED_TENSORRT_BINDINGS": version, "EDGED_TENSORRT_CORE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/trt"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.fixture(scope="module", params=VERSIONS)
def stubs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one version, made from its live bindings in a process of their own."""
    directory = tmp_path_factory.mktemp(f"stubs-{request.param}")
    try:
        tensorrt_bindings.unpack(request.param)
    except NotHadError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "tests.support.tensorrt_stubs", request.param, str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=110)
    return directory


def mypy(stubs: Path, *what: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(stubs / "cache"), *what]
    environment = os.environ | {"MYPYPATH": str(stubs)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    return done.returncode, done.stdout


def test_adapter_and_builder_type_check_against_the_real_signatures(stubs: Path) -> None:
    status, told = mypy(stubs, "-m", "edged.engines.trt", "-m", "calibration.build")
    assert status == 0, told


WRONG = """
import tensorrt as trt
def wrong(context: trt.IExecutionContext, runtime: trt.Runtime) -> None:
    context.set_tensor_adress("image", 1)
    context.set_tensor_address("image", "1")
    context.execute_async_v3()
    runtime.deserialize_cuda_engine(b"").create_execution_context()
"""


def test_the_check_sees_a_wrong_name_a_wrong_type_a_missing_argument_and_an_unchecked_none(
    stubs: Path, tmp_path: Path
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    status, told = mypy(stubs, str(tmp_path / "wrong.py"))
    assert status == 1
    for what in ("attr-defined", "arg-type", "call-arg", "union-attr"):
        assert f"[{what}]" in told
