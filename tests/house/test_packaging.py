"""What is installed is what the directories hold, under names of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.toml_file import read_toml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("directory, package", [("edged", "edged"), ("calibration", "edged_calibration")])
def test_every_package_of_the_tree_is_installed(directory: str, package: str) -> None:
    listed = read_toml(ROOT / "pyproject.toml")["tool"]["setuptools"]["packages"]
    there = {
        ".".join([package, *path.parent.relative_to(ROOT / directory).parts])
        for path in (ROOT / directory).rglob("__init__.py")
    }
    assert there == {name for name in listed if name.split(".")[0] == package}
