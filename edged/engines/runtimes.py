"""Which runtime loads a bundle's engines on this machine, by [engine] device. Called once, at the start."""

from __future__ import annotations

from collections.abc import Iterator

from edged.config import EngineConfig
from edged.engines import ort_cuda, trt
from edged.engines.engine import Runtime
from edged.engines.manifest import Manifest
from edged.engines.ort import OrtRuntime
from edged.engines.ort_cuda import OrtCudaRuntime
from edged.engines.trt import TrtRuntime
from edged.errors import UsageError


def runtimes(config: EngineConfig, manifest: Manifest) -> Iterator[Runtime]:
    """In the order they are to be tried. `auto`: TensorRT if the bundle has plans, ONNX Runtime on CUDA, then on the
    CPU, each if it works here. UsageError if the one asked for cannot be had."""
    match config.device:
        case "tensorrt":
            if (missing := trt.why_not()) is not None:
                raise UsageError(f'[engine] device = "tensorrt": {missing}', 'or set "auto", which takes what works')
            yield TrtRuntime()
        case "cuda":
            if (missing := ort_cuda.why_not()) is not None:
                raise UsageError(
                    f'[engine] device = "cuda": {missing}',
                    "install the NVIDIA driver, and edged[cuda], whose onnxruntime-gpu takes the place of onnxruntime; "
                    'or set "auto", which takes the CPU then',
                )
            yield OrtCudaRuntime(config.threads)
        case "cpu":
            yield OrtRuntime(config.threads)
        case "auto":
            if _has_plans(manifest) and trt.why_not() is None:
                yield TrtRuntime()
            if ort_cuda.why_not() is None:
                yield OrtCudaRuntime(config.threads)
            yield OrtRuntime(config.threads)


def _has_plans(manifest: Manifest) -> bool:
    return any(file.built is not None for variant in manifest.variants for file in variant.files)
