"""The NVML provider without a GPU: what it makes of a library that answers, refuses and counts. tests/gpu has one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged import clock
from edged.config import PowerConfig
from edged.errors import EdgedError
from edged.power import nvml
from edged.power.host import HostProvider
from edged.power.nvml import NvmlProvider
from edged.power.select_provider import choose
from edged.power.telemetry import Sample

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")


class FakeNvml:
    """A driver whose answers a test sets; a value that is an exception is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "nvmlDeviceGetCount": 1, "nvmlDeviceGetHandleByIndex": "gpu0", "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 70_000, "nvmlDeviceGetTotalEnergyConsumption": 1_000_000,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=35), "nvmlDeviceGetClockInfo": 1200,
            "nvmlDeviceGetMaxClockInfo": 1980, "nvmlDeviceGetCurrentClocksThrottleReasons": 0, "nvmlInit": None,
            "nvmlShutdown": None,
        }  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["answers"]:
            return getattr(pynvml, name)

        def answer(*arguments: Any) -> Any:
            value = self.answers[name]
            if isinstance(value, Exception):
                raise value
            return value

        return answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    made = FakeNvml()
    monkeypatch.setattr(nvml, "pynvml", made)
    return made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    at = [0]
    monkeypatch.setattr(clock, "mono_ns", lambda: at[0])

    def pass_s(seconds: float) -> None:
        at[0] += round(seconds * clock.NS_PER_S)

    return pass_s


class Host(HostProvider):
    def __init__(self, power_w: float | None) -> None:
        super().__init__()
        self._power_w = power_w

    def read(self) -> Sample:
        return Sample("host", 0, power_w=self._power_w, rails_w={"package-0": self._power_w})


def test_what_is_asked_for_is_there_in_the_real_library(fake: FakeNvml) -> None:
    assert not [name for name in fake.answers if not hasattr(pynvml, name)]
    assert not [name for name in nvml._SLOWDOWNS.values() if not hasattr(pynvml, name)]


def test_power_is_the_mean_of_the_energy_counter_between_two_readings(
    fake: FakeNvml, now: Callable[[float], None]
) -> None:
    provider = NvmlProvider(Host(20.0))
    assert provider.read().rails_w["gpu"] == 70.0  # the first time there is only the driver's own mean
    now(2.0)
    fake.answers["nvmlDeviceGetTotalEnergyConsumption"] += 190_000
    sample = provider.read()
    assert sample.rails_w == {"package-0": 20.0, "gpu": 95.0}
    assert (sample.power_w, sample.provider, sample.temperature_c) == (115.0, "nvml", 61)
    assert (sample.gpu_percent, sample.gpu_mhz, sample.gpu_ceiling_mhz) == (35.0, 1200.0, 1980.0)
    now(1.0)
    fake.answers["nvmlDeviceGetTotalEnergyConsumption"] = 5  # the driver was loaded again
    assert provider.read().rails_w["gpu"] == 70.0


def test_where_the_host_has_no_meter_the_power_is_the_card_s_and_an_estimate(fake: FakeNvml, tmp_path: Path) -> None:
    sample = NvmlProvider(HostProvider(tmp_path)).read()  # a host without any sensor
    assert (sample.power_w, sample.power_estimated, sample.rails_w["gpu"]) == (70.0, True, 70.0)
    assert sample.temperature_c == 61
    assert "the host's power is not measured: the power is that of the GPU's card alone (gpu)" in sample.missing
    assert not [why for why in sample.missing if why.startswith(("no power", "no temperature"))], "they are known"


def test_a_counter_that_does_not_advance_and_a_card_of_0_w_are_no_power(
    fake: FakeNvml, now: Callable[[float], None]
) -> None:
    provider = NvmlProvider(Host(20.0))
    provider.read()
    now(1.0)
    assert provider.read().rails_w["gpu"] == 70.0, "the driver's own mean"
    fake.answers["nvmlDeviceGetPowerUsage"] = 0
    now(1.0)
    sample = provider.read()
    assert sample.rails_w["gpu"] is None and sample.power_w is None
    assert "the GPU's power is unknown: it reads 0 W, and a card in use draws more" in sample.missing


def test_a_counter_that_jumps_and_a_temperature_of_nothing_are_no_measurement(
    fake: FakeNvml, now: Callable[[float], None]
) -> None:
    provider = NvmlProvider(Host(20.0))
    provider.read()
    now(1.0)
    fake.answers["nvmlDeviceGetTotalEnergyConsumption"] += 10**12
    fake.answers["nvmlDeviceGetTemperature"] = 0
    sample = provider.read()
    assert sample.rails_w["gpu"] == 70.0, "the driver's own mean"
    assert sample.temperatures_c["gpu"] is None
    assert "the GPU reads 0 C, which no working sensor of a chip does" in sample.missing


def test_a_card_whose_temperature_keeps_its_value_under_changing_load_is_unknown(
    fake: FakeNvml, now: Callable[[float], None]
) -> None:
    provider = NvmlProvider(Host(20.0))
    for minute in range(6):
        for _ in range(60):
            now(1.0)
            fake.answers["nvmlDeviceGetTotalEnergyConsumption"] += 300_000 if minute % 2 else 70_000
            sample = provider.read()
    assert sample.temperatures_c["gpu"] is None and sample.temperature_c is None
    assert any(re.match(r"gpu has read 61 C for [56] minutes while the load changed", why) for why in sample.missing)
    fake.answers["nvmlDeviceGetTemperature"] = 62
    now(1.0)
    assert provider.read().temperature_c == 62


def test_each_slowdown_that_begins_is_one_event_and_idleness_is_none(fake: FakeNvml) -> None:
    provider = NvmlProvider(Host(None))
    idle, thermal = pynvml.nvmlClocksThrottleReasonGpuIdle, pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
    reported = []
    for reasons in (idle, thermal, thermal, 0, thermal | idle):
        fake.answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = reasons
        sample = provider.read()
        reported.append((sample.throttled, sample.throttle_events["sw-thermal"]))
    assert reported == [(False, 0), (True, 1), (True, 1), (False, 1), (True, 2)]


def test_what_a_card_does_not_know_is_unknown_with_the_reason(fake: FakeNvml) -> None:
    refused = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    for name in fake.answers:
        if name.startswith("nvmlDeviceGet") and name != "nvmlDeviceGetHandleByIndex":
            fake.answers[name] = refused
    fake.answers["nvmlDeviceGetCount"] = 1
    sample = NvmlProvider(Host(5.0)).read()
    assert sample.power_w is None and sample.rails_w["gpu"] is None and sample.throttled is None
    assert any("the GPU's power is unknown: Not Supported" in why for why in sample.missing)


def test_a_driver_that_is_not_here_is_a_sentence_and_auto_reads_the_host(fake: FakeNvml) -> None:
    fake.answers["nvmlInit"] = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    with pytest.raises(EdgedError, match="the NVIDIA driver reports: NVML Shared Library Not Found"):
        NvmlProvider(Host(None))
    assert choose("auto").name == "host"
    fake.answers["nvmlInit"] = None
    assert choose("auto").name == "nvml"
    assert PowerConfig(provider="nvml").provider == "nvml"


def test_without_the_driver_or_the_package_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", None)
    assert nvml.why_not() == "the NVIDIA driver is not here (libnvidia-ml.so.1)"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert nvml.why_not() == "its Python package is not installed: pip install 'edged[cuda]'"
