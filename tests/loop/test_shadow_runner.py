"""The guard's shadow runs on real engines; what it tells the governor and the bus is heard by stand-ins."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_MS, NS_PER_S
from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.pool import Pool
from edged.frames.frame import Frame, PixelFormat
from edged.governor.messages import Observation, ShadowDone, Unvetoed, Vetoed
from edged.loop.governor_client import GovernorClient
from edged.loop.shadow_runner import LEAVE_ALONE_AFTER, ShadowRunner
from edged.vision.decoder import Decode, make_decoder
from edged.vision.letterbox import Letterboxer
from tests.support.models import HEIGHT, WIDTH, center_model, manifest_for, write_bundle

HALF = -128.0  # a cell brighter than 128 is an object
GOOD = {"fp32": center_model(HALF), "int8": center_model(HALF - 1)}
BLIND = {"fp32": center_model(HALF), "int8": center_model(-1000.0)}
DRIFT = {
    "brightness_mean": 16.0, "brightness_std": 10.0, "contrast_mean": 60.0, "contrast_std": 10.0,
    "low_percentile_mean": 0.0, "high_percentile_mean": 250.0,
}  # fmt: skip


class Ear:
    """Stands in for the publisher and for Steering: it remembers."""

    def __init__(self) -> None:
        self.events: list[schema.Event] = []
        self.observed: list[Any] = []
        self.on_engine: list[str] = []
        self.decision = SimpleNamespace(variant="int8", price_per_j=0.0)
        self.batch_ms: tuple[float, ...] = (1.0,)

    def publish(self, message: Any) -> Any:
        self.events.append(message)
        return message

    def observe(self, observation: Observation, now_ns: int) -> None:
        self.observed.append(observation)

    def ran(self, variant: str, begin_ns: int, end_ns: int) -> None:
        assert begin_ns <= end_ns
        self.on_engine.append(variant)

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        return self.batch_ms

    def runs(self) -> list[ShadowDone]:
        return [output for output in self.observed if isinstance(output, ShadowDone)]

    def changes(self) -> list[Vetoed | Unvetoed]:
        return [output for output in self.observed if isinstance(output, Vetoed | Unvetoed)]


@dataclass
class Bench:
    """A pool whose batches the test makes, a second apart by a clock of the test's own."""

    pool: Pool
    letterboxer: Letterboxer
    decode: Decode
    ear: Ear
    shadow: ShadowRunner
    cameras: Sequence[str]
    passed_ns: list[int]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    deadline_ms: float = 1000.0

    def batch(self, variant: str = "int8", quiet: bool = True, apart_s: float = 1.0) -> None:
        """One frame of every camera, on `variant`."""
        self.passed_ns[0] += int(apart_s * NS_PER_S)
        start_ns = clock.mono_ns()
        frames = []
        for index, camera in enumerate(self.cameras):
            picture = self.pictures.get(camera, SCENE)
            height, width = picture.shape[:2]
            frames.append(Frame(camera, 0, 0, 0, width, height, PixelFormat.BGR24, start_ns - NS_PER_MS, 0, "arrival"))
            self.letterboxer.fill(self.letterboxer.geometry(width, height), picture, PixelFormat.BGR24, 0, index)
        self.pool.submit(0, len(frames), variant)
        outputs = self.pool.collect(0)
        objects = [self.decode(outputs, i, self.letterboxer.geometry(f.width, f.height)) for i, f in enumerate(frames)]
        before = self.pool.input_buffer(0).copy()
        self.shadow.after(0, variant, frames, objects, start_ns, self.deadline_ms, lambda: quiet)
        assert (self.pool.input_buffer(0) == before).all(), "the lane must be as the letterboxer left it"

    def batches(self, count: int, **how: Any) -> None:
        for _ in range(count):
            self.batch(**how)


