"""What the demo shows while it runs: a live screen on a terminal, plain lines elsewhere.

In: a View of the current state, a few times a second. Out: the terminal (rich), or lines on the given stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from edged.bus.schema import Decision, State
from edged.commands.demo.script import Act
from edged.commands.demo.stats import Stats, VariantStats
from edged.terminal import causes, fitting_table, number

REFRESH_S: Final = 0.25
PLAIN_EVERY_S: Final = 2.0
STRIP: Final = 48
"""Characters of the timeline and of the row of ages."""
_BARS: Final = " ▁▂▃▄▅▆▇█"
_COLOURS: Final = ("cyan", "yellow", "magenta", "blue")


@dataclass(frozen=True)
class View:
    """Everything that may be shown, at `now_s` of `seconds`."""

    now_s: float
    seconds: float
    act: Act
    stats: Stats
    state: State | None
    decision: Decision | None
    lost: int
    page: str | None


class Screen(Protocol):
    def begin(self, act: Act, now_s: float) -> None: ...

    def decided(self, decision: Decision, now_s: float) -> None: ...

    def show(self, view: View) -> None: ...

    def close(self) -> None: ...


class PlainScreen:
    """A line for each act and decision, and one every two seconds with the state of the cameras."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._due_s = PLAIN_EVERY_S

    def begin(self, act: Act, now_s: float) -> None:
        self._print(now_s, f"act {act.number} of 3, {act.name}: {act.caption}")

    def decided(self, decision: Decision, now_s: float) -> None:
        self._print(now_s, f"decision: {decision.reason}")

    def show(self, view: View) -> None:
        if view.now_s < self._due_s:
            return
        self._due_s += PLAIN_EVERY_S
        parts = []
        for name, camera in view.stats.cameras.items():
            age = (
                ""
                if camera.last is None
                else f", {_objects(camera.last.detections)} objects, {camera.last.age_ms:.0f} ms"
            )
            parts.append(f"{name} {camera.fps(view.now_s):.0f} fps{age}")
        variant = view.decision.variant if view.decision else "-"
        self._print(view.now_s, f"{variant}: " + " | ".join(parts))

    def close(self) -> None:
        """Nothing to do."""

    def _print(self, now_s: float, text: str) -> None:
        print(f"{now_s:5.1f} s  {text}", file=self._stream, flush=True)


class LiveScreen:
    """Uses the whole terminal until `close`."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._live.start()
        self._due_s = 0.0

    def begin(self, act: Act, now_s: float) -> None:
        self._due_s = 0.0

    def decided(self, decision: Decision, now_s: float) -> None:
        self._due_s = 0.0

    def show(self, view: View) -> None:
        if view.now_s < self._due_s:
            return
        self._due_s = view.now_s + REFRESH_S
        self._live.update(picture_of(view, self._live.console), refresh=True)

    def close(self) -> None:
        self._live.stop()


def picture_of(view: View, out: Console) -> Group:
    """The live screen's contents for the width of `out`; about 24 lines of 80 columns."""
    head = f"edged demo   act {view.act.number} of 3: {view.act.name}   {view.now_s:.0f} of {view.seconds:.0f} s"
    head += f"   {view.page}" if view.page else ""
    decision = view.decision.reason if view.decision else "waiting for the first decision"
    lost = f"   {view.lost} messages lost on the way to this screen" if view.lost else ""
    return Group(
        Rule(Text(head, style="bold"), align="left"),
        Padding(Text(view.act.caption, style="bold"), (0, 0, 1, 0)),
        _cameras(view, out),
        Text(),
        _variants(view, out),
        Text(),
        _labelled("decision", Text(decision)),
        Text(),
        _labelled("variant", _timeline(view)),
        _labelled("age", _ages(view)),
        Text(f"Ctrl-C ends it{lost}", style="dim"),
    )


