"""The state, record, key, credential, configuration and bundle directories after a failure at every step of a change:
of the power, or of a disk that is full or read-only from then on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        ("credentials", 20),
        ("keys", 15),
        ("cameras", 4),
        ("crash count", 9),
        ("bundle", 3),
        ("energy", 4),
        ("record", 6),
    ],
)
@pytest.mark.parametrize("failure", ["power", "full", "read-only"])
def test_every_state_between_is_valid(tmp_path: Path, failure: str, scenario: str, at_least: int) -> None:
    if failure != "power" and scenario in ("bundle", "energy", "record"):
        pytest.skip("their writers run on threads, which report what a disk refuses: tested beside them")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.power_failure", failure, scenario, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= (at_least if failure == "power" else at_least // 2)
