"""NVIDIA's `nvpmodel`: which power modes the board has, which is in force, and setting one. Any user may ask, only root
may set. A failure of the tool is an EdgedError with what it printed. Each call waits for the tool, at most 5 s.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from edged.errors import EdgedError

TIMEOUT_S: Final = 5.0
SYSTEM_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
REBOOT: Final = "Reboot required"
MAX_QUOTED: Final = 200
"""Characters of the tool's output in a message."""


@dataclass(frozen=True)
class ListedMode:
    """`mask`: which parts of the GPU are powered off; it changes at boot only."""

    id: int
    name: str
    mask: tuple[str, ...]


class Nvpmodel:
    """The tool at `program`."""

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def find(cls, path: str = SYSTEM_PATH) -> Nvpmodel | None:
        """`path`: as in $PATH. None where the machine has no such tool."""
        program = shutil.which("nvpmodel", path=path)
        return None if program is None else cls(program)

    def modes(self) -> list[ListedMode]:
        """As the tool reads them from /etc/nvpmodel.conf. EdgedError if it lists none."""
        text = self._run("-p", "--verbose")
        found: list[ListedMode] = []
        for line in text.splitlines():
            if named := re.search(r"POWER_MODEL: ID=(\d{1,3}) NAME=(\w{1,64})", line):
                found.append(ListedMode(int(named[1]), named[2], ()))
            elif found and (gated := re.search(r"\b(\w*PG_MASK) (\w{1,32})", line)):
                last = found.pop()
                found.append(ListedMode(last.id, last.name, (*last.mask, f"{gated[1]}={gated[2]}")))
        if not found:
            raise EdgedError(f"nvpmodel -p --verbose lists no power modes{_quoted(text)}", _CHECK)
        return found

    def current(self) -> tuple[int | None, str | None]:
        """Number and name of the mode in force, None where the tool does not print it."""
        text = self._run("-q")
        named = re.search(r"^NV Power Mode: (\w{1,64})\s*$", text, re.MULTILINE)
        numbered = re.search(r"^NV Power Mode: \w+\s+(\d{1,3})\s*$", text, re.MULTILINE)
        return (int(numbered[1]) if numbered else None), (named[1] if named else None)

    def set(self, number: int) -> bool:
        """Whether it was set; False if it needs a reboot, which is refused."""
        text, code = self._output("-m", str(number))
        if REBOOT in text:
            return False
        if code != 0:
            raise self._failed(("-m", str(number)), text, code)
        return True

    def _run(self, *arguments: str) -> str:
        text, code = self._output(*arguments)
        if code != 0:
            raise self._failed(arguments, text, code)
        return text

    def _output(self, *arguments: str) -> tuple[str, int]:
        """What the tool printed and its exit code. It asks before a reboot; its input is empty, which declines."""
        try:
            done = subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EdgedError(
                f"nvpmodel {' '.join(arguments)} does not end within {TIMEOUT_S:g} s",
                "see dmesg; a reboot may be needed",
            ) from None
        except OSError as error:
            raise EdgedError(f"{self._program} cannot be run: {error.strerror}") from error
        return (done.stdout + done.stderr).decode("utf-8", "replace"), done.returncode

    def _failed(self, arguments: tuple[str, ...], text: str, code: int) -> EdgedError:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return EdgedError(f"nvpmodel {' '.join(arguments)} failed with {how}{_quoted(text)}", _CHECK)


_CHECK: Final = "run it by hand: sudo nvpmodel -q --verbose; a reboot restores a damaged /var/lib/nvpmodel/status"


def current_mode(path: str = SYSTEM_PATH) -> str | None:
    """The name of the power mode in force, None on a machine without nvpmodel. EdgedError if the tool fails."""
    tool = Nvpmodel.find(path)
    return None if tool is None else tool.current()[1]


def _quoted(text: str) -> str:
    printed = " ".join(text.split())
    return f": {printed[-MAX_QUOTED:]}" if printed else ", without a message"
