from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.accuracy_guard.guard import CLOSE_SHARE, KNOWN, SHARE, Change, Compared, Guard, gate_of
from edged.accuracy_guard.input_drift import ImageStats, Norm
from edged.accuracy_guard.sequential_test import needed
from edged.clock import NS_PER_S
from edged.governor.messages import Unvetoed, Vetoed

DEMO = {"fp16": 0.8022, "int8-sparse": 0.7895}
GATE = gate_of(0.7895, 0.8022)
NORM = Norm(90.0, 39.0, 22.0, 9.0, 42.0, 153.0)
HOUR = 3600


class Watch:
    """A guard and a clock; scores come once a second."""

    def __init__(self, *cameras: str, accuracies: dict[str, float | None] | None = None, seed: int = 0) -> None:
        self.guard = Guard("fp16", accuracies or dict(DEMO), NORM, seed)
        self.now_ns = 0
        self.cameras = cameras or ("gate",)
        assert self.guard.configure(self.cameras, 0) == ()

    def score(self, agreement: float | None, camera: str = "gate", variant: str = "int8-sparse") -> tuple[Change, ...]:
        self.now_ns += NS_PER_S
        return self.guard.compared(Compared(camera, variant, agreement), self.now_ns)

    def until_change(self, scores: Callable[[], float], limit: int, camera: str = "gate") -> tuple[int, Change]:
        """How many scores until the guard says something, and what."""
        for count in range(1, limit + 1):
            if changes := self.score(scores(), camera):
                return count, changes[0]
        raise AssertionError(f"the guard said nothing in {limit} scores")


def healthy(rng: random.Random) -> Callable[[], float]:
    """As the demo's variants agree on held-out pictures: 0.89 in the mean, a deviation of 0.08, at times half."""
    return lambda: min(1.0, max(0.0, 0.45 if rng.random() < 0.02 else rng.gauss(0.90, 0.05)))


def test_the_gate_is_what_the_accuracies_allow_at_the_least() -> None:
    assert gate_of(0.7895, 0.8022) == pytest.approx(0.5917)
    assert gate_of(0.99, 0.995) == 0.9  # what some hundred samples can still tell from full agreement
    assert gate_of(0.36, 0.37) == pytest.approx(0.486, abs=1e-3)  # neither is right often: half, relative to each other
    assert gate_of(0.9, 0.6) == pytest.approx(0.5)
    assert gate_of(None, 0.8) == gate_of(0.8, None) == 0.5


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.randoms(use_true_random=False))
def test_no_pair_of_models_with_the_stated_accuracies_agrees_less(
    size: int, right_a: int, right_b: int, rng: random.Random
) -> None:
    """The reasoning behind the gate, by counting: wherever two models are right, they agree."""
    pictures = range(size)
    a, b = (set(rng.sample(pictures, min(size, right))) for right in (right_a, right_b))
    assert len(a & b) / size >= len(a) / size + len(b) / size - 1 - 1e-9


def test_a_variant_that_sees_nothing_is_vetoed_within_24_scores() -> None:
    watch = Watch()
    count, change = watch.until_change(lambda: 0.0, 100)
    assert count == needed(0.0, GATE) <= 24
    assert isinstance(change, Vetoed) and (change.camera, change.variant) == ("gate", "int8-sparse")
    assert change.why == "it agrees with fp16 by 0.00 (0.00 to 0.58, 24 shadow runs); the gate is 0.59"


def test_one_that_breaks_after_a_good_day_is_vetoed_within_30() -> None:
    watch, rng = Watch(), random.Random(0)
    for _ in range(2000):
        assert watch.score(healthy(rng)()) == ()
    count, change = watch.until_change(lambda: 0.0, 100)
    assert count <= 30 and isinstance(change, Vetoed)


