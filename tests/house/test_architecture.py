"""The house keeps its shape: who may import whom, one door per heavy library, and modules of a readable size."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "edged").rglob("*.py"))
RECORDER = ROOT / "edged" / "replay" / "recorder.py"  # the one part of a pure room that writes files
OFFLINE = sorted((ROOT / "calibration").rglob("*.py"))

# What each room may import from the house: a frame goes frames -> engines -> vision -> bus, a watt power -> governor.
COMMON = {
    "clock", "config", "credentials", "errors", "files", "geometry", "journal", "paths", "process_memory", "regions",
    "toml_file", "uri", "validate", "worker",
}  # fmt: skip
ROOMS = {
    "config": {"config", "picture_view"},
    "frames": {"frames", "synthetic"},
    "synthetic": {"synthetic"},
    "engines": {"engines", "frames"},
    "vision": {"vision", "engines", "frames"},
    "bus": {"bus", "frames"},
    "gateway": {"gateway", "bus", "overlays"},
    "power": {"power", "simulate"},
    "governor": {"governor"},
    "tracking": {"tracking"},
    "accuracy_guard": {"accuracy_guard", "governor", "tracking"},
    "simulate": {"simulate", "governor", "frames", "loop", "engines"},  # the form of a device profile
    "replay": {"replay", "governor", "power"},  # the one energy meter
    "loop": {
        "loop", "frames", "engines", "vision", "bus", "power", "governor", "accuracy_guard", "simulate", "health",
        "profiles", "tracking",
    },
}  # fmt: skip
DOORS = {
    "zmq": ("edged/bus/", "edged/daemon.py"),
    "onnxruntime": ("edged/engines/ort.py", "edged/engines/ort_cuda.py"),
    "tensorrt": ("edged/engines/trt.py",),
    "cuda": ("edged/engines/cuda.py",),
    "av": ("edged/frames/", "edged/commands/demo"),
    "gi": ("edged/frames/",),
    "systemd": ("edged/journal.py",),
    "jtop": ("edged/power/jtop_child.py",),
    "pynvml": ("edged/power/nvml.py",),
    "rich": ("edged/commands/", "edged/terminal.py"),
    "prometheus_client": ("edged/gateway/",),
    "aiohttp": ("edged/gateway/web/",),
    "nats": ("edged/gateway/nats.py",),
    "paho": ("edged/gateway/broker.py", "edged/gateway/mqtt.py"),
    "matplotlib": ("edged/commands/plot.py",),
}
PURE = (
    "edged/governor/",
    "edged/simulate/",
    "edged/accuracy_guard/",
    "edged/tracking/",
    "edged/replay/",
    "edged/frames/camera_state.py",
    "edged/frames/schedule.py",
    "edged/frames/frame.py",
)
PURE_MAY_IMPORT = {
    "__future__", "bisect", "collections", "copy", "dataclasses", "enum", "functools", "hashlib", "heapq", "itertools",
    "lap", "math", "msgspec", "numpy", "random", "statistics", "struct", "types", "typing", "zlib", "edged",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Dotted names of what a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "edged" else str(node.module) for alias in node.names
            }
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p != RECORDER and p.relative_to(ROOT / "edged").parts[0] in ROOMS], ids=relative
)
def test_a_room_imports_only_what_stands_left_of_it(path: Path) -> None:
    room = path.relative_to(ROOT / "edged").parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "edged" and len(parts) > 1:
            assert parts[1] in ROOMS[room] | COMMON, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_each_heavy_library_has_one_door(path: Path) -> None:
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        if doors is not None:
            assert relative(path).startswith(doors), f"{relative(path)} imports {name}; its door is {doors}"


@pytest.mark.parametrize("path", [p for p in MODULES if p != RECORDER and relative(p).startswith(PURE)], ids=relative)
def test_the_pure_cores_do_no_io(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for name in imports(path):
        assert name.split(".")[0] in PURE_MAY_IMPORT, f"{relative(path)} imports {name}"
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "print", "input"}
    # the clock's constants are fine, its readings are not
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names}
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not names & {"clock", "edged.clock"}, f"{relative(path)} could read the clock"
            assert module != "edged.clock" or names <= {"NS_PER_S", "NS_PER_MS"}, f"{relative(path)} reads the clock"


def test_the_daemon_never_imports_the_offline_half() -> None:
    for path in MODULES:
        assert not any(name.split(".")[0] == "calibration" for name in imports(path)), relative(path)


def test_only_commands_import_the_gateway() -> None:
    for path in MODULES:
        if any(name.startswith("edged.gateway") for name in imports(path)):
            assert relative(path).startswith(("edged/gateway/", "edged/commands/")), relative(path)


@pytest.mark.parametrize("path", [*MODULES, *OFFLINE], ids=relative)
def test_modules_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a module's first line says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{relative(path)}:{node.lineno} {node.name}"
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1:
            assert not isinstance(node.body[0], ast.Pass), f"{relative(path)}:{node.lineno} swallows an exception"
