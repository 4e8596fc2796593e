"""How long a layer should take at least: the larger of its arithmetic and its memory traffic, per precision.

In: a layer's shape and a device's published rates. Out: microseconds. A bound, not a prediction: launches and fusion
are left out. It ranks layers, and shows which of them more arithmetic per second cannot speed up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edged_calibration.graph.gemm import Gemm

Precision = Literal["fp16", "int8", "int8-sparse"]

_BYTES = {"fp16": 2, "int8": 1, "int8-sparse": 1}
_SPARSE_STORED = 0.5625  # of dense INT8 weights: half the values, and two bits of index for each


@dataclass(frozen=True)
class Rates:
    """Operations (two per multiply-accumulate) and bytes per second; dense rates, CUDA cores for depthwise layers."""

    name: str
    fp16: float
    int8: float
    cuda: float
    memory: float


ORIN_NANO = Rates("Jetson Orin Nano 8 GB", fp16=17e12, int8=33.5e12, cuda=2.6e12, memory=102e9)


def microseconds(gemm: Gemm, precision: Precision, rates: Rates = ORIN_NANO) -> float:
    """The least time of one frame's layer."""
    return max(_arithmetic_us(gemm, precision, rates), _memory_us(gemm, precision, rates))


def is_memory_bound(gemm: Gemm, rates: Rates = ORIN_NANO) -> bool:
    """Whether in INT8 moving the layer's values takes longer than multiplying them."""
    return _memory_us(gemm, "int8", rates) > _arithmetic_us(gemm, "int8", rates)


def padded_share(gemm: Gemm, multiple: int) -> float:
    """The useful share of the work when both channel counts are padded to a multiple."""
    return (gemm.inputs / _up(gemm.inputs, multiple)) * (gemm.outputs / _up(gemm.outputs, multiple))


def _arithmetic_us(gemm: Gemm, precision: Precision, rates: Rates) -> float:
    if gemm.depthwise:
        return 2e6 * gemm.macs / rates.cuda
    rate = rates.fp16 if precision == "fp16" else rates.int8 * (2 if precision == "int8-sparse" else 1)
    return 2e6 * gemm.macs / rate / padded_share(gemm, 8 if precision == "fp16" else 32)


def _memory_us(gemm: Gemm, precision: Precision, rates: Rates) -> float:
    weights = gemm.parameters * (_SPARSE_STORED if precision == "int8-sparse" else 1.0)
    return 1e6 * _BYTES[precision] * (gemm.input_size + gemm.output_size + weights) / rates.memory


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
