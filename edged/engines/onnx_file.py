"""Whether an ONNX file is complete in itself: weights that lie in other files are covered by no digest. And the same
model without its weights, for a reader that takes them from the file's bytes.

In: the bytes of the file. Out: nothing, or bytes, or EdgedError. It reads the protobuf framing alone, along the ways of
`onnx.proto` that lead to tensors, so it needs no library and skips the weights themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edged.errors import EdgedError

# message -> {number of a field: the message in it}, as far as tensors may lie below
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13  # of a tensor: where its values lie
_DATA_LOCATION = 14  # of a tensor: 0 is inside
_RAW_DATA = 9  # of a tensor: its values
_GRAPH, _INITIALIZER = 7, 5
LEAST_OUTSIDE_BYTES = 4096
"""Smaller tensors stay inside: shapes, scales and zero points, which a graph's reader wants to see."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_self_contained(content: bytes, file: str) -> None:
    """EdgedError if any tensor's values lie outside of `content`, or if it is no ONNX file at all."""
    if content[4:8] == b"ORTM":
        raise EdgedError(f"{file}: it is in ONNX Runtime's own format", "put the ONNX file into the bundle")
    try:
        external = _has_external(content)
    except (IndexError, ValueError) as error:
        raise EdgedError(f"{file}: it is not an ONNX file, or cut short", "package the bundle again") from error
    if external:
        raise EdgedError(
            f"{file}: some of its weights lie in another file, which the manifest's digest does not cover",
            "export the model again with its weights inside (onnx.save with save_as_external_data=False)",
        )


def _has_external(content: bytes) -> bool:
    todo = [(0, len(content), "model")]
    while todo:  # a list, not recursion: nesting is the file's to choose
        at, end, message = todo.pop()
        while at < end:
            tag, at = _varint(content, at)
            number, wire = tag >> 3, tag & 7
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
            if wire in (_VARINT, _BYTES):
                value, at = _varint(content, at)
                length = value if wire == _BYTES else 0
            elif not length:
                raise ValueError(f"wire type {wire}")
            if at + length > end:
                raise ValueError("a field reaches beyond its message")
            if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
                return True
            if wire == _BYTES and number in _FIELDS[message]:
                todo.append((at, at + length, _FIELDS[message][number]))
            at += length
    return False


def without_weights(content: bytes, location: str) -> bytes:
    """The model with each large initializer as external data: that part of `content` as the file `location`. Of a file
    that `check_self_contained` has passed."""
    return _rewritten(content, 0, len(content), _GRAPH, lambda at, end: _light_graph(content, at, end, location))


def _light_graph(content: bytes, at: int, end: int, location: str) -> bytes:
    return _rewritten(content, at, end, _INITIALIZER, lambda at, end: _light_tensor(content, at, end, location))


def _light_tensor(content: bytes, at: int, end: int, location: str) -> bytes:
    def entry(key: str, value: str) -> bytes:
        return _field(_EXTERNAL_DATA, _field(1, key.encode()) + _field(2, value.encode()))

    parts = []
    for number, start, value, stop in _fields(content, at, end):
        if number != _RAW_DATA or stop - value < LEAST_OUTSIDE_BYTES:
            parts.append(content[start:stop])
        else:
            place = {"location": location, "offset": str(value), "length": str(stop - value)}
            parts += [entry(key, text) for key, text in place.items()]
            parts.append(bytes([_DATA_LOCATION << 3 | _VARINT, 1]))
    return b"".join(parts)


def _rewritten(content: bytes, at: int, end: int, number: int, message: Callable[[int, int], bytes]) -> bytes:
    """A message with each of its messages `number` replaced."""
    return b"".join(
        _field(number, message(value, stop)) if found == number else content[start:stop]
        for found, start, value, stop in _fields(content, at, end)
    )


def _fields(content: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, where the field begins, where its value does, where both end) of each field."""
    while at < end:
        start = at
        tag, at = _varint(content, at)
        value = at
        length = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, 0)
        if tag & 7 == _BYTES:
            length, value = _varint(content, at)
        elif tag & 7 == _VARINT:
            _, value = _varint(content, at)
        at = value + length
        yield tag >> 3, start, value, at


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes."""
    head, length = bytearray([number << 3 | _BYTES]), len(value)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 10 bytes")
