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
