"""ViT-tiny, patch 16: attention on tokens, in the operators that exporters write at opset 17. 5.7 M parameters."""

from __future__ import annotations

import numpy as np
import onnx

from edged_calibration.zoo.writer import INPUT, Writer

_WIDTH, _DEPTH, _HEADS, _PATCH = 192, 12, 3, 16


def vit_tiny(size: int, seed: int = 0, classes: int = 1000) -> onnx.ModelProto:
    """`pixels` [N, 3, size, size] -> `logits` [N, classes]."""
    net = Writer(size, seed)
    x = _embed(net, size)
    for block in range(_DEPTH):
        attended = _attention(net, _norm(net, x, f"b{block}.norm1"), f"b{block}")
        x = net.op("Add", [x, attended], f"b{block}.add1")
        hidden = _gelu(net, net.linear(_norm(net, x, f"b{block}.norm2"), _WIDTH * 4, f"b{block}.fc1"), f"b{block}.gelu")
        x = net.op("Add", [x, net.linear(hidden, _WIDTH, f"b{block}.fc2")], f"b{block}.add2")
    token = net.op("Gather", [_norm(net, x, "norm"), net.constant("first", np.array(0, np.int64))], "token", axis=1)
    return net.model(net.classifier(token, classes), "logits")


def _embed(net: Writer, size: int) -> str:
    """Patches as tokens [N, 1 + patches, width], the class token first, with their positions added."""
    tokens = (size // _PATCH) ** 2
    weights = net.rng.standard_normal((_WIDTH, 3, _PATCH, _PATCH)) / np.sqrt(3 * _PATCH**2)
    inputs = [INPUT, net.constant("patch.weight", weights.astype(np.float32))]
    inputs.append(net.constant("patch.bias", net.rng.normal(0, 0.1, _WIDTH).astype(np.float32)))
    x = net.op("Conv", inputs, "patch", kernel_shape=[_PATCH, _PATCH], strides=[_PATCH, _PATCH])
    x = net.op("Reshape", [x, net.integers("patch.shape", 0, _WIDTH, tokens)], "patch.flat")
    x = net.op("Transpose", [x], "patch.tokens", perm=[0, 2, 1])
    count = net.op("Shape", [x], "count", start=0, end=1)
    shape = net.op("Concat", [count, net.integers("class.shape", 1, _WIDTH)], "class.target", axis=0)
    token = net.constant("class.token", net.rng.normal(0, 0.5, (1, 1, _WIDTH)).astype(np.float32))
    x = net.op("Concat", [net.op("Expand", [token, shape], "class.expand"), x], "tokens", axis=1)
    position = net.rng.normal(0, 0.5, (1, tokens + 1, _WIDTH)).astype(np.float32)
    return net.op("Add", [x, net.constant("position", position)], "position.add")


def _norm(net: Writer, source: str, name: str) -> str:
    scale = net.constant(f"{name}.scale", net.rng.uniform(0.5, 1.5, _WIDTH).astype(np.float32))
    bias = net.constant(f"{name}.bias", net.rng.normal(0, 0.1, _WIDTH).astype(np.float32))
    return net.op("LayerNormalization", [source, scale, bias], name, axis=-1, epsilon=1e-6)


def _attention(net: Writer, source: str, name: str) -> str:
    tokens, depth = net.value(source).shape[1], _WIDTH // _HEADS
    x = net.linear(source, 3 * _WIDTH, f"{name}.qkv", gain=1.4)
    x = net.op("Reshape", [x, net.integers("heads", 0, tokens, 3, _HEADS, depth)], f"{name}.split")
    x = net.op("Transpose", [x], f"{name}.heads", perm=[2, 0, 3, 1, 4])
    query, key, value = (
        net.op("Gather", [x, net.constant(f"part{i}", np.array(i, np.int64))], f"{name}.{part}", axis=0)
        for i, part in enumerate("qkv")
    )
    scale = net.constant("attention.scale", np.array(depth**-0.5, np.float32))
    products = net.op("MatMul", [query, net.op("Transpose", [key], f"{name}.k_t", perm=[0, 1, 3, 2])], f"{name}.qk")
    weights = net.op("Softmax", [net.op("Mul", [products, scale], f"{name}.scaled")], f"{name}.softmax", axis=-1)
    x = net.op("Transpose", [net.op("MatMul", [weights, value], f"{name}.av")], f"{name}.joined", perm=[0, 2, 1, 3])
    x = net.op("Reshape", [x, net.integers("joined", 0, tokens, _WIDTH)], f"{name}.flat")
    return net.linear(x, _WIDTH, f"{name}.proj")


def _gelu(net: Writer, source: str, name: str) -> str:
    """x * (1 + erf(x / sqrt 2)) / 2"""
    root, one, half = (
        net.constant(f"gelu.{key}", np.array(value, np.float32))
        for key, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))
    )
    erf = net.op("Erf", [net.op("Div", [source, root], f"{name}.div")], f"{name}.erf")
    product = net.op("Mul", [source, net.op("Add", [erf, one], f"{name}.add")], f"{name}.mul")
    return net.op("Mul", [product, half], f"{name}.half")