def _cameras(view: View, out: Console) -> Table:
    rows: list[tuple[str | Text, ...]] = []
    states = {camera.camera: camera for camera in view.state.cameras} if view.state else {}
    for name, camera in view.stats.cameras.items():
        status, last = states.get(name), camera.last
        state = status.state if status else "starting"
        shown = "still" if status and status.still_since is not None else state
        late = last is not None and not last.deadline_met
        rows.append(
            (
                name,
                Text(shown, style="green" if state == "live" else "yellow"),
                f"{camera.fps(view.now_s):.1f}",
                _objects(last.detections) if last else "-",
                Text(f"{last.age_ms:.1f} ms" if last else "-", style="red" if late else ""),
                str(camera.results),
                causes(status.drops) if status else "-",
            )
        )
    columns = "camera", "state", ">fps", ">objects", ">age", ">results", "dropped, by cause"
    wraps = {columns[-1]: 17}
    return fitting_table(out, columns, rows, wraps=wraps, expendable=("objects", "results"), gap=3, header_style="dim")


def _variants(view: View, out: Console) -> Table:
    rows: list[tuple[str | Text, ...]] = []
    predicted = {o.variant: o.predicted_ms for o in view.decision.alternatives} if view.decision else {}
    running = view.decision.variant if view.decision else None
    for index, variant in enumerate(view.state.variants if view.state else ()):
        counted = view.stats.variants.get(variant.name)
        mark = "> " if variant.name == running else "  "
        ms = predicted.get(variant.name)
        rows.append(
            (
                Text(mark + variant.name, style=f"bold {_COLOURS[index % 4]}" if mark.strip() else _COLOURS[index % 4]),
                number(variant.accuracy, 3),
                "-" if ms is None else f"{ms:.1f} ms",
                *(variant_cells(counted) if counted else ("0", "-", "-", "-", "-", "-")),
            )
        )
    columns = "variant", ">accuracy", ">predicted", ">frames", ">age p50", ">p99", ">late", ">precision", ">recall"
    expendable = "precision", "recall", "age p50", "late"
    return fitting_table(out, columns, rows, wraps={}, expendable=expendable, gap=3, header_style="dim")


def variant_cells(counted: VariantStats) -> tuple[str, ...]:
    """frames, p50 and p99 age, late, precision, recall."""
    p50, p99 = counted.age_ms(0.5), counted.age_ms(0.99)
    return (
        str(counted.frames),
        "-" if p50 is None else f"{p50:.1f} ms",
        "-" if p99 is None else f"{p99:.1f} ms",
        str(counted.late),
        "-" if counted.precision is None else f"{counted.precision:.3f}",
        "-" if counted.recall is None else f"{counted.recall:.3f}",
    )


def _timeline(view: View) -> Text:
    """One block per slice of elapsed time, in the colour of the variant that ran."""
    names = [variant.name for variant in view.state.variants] if view.state else []
    text = Text()
    runs = view.stats.runs
    for block in range(int(STRIP * min(1.0, view.now_s / view.seconds))):
        until_s = (block + 1) * view.seconds / STRIP
        name = next((name for started_s, name in reversed(runs) if started_s <= until_s), None)
        text.append("█" if name else " ", style=_COLOURS[names.index(name) % 4] if name in names else "")
    text.append(" " * (STRIP - len(text)))
    for index, name in enumerate(names):
        text.append(f"  ■ {name}", style=_COLOURS[index % 4])
    return text


def _ages(view: View) -> Text:
    """The last results, newest to the right: a full block is the deadline in force, red is late."""
    text = Text()
    recent = list(view.stats.recent)[-STRIP:]
    for result in recent:
        height = min(8, max(1, round(8 * result.age_ms / result.deadline_ms)))
        text.append(_BARS[height], style="green" if result.deadline_met else "red")
    text.append(" " * (STRIP - len(recent)) + f"  full = deadline, {view.act.deadline_ms:g} ms", style="dim")
    return text


def _objects(detections: object) -> str:
    return str(len(detections)) if isinstance(detections, list) else "-"


def _labelled(label: str, text: Text) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=9, style="bold")
    grid.add_column()
    grid.add_row(label, text)
    return grid
