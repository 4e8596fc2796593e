"""The state, record, key, credential and bundle directories after a power failure at every step of their changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [("credentials", 20), ("keys", 15), ("crash count", 9), ("bundle", 3), ("energy", 4), ("record", 6)],
)
def test_every_state_between_is_valid(tmp_path: Path, scenario: str, at_least: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.power_failure", scenario, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= at_least
