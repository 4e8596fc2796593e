"""The manual pages have what `--help` has, and a real formatter takes them without a complaint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import edged.cli
import edged_calibration.cli
from edged import manual


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("man")
    manual.main(made, ["edged.cli", "edged_calibration.cli"])
    return made


def plain(page: str) -> str:
    return page.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def test_each_program_and_command_has_a_page(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    assert {"edged.1", "edged-ctl.1", "edged-check.1", "edged-calibrate.1", "edged-calibrate-build.1"} <= names
    assert names == manual.pages(edged.cli.parser()).keys() | manual.pages(edged_calibration.cli.parser()).keys()


def test_a_page_has_the_synopsis_the_options_and_the_example(directory: Path) -> None:
    page = plain((directory / "edged-ctl.1").read_text())
    for part in ("edged-ctl - control the running daemon", "KEY=VALUE", "--curve SECRET SERVER", ".SH SEE ALSO"):
        assert part in page
    assert "edged ctl set deadline_ms=40 power_w=none" in page, "the example of a verb"
    assert "0 ok, 1 failed, 2 wrong usage or configuration" in (directory / "edged.1").read_text()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_formatter_has_no_complaint(directory: Path) -> None:
    for page in sorted(directory.iterdir()):
        done = subprocess.run(
            ["groff", "-ww", "-man", "-Tutf8", page], capture_output=True, text=True, timeout=100, check=True
        )
        assert not done.stderr, done.stderr
        assert page.stem.upper() in done.stdout
