"""What only a device can tell: each by its name, open until a report answers it.

These are statements that the sources of edged could not prove where it was made, since neither a Jetson nor TensorRT's
core library was there. `edged doctor` prints them with what it found, so that whoever has the device can answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edged.doctor.finding import Finding

QUESTIONS: Final = {
    "strong types": "TensorRT of this JetPack builds INT8 Q/DQ strongly typed (edged-calibrate build says if not)",
    "sparse kernels": "sparse kernels are chosen behind Q/DQ (counted in a plan's layers)",
    "plan results": "plans give ONNX Runtime's results (each variant on tensorrt, in dB)",
    "zero copy": "reading a camera's mapped memory is faster than copying it (camera's memory, both times)",
    "free time": "freeing an engine holds up other threads only where no frame runs (stop edged and read the journal)",
    "bindings": "cuda-bindings 12.9 works on JetPack 6's driver (gpu)",
    "power": "the rails' sum is the module's power (power, against a meter at the supply)",
    "clock ceiling": "the GPU's clock ceiling acts within 100 ms (edged ctl and the clock's reading)",
}


def open_questions(findings: Sequence[Finding], is_jetson: bool) -> Finding:
    """One finding that names them; on a device it asks for the report."""
    untested = [finding.subject for finding in findings if finding.outcome == "untested"]
    if is_jetson:
        text = "send this report to edged's issue tracker: it answers what only a device can tell"
    else:
        text = "this is no Jetson: what only one can tell stays open"
    if untested:
        text += f"; untested here: {', '.join(untested)}"
    return Finding("untested", "open questions", text, dict(QUESTIONS))
