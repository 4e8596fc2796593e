"""A real GPU's meter: its energy counter against our own integral of its power, under load and at rest."""

from __future__ import annotations

import time

import pytest

from edged import clock
from edged.engines import cuda
from edged.engines.cuda import Gpu
from edged.power import nvml
from edged.power.host import HostProvider
from edged.power.nvml import NvmlProvider

pytestmark = [pytest.mark.slow, pytest.mark.skipif(nvml.why_not() is not None, reason=str(nvml.why_not()))]


@pytest.mark.skipif(cuda.why_not() is not None, reason=str(cuda.why_not()))
def test_the_energy_counter_agrees_with_the_integral_of_power() -> None:
    gpu, provider = Gpu(), NvmlProvider(HostProvider())
    a, b = gpu.device(1 << 30), gpu.device(1 << 30)
    pynvml = pytest.importorskip("pynvml")
    begun_mj, begun_ns = provider.energy_mj(), clock.mono_ns()
    assert begun_mj is not None
    joules, last_ns, last_w = 0.0, begun_ns, None
    while clock.mono_ns() - begun_ns < 12 * clock.NS_PER_S:
        if (clock.mono_ns() - begun_ns) // (3 * clock.NS_PER_S) % 2 == 0:  # three seconds of load, three at rest
            for _ in range(40):
                gpu.copy(a, b, 1 << 30)
            gpu.wait()
        time.sleep(0.05)
        now_ns, watts = clock.mono_ns(), pynvml.nvmlDeviceGetPowerUsage(provider._gpu) / 1e3
        if last_w is not None:
            joules += (watts + last_w) / 2 * (now_ns - last_ns) / clock.NS_PER_S
        last_ns, last_w = now_ns, watts
    counted = ((provider.energy_mj() or 0) - begun_mj) / 1e3
    sample = provider.read()
    print(f"counter {counted:.0f} J, integral of power {joules:.0f} J: {joules / counted:.3f}x")
    print({k: v for k, v in sample.rails_w.items()}, sample.temperature_c, sample.gpu_mhz, sample.gpu_ceiling_mhz)
    print(sample.throttle_events, sample.missing)
    assert 0.9 < joules / counted < 1.1
    assert sample.rails_w["gpu"] is not None and sample.gpu_mhz is not None
    provider.close()
    gpu.close()