@pytest.mark.parametrize(("agreement", "within"), [(0.1, 64), (0.2, 128), (0.3, 256), (0.4, 512)])
def test_the_less_is_wrong_the_more_scores_it_takes(agreement: float, within: int) -> None:
    watch, rng = Watch(), random.Random(0)
    for _ in range(1000):
        watch.score(0.92)
    count, _ = watch.until_change(lambda: min(1.0, max(0.0, rng.gauss(agreement, 0.1))), 2000)
    assert count <= within


def test_a_healthy_variant_is_never_vetoed_over_camera_days() -> None:
    """Scores as the demo's variants give them, at the highest rate for hours and at the ordinary one for days on end.
    The bound (see evidence) promises less than one in a thousand camera-days even for one that is just at the gate."""
    for seed in range(3):
        watch, rng = Watch(seed=seed), random.Random(seed)
        for _ in range(13_000):  # a camera-day at 15 frames/s and one in a hundred
            assert watch.score(healthy(rng)()) == ()


def test_a_variant_just_at_the_gate_is_left_alone() -> None:
    watch, rng = Watch(), random.Random(4)
    for _ in range(5000):
        assert watch.score(float(rng.random() < GATE)) == ()


def test_frames_without_objects_are_no_evidence() -> None:
    watch = Watch()
    for _ in range(500):
        assert watch.score(None) == ()
    assert watch.guard.standings(watch.now_ns)[0].interval is None
    assert watch.score(float("nan")) == ()


def test_it_comes_back_on_evidence_since_the_veto_and_not_before() -> None:
    watch, rng = Watch(), random.Random(1)
    watch.until_change(lambda: 0.0, 100)
    standing = watch.guard.standings(watch.now_ns)[0]
    assert standing.vetoed and standing.interval is None
    for _ in range(300):  # no better: it stays away
        assert watch.score(min(1.0, rng.gauss(GATE, 0.05))) == ()
    count, change = watch.until_change(healthy(rng), 2000)
    assert isinstance(change, Unvetoed) and (change.camera, change.variant) == ("gate", "int8-sparse")
    assert "it had to prove 0.64" in change.why
    assert 30 < count < 600
    assert not watch.guard.standings(watch.now_ns)[0].vetoed


def test_a_repaired_one_is_back_within_96() -> None:
    watch, rng = Watch(), random.Random(1)
    watch.until_change(lambda: 0.0, 100)
    _, change = watch.until_change(healthy(rng), 96)
    assert isinstance(change, Unvetoed)


def test_even_a_high_gate_lets_a_variant_come_back() -> None:
    watch = Watch(accuracies={"fp16": 0.995, "int8-sparse": 0.99})
    watch.until_change(lambda: 0.0, 20)
    count, change = watch.until_change(lambda: 0.99, 1000)
    assert isinstance(change, Unvetoed), count


def test_one_dark_camera_does_not_cost_the_others_their_variant() -> None:
    watch = Watch("gate", "yard", "dock")
    changes = [
        change
        for _ in range(200)
        for camera, seen in (("gate", 0.05), ("yard", 0.9), ("dock", 0.9))
        for change in watch.score(seen, camera)
    ]
    assert [(change.variant, change.camera) for change in changes] == [("int8-sparse", "gate")]
    assert {s.camera: s.vetoed for s in watch.guard.standings(watch.now_ns)} == {
        "gate": True,
        "yard": False,
        "dock": False,
    }


def test_a_variant_that_fails_on_most_cameras_fails_on_all_until_it_does_not() -> None:
    watch, rng = Watch("gate", "yard", "dock", "hall"), random.Random(0)
    changes = [c for _ in range(60) for camera in ("gate", "yard", "dock") for c in watch.score(0.0, camera)]
    assert [(type(c), c.camera) for c in changes] == [
        (Vetoed, "gate"),
        (Vetoed, "yard"),
        (Vetoed, None),
        (Vetoed, "dock"),
    ]
    assert "2 of the 3 cameras" in changes[2].why
    assert all(standing.vetoed for standing in watch.guard.standings(watch.now_ns))
    lifted = [c for _ in range(200) for camera in watch.cameras for c in watch.score(healthy(rng)(), camera)]
    assert [type(c) for c in lifted] == [Unvetoed] * 4
    assert {c.camera for c in lifted} == {"gate", "yard", "dock", None}
    assert not any(standing.vetoed for standing in watch.guard.standings(watch.now_ns))


