"""`edged completion SHELL`: the shell's code that completes commands, options and file names of edged.

The code calls `edged` for each completion (argcomplete's protocol), so it is right for the version that is installed.
"""

from __future__ import annotations

import argparse

from argcomplete.shell_integration import shellcode

PROGRAMS = ("edged", "edged-calibrate")


def run(arguments: argparse.Namespace) -> int:
    print(shellcode(list(PROGRAMS), shell=arguments.shell))
    return 0
