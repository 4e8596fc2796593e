"""What a bundle was made from and how, in words, for its manifest: whoever finds the bundle can make it again."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Final

from edged_calibration.job import Job, form_of

_TOOLS: Final = ("onnx", "onnxruntime", "numpy", "opencv-python-headless", "pycocotools")


def provenance(job: Job) -> dict[str, str]:
    """What the bundle was made from and how, for whoever asks later; no path of this machine."""
    recipe, inputs, found = job.recipe, job.inputs, job.frames
    origins = {
        "recipe": f"{inputs.file.path.name}, sha256 {inputs.file.sha256}",
        "model": f"{recipe.model}, sha256 of the checked graph {job.model_digest}",
        "calibration": f"{recipe.calibration.frames}, {found.calibration} pictures, {found.distinct} distinct",
        "calibration_sha256": inputs.calibration.digest(),
        "validation": f"{recipe.validation.frames}, {job.baseline.images} pictures judged by {job.baseline.metric}",
        "validation_sha256": inputs.sets.gate.digest(),
        "float": ", ".join(f"{name} {value:.4f}" for name, value in job.baseline.figures.items()),
        "tools": ", ".join([f"python {platform.python_version()}", *(f"{tool} {version(tool)}" for tool in _TOOLS)]),
    }
    for verdict in job.verdicts:
        span = f"{verdict.low:.2f} to {verdict.high:.2f} points with 95 % confidence"
        origins[f"gate {verdict.file}"] = f"{verdict.reason}; {span}, {verdict.images} pictures"
    for form in sorted({form_of(variant) for variant in recipe.variant if variant.precision == "int8"}):
        for target in job.recipe.targets:
            choice = job.choice(form, target)
            scores = ", ".join(f"{method} {score:.4f}" for method, score in choice.scores.items())
            origins[f"ranges {form} {target}"] = f"{choice.method}{f' of {scores}' if scores else ''}"
    if any(variant.sparse for variant in recipe.variant):
        options = recipe.sparsify
        tuned = f"{options.fine_tune_steps} steps of fine-tuning" if options.fine_tune_steps else "no fine-tuning"
        how = f"pruned and fine-tuned before: {options.model}" if options.model else f"by {options.method}, {tuned}"
        origins["sparsity"] = f"{job.sparse_count} layers 2:4, {how}"
    return origins
