"""What only a device can answer: each question by its name, open until a report answers it.

`edged doctor` prints those that its run did not answer, so that whoever has the device can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edged.checks.finding import Finding


@dataclass(frozen=True)
class Question:
    """`answered_by`: the end of the subjects whose findings answer it on a Jetson; "" if no finding alone can."""

    name: str
    text: str
    answered_by: str = ""


QUESTIONS: Final = (
    Question("strong types", "does TensorRT build INT8 Q/DQ strongly typed? edged-calibrate build reports it if not"),
    Question("sparse kernels", "are sparse kernels chosen behind Q/DQ? answered by a plan's layers", ", its layers"),
    Question("plan results", "do plans give ONNX Runtime's results? each variant on tensorrt answers", " on tensorrt"),
    Question("zero copy", "is reading a camera's memory faster than copying it? both times answer", "memory, NV12"),
    Question("bindings", "do the CUDA bindings work on this JetPack's driver? answered by the kernel", "kernel, NV12"),
    Question("free time", "does freeing engines hold up threads only at the end? stop edged, read the journal"),
    Question("power", "is the rails' sum the module's power? hold it against a meter at the supply"),
    Question("clock ceiling", "does the GPU's clock ceiling act within 100 ms? set clock_control, watch the clock"),
)


def open_questions(findings: Sequence[Finding], is_jetson: bool) -> Finding:
    """One finding that names them; on a device it asks for the report."""
    answered = [finding.subject for finding in findings if is_jetson and finding.level != "untested"]
    left = {
        question.name: question.text
        for question in QUESTIONS
        if not (question.answered_by and any(subject.endswith(question.answered_by) for subject in answered))
    }
    if is_jetson:
        text = "send this report to edged's issue tracker, made with --out: only a device can answer these"

    else:
        text = "this is no Jetson: what only one can answer stays open"
    untested = [finding.subject for finding in findings if finding.level == "untested"]
    if untested:
        text += f"; untested here: {', '.join(untested)}"
    return Finding("untested", "open questions", text, figures=dict(left))
