"""What the warm-up of an engine takes from runs that other work on the machine disturbs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edged.engines import loading
from edged.governor.messages import Variant
from edged.governor.profile import best_batch


class TimedEngine:
    """10 ms a picture whatever the batch, and three times as long in each second run of batches below `disturbed`."""

    lanes = 1

    def __init__(self, disturbed: int) -> None:
        self._disturbed = disturbed
        self._batch = self._runs = self.now_ns = 0

    def submit(self, lane: int, batch: int) -> None:
        self._batch, self._runs = batch, self._runs + 1

    def collect(self, lane: int) -> dict[str, Any]:
        slow = self._batch < self._disturbed and self._runs % 2
        self.now_ns += 10_000_000 * self._batch * (3 if slow else 1)
        return {"scores": np.zeros(1, np.float32)}


@pytest.mark.parametrize("disturbed", [0, 2, 3])
def test_a_busy_start_does_not_make_batches_look_worthwhile(monkeypatch: pytest.MonkeyPatch, disturbed: int) -> None:
    engine: Any = TimedEngine(disturbed)
    clock = SimpleNamespace(mono_ns=lambda: engine.now_ns, NS_PER_MS=1_000_000)
    monkeypatch.setattr(loading, "clock", clock)
    latency_ms = loading.exhaust(loading.warm(engine, 4))
    assert [ms / latency_ms[0] for ms in latency_ms] == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert best_batch(Variant("fp16", 0.8, latency_ms)) == 1