def blobs(*cells: tuple[int, int], width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Black, with a white square per cell."""
    picture = np.zeros((height, width, 3), np.uint8)
    for x, y in cells:
        picture[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] = 255
    return picture


SCENE = blobs((1, 1), (5, 2))


@pytest.fixture
def passed_ns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Time that is added to the monotonic clock."""
    passed, true = [0], clock.mono_ns
    monkeypatch.setattr(clock, "mono_ns", lambda: true() + passed[0])
    return passed


@contextmanager
def bench(
    directory: Path, passed_ns: list[int], models: dict[str, bytes], cameras: Sequence[str] = ("gate",), **manifest: Any
) -> Iterator[Bench]:
    bundle = load_bundle(write_bundle(directory / "b", models, manifest_for(models, **manifest)))
    with Pool.open(bundle, EngineConfig(device="cpu")) as pool:
        letterboxer = Letterboxer(bundle.manifest.input, [pool.input_buffer(0)])
        decode, ear = make_decoder(bundle.manifest), Ear()
        shadow = ShadowRunner(
            bundle.manifest,
            pool,
            letterboxer,
            make_decoder(bundle.manifest),
            cast(Publisher, ear),
            cast(GovernorClient, ear),
        )
        shadow.configure(cameras, clock.mono_ns())
        yield Bench(pool, letterboxer, decode, ear, shadow, cameras, passed_ns)


def test_a_healthy_variant_is_sampled_and_left_alone(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, GOOD) as b:
        b.batches(3000)
        runs = b.ear.runs()
        assert b.ear.on_engine == ["fp32"] * len(runs)
        # one in 20 until 64 scores are there, then one in 100
        assert len(runs) == pytest.approx(64 + (3000 - 64 * 20) / 100, abs=3)
        assert all(run.variant == "fp32" and run.batch == 1 for run in runs)
        assert b.ear.changes() == [] and b.ear.events == []
        report = b.shadow.report(clock.mono_ns())
        assert report.reference == "fp32" and report.shadow_runs == len(runs)
        assert report.shadow_share == pytest.approx(len(runs) / 3000) and report.shadow_ms > 0
        (standing,) = report.agreement
        assert (standing.camera, standing.variant, standing.samples) == ("gate", "int8", len(runs))
        assert standing.low is not None and standing.gate < standing.low < 1.0 == standing.high
        assert not standing.vetoed


def test_a_blind_one_is_vetoed_with_an_event_and_comes_back_when_it_sees(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, BLIND) as b:
        while not b.ear.changes():
            b.batch()
            assert b.shadow.report(0).shadow_runs < 30
        veto, everywhere = b.ear.changes()  # the only camera is all cameras: the standing decision must change too
        assert isinstance(veto, Vetoed) and (veto.variant, veto.camera) == ("int8", "gate")
        assert everywhere == Vetoed("int8", veto.why)
        (event,) = b.ear.events
        assert (event.kind, event.camera, event.variant) == ("veto", "gate", "int8")
        assert event.text.startswith(
            "int8 is vetoed on gate: it agrees with fp32 by 0.00 (0.00 to 0.68, 18 shadow runs)"
        )
        # roles reversed: the reference runs, the vetoed variant is the shadow; it is no better
        b.ear.on_engine.clear()
        b.batches(400, variant="fp32")
        assert set(b.ear.on_engine) == {"int8"} and len(b.ear.on_engine) == 20
        assert len(b.ear.changes()) == 2
        b.pictures["gate"] = blobs((1, 1)) // 64  # nothing to see for either: no evidence
        b.batches(400, variant="fp32")
        assert len(b.ear.changes()) == 2 and b.shadow.report(clock.mono_ns()).agreement[0].vetoed


def test_it_comes_back_when_it_sees_again(tmp_path: Path, passed_ns: list[int]) -> None:
    """Weak light: the INT8 variant sees nothing of what the reference sees; in the light they see the same."""
    weak = {"fp32": center_model(HALF), "int8": center_model(HALF - 60)}
    with bench(tmp_path, passed_ns, weak) as b:
        b.pictures["gate"] = (SCENE > 0).astype(np.uint8) * 160
        b.batches(700)
        b.pictures["gate"] = SCENE
        b.batches(2000, variant="fp32")
        assert [type(change) for change in b.ear.changes()] == [Vetoed, Vetoed, Unvetoed, Unvetoed]
        assert [event.kind for event in b.ear.events] == ["veto", "veto_lifted"]
        assert b.ear.events[1].text.startswith("int8 may run on gate again: it agrees with fp32 by 0.97 (")


def test_it_never_runs_while_a_frame_waits_nor_when_one_could_be_late(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, GOOD, cameras=("gate", "yard", "dock")) as b:
        b.batches(200, quiet=False)
        assert b.ear.runs() == []
        assert b.shadow.report(0).passed_over == {"busy": pytest.approx(27, abs=3)}  # 10 a camera, less the one kept
        b.ear.batch_ms = (30.0, 45.0)  # three cameras: two batches, 45 + 30 ms
        b.deadline_ms = 78.0
        b.batches(100)
        assert b.ear.runs() == []
        b.deadline_ms = 200.0
        b.batch()
        assert len(b.ear.runs()) == 3  # what was due is made up for as soon as there is time


def test_frames_that_wait_long_before_they_run_leave_no_room(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, GOOD) as b:
        b.deadline_ms = 10.0
        b.shadow._lead_ms = 100.0  # a decoder that stuttered
        b.batches(20)
        assert b.ear.runs() == []
        b.batches(300)
        assert len(b.ear.runs()) > 3  # forgotten


def test_scores_of_one_camera_are_a_second_apart(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, GOOD) as b:
        begun_ns = clock.mono_ns()
        b.batches(600, apart_s=1 / 60)  # 10 s at 60 frames/s and what the machine takes: one in 20 would be 30
        elapsed_s = (clock.mono_ns() - begun_ns) / NS_PER_S
        assert 9 <= len(b.ear.runs()) <= elapsed_s + 1


def test_each_camera_is_compared_on_its_own_picture(tmp_path: Path, passed_ns: list[int]) -> None:
    """Of different shapes, so that a mixed-up slot or padding would show."""
    with bench(tmp_path, passed_ns, BLIND, cameras=("gate", "yard")) as b:
        b.pictures["yard"] = blobs(width=32, height=32)  # nothing to see there
        b.batches(500)
        assert {change.camera for change in b.ear.changes()} == {"gate"}
        by_camera = {s.camera: s for s in b.shadow.report(clock.mono_ns()).agreement}
        assert by_camera["gate"].vetoed
        assert (by_camera["yard"].samples, by_camera["yard"].vetoed) == (0, False)


def test_a_reference_that_fails_costs_nothing_but_its_runs(tmp_path: Path, passed_ns: list[int]) -> None:
    models = {"fp32": center_model(HALF, spoil="gather"), "int8": center_model(HALF)}
    with bench(tmp_path, passed_ns, models) as b:
        b.pictures["gate"] = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        b.batches(400)
        assert b.ear.runs() == [] and b.ear.changes() == []
        report = b.shadow.report(0)
        assert report.reference is None and report.passed_over == {"failed": LEAVE_ALONE_AFTER}
        (event,) = b.ear.events
        assert (event.kind, event.variant) == ("shadow_failed", "fp32")
        assert "leaves fp32 alone, 3 shadow runs failed" in event.text


def test_without_its_reference_nothing_is_judged(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, BLIND) as b:
        b.pool.retire("fp32", "it broke")
        b.batches(300)
        assert b.ear.observed == [] and b.shadow.report(0).reference is None


def test_three_variants_share_the_reference_run(tmp_path: Path, passed_ns: list[int]) -> None:
    models = {**GOOD, "tiny": center_model(-1000.0)}
    with bench(tmp_path, passed_ns, models) as b:
        b.batches(700, variant="tiny")
        assert {change.variant for change in b.ear.changes()} == {"tiny"}
        b.ear.on_engine.clear()
        before = samples(b)
        b.batches(200, variant="int8")  # the vetoed one is asked beside it, with one run of the reference for both
        assert b.ear.on_engine == ["fp32", "tiny"] * (len(b.ear.on_engine) // 2)
        assert all(samples(b)[variant] > before.get(variant, 0) for variant in ("int8", "tiny"))


def samples(b: Bench) -> dict[str, int]:
    return {standing.variant: standing.samples for standing in b.shadow.report(clock.mono_ns()).agreement}


def test_a_dark_camera_is_a_drift_reported_once_and_its_end_too(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, GOOD, cameras=("gate", "yard"), drift=DRIFT) as b:
        b.batches(130)
        assert b.ear.events == []
        b.pictures["gate"] = SCENE // 40
        b.batches(200)
        (event,) = b.ear.events
        assert (event.kind, event.camera, event.variant) == ("drift", "gate", None)
        assert "narrower: luma from 0 to 6, calibrated 0 to 250" in event.text
        drifted = {d.camera: d.drifted for d in b.shadow.report(0).drift}
        assert drifted == {"gate": True, "yard": False}
        b.pictures["gate"] = SCENE
        b.batches(200)
        assert [event.kind for event in b.ear.events] == ["drift", "drift_over"]
        assert b.ear.changes() == []  # a drift alone forbids nothing


def test_a_removed_camera_is_forgotten(tmp_path: Path, passed_ns: list[int]) -> None:
    with bench(tmp_path, passed_ns, BLIND) as b:
        b.batches(700)
        b.shadow.configure(["yard"], clock.mono_ns())
        assert [type(change) for change in b.ear.changes()] == [Vetoed, Vetoed, Unvetoed, Unvetoed]
        b.batches(100)  # frames that were on their way
        assert (
            {s.camera for s in b.shadow.report(0).agreement} == {d.camera for d in b.shadow.report(0).drift} == {"yard"}
        )


def test_frames_that_are_not_drawn_cost_next_to_nothing(tmp_path: Path, passed_ns: list[int]) -> None:
    """Measured beside the inference of one frame of a very small model, some 20 us: the demo's takes a hundred times
    that."""
    with bench(tmp_path, passed_ns, GOOD) as b:
        frame = Frame("gate", 0, 0, 0, WIDTH, HEIGHT, PixelFormat.BGR24, clock.mono_ns(), 0, "arrival")
        objects = [b.decode(_outputs(b), 0, b.letterboxer.geometry(WIDTH, HEIGHT))]
        counting, inferring = [], []
        for _ in range(400):
            begin = time.perf_counter_ns()
            b.shadow.after(0, "int8", [frame], objects, clock.mono_ns(), 50.0, lambda: False)
            counting.append(time.perf_counter_ns() - begin)
            begin = time.perf_counter_ns()
            _outputs(b)
            inferring.append(time.perf_counter_ns() - begin)
        assert sorted(counting)[200] < 2 * sorted(inferring)[200]


def _outputs(b: Bench) -> Any:
    b.pool.submit(0, 1, "int8")
    return b.pool.collect(0)
