"""The graph of imports: no circle in it, and modules of a readable size."""

from __future__ import annotations

import ast
import graphlib
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"edged": "edged", "calibration": "edged_calibration"}
MEDIAN_LINES = 130


def modules() -> dict[str, Path]:
    """Dotted name -> file, as installed."""
    found = {}
    for directory, package in PACKAGES.items():
        for path in sorted((ROOT / directory).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / directory).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the project that this one imports, anywhere in it and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for imported in names:
            while imported and imported not in known:
                imported = imported.rpartition(".")[0]
            if imported and imported != name:
                found.add(imported)
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    graph = {name: imports_of(name, path, known) for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("directory", PACKAGES)
def test_half_of_the_modules_are_short(directory: str) -> None:
    """No module has more than 400 lines; tests/house/test_architecture.py sees to that."""
    lines = [len(path.read_text().splitlines()) for path in (ROOT / directory).rglob("*.py")]
    assert statistics.median(filter(None, lines)) <= MEDIAN_LINES
