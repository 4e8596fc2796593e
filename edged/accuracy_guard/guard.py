"""The accuracy guard: which variant may not run on which camera, because it does not see there what the reference sees.

In: comparisons of a variant with the reference on sampled frames, and statistics of the cameras' pictures. Out: vetoes
and their ends, what to sample next, and what is known, for people. Pure, and the same for the same seed; the engine
loop owns the one Guard (`edged/loop/shadow_runner.py` makes the runs).

The gate. Two models that are right on shares a and b of the data are both right, and so agree, on at least a + b - 1 of
it, whichever mistakes they make. A variant that agrees less with the reference than that cannot have the accuracy that
the bundle states for it, here; one that has it never falls below. Where a + b - 1 says little, because neither model
is right often, at least half of what the variant should reach relative to the reference is required; and never more
than MAX_GATE, which a few hundred samples can still tell from full agreement.

Vetoes are per camera: one with a night scene must not make all others expensive. A variant that fails on most
cameras is forbidden on all. A vetoed variant is still sampled, beside the reference that runs in its place, and
comes back once its agreement since then is proven to be above the gate by a margin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from edged.accuracy_guard.input_drift import ImageStats, InputDrift, Norm, updated
from edged.accuracy_guard.sampling import StratifiedSampler
from edged.accuracy_guard.sequential_test import MIN_SPACING_NS, Interval, SequentialTest
from edged.governor.messages import Unvetoed, Vetoed

SHARE: Final = 0.01
"""Of a camera's frames that run a second time."""
CLOSE_SHARE: Final = 0.05
"""The same while little is known, the input has drifted, or a veto waits for evidence."""
SCARCE_FACTOR: Final = 0.5
"""Of either, while watts or joules are scarce."""
KNOWN: Final = 64
"""Scores from which on enough is known to sample at the ordinary rate."""
JUDGED: Final = 16
"""Scores from which on a camera counts for whether a variant fails on most."""
MAX_GATE: Final = 0.9
UNKNOWN_GATE: Final = 0.5
MARGIN: Final = 0.125
"""Of the way from the gate to full agreement, that a vetoed variant must prove to be above it."""
RETURN_ERROR: Final = 1e-4
"""A wrong return costs some seconds until the next veto, not trust in the guard."""

Change = Vetoed | Unvetoed


def gate_of(accuracy: float | None, reference: float | None) -> float:
    """The least agreement with the reference that the stated accuracies allow."""
    if accuracy is None or reference is None or reference <= 0:
        return UNKNOWN_GATE
    half = 0.5 * min(1.0, accuracy / reference)
    return min(MAX_GATE, max(accuracy + reference - 1, half))


@dataclass(frozen=True)
class Compared:
    """Agreement of `variant` with the reference on one frame, 0..1; None if neither detected anything."""

    camera: str
    variant: str
    agreement: float | None


@dataclass(frozen=True)
class Standing:
    """What is known of a variant on a camera; after a veto, since the veto."""

    camera: str
    variant: str
    interval: Interval | None
    gate: float
    vetoed: bool


@dataclass
class _Camera:
    sampler: StratifiedSampler
    tests: Mapping[str, SequentialTest]
    """of every variant but the reference"""
    drift: InputDrift = field(default_factory=InputDrift)
    vetoed: set[str] = field(default_factory=set)


