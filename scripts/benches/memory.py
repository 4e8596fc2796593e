"""What the variants of a bundle take together, against the largest one alone in a bare session and the other files.

Each side runs in a process of its own and counts its private memory before and after: a bare ONNX Runtime session of
one file that has run its largest batch, and edged's pool with all variants warm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from edged.engines.bundle import load_bundle
from scripts.benches.daemon import BUNDLE
from scripts.benches.report import Figure, Report
from tests.support.models import heavy_model, write_bundle

TARGET = 1.15
MAX_BATCH = 4
HEAVY_MB = {"fp32": 120, "fp16": 60, "int8": 30}

_COMMON = """
import json, sys
import numpy as np, onnxruntime as ort
from edged.config import EngineConfig
from edged.engines import ort as edged_ort
from edged.engines.bundle import load_bundle, verify_file
from edged.engines.pool import Pool
from edged.process_memory import give_back_freed, own_bytes
bundle, batch = load_bundle(sys.argv[1]), int(sys.argv[2])
warm = ort.InferenceSession(bytes.fromhex(sys.argv[3]))  # what the first session of a process sets up
warm.run(None, {"x": np.zeros(1, np.float32)})
give_back_freed()
before = own_bytes()
"""
_BARE = """
path = bundle.directory / sys.argv[4]
session = ort.InferenceSession(path, edged_ort.session_options(1), providers=["CPUExecutionProvider"])
spec = bundle.manifest.input
session.run(None, {spec.name: np.zeros((batch, spec.height, spec.width, 3), np.uint8)})
"""
_POOL = """
pool = Pool.open(bundle, EngineConfig(device="cpu", max_batch=batch))
assert all(variant.resident for variant in pool.variants), pool.variants
"""
_END = """
give_back_freed()
print(json.dumps((own_bytes() - before) / 1e6))
"""


def measure(quick: bool = False) -> Report:
    report = Report("memory")
    with tempfile.TemporaryDirectory() as directory:
        models = {name: heavy_model(mb, bias) for bias, (name, mb) in enumerate(HEAVY_MB.items())}
        heavy = write_bundle(Path(directory) / "heavy", models)
        for name, bundle in (("large variants", heavy), ("the demo", BUNDLE)):
            _compare(report, name, bundle, 1 if quick else 3)
    return report


def _compare(report: Report, name: str, directory: Path, rounds: int) -> None:
    files = {}
    for variant in load_bundle(directory).manifest.variants:
        chosen = [file for file in variant.files if file.runtime == "onnxruntime" and file.arch in ("any", "x86_64")]
        files[variant.name] = chosen[-1]
    ratios, pools = [], []
    for _ in range(rounds):
        alone = {variant: _child(directory, _BARE, file.path) for variant, file in files.items()}
        largest = max(alone, key=lambda variant: alone[variant])
        others_mb = sum(file.bytes for variant, file in files.items() if variant != largest) / 1e6
        pools.append(_child(directory, _POOL))
        ratios.append(pools[-1] / (alone[largest] + others_mb))
    figure = Figure(
        f"{name}: all variants, of the largest alone and the other files",
        median(ratios),
        "x",
        TARGET,
        spread=(min(ratios), max(ratios)),
    )
    report.figures.append(figure)
    report.notes[f"{name}, MB alone"] = {variant: round(mb, 1) for variant, mb in alone.items()}
    report.notes[f"{name}, MB of all in the pool"] = round(median(pools), 1)


def _child(directory: Path, work: str, *arguments: str) -> float:
    command = [sys.executable, "-c", _COMMON + work + _END, str(directory), str(MAX_BATCH), _tiny().hex(), *arguments]
    megabytes: float = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return megabytes


def _tiny() -> bytes:
    import onnx
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