def test_a_removed_camera_takes_its_veto_with_it() -> None:
    watch = Watch("gate", "yard")
    for camera in watch.cameras:
        watch.until_change(lambda: 0.0, 100, camera)
    changes = watch.guard.configure(["yard"], watch.now_ns)
    assert [(type(c), c.camera) for c in changes] == [(Unvetoed, "gate")]  # all that are left have it
    assert watch.score(0.0, "gate") == ()
    changes = watch.guard.configure(["yard", "gate"], watch.now_ns)
    assert [(type(c), c.camera) for c in changes] == [(Unvetoed, None)]


def share(watch: Watch, variant: str, scarce: bool = False, frames: int = 4000) -> float:
    return sum(watch.guard.drawn("gate", variant, scarce) for _ in range(frames)) / frames


def test_it_samples_more_while_it_knows_little_and_less_while_energy_is_scarce() -> None:
    watch = Watch()
    assert share(watch, "int8-sparse") == pytest.approx(CLOSE_SHARE, rel=0.05)
    assert share(watch, "int8-sparse", scarce=True) == pytest.approx(CLOSE_SHARE / 2, rel=0.05)
    assert share(watch, "fp16") == pytest.approx(SHARE, rel=0.1)
    for _ in range(KNOWN):
        watch.score(0.9)
    assert share(watch, "int8-sparse") == pytest.approx(SHARE, rel=0.1)
    for _ in range(20):
        watch.guard.measured("gate", ImageStats(8.0, 2.0, 4.0, 12.0))
    assert share(watch, "int8-sparse") == pytest.approx(CLOSE_SHARE, rel=0.05)


def test_a_drift_is_reported_once_and_so_is_its_end() -> None:
    watch = Watch()
    reported = []
    for look in (
        [ImageStats(100, 20, 50, 150)] * 60 + [ImageStats(8, 2, 4, 12)] * 300 + [ImageStats(100, 20, 50, 150)] * 300
    ):
        drift = watch.guard.measured("gate", look)
        reported += [drift] if drift is not None else []
    assert [drift.drifted for drift in reported] == [True, False]
    assert "narrower" in reported[0].reason
    assert watch.guard.measured("nobody", ImageStats(8, 2, 4, 12)) is None


def test_what_runs_beside_what() -> None:
    watch = Watch(accuracies={"fp16": 0.78, "int8": 0.77, "int8-sparse": 0.76})
    plan, usable = watch.guard.plan, ("fp16", "int8", "int8-sparse")
    assert plan("gate", "int8", usable) == ("fp16",)
    assert plan("gate", "fp16", usable) == ("int8",)  # one of those that do not run: the least known
    watch.score(0.9, variant="int8")
    assert plan("gate", "fp16", usable) == ("int8-sparse",)
    watch.until_change(lambda: 0.0, 100)
    for _ in range(50):
        watch.score(0.0)
    assert plan("gate", "fp16", usable) == ("int8-sparse",)  # vetoed: it waits for evidence
    assert plan("gate", "int8", usable) == ("fp16", "int8-sparse")
    assert plan("gate", "fp16", ("fp16",)) == ()
    assert plan("gate", "int8", ("int8", "int8-sparse")) == ()  # no reference, no judgement


def test_scores_of_a_camera_are_a_second_apart() -> None:
    watch = Watch()
    assert watch.guard.spaced("gate", 0)
    watch.score(0.9)
    assert not watch.guard.spaced("gate", watch.now_ns + NS_PER_S - 1)
    assert watch.guard.spaced("gate", watch.now_ns + NS_PER_S)
