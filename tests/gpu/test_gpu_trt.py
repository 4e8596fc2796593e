"""The TensorRT adapter under the real bindings on a real GPU, on the stand-in core library: real streams, real graphs.

Each version of the bindings runs in a process of its own. Where nothing can be fetched, bring them along: with
EDGED_TENSORRT_BINDINGS_DIR=DIR in both places, `python -m tests.support.tensorrt_bindings --python 3.12` where PyPI is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.engines import cuda
from tests.support import tensorrt_bindings
from tests.support.tensorrt_bindings import VERSIONS, NotHadError

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(cuda.why_not() is not None, reason=str(cuda.why_not()))]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_adapter_on_the_real_stream(version: str) -> None:
    try:
        tensorrt_bindings.unpack(version)
        tensorrt_bindings.build_core(version)
    except NotHadError as error:
        pytest.skip(str(error))
    environment = os.environ | {"EDGED_TENSORRT_BINDINGS": version, "STAND_IN_CUDA": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider", "tests/trt/test_trt_on_gpu.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
