"""Variants come and go beside a real loop, real engines and a memory that the test writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged import clock
from edged.config import CameraConfig, Limits
from edged.engines.engine import HostMemory, ModelTensors
from edged.engines.ort_cuda import OrtCudaEngine
from edged.errors import EdgedError, UsageError
from edged.loop import variant_residency
from edged.loop.build import Loop
from edged.power.host_paths import HostPaths
from tests.support.bus import PATIENCE
from tests.support.heap import allocated_bytes
from tests.support.host_gpu import HostGpuRuntime
from tests.support.loop import built, change_limits, load_all, running
from tests.support.models import center_model

MODELS = {
    "fine": center_model(-100.0, turns=200),
    "middle": center_model(-95.0, turns=100),
    "fast": center_model(-90.0),
}
"""With accuracies 0.9, 0.8, 0.7."""
PATIENT = Limits(deadline_ms=20_000)
CAMERA = [CameraConfig("gate", "test://7", fps=10)]


class Machine:
    """The /proc of a machine with so much memory left."""

    def __init__(self, root: Path) -> None:
        self._proc = root / "proc"
        (self._proc / "pressure").mkdir(parents=True)
        self.has_left(4000)
        self.paths = HostPaths(root)

    def has_left(self, megabytes: float, stalled_percent: float = 0.0) -> None:
        text = f"MemTotal: 8000000 kB\nMemAvailable: {int(megabytes * 1e6 / 1024)} kB\n"
        (self._proc / "new").write_text(text)
        (self._proc / "new").replace(self._proc / "meminfo")
        (self._proc / "pressure/memory").write_text(
            f"full avg10={stalled_percent:.2f} avg60=0.00 avg300=0.00 total=1\n"
        )


def wait_for(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    end_s = time.monotonic() + 10 * PATIENCE
    while not condition():
        assert time.monotonic() < end_s, what()
        time.sleep(0.01)


def resident(loop: Loop) -> set[str]:
    return set(loop.pool.resident)


def memory_events(loop: Loop) -> int:
    return loop.publisher.last_seq("event")


def test_one_is_loaded_at_first_and_the_others_behind_it(tmp_path: Path) -> None:
    with built(tmp_path, MODELS, PATIENT, load=False) as loop:
        assert len(resident(loop)) == 1 and not loop.residency.settled
        (first,) = resident(loop)
        assert loop.governor.decision.variant == first
        verdicts = {other.variant: other.verdict for other in loop.governor.message.alternatives}
        assert all("it is not loaded yet" in verdicts[name] for name in MODELS if name != first)
        with running(loop, CAMERA):
            wait_for(lambda: resident(loop) == set(MODELS))
            wait_for(lambda: loop.governor.decision.variant == "fine")
            state = loop.reporter.state
            wait_for(lambda: (s := loop.reporter.state) is not None and all(v.resident for v in s.variants))
            state = loop.reporter.state
        assert state is not None and state.memory is not None and state.memory.held_mb is not None
        for variant in state.variants:
            assert variant.memory_mb is not None and variant.load_s is not None
        assert [b.limit for b in state.budgets if b.name == "memory"] == [None]


def test_the_first_one_reaches_the_accuracy_floor(tmp_path: Path) -> None:
    with built(tmp_path, MODELS, Limits(deadline_ms=20_000, min_accuracy=0.85), load=False) as loop:
        assert resident(loop) == {"fine"}


def test_a_limit_below_what_is_held_leaves_one_variant_and_is_reported(tmp_path: Path) -> None:
    with built(tmp_path, MODELS, PATIENT) as loop, running(loop, CAMERA):
        assert resident(loop) == set(MODELS)
        change_limits(loop, memory_mb=1.0)
        wait_for(lambda: len(resident(loop)) == 1)
        wait_for(lambda: loop.residency.report().problem is not None)
        assert "memory_mb = 1 cannot be held" in str(loop.residency.report().problem)
        (left,) = resident(loop)
        wait_for(lambda: loop.governor.decision.variant == left)
        if left != "fine":  # the reference
            wait_for(lambda: (s := loop.reporter.state) is not None and s.guard is not None and s.guard.paused)
        with pytest.raises(UsageError, match="is not loaded"):
            loop.calls.call(lambda: loop.pool.select(next(name for name in MODELS if name != left)))
        change_limits(loop, memory_mb=None)
        wait_for(lambda: resident(loop) == set(MODELS))
        wait_for(lambda: loop.residency.report().problem is None)


def test_variants_go_while_memory_is_short_and_come_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    with built(tmp_path, MODELS, PATIENT, machine=machine.paths) as loop, running(loop, CAMERA):
        before = memory_events(loop)
        machine.has_left(100)
        wait_for(lambda: len(resident(loop)) == 1)
        assert memory_events(loop) >= before + 2
        machine.has_left(4000)
        wait_for(lambda: resident(loop) == set(MODELS))
        machine.has_left(4000, stalled_percent=40.0)
        wait_for(lambda: len(resident(loop)) < 3)


def test_a_pin_of_a_variant_that_is_away_loads_it_first(tmp_path: Path) -> None:
    with built(tmp_path, MODELS, PATIENT, load=False) as loop:
        wanted = next(name for name in ("fine", "middle") if name not in resident(loop))
        with running(loop, CAMERA):
            assert not loop.calls.call(lambda: loop.residency.pin(wanted, clock.mono_ns()))
            wait_for(lambda: loop.governor.decision.pinned and loop.governor.decision.variant == wanted)
            assert loop.calls.call(lambda: loop.residency.pin(None, clock.mono_ns()))
            wait_for(lambda: not loop.governor.decision.pinned)


def test_a_pin_that_has_no_room_waits_and_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.has_left(300)  # more than is kept free, less than a load begins with
    with built(tmp_path, MODELS, PATIENT, load=False, machine=machine.paths) as loop:
        wanted = next(name for name in ("fine", "middle") if name not in resident(loop))
        with running(loop, CAMERA):
            assert not loop.calls.call(lambda: loop.residency.pin(wanted, clock.mono_ns()))
            wait_for(lambda: f"{wanted} waits to be pinned" in str(loop.residency.report().problem))
            machine.has_left(4000)
            wait_for(lambda: loop.governor.decision.pinned and loop.governor.decision.variant == wanted)
            assert loop.residency.report().problem is None


def test_a_pin_below_the_floor_is_refused_though_the_variant_is_away(tmp_path: Path) -> None:
    with (
        built(tmp_path, MODELS, Limits(min_accuracy=0.85), load=False) as loop,
        pytest.raises(UsageError, match=r"fast cannot be pinned: its accuracy 0\.7 is below the floor"),
    ):
        loop.residency.pin("fast", clock.mono_ns())


def test_a_file_that_is_wrong_is_found_behind_the_first_and_refused(tmp_path: Path) -> None:
    models: dict[str, Any] = {**MODELS, "broken": center_model(spoil="nan") + b""}
    with built(tmp_path, models, PATIENT, load=False) as loop:
        load_all(loop)
        refused = {variant.name: variant.refused for variant in loop.pool.variants}
        assert "not finite" in str(refused.pop("broken")) and set(refused.values()) == {None}
        assert resident(loop) == set(MODELS)


def test_on_a_gpu_the_loop_warms_what_the_thread_loaded(tmp_path: Path) -> None:
    with built(tmp_path, MODELS, PATIENT, load=False, runtime=HostGpuRuntime()) as loop:
        assert len(resident(loop)) == 1 and not loop.pool.concurrent
        with running(loop, CAMERA):
            wait_for(lambda: resident(loop) == set(MODELS))
            change_limits(loop, memory_mb=1.0)
            wait_for(lambda: len(resident(loop)) == 1)
            wait_for(lambda: loop.reporter.state is not None and loop.reporter.state.cameras[0].results > 0)


def test_warming_takes_a_tenth_of_the_loop_and_never_holds_it_up_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with built(tmp_path, MODELS, PATIENT, load=False, runtime=HostGpuRuntime()) as loop:
        residency = loop.residency
        monkeypatch.setattr(variant_residency, "EVERY_NS", 1)  # a decision at each look
        while not residency.holds_up(now_ns := clock.mono_ns()):
            residency.look(now_ns, idle=False)
        residency.look(now_ns, idle=False)
        assert residency.due_ns <= now_ns, "held up, so it is looked at as soon as nothing is in flight"

        monkeypatch.setattr(variant_residency, "EVERY_NS", clock.NS_PER_S * 3600)
        residency.look(now_ns + 1, idle=False)  # decides; the next time is far away
        begun_ns, took_ns = now_ns, 3_000_000
        for _ in range(5):
            after = SimpleNamespace(mono_ns=lambda at_ns=begun_ns + took_ns: at_ns, NS_PER_S=clock.NS_PER_S)
            monkeypatch.setattr(variant_residency, "clock", after)
            residency.look(begun_ns, idle=True)
            due_ns = begun_ns + 11 * took_ns
            assert residency.due_ns == due_ns and not residency.holds_up(due_ns - 1), "frames first"
            residency.look(due_ns - 1, idle=True)
            assert residency.due_ns == due_ns, "and no other run before"
            begun_ns = due_ns


def test_what_the_thread_has_done_while_the_loop_decides_is_taken_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with built(tmp_path, MODELS, PATIENT, load=False) as loop:
        residency = loop.residency

        def decide(now_ns: int) -> None:
            residency._done.put(("fine", EdgedError("it cannot be loaded")))
            residency.due_ns = 0

        monkeypatch.setattr(residency, "_decide", decide)
        residency.look(now_ns := clock.mono_ns(), idle=True)
        assert residency.due_ns <= now_ns


class HangingRuntime(HostGpuRuntime):
    """Loads the first engine, and hangs in the next until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.hangs, self.go_on = threading.Event(), threading.Event()

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> OrtCudaEngine:
        self.loads += 1
        if self.loads > 1:
            self.hangs.set()
            self.go_on.wait(PATIENCE)
        return super().load(content, file, tensors, memory)


