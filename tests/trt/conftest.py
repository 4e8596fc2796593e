"""Each version of the bindings has its own process for these tests: tests/engines/test_tensorrt_api.py starts it.

Before anything imports TensorRT, the bindings of that version and the stand-in core library are loaded.
"""

from __future__ import annotations

import os

VERSION = os.environ.get("EDGED_TENSORRT_BINDINGS")
if VERSION is None:
    collect_ignore_glob = ["*"]
else:
    from tests.support import tensorrt_bindings

    if os.environ.get("STAND_IN_CUDA") != "1":
        collect_ignore_glob = ["test_trt_on_gpu.py"]
    TENSORRT, CORE = tensorrt_bindings.load(VERSION)
