from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from edged.bus.schema import Agreement, Guard, InputDrift
from edged.commands.guard_view import agreements, sentences
from edged.commands.status import show
from tests.support import messages

GUARD = Guard(
    reference="fp16",
    shadow_runs=212,
    shadow_share=0.0104,
    shadow_ms=910.0,
    passed_over={"busy": 3, "failed": 1},
    agreement=[
        Agreement("gate", "int8-sparse", 0.91, 0.71, 0.99, 131, 0.548, False),
        Agreement("yard", "int8-sparse", 0.06, 0.0, 0.53, 8, 0.548, True),
        Agreement("dock", "int8-sparse", 0.93, 0.31, 1.0, 17, 0.548, False),
        Agreement("hall", "int8-sparse", None, None, None, 0, 0.548, False),
    ],
    drift=[
        InputDrift("gate", False, "", 88.0, 22.0, 40.0, 150.0),
        InputDrift("yard", True, "darker: brightness 9, calibrated 90 +- 39", 9.0, 2.0, 4.0, 15.0),
    ],
)


def on_screen(guard: Guard | None, width: int) -> str:
    screen = Console(width=width, file=io.StringIO(), force_terminal=False)
    state = msgspec.structs.replace(messages.state(), guard=guard)
    show(screen, state, state)
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    return text


def test_each_pair_that_was_compared_has_a_row_with_its_verdict() -> None:
    rows = {line.split()[0]: line for line in on_screen(GUARD, 100).splitlines() if "int8-sparse" in line}
    assert set(rows) == {"gate", "yard", "dock"}
    assert "0.91" in rows["gate"] and "0.71 to 0.99" in rows["gate"] and rows["gate"].rstrip().endswith("passes")
    assert rows["yard"].rstrip().endswith("vetoed")
    assert rows["dock"].rstrip().endswith("too little seen yet")


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_keeps_camera_agreement_and_verdict(width: int) -> None:
    text = on_screen(GUARD, width)
    row = next(line for line in text.splitlines() if line.startswith("yard") and "int8" in line)
    assert "0.06" in row and "vetoed" in row


def test_what_the_guard_did_is_a_sentence() -> None:
    assert list(sentences(GUARD)) == [
        (
            "guard",
            "212 shadow runs beside fp16, 1.0% of the frames; 3 left out since a frame would have been late, 1 failed",
        ),
        ("drift", "yard: pictures unlike the calibration's: darker: brightness 9, calibrated 90 +- 39"),
    ]
    fresh = msgspec.structs.replace(GUARD, shadow_runs=0, shadow_share=None, passed_over={}, agreement=[], drift=[])
    assert list(sentences(fresh)) == [("guard", "0 shadow runs beside fp16, none of the frames")]
    assert agreements(Console(), fresh) is None


def test_without_a_reference_it_says_so_and_without_a_guard_nothing() -> None:
    off = msgspec.structs.replace(GUARD, reference=None, drift=[])
    assert "off: the reference variant does not run here" in " ".join(on_screen(off, 80).split())
    assert "guard" not in on_screen(None, 80)
