"""Which runtime loads a bundle's engines on this machine, by [engine] device. Called once, at the start."""

from __future__ import annotations

from edged.config import EngineConfig
from edged.engines import ort_cuda
from edged.engines.engine import Runtime
from edged.engines.ort import OrtRuntime
from edged.engines.ort_cuda import OrtCudaRuntime
from edged.errors import UsageError


def open_runtime(config: EngineConfig) -> Runtime:
    """`auto` takes CUDA if it works here. UsageError if `cuda` is asked for and cannot be had."""
    if config.device == "cpu":
        return OrtRuntime(config.threads)
    missing = ort_cuda.why_not()
    if missing is None:
        return OrtCudaRuntime(config.threads)
    if config.device == "cuda":
        raise UsageError(
            f'[engine] device = "cuda": {missing}',
            "install the NVIDIA driver, and edged[cuda], whose onnxruntime-gpu takes the place of onnxruntime; "
            'or set "auto", which takes the CPU then',
        )
    return OrtRuntime(config.threads)
