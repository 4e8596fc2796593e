"""Manual pages, made of the parsers of the command lines. `python -m edged.manual DIR MODULE...` writes them.

A page for each program and each of its commands, as git has them: edged.1, edged-ctl.1. MODULE has a function `parser`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import edged

INDENT: Final = re.compile(r"^\s+", re.MULTILINE)


def pages(parser: argparse.ArgumentParser) -> dict[str, str]:
    """By file name, the pages of a program and of its commands."""
    commands = _commands(parser)
    see = [parser.prog, *(command.prog for command, _ in commands)]
    found = {f"{parser.prog}.1": _page(parser, "", see)}
    for command, summary in commands:
        found[f"{_hyphened(command.prog)}.1"] = _page(command, summary, [parser.prog])
    return found


def _page(parser: argparse.ArgumentParser, summary: str, see: list[str]) -> str:
    name = _hyphened(parser.prog)
    about = INDENT.sub("", parser.description or "").strip()
    parts = [
        f'.TH "{name.upper()}" 1 "" "edged {edged.__version__}" "edged"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary or about.partition('. ')[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        _usage(parser),
        ".SH DESCRIPTION",
        _text(about),
        *_arguments(parser, ".SH"),
    ]
    for command, what in _commands(parser):
        if not _commands(command) and parser.prog.count(" "):  # the verbs of a command: all on its page
            parts += [f'.SH "{command.prog.upper()}"', _usage(command), ".PP", _text(command.description or what)]
            parts += [*_arguments(command, ".SS"), *_example(command, ".SS")]
    parts += _example(parser, ".SH")
    others = [other for other in see if other != parser.prog]
    if others:
        parts += [".SH SEE ALSO", ",\n".join(f".BR {_text(_hyphened(other))} (1)" for other in others)]
    return "\n".join(parts) + "\n"


def _arguments(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    """What it takes, an entry each; its commands with one line each."""
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not actions:
            continue
        commands = any(isinstance(action, argparse._SubParsersAction) for action in actions)
        title = "commands" if commands else "options" if actions[0].option_strings else "arguments"
        yield f"{heading} {title.upper()}"
        for action in actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    yield f".TP\n.B {_text(choice.dest)}\n{_text(choice.help or '')}"
                continue
            invocation = formatter._format_action_invocation(action)
            explained = formatter._expand_help(action) if action.help else ""
            yield f".TP\n.B {_text(invocation)}\n{_text(explained)}"


def _commands(parser: argparse.ArgumentParser) -> list[tuple[argparse.ArgumentParser, str]]:
    """The parsers below this one, with a line about each."""
    return [
        (action.choices[choice.dest], choice.help or "")
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    ]


def _usage(parser: argparse.ArgumentParser) -> str:
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    return f".B {_text(parser.prog)}\n{_text(usage.removeprefix(parser.prog).strip())}"


def _example(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    """The epilog: `example: ...`, or what the exit codes mean."""
    head, _, rest = (parser.epilog or "").partition("example:")
    if rest:
        yield f"{heading} EXAMPLE\n.nf\n{_text(INDENT.sub('', rest).strip())}\n.fi"
    elif head:
        yield f'{heading} "EXIT STATUS"\n{_text(head.strip())}'


def _hyphened(prog: str) -> str:
    return prog.replace(" ", "-")


def _text(text: str) -> str:
    """Text as roff shows it: no escape, no request at the beginning of a line."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", plain, flags=re.MULTILINE)


def main(directory: Path, modules: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for module in modules:
        for name, page in pages(importlib.import_module(module).parser()).items():
            (directory / name).write_text(page)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