def test_what_a_load_that_hangs_uses_is_not_freed_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant_residency, "STOP_S", 0.1)
    runtime = HangingRuntime()
    with built(tmp_path, MODELS, PATIENT, load=False, runtime=runtime) as loop, running(loop, CAMERA):
        assert runtime.hangs.wait(PATIENCE)
        held = set(runtime.gpu.held)
    assert held and held <= set(runtime.gpu.held)
    runtime.go_on.set()
    assert loop.residency.worker.stop(PATIENCE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_loads_beside_a_camera_cost_no_frame_and_no_memory(tmp_path: Path) -> None:
    slow = [CameraConfig("gate", "test://7", fps=2)]  # a busy machine alone must cost none
    with built(tmp_path, MODELS, PATIENT) as loop, running(loop, slow):
        wait_for(lambda: loop.cameras.status("gate", clock.mono_ns()).results > 5)

        def cycle(times: int) -> None:
            for index in range(times):
                name = ("fine", "middle")[index % 2]
                engine = None
                while engine is None:
                    engine = loop.calls.call(lambda name=name: loop.pool.let_go(name))  # type: ignore[misc]
                engine.close()
                del engine
                loaded = loop.pool.load(name)
                loop.calls.call(lambda loaded=loaded: loop.pool.adopt(loaded, loaded.latency_ms))  # type: ignore[misc]

        def lost() -> dict[str, int]:
            drops = loop.cameras.status("gate", clock.mono_ns()).drops
            return {cause: count for cause, count in drops.items() if cause != "rate"}

        loop.residency.close()  # the test decides
        loop.calls.call(lambda: loop.governor.pin("fast", clock.mono_ns()))
        cycle(100)
        before, held = lost(), allocated_bytes()
        cycle(1000)
        assert allocated_bytes() - held < 1 << 20
        assert lost() == before
