"""The self-test on plans: each is compared with ONNX Runtime, and its layers with what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.checks.engines import engines
from edged.checks.finding import Finding
from edged.config import EngineConfig
from edged.engines import pool as pool_module
from edged.engines import trt
from edged.engines.bundle import load_bundle
from edged.engines.ort import OrtRuntime
from edged.engines.trt import TrtRuntime
from tests.support.host_gpu import HostGpu
from tests.support.models import center_model, file_entry, manifest_for, write_bundle
from tests.trt.conftest import CORE
from tests.trt.test_trt_adapter import BUILT, PLAN

TRUE = {"weighted": 4, "int8": 3, "sparse_eligible": 2, "sparse_used": 2}
PLANS: dict[str, dict[str, int] | None] = {"true": TRUE, "dense": TRUE | {"sparse_used": 0}, "unknown": None}


def bundle(directory: Path, built: dict[str, Any]) -> Any:
    models = {name: center_model(float(n)) for n, name in enumerate(PLANS)}
    manifest = manifest_for(models)
    for variant in manifest["variants"]:
        variant |= {"precision": "int8", "sparse": True}
        about = BUILT | built | {"layers": PLANS[variant["name"]]}
        variant["files"].append(file_entry(f"{variant['name']}.plan", PLAN.encode(), runtime="tensorrt", built=about))
    write_bundle(directory, models, manifest)
    for name in PLANS:
        (directory / f"{name}.plan").write_bytes(PLAN.encode())
    return load_bundle(directory)


@pytest.fixture(autouse=True)
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(config: EngineConfig, _: Any) -> Any:
        gpu = HostGpu(on_capture=CORE.stand_in_capture)
        return iter([TrtRuntime(gpu) if config.device == "tensorrt" else OrtRuntime(1)])  # type: ignore[arg-type]

    monkeypatch.setattr(trt, "why_not", lambda: None)
    monkeypatch.setattr(pool_module, "runtimes", here)


def test_plans_are_run_compared_and_their_layers_reported(tmp_path: Path) -> None:
    found = {finding.subject: finding for finding in engines(bundle(tmp_path / "b", {}), 2)}
    for name in PLANS:
        plan = found[f"{name} on tensorrt"]  # the stand-in computes something else, which must be seen
        assert (plan.level, plan.text) == ("failed", "does not agree")
        assert set(plan.figures) == {"batch 1_ms", "batch 2_ms", "against the cpu_db"}
    true, dense, unknown = (found[f"{name}, its layers"] for name in PLANS)
    figures: dict[str, float | int | str | None] = {
        "with weights": 4,
        "int8": 3,
        "sparse possible": 2,
        "sparse used": 2,
    }
    assert true == Finding("ok", "true, its layers", "as called", figures=figures)
    assert dense.level == "failed" and dense.figures["sparse used"] == 0
    assert unknown.level == "untested" and "--again" in unknown.text


def test_plans_of_another_device_are_no_fault_and_reported_for_each(tmp_path: Path) -> None:
    found = {finding.subject: finding for finding in engines(bundle(tmp_path / "b", {"device": "another"}), 2)}
    for name in PLANS:
        plan = found[f"{name} on tensorrt"]
        assert plan.level == "untested" and "was built on another; this is host" in plan.text
    assert not [subject for subject in found if subject.endswith("layers")]
