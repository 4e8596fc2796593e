"""`edged top`: the daemon on one screen, drawn again each second, usable from 80 x 24 characters.

On the main thread, until Ctrl-C. It reads the bus as any subscriber: rates are counted between two `state` messages,
ages over the results between them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edged import clock
from edged.bus.decision_words import BOUNDS, consequences
from edged.bus.schema import BudgetState, Message, Result, State, Status
from edged.commands import guard_view
from edged.commands.daemon_requests import curve_of
from edged.commands.status import BUDGETS, device
from edged.errors import UsageError
from edged.gateway.subscription import Subscription
from edged.terminal import console, fitting_table, number, printable, span

SILENCE_S = 3.0
MAX_AGES = 4096
"""Results of a camera in a second; further ones are left out of its ages."""
AT_LEAST = ("deadline", "accuracy", "frame_rate")
"""Limits from below; the others are limits from above."""
_BAR = 16
_REASON_LINES = 2


@dataclass
class View:
    """What has been received. `ages_ms`: of the results between the last two states, by camera."""

    endpoint: str
    state: State | None = None
    before: State | None = None
    ages_ms: dict[str, list[float]] = field(default_factory=dict)
    lost: int = 0
    silent: bool = False
    _coming: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, message: Message) -> bool:
        """Whether there is something new to draw."""
        if isinstance(message, Result) and len(self._coming[message.camera]) < MAX_AGES:
            self._coming[message.camera].append(message.age_ms)
        if not isinstance(message, State):
            return False
        restarted = self.state is not None and self.state.pid != message.pid
        self.before, self.state = (None if restarted else self.state), message
        self.ages_ms, self._coming = dict(self._coming), defaultdict(list)
        return True


def run(arguments: argparse.Namespace) -> int:
    out = console()
    if not sys.stdout.isatty():
        raise UsageError("edged top needs a terminal", "`edged status` prints the same once, `edged watch` as lines")
    with Subscription(arguments.endpoint, curve_of(arguments), ["result/", "state"]) as subscription:
        view = View(subscription.endpoint)
        with Live(screen(view, out), console=out, screen=True, auto_refresh=False) as live:
            heard_ns = clock.mono_ns()
            while True:
                message = subscription.receive(1.0)
                now_ns = clock.mono_ns()
                fresh = message is not None and view.take(message)
                heard_ns = now_ns if message is not None else heard_ns
                silent = now_ns - heard_ns > SILENCE_S * clock.NS_PER_S
                if fresh or silent != view.silent:
                    view.silent, view.endpoint, view.lost = silent, subscription.endpoint, subscription.lost.total()
                    live.update(screen(view, out), refresh=True)


def screen(view: View, out: Console) -> RenderableType:
    """The whole screen for the size of `out`; what does not fit is cut, and cameras that are left out are counted."""
    state = view.state
    if state is None:
        return Text(f"no daemon answers at {view.endpoint}; waiting (Ctrl-C ends)", style="yellow")
    budgets = [one for one in state.budgets if one.measured is not None or one.limit is not None]
    head, rest = list(_head(out, view, state)), list(_rest(state))
    blanks_and_headings = 5
    room = out.height - blanks_and_headings - len(head) - len(state.variants) - len(budgets) - len(rest)
    return Group(
        *head,
        Text(),
        *_cameras(out, view, state, max(2, room)),
        Text(),
        _variants(out, state),
        Text(),
        _budgets(out, budgets),
        *rest,
    )


def _head(out: Console, view: View, state: State) -> Iterator[Text]:
    health = Text("healthy", "green") if state.healthy else Text("stuck: see edged status", "bold red")
    if view.silent:
        health = Text("no longer answers", "bold red")
    profile = f", profile {state.profile}" if state.profile else ""
    lost = f", {view.lost} messages lost" if view.lost else ""
    title = f"edged {state.version}, up {span(state.uptime_s)}, bundle {state.bundle}{profile}{lost}: "
    yield _line(Text.assemble((printable(title), "bold"), health))
    if (decision := state.decision) is None:
        yield Text("no decision yet", style="dim")
        return
    reason = Text(printable(f"{decision.reason} ({BOUNDS.get(decision.bound, decision.bound)})"))
    yield from reason.wrap(out, out.width)[:_REASON_LINES]
    if relaxed := "; ".join(consequences(decision)):
        yield _line(Text(printable(relaxed), style="yellow"))


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _cameras(out: Console, view: View, state: State, room: int) -> Iterator[RenderableType]:
    """At most `room` lines, those with faults first where not all fit."""
    cameras = state.cameras
    if len(cameras) > room:
        cameras = sorted(cameras, key=lambda one: one.state == "live")[: room - 1]
    rows = [_camera(view, one) for one in cameras]
    columns = "camera", "state", ">fps", ">results/s", ">age ms", ">worst", ">lost/s", "dropped or why"
    yield fitting_table(out, columns, rows, wraps={}, expendable=("worst", "lost/s", "fps"))
    if left := len(state.cameras) - len(cameras):
        yield Text(f"and {left} more", style="dim")


def _camera(view: View, now: Status) -> tuple[str | Text, ...]:
    before = next((one for one in view.before.cameras if one.camera == now.camera), None) if view.before else None
    seconds = view.state.uptime_s - view.before.uptime_s if view.state and view.before else 0.0
    rates: list[float | None] = [None, None, None]
    causes: dict[str, int] = {}
    if before is not None and seconds > 0:
        causes = {name: count - before.drops.get(name, 0) for name, count in now.drops.items()}
        counts = now.captured - before.captured, now.results - before.results, sum(causes.values())
        rates = [max(0, count) / seconds for count in counts]
    ages_ms = view.ages_ms.get(now.camera, [])
    why = ", ".join(f"{name} {count}" for name, count in causes.items() if count > 0) or "-"
    if now.state != "live":
        why = printable(now.reason)
    return (
        now.camera,
        Text(now.state, style="green" if now.state == "live" else "bold yellow"),
        *("-" if rate is None else number(rate) for rate in rates[:2]),
        number(statistics.median(ages_ms), 0) if ages_ms else "-",
        number(max(ages_ms), 0) if ages_ms else "-",
        "-" if rates[2] is None else number(rates[2]),
        Text(why if len(why) <= 34 else why[:33] + "…"),
    )


def _variants(out: Console, state: State) -> Table:
    shares = state.decision.shares if state.decision else {}
    rows = [
        (
            one.name,
            Text(_bar(shares.get(one.name, 0.0)), style="cyan"),
            f"{shares[one.name]:.0%}" if one.name in shares else "-",
            number(one.accuracy, 3),
            "-" if one.latency_p50_ms is None else f"{one.latency_p50_ms:.1f}",
            str(one.results),
            Text(_seen(state, one.name) if one.refused is None else f"refused: {printable(one.refused)[:24]}"),
        )
        for one in state.variants
    ]
    columns = "variant", "share", ">now", f">{state.metric}", ">p50 ms", ">results", "guard"
    return fitting_table(out, columns, rows, wraps={}, expendable=("results", "p50 ms", "guard"))


def _seen(state: State, variant: str) -> str:
    """On how many cameras the guard has vetoed the variant, else its least agreement."""
    found = [one for one in state.guard.agreement if one.variant == variant] if state.guard else []
    if vetoed := [one.camera for one in found if one.vetoed]:
        return f"vetoed on {len(vetoed)}: {vetoed[0]}"
    known = [one.agreement for one in found if one.agreement is not None]
    return f"agrees {min(known):.2f}" if known else "-"


def _bar(share: float) -> str:
    return "█" * round(share * _BAR)


def _budgets(out: Console, budgets: list[BudgetState]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    for one in budgets:
        measured = "unknown" if one.measured is None else f"{one.measured:.4g} {one.unit}".strip()
        limit = "" if one.limit is None else f"{'at least' if one.name in AT_LEAST else 'of'} {one.limit:g} {one.unit}"
        bad = _missed(one)
        meter: RenderableType = Text("estimated" if one.estimated else "", style="dim")
        if one.limit and one.measured is not None:
            style = "red" if bad else "green"
            meter = ProgressBar(one.limit, one.measured, width=_BAR, complete_style=style, finished_style=style)
        name = BUDGETS.get(one.name, one.name)
        about = f"~{measured}" if one.estimated and one.measured is not None else measured
        grid.add_row(name, Text(about, style="bold red" if bad else ""), limit.strip(), meter)
    return grid


def _missed(one: BudgetState) -> bool:
    if one.limit is None or one.measured is None:
        return False
    return one.measured < one.limit if one.name in AT_LEAST else one.measured > one.limit


def _rest(state: State) -> Iterator[Text]:
    for sentence in device(state.telemetry):
        yield _line(Text(printable(sentence), style="dim"))
    if state.guard is not None:
        for name, sentence in guard_view.sentences(state.guard):
            yield _line(Text(f"{name}: {sentence}", style="yellow" if name == "drift" else "dim"))