class Guard:
    """Not thread-safe: the engine loop owns it."""

    def __init__(self, reference: str, accuracies: Mapping[str, float | None], norm: Norm | None, seed: int) -> None:
        """`accuracies` of all variants that run here, the reference's too."""
        self.reference = reference
        self._norm = norm
        self._seed = seed
        self._gates = {
            name: gate_of(accuracy, accuracies.get(reference))
            for name, accuracy in accuracies.items()
            if name != reference
        }
        self._cameras: dict[str, _Camera] = {}
        self._everywhere: set[str] = set()

    def configure(self, cameras: Sequence[str], now_ns: int) -> tuple[Change, ...]:
        """These are the cameras from now on; what was known of others is forgotten, their vetoes lifted."""
        changes: list[Change] = []
        for name in self._cameras.keys() - set(cameras):
            removed = self._cameras.pop(name)
            changes += [Unvetoed(variant, "the camera was removed", name) for variant in sorted(removed.vetoed)]
        for name in cameras:
            if name not in self._cameras:
                tests = {variant: SequentialTest() for variant in self._gates}
                self._cameras[name] = _Camera(StratifiedSampler(self._seed, name), tests)
        for variant in self._gates:
            changes += self._on_most(variant)
        return tuple(changes)

    def drawn(self, camera: str, variant: str, scarce: bool) -> bool:
        """Whether this frame, which ran on `variant`, is to run a second time. Told of every frame, in order."""
        known = self._cameras.get(camera)
        return known is not None and known.sampler.drawn(self._share(known, variant, scarce))

    def spaced(self, camera: str, now_ns: int) -> bool:
        """Whether another score of this camera may come now: more often, the stated error of the looks no longer
        holds."""
        times_ns = [test.last_ns for test in self._cameras[camera].tests.values()]
        return all(last_ns is None or now_ns - last_ns >= MIN_SPACING_NS for last_ns in times_ns)

    def plan(self, camera: str, ran: str, usable: Collection[str]) -> tuple[str, ...]:
        """What to run this frame on again, after `ran`: the reference, if it was not that, and a variant that waits for
        evidence. Empty if there is nothing to compare."""
        if self.reference not in usable:
            return ()
        known = self._cameras[camera]
        others = [name for name in usable if name in self._gates and name != ran]
        barred = [name for name in others if name in known.vetoed | self._everywhere]
        if ran != self.reference:
            return (self.reference, *self._least_known(known, barred))
        return self._least_known(known, barred or others)

    def compared(self, comparison: Compared, now_ns: int) -> tuple[Change, ...]:
        """One more score; a frame in which neither saw anything is none."""
        known, gate = self._cameras.get(comparison.camera), self._gates.get(comparison.variant)
        if known is None or gate is None or comparison.agreement is None or not 0 <= comparison.agreement <= 1:
            return ()
        test = known.tests[comparison.variant]
        test.add(comparison.agreement, now_ns)
        if comparison.variant in known.vetoed:
            return self._lifted(known, comparison, test, gate)
        if (proof := test.below(gate)) is None:
            return ()
        known.vetoed.add(comparison.variant)
        test.clear()
        why = f"it agrees with {self.reference} by {_text(proof)}; the gate is {gate:.2f}"
        return (Vetoed(comparison.variant, why, comparison.camera), *self._on_most(comparison.variant, why))

    def measured(self, camera: str, stats: ImageStats) -> InputDrift | None:
        """The statistics of one more picture of a camera; its drift if that has just begun or ended, else None."""
        known = self._cameras.get(camera)
        if known is None:
            return None
        before = known.drift.drifted
        known.drift = updated(known.drift, stats, self._norm)
        return known.drift if known.drift.drifted != before else None

    def standings(self, now_ns: int) -> list[Standing]:
        """Of every variant on every camera."""
        for known in self._cameras.values():
            for test in known.tests.values():
                test.forget(now_ns)
        return [
            Standing(
                name,
                variant,
                known.tests[variant].interval(),
                gate,
                variant in known.vetoed or variant in self._everywhere,
            )
            for name, known in self._cameras.items()
            for variant, gate in self._gates.items()
        ]

    def drifts(self) -> dict[str, InputDrift]:
        return {name: known.drift for name, known in self._cameras.items()}

    def _share(self, known: _Camera, variant: str, scarce: bool) -> float:
        thin = variant in self._gates and len(known.tests[variant]) < KNOWN
        close = thin or known.drift.drifted or known.vetoed or self._everywhere
        return (CLOSE_SHARE if close else SHARE) * (SCARCE_FACTOR if scarce else 1.0)

    def _least_known(self, known: _Camera, variants: Sequence[str]) -> tuple[str, ...]:
        ranked = sorted(variants, key=lambda name: (len(known.tests[name]), name))
        return tuple(ranked[:1])

    def _lifted(self, known: _Camera, comparison: Compared, test: SequentialTest, gate: float) -> tuple[Change, ...]:
        level = gate + MARGIN * (1 - gate)
        if (proof := test.above(level, RETURN_ERROR)) is None:
            return ()
        known.vetoed.discard(comparison.variant)
        why = f"it agrees with {self.reference} by {_text(proof)}; it had to prove {level:.2f}"
        return (Unvetoed(comparison.variant, why, comparison.camera), *self._on_most(comparison.variant, why))

    def _on_most(self, variant: str, why: str = "") -> tuple[Change, ...]:
        """A variant vetoed on every camera, or on two or more and on more than half of those that can tell, fails in
        itself."""
        failing = sum(variant in known.vetoed for known in self._cameras.values())
        judged = sum(variant in known.vetoed or len(known.tests[variant]) >= JUDGED for known in self._cameras.values())
        fails = 0 < failing == len(self._cameras) or (failing >= 2 and 2 * failing > judged)
        if fails == (variant in self._everywhere):
            return ()
        count = f"{failing} of the {judged} cameras that can tell have it vetoed"
        if fails:
            self._everywhere.add(variant)
            return (Vetoed(variant, why if len(self._cameras) == 1 and why else count),)
        self._everywhere.discard(variant)
        return (Unvetoed(variant, why if len(self._cameras) == 1 and why else f"only {count}"),)


def _text(proof: Interval) -> str:
    return f"{proof.mean:.2f} ({proof.low:.2f} to {proof.high:.2f}, {proof.samples} shadow runs)"
