"""The sampler: whatever the provider does, the daemon reads on, and what is not known is said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from time import monotonic

from edged import clock
from edged.bus import schema
from edged.config import PowerConfig
from edged.power.telemetry import Sample, Sampler, open_provider

S = clock.NS_PER_S


class Scripted:
    """A provider whose every read is the next of `steps`; the last is repeated."""

    name = "scripted"

    def __init__(self, *steps: Callable[[], Sample]) -> None:
        self.steps = list(steps)
        self.reads = 0
        self.closed = False

    def read(self) -> Sample:
        step = self.steps[min(self.reads, len(self.steps) - 1)]
        self.reads += 1
        return step()

    def close(self) -> None:
        self.closed = True


def good() -> Sample:
    return Sample("scripted", clock.mono_ns(), power_w=7.5, rails_w={"VDD_IN": 7.5}, missing=("no fan",))


def broken() -> Sample:
    raise OSError(5, "Input/output error")


def wait_for(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    end_s = monotonic() + limit_s
    while not condition():
        assert monotonic() < end_s, "did not happen in time"
        threading.Event().wait(0.005)


@contextmanager
def sampling(provider: Scripted, interval_s: float = 0.02) -> Iterator[Sampler]:
    sampler = Sampler(provider, interval_s)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.stop()


def test_the_latest_sample_is_there_and_its_age_is_small() -> None:
    provider = Scripted(good)
    with sampling(provider) as sampler:
        wait_for(lambda: provider.reads >= 3)
        sample = sampler.latest(clock.mono_ns())
        assert sample.power_w == 7.5 and sample.missing == ("no fan",)
        assert sample.age_s(clock.mono_ns()) < 2
    assert provider.closed


def test_before_the_first_reading_nothing_is_known() -> None:
    sample = Sampler(Scripted(good), 1.0).latest(clock.mono_ns())
    assert sample.power_w is None and sample.missing == ("scripted has not been read yet",)


def test_a_provider_that_raises_is_read_again_and_its_reason_travels_with_the_sample() -> None:
    provider = Scripted(good, broken)
    with sampling(provider) as sampler:
        wait_for(lambda: provider.reads >= 3)
        now_ns = sampler.latest(0).mono_ns
        fresh = sampler.latest(now_ns)
        assert fresh.power_w == 7.5
        assert fresh.missing == ("no fan", "scripted failed: OSError: [Errno 5] Input/output error")
        old = sampler.latest(now_ns + 10 * S)
        assert old.power_w is None and dict(old.rails_w) == {}
        assert old.missing == ("scripted failed: OSError: [Errno 5] Input/output error; last reading 10 s ago",)


def test_a_provider_that_recovers_is_believed_again() -> None:
    provider = Scripted(broken, broken, good)
    with sampling(provider) as sampler:
        wait_for(lambda: provider.reads >= 4)
        assert sampler.latest(clock.mono_ns()).power_w == 7.5
        assert sampler.latest(clock.mono_ns()).missing == ("no fan",)


def test_a_provider_that_hangs_holds_nobody_and_its_age_grows() -> None:
    release = threading.Event()

    def hang() -> Sample:
        release.wait(30)
        return good()

    provider = Scripted(good, hang)
    sampler = Sampler(provider, 0.02)
    sampler.start()
    wait_for(lambda: provider.reads >= 2)
    read_ns = sampler.latest(0).mono_ns
    begin = monotonic()
    sample = sampler.latest(read_ns + 60 * S)
    assert sample.age_s(read_ns + 60 * S) == 60.0
    assert sample.power_w is None and sample.missing == ("scripted does not answer; last reading 60 s ago",)
    assert not sampler.stop(timeout_s=0.05)
    assert monotonic() - begin < 1 and not provider.closed
    release.set()
    wait_for(lambda: not any(t.name == "power.telemetry" for t in threading.enumerate()))


def test_the_sample_has_all_that_the_wire_has() -> None:
    wire = set(schema.Telemetry.__struct_fields__) - {"v", "seq", "t_publish", "variants_mb"}
    assert {f.name for f in fields(Sample)} == wire | {"mono_ns", "power_lag_s", "power_mean_s"}


def test_the_configured_provider_opens_and_reads_this_machine() -> None:
    provider = open_provider(PowerConfig())
    sample = provider.read()
    provider.close()
    assert provider.name == sample.provider == "host"
    assert sample.memory_available_mb is not None and sample.memory_available_mb > 10


def test_the_samplers_samples_carry_the_energy_even_when_stale() -> None:
    with sampling(Scripted(good)) as sampler:
        wait_for(lambda: (sampler.latest(clock.mono_ns()).energy_j or 0) > 0)
        sample = sampler.latest(clock.mono_ns())
    assert sample.energy_j is not None and sample.energy_j < 7.5 * 10
    late = sampler.latest(clock.mono_ns() + 60 * S)
    assert late.power_w is None and (late.energy_j or 0) > 0
