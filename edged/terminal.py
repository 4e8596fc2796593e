"""What both command lines share for their output: consoles, tables, times and numbers for people."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from edged import clock

PLAIN_WIDTH = 132
"""Of tables in files and pipes, which have no width; 80 columns would break the sentences."""


class _Console(Console):
    """A closed pipe (`| head`) is no failure; rich would exit with one."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """On stdout; numbers in sentences stay uncoloured."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; columns whose names begin with > are set to the right."""
    found = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        found.add_row(*row)
    return found


def fitting_table(
    out: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    wraps: Mapping[str, int],
    expendable: Sequence[str],
    gap: int = 2,
    header_style: str = "bold",
) -> Table:
    """A table that fits the terminal: where it is too narrow, the expendable columns go, the first of them first.

    Columns whose names begin with > are set to the right. Only those in `wraps` may wrap, and keep that width.
    """
    cells = list(rows)
    names = [column.lstrip(">") for column in columns]
    widths = [
        wraps.get(name) or max(cell_len(str(text)) for text in (name, *(row[n] for row in cells)))
        for n, name in enumerate(names)
    ]
    shown = list(range(len(names)))
    for name in expendable:
        if sum(widths[n] + gap for n in shown) - gap <= out.width:
            break
        shown.remove(names.index(name))
    table = Table(box=None, padding=(0, gap, 0, 0), show_edge=False, pad_edge=False, header_style=header_style)
    for n in shown:
        justify: JustifyMethod = "right" if columns[n].startswith(">") else "left"
        wrap = wraps.get(names[n])
        table.add_column(names[n], justify=justify, no_wrap=wrap is None, min_width=wrap, overflow="fold")
    for row in cells:
        table.add_row(*(row[n] for n in shown))
    return table


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner on stderr during a long step, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


def at(unix_s: float) -> str:
    """Local time of day with milliseconds, and the date if it is not today's."""
    then = datetime.fromtimestamp(unix_s, timezone.utc).astimezone()
    today = datetime.fromtimestamp(clock.wall_ns() / clock.NS_PER_S, timezone.utc).astimezone().date()
    text = then.strftime("%H:%M:%S.") + f"{then.microsecond // 1000:03d}"
    return text if then.date() == today else then.strftime("%Y-%m-%d ") + text


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number with its unit; unknown is never shown as 0."""
    return "unknown" if value is None else f"{value:.{digits}f}{unit}"


def span(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def printable(text: str) -> str:
    """Without control characters, since parts of it come from cameras and files."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def causes(drops: dict[str, int]) -> str:
    """`superseded 3, late 1`, or a dash."""
    return ", ".join(f"{cause} {count}" for cause, count in drops.items() if count) or "-"
