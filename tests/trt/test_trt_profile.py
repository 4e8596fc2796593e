"""A device profile of TensorRT plans: measured on the plans that run, and fitting them and no others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edged import clock
from edged.config import EngineConfig
from edged.engines import pool as pool_module
from edged.engines.device_profile import Conditions, load_profile, profile_path
from edged.engines.trt import TrtRuntime
from edged.errors import EdgedError
from edged.power.provider import Sample
from edged_calibration.cache import write_json
from edged_calibration.profile.measure import Plan, measure
from tests.support.host_gpu import HostGpu
from tests.trt.conftest import CORE
from tests.trt.test_trt_adapter import PLAN
from tests.trt.test_trt_doctor import PLANS, bundle


class Meter:
    name = "scripted"

    def read(self) -> Sample:
        return Sample(self.name, clock.mono_ns(), power_w=9.0)

    def close(self) -> None:
        pass


def test_the_profile_is_of_the_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(config: EngineConfig, manifest: object) -> list[TrtRuntime]:
        return [TrtRuntime(HostGpu(on_capture=CORE.stand_in_capture))]  # type: ignore[arg-type]

    monkeypatch.setattr(pool_module, "runtimes", here)
    opened = bundle(tmp_path / "b", {})
    found = measure(opened, Meter(), EngineConfig("tensorrt", 1, 2), Plan(0.02, power_mode="15W"))
    digest = hashlib.sha256(PLAN.encode()).hexdigest()
    assert found.conditions == Conditions("host", "tensorrt", "15W")
    assert {(run.variant, run.batch, run.sha256) for run in found.runs} == {
        (n, b, digest) for n in PLANS for b in (1, 2)
    }
    write_json(profile_path(opened.directory, found.conditions), found)
    digests = dict.fromkeys(PLANS, digest)
    assert load_profile(opened.directory, found.conditions, digests) == found
    with pytest.raises(EdgedError, match="measured another file of true"):
        load_profile(opened.directory, found.conditions, digests | {"true": "0" * 64})
    with pytest.raises(EdgedError, match="was measured on tensorrt; the engines run on cpu"):
        load_profile(opened.directory, Conditions("host", "cpu", "15W"), digests)
