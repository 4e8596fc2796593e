"""Type stubs of the real TensorRT bindings, from what the loaded module says of itself: `python -m ... VERSION OUT`.

Classes, properties, enums and signatures come from the live objects and the first lines of their docstrings, which
pybind11 writes. A type that is not understood becomes Any; a name that a version does not have is not there, which is
what the check is for. Written into a temporary directory, never kept: the bindings belong to NVIDIA.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Any

from tests.support import tensorrt_bindings

PLAIN = {
    "int": "int", "float": "float", "bool": "builtins.bool", "str": "str", "bytes": "bytes", "None": "None",
    "object": "Any", "handle": "Any", "capsule": "Any", "buffer": "bytes | memoryview", "list": "list",
    "List": "list", "dict": "dict", "Dict": "dict", "tuple": "tuple", "Tuple": "tuple", "Sequence": "Sequence",
    "Optional": "Optional", "Union": "Union", "Any": "Any", "SupportsInt": "int", "SupportsIndex": "int",
    "SupportsFloat": "float", "Buffer": "bytes | memoryview",
}  # fmt: skip
MAY_BE_NONE = {
    "deserialize_cuda_engine", "create_execution_context", "build_serialized_network", "create_network",
    "create_builder_config", "create_optimization_profile", "create_engine_inspector", "get_timing_cache", "serialize",
}  # fmt: skip
"""What answers with None when it fails; the docstrings do not tell."""
HEAD = """# mypy: ignore-errors
import builtins
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Optional, Union, overload

"""


def main(version: str, out: Path) -> None:
    module, _ = tensorrt_bindings.load(version)
    package = out / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.pyi").write_text(Stub(module).text())
    (package / "py.typed").touch()


class Stub:
    def __init__(self, module: Any) -> None:
        self._core = module.tensorrt
        self._classes = {c for c in vars(self._core).values() if isinstance(c, type)}
        self._names = {c.__name__ for c in self._classes}

    def text(self) -> str:
        parts = [HEAD, "__version__: str\ndef nptype(trt_type: DataType) -> Any: ...\n"]
        for name, value in sorted(vars(self._core).items()):
            if isinstance(value, type):
                parts.append(self._class(value, ""))
            elif type(value) in self._classes:
                parts.append(f"{name}: {type(value).__qualname__}\n")
        return "\n".join(parts)

    def _class(self, cls: type, indent: str) -> str:
        bases = [b.__name__ for b in cls.__bases__ if b in self._classes]
        lines = [f"{indent}class {cls.__name__}({', '.join(bases)}):"]
        inner = indent + "    "
        members = getattr(cls, "__members__", None)
        for name in sorted(vars(cls)):
            lines += self._member(cls, name, vars(cls)[name], inner)
        if isinstance(members, dict):
            lines.append(f"{inner}def __int__(self) -> int: ...")
        if cls.__name__ == "Dims":
            lines.append(f"{inner}def __iter__(self) -> Iterator[int]: ...")
        if cls.__name__ == "IHostMemory":
            lines.append(f"{inner}def __buffer__(self, flags: int) -> memoryview: ...")
        return "\n".join([*lines, f"{inner}..."])

    def _member(self, cls: type, name: str, value: Any, indent: str) -> list[str]:
        if isinstance(value, type):
            return [self._class(value, indent)] if value.__qualname__.startswith(cls.__qualname__ + ".") else []
        if name in getattr(cls, "__members__", {}):
            return [f"{indent}{name}: ClassVar[{cls.__qualname__}]"]
        if isinstance(value, property):
            return self._property(name, value, indent)
        if hasattr(type(value), "__members__"):  # a member of a nested enum, at hand in its class
            return [f"{indent}{name}: ClassVar[{type(value).__qualname__}]"]
        if callable(value) and (name == "__init__" or not name.startswith("_")):
            return self._method(name, value.__doc__ or "", indent)
        return []

    def _property(self, name: str, value: property, indent: str) -> list[str]:
        if value.fget is None or keyword.iskeyword(name):
            return []
        found = re.search(r"->\s*(.+)$", (value.fget.__doc__ or "").partition("\n")[0])
        kind = self._type(found.group(1)) if found else "Any"
        lines = [f"{indent}@property", f"{indent}def {name}(self) -> {kind}: ..."]
        if value.fset is not None:
            lines += [f"{indent}@{name}.setter", f"{indent}def {name}(self, value: Any) -> None: ..."]
        return lines

    def _method(self, name: str, doc: str, indent: str) -> list[str]:
        found = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\) -> (.+)$", doc, re.MULTILINE)
        signatures = [(given, kind) for given, kind in found if given != "*args, **kwargs"]
        if not signatures or keyword.iskeyword(name):
            return [f"{indent}def {name}(self, *args: Any, **kwargs: Any) -> Any: ..."]
        lines = []
        for given, kind in signatures:
            answer = "None" if name == "__init__" else self._type(kind)
            if name in MAY_BE_NONE and answer not in ("Any", "None"):
                answer += " | None"
            if len(signatures) > 1:
                lines.append(f"{indent}@overload")
            lines.append(f"{indent}def {name}({', '.join(self._parameters(given))}) -> {answer}: ...")
        return lines

    def _parameters(self, given: str) -> list[str]:
        parameters, optional = ["self"], False
        for part in _split(given)[1:]:
            name, _, kind = part.partition(":")
            kind, has_default, _ = kind.partition(" = ")
            if keyword.iskeyword(name.strip()):
                name = f"{name.strip()}_"
            optional = optional or bool(has_default)
            accepted = self._type(kind)
            if accepted == "Dims":
                accepted = "Dims | Sequence[int]"
            if has_default and "None" in part.partition(" = ")[2]:
                accepted += " | None"
            parameters.append(f"{name.strip()}: {accepted}" + (" = ..." if optional else ""))
        return parameters

    def _type(self, text: str) -> str:
        text = re.sub(r"(?:tensorrt\.)?tensorrt\.|typing\.|collections\.abc\.", "", text.strip())
        words = set(re.findall(r"[A-Za-z_][\w.]*", text))
        known = all(word in PLAIN or word.partition(".")[0] in self._names for word in words)
        if not known or re.search(r"[^\w\[\], .|]", text):
            return "Any"
        return re.sub(r"\b(?<!\.)[A-Za-z_]\w*", lambda word: PLAIN.get(word.group(), word.group()), text)


def _split(given: str) -> list[str]:
    """Parameters, at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in given:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
