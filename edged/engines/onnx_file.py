"""Whether an ONNX file is complete in itself: weights that lie in other files are covered by no digest.

In: the bytes of the file. Out: nothing, or EdgedError. It reads the protobuf framing alone, along the ways of
`onnx.proto` that lead to tensors, so it needs no library and skips the weights themselves. Start-up only.
"""

from __future__ import annotations

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
