"""Which runtime loads a bundle's engines on this machine, by [engine] device. Called once, at the start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from edged.config import EngineConfig
from edged.engines import ort_cuda, trt
from edged.engines.engine import Runtime
from edged.engines.manifest import Manifest
from edged.engines.ort import OrtRuntime
from edged.engines.ort_cuda import OrtCudaRuntime
from edged.engines.trt import TrtRuntime
from edged.errors import EdgedError, UsageError

log = logging.getLogger(__name__)


def runtimes(config: EngineConfig, manifest: Manifest) -> Iterator[Runtime]:
    """In the order they are to be tried. `auto`: TensorRT if the bundle has plans, ONNX Runtime on CUDA, then on the
    CPU, each if it works here. UsageError if the one asked for cannot be had, EdgedError if it does not start."""
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
                yield from _if_it_starts(TrtRuntime)
            if ort_cuda.why_not() is None:
                yield from _if_it_starts(lambda: OrtCudaRuntime(config.threads))
            yield OrtRuntime(config.threads)


def _if_it_starts(start: Callable[[], Runtime]) -> Iterator[Runtime]:
    try:
        runtime = start()
    except EdgedError as error:
        log.warning("%s", error.message)
        return
    yield runtime


def _has_plans(manifest: Manifest) -> bool:
    return any(file.built is not None for variant in manifest.variants for file in variant.files)
