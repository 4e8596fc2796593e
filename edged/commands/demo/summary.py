"""The summary at the end of the demo: tables for people, or one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from edged.bus.schema import Gate, State, Status
from edged.commands.demo.screen import variant_cells
from edged.commands.demo.stats import Stats
from edged.terminal import causes

LISTED_CHANGES: Final = 6
"""Up to so many runs are listed; of more, only the number is printed."""


def as_object(stats: Stats, state: State, seconds: float, lost: int, files: list[str]) -> dict[str, Any]:
    """Per camera `captured` = `results` + the sum of `drops` + `on_its_way`; ages in ms."""
    cameras = []
    for camera in state.cameras:
        waiting = camera.captured - camera.results - sum(camera.drops.values())
        cameras.append(
            {
                "camera": camera.camera,
                "source": camera.source.partition("?")[0],
                "captured": camera.captured,
                "results": camera.results,
                "drops": camera.drops,
                "on_its_way": waiting,
                "reconnects": camera.reconnects,
                "still_share": camera.gate.still_share if camera.gate else None,
                "saved_w": camera.gate.saved_w if camera.gate else None,
            }
        )
    variants = [
        {
            "variant": name,
            "frames": counted.frames,
            "late": counted.late,
            "age_p50_ms": counted.age_ms(0.5),
            "age_p99_ms": counted.age_ms(0.99),
            "precision": counted.precision,
            "recall": counted.recall,
        }
        for name, counted in stats.variants.items()
    ]
    return {
        "seconds": seconds,
        "cameras": cameras,
        "variants": variants,
        "runs": [{"at_s": round(at_s, 2), "variant": name} for at_s, name in stats.runs],
        "messages_lost": lost,
        "files": files,
    }


def show(out: Console, stats: Stats, state: State, seconds: float, lost: int) -> None:
    out.print(
        f"\n{stats.results} results in {seconds:.0f} s, counted by a subscriber; {lost} messages lost on the way.\n"
    )
    out.print("Frames since the daemon started:")
    cameras = _table(
        "camera", ">captured", "=", ">results", "+", "dropped, by cause", "+", ">on its way", ">reconnects"
    )
    for camera in state.cameras:
        waiting = camera.captured - camera.results - sum(camera.drops.values())
        cameras.add_row(
            camera.camera,
            str(camera.captured),
            "",
            str(camera.results),
            "",
            causes(camera.drops),
            "",
            str(waiting),
            str(camera.reconnects),
        )
    out.print(cameras)
    for camera in state.cameras:
        if camera.gate is not None and camera.drops.get("still"):
            out.print(f"{camera.camera} stands still now and then: {_spared(camera, camera.gate)}.", markup=False)
    out.print()
    out.print("Results since the acts began:")
    variants = _table("variant", ">frames", ">age p50", ">age p99", ">late", ">precision", ">recall")
    for name, counted in stats.variants.items():
        variants.add_row(name, *variant_cells(counted))
    out.print(variants)
    out.print(f"\n{_changes(stats.runs)}")
    if any(counted.precision is not None for counted in stats.variants.values()):
        out.print("Precision and recall: whole objects with the right label at IoU 0.5, on the rendered cameras.")


def _spared(camera: Status, gate: Gate) -> str:
    saved = f"about {gate.saved_w:.2g} W saved" if gate.saved_w is not None else "watts unknown here"
    return f"the motion gate spared it {camera.drops['still']} inferences in {camera.captured} frames, {saved}"


def _changes(runs: Sequence[tuple[float, str]]) -> str:
    if len(runs) <= LISTED_CHANGES:
        return f"The variant that ran: {' -> '.join(f'{name} at {at_s:.1f} s' for at_s, name in runs)}."
    changes, first_s, last_s = len(runs) - 1, runs[1][0], runs[-1][0]
    return f"The variant changed {changes} times from {first_s:.1f} to {last_s:.1f} s: the variant is chosen per batch."


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", no_wrap=True)
    return table
