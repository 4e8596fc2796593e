"""Completion as a shell asks for it: argcomplete's protocol on the real program, and the code for each shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ENVIRONMENT = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent"}


def completed(line: str, directory: Path, program: str = "edged") -> list[str]:
    """What the program offers at the end of this command line, as its shell code would read it."""
    answers = directory / "answers"
    environment = {
        **ENVIRONMENT, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answers),
    }  # fmt: skip
    subprocess.run([BIN / program], env=environment, cwd=directory, timeout=100, check=True)
    return [answer.strip() for answer in answers.read_text().split("\n") if answer.strip()]


def test_commands_options_and_choices_are_offered(tmp_path: Path) -> None:
    assert completed("edged ch", tmp_path) == ["check"]
    assert {"set", "pin", "profile", "reload"} <= set(completed("edged ctl ", tmp_path))
    assert "--print-effective" in completed("edged check --print", tmp_path)
    assert set(completed("edged completion ", tmp_path)) >= {"bash", "zsh", "fish"}
    assert completed("edged-calibrate sens", tmp_path, "edged-calibrate") == ["sensitivity"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_is_valid_in_its_shell(shell: str) -> None:
    done = subprocess.run(
        [BIN / "edged", "completion", shell], env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=True
    )
    assert "edged" in done.stdout and "edged-calibrate" in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=done.stdout, text=True, timeout=100, check=True)


def test_bash_completes_a_command() -> None:
    script = (
        'source <(edged completion bash); COMP_LINE="edged sta"; COMP_POINT=9; COMP_TYPE=9; '
        "COMP_WORDS=(edged sta); COMP_CWORD=1; _python_argcomplete edged sta edged; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.split() == ["status"]
