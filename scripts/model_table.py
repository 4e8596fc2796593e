"""Tries exported models and prints a table in Markdown: who wrote each, what it is taken for, and what becomes of it.

    .venv/bin/python scripts/model_table.py MODEL.onnx...

In: ONNX files. Out: a row for each: exporter and opset, the task and decoder that are guessed, the signal over noise of
the FP16 and the INT8 form against the float model (the least of its outputs, on rendered pictures), or the refusal.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from edged.engines.decoder_spec import task_of
from edged.engines.manifest import InputSpec
from edged.errors import EdgedError
from edged_calibration.commands.import_model import guess_model
from edged_calibration.evaluate.layer_error import measure_errors
from edged_calibration.fp16 import halve_checked
from edged_calibration.graph.index import Feed, matching
from edged_calibration.graph.model_file import fixed_batch, input_size
from edged_calibration.graph.opset import opset
from edged_calibration.int8.calibrate import ranges
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.recipe.frames import Feeds, open_frames
from edged_calibration.recipe.input_normalisation import IMAGE

PICTURES = "scene://3?count=16"


def main(arguments: list[str]) -> None:
    print("| model | exporter | opset | input | task, decoder | FP16 dB | INT8 dB | verdict |\n" + "|---" * 8 + "|")
    for argument in arguments:
        path = Path(argument)
        try:
            raw = onnx.load(path, load_external_data=False)
            exporter = f"{raw.producer_name or 'unknown'} {raw.producer_version}".strip()
            print(f"| {path.stem} | {exporter} | {opset(raw)} | {' | '.join(_tried(path))} |", flush=True)
        except EdgedError as error:
            print(f"| {path.stem} | | | | | | | refused: {error.message} |", flush=True)


def _tried(path: Path) -> list[str]:
    """Input, task and decoder, FP16, INT8, verdict."""
    guessed = guess_model(path, None, None)
    model, output = guessed.model, guessed.output
    width, height = input_size(model)
    frames = open_frames(PICTURES, Path(), InputSpec(IMAGE, width, height), 16)
    feeds: list[Feed] = list(Feeds(frames, model.graph.input[0].name, guessed.normalisation, fixed_batch(model) or 8))
    cells = [f"{width}x{height}", f"{task_of(output)}, {output.__struct_config__.tag}"]
    _, report = halve_checked(model, feeds, matching(model, []))
    table = ranges(calibrate(model, feeds), "max")
    errors = measure_errors(model, quantize(model, table, "x86"), feeds[:2])
    cells += [f"{min(report.sqnr_db.values()):.0f}", f"{min(errors.outputs.values()):.0f}"]
    batch = "taken" if fixed_batch(model) is None else "taken, one picture at a time"
    return [*cells, batch]


if __name__ == "__main__":
    main(sys.argv[1:])
