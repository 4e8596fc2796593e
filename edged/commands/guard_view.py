"""The accuracy guard on a screen: what each variant sees against the reference, per camera, and drifted cameras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.bus.schema import Agreement, Guard
from edged.terminal import fitting_table, printable

CAUSES: Final = {"busy": "left out since a frame would have been late", "failed": "failed"}


def agreements(out: Console, guard: Guard) -> Table | None:
    """One row per camera and variant that was compared; None while there is none."""
    rows = [
        (
            one.camera,
            one.variant,
            "-" if one.agreement is None else f"{one.agreement:.2f}",
            "-" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}",
            str(one.samples),
            f"{one.gate:.2f}",
            _verdict(one),
        )
        for one in guard.agreement
        if one.samples or one.vetoed
    ]
    if not rows:
        return None
    columns = "camera", "variant", ">agreement", "between", ">runs", ">gate", "guard"
    return fitting_table(out, columns, rows, wraps={}, expendable=("gate", "runs", "between"))


def sentences(guard: Guard) -> Iterator[tuple[str, str]]:
    """(name, sentence): what the guard did, and each camera whose pictures are unlike the calibration's."""
    if guard.paused is not None:
        yield "guard", f"paused: {guard.paused}, so there is nothing to compare with; see memory"
    elif guard.reference is None:
        yield "guard", "off: the reference variant does not run here, so there is nothing to compare with"
    else:
        share = "none of the frames" if not guard.shadow_share else f"{guard.shadow_share:.1%} of the frames"
        left = [f"{count} {CAUSES.get(cause, cause)}" for cause, count in guard.passed_over.items()]
        tail = f"; {', '.join(left)}" if left else ""
        yield "guard", f"{guard.shadow_runs} shadow runs beside {guard.reference}, {share}{tail}"
    for one in guard.drift:
        if one.drifted:
            yield "drift", f"{one.camera}: pictures unlike the calibration's: {printable(one.reason)}"


def _verdict(one: Agreement) -> Text:
    if one.vetoed:
        return Text("vetoed", style="bold red")
    if one.low is not None and one.low > one.gate:
        return Text("passes", style="green")
    return Text("too little seen yet")
