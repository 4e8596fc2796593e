"""The accuracy guard at work: a few frames run again on the reference after their result is out. On the engine loop.

In: every batch that came back, its lane still holding the input. Out: what the governor must know (vetoes, and the time
and energy that the guard took), events for people, and the guard's part of `state`.

A shadow run makes no frame late: it begins only when nothing waits and if, even if every camera gave a frame at that
moment, all of them would still meet their deadline. One that cannot be made is kept for the camera's next quiet
frame. A shadow run that fails affects nothing else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

import msgspec

from edged import clock
from edged.accuracy_guard.guard import Change, Compared, Guard
from edged.accuracy_guard.input_drift import ImageStats, InputDrift, Norm
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_MS, NS_PER_S
from edged.engines.manifest import Manifest
from edged.engines.pool import Pool
from edged.errors import EdgedError
from edged.frames.frame import Frame
from edged.governor.messages import ShadowDone, Unvetoed, Vetoed
from edged.loop.governor_client import GovernorClient
from edged.vision.agreement import make_compare
from edged.vision.decoder import Decode
from edged.vision.letterbox import Geometries
from edged.vision.luma import measure
from edged.vision.results import Predictions

MEASURE_EVERY_NS: Final = NS_PER_S
SLACK_MS: Final = 2.0
"""Kept free beside what is predicted: comparing, publishing, a wake-up that comes late."""
CAUTION: Final = 1.5
"""A run is expected to take this factor longer than the slowest recent one."""
FADE: Final = 0.98
"""How fast the slowest time is forgotten, per batch or run."""
LEAVE_ALONE_AFTER: Final = 3
"""Shadow runs of a variant that fail in a row: it is not tried again."""

log = logging.getLogger(__name__)


class ShadowRunner:
    def __init__(
        self,
        manifest: Manifest,
        pool: Pool,
        letterboxer: Geometries,
        decode: Decode,
        publisher: Publisher,
        governor: GovernorClient,
        seed: int = 0,
    ) -> None:
        """`seed`: the same frames are drawn for the same one."""
        self._pool = pool
        self._letterboxer = letterboxer
        self._decode = decode
        self._publisher = publisher
        self._governor = governor
        self._compare = make_compare(manifest)
        accuracies = {variant.name: variant.accuracy for variant in pool.variants}
        norm = None if manifest.drift is None else Norm(**msgspec.structs.asdict(manifest.drift))
        self._guard = Guard(manifest.reference, accuracies, norm, seed)
        self._due: set[str] = set()
        self._measure_due_ns: dict[str, int] = {}
        self._lead_ms = 0.0
        self._took_ms: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        self._frames = self._runs = 0
        self._spent_ms = 0.0

    def configure(self, cameras: Sequence[str], now_ns: int) -> None:
        """These are the cameras from now on."""
        self._due &= set(cameras)
        self._measure_due_ns = {name: self._measure_due_ns.get(name, now_ns) for name in cameras}
        self._report_changes(self._guard.configure(cameras, now_ns), now_ns)

    def after(
        self,
        lane: int,
        variant: str,
        frames: Sequence[Frame],
        objects: Sequence[Predictions],
        start_ns: int,
        deadline_ms: float,
        quiet: Callable[[], bool],
    ) -> None:
        """All frames of a batch of `variant`, begun at `start_ns`, have published results; its lane is not reused
        yet. `quiet` says whether no frame waits anywhere and nothing is in flight; called only if needed."""
        now_ns = clock.mono_ns()
        self._frames += len(frames)
        oldest_ns = min([frame.mono_capture_ns for frame in frames])
        self._lead_ms = max(self._lead_ms * FADE, (start_ns - oldest_ns) / NS_PER_MS)
        scarce = self._governor.decision.price_per_j > 0
        for index, frame in enumerate(frames):
            if now_ns >= self._measure_due_ns.get(frame.camera, now_ns + 1):
                self._measure(lane, index, frame, now_ns)
            if self._guard.drawn(frame.camera, variant, scarce):
                if frame.camera in self._due:
                    self._passed_over["busy"] += 1
                self._due.add(frame.camera)
        for index, frame in enumerate(frames):
            if frame.camera in self._due and self._guard.spaced(frame.camera, now_ns) and quiet():
                self._shadow(lane, index, frame, variant, objects[index], deadline_ms)

    def report(self, now_ns: int) -> schema.Guard:
        reference, drifts = self._guard.reference, self._guard.drifts()
        usable = self._usable()
        away = any(v.name == reference and v.refused is None and not v.resident for v in self._pool.variants)
        return schema.Guard(
            reference=reference if reference in usable else None,
            paused=f"the reference {reference} is not loaded" if away else None,
            shadow_runs=self._runs,
            shadow_share=self._runs / self._frames if self._frames else None,
            shadow_ms=round(self._spent_ms, 3),
            passed_over=dict(self._passed_over),
            agreement=[
                schema.Agreement(
                    camera=standing.camera,
                    variant=standing.variant,
                    agreement=standing.interval.mean if standing.interval else None,
                    low=standing.interval.low if standing.interval else None,
                    high=standing.interval.high if standing.interval else None,
                    samples=standing.interval.samples if standing.interval else 0,
                    gate=standing.gate,
                    vetoed=standing.vetoed,
                )
                for standing in self._guard.standings(now_ns)
            ],
            drift=[_drift(camera, drifts[camera]) for camera in self._measure_due_ns],
        )

    def _usable(self) -> list[str]:
        """What may run as a shadow, vetoed ones too."""
        return [
            variant.name
            for variant in self._pool.variants
            if variant.refused is None and variant.resident and self._failures[variant.name] < LEAVE_ALONE_AFTER
        ]

    # ---- the run -------------------------------------------------------------------------------------------------

    def _shadow(self, lane: int, index: int, frame: Frame, ran: str, objects: Predictions, deadline_ms: float) -> None:
        """Run frame `index` of the lane on what it is to be compared with, if there is time, and learn from it."""
        names = self._guard.plan(frame.camera, ran, self._usable())
        if not names:
            self._due.discard(frame.camera)
            return
        for variant in self._pool.variants:
            if variant.latency_ms:
                self._took_ms.setdefault(variant.name, variant.latency_ms[0])
        if sum([CAUTION * self._took_ms[name] for name in names]) > self._room_ms(ran, deadline_ms):
            for name in names:  # else one slow run would be the last
                self._took_ms[name] *= FADE
            return  # it stays due
        self._due.discard(frame.camera)
        found = {ran: objects}
        for name in names:
            others = self._run(lane, index, name, frame, found)
            if others is None:
                break
            found[name] = others

    def _run(self, lane: int, index: int, name: str, frame: Frame, found: dict[str, Predictions]) -> Predictions | None:
        """One run of frame `index` of the lane, compared and reported; None if it failed."""
        begin_ns = clock.mono_ns()
        try:
            outputs = self._pool.run_alone(lane, index, name)
            end_ns = clock.mono_ns()
            objects = self._decode(outputs, 0, self._letterboxer.geometry(frame.width, frame.height))
        except EdgedError as error:
            self._failed(name, error)
            return None
        self._failures[name] = 0
        reference = self._guard.reference
        if name == reference:
            compared = [Compared(frame.camera, v, self._compare(other, objects)) for v, other in found.items()]
        else:
            compared = [Compared(frame.camera, name, self._compare(objects, found[reference]))]
        now_ns = clock.mono_ns()
        service_ms = (now_ns - begin_ns) / NS_PER_MS
        self._took_ms[name] = max(service_ms, FADE * self._took_ms[name])
        self._runs += 1
        self._spent_ms += service_ms
        self._governor.ran(name, begin_ns, end_ns)
        self._governor.observe(ShadowDone(name, 1), now_ns)
        for one in compared:
            self._report_changes(self._guard.compared(one, now_ns), now_ns)
        return objects

    def _room_ms(self, variant: str, deadline_ms: float) -> float:
        """How long the engine may be kept from the frames to come, should all cameras give one now."""
        times = max(
            (self._governor.predict_ms(name) for name in {variant, self._governor.decision.variant}), default=()
        )
        if not times:
            return 0.0
        batches, rest = divmod(len(self._measure_due_ns), len(times))
        all_cameras_ms = batches * times[-1] + (times[rest - 1] if rest else 0.0)
        return deadline_ms - SLACK_MS - self._lead_ms - all_cameras_ms

    def _failed(self, name: str, error: EdgedError) -> None:
        self._passed_over["failed"] += 1
        self._failures[name] += 1
        if self._failures[name] == LEAVE_ALONE_AFTER:
            text = f"the accuracy guard leaves {name} alone, {LEAVE_ALONE_AFTER} shadow runs failed: {error.message}"
            self._event("shadow_failed", text, None, name)

    # ---- what is published -----------------------------------------------------------------------------------------

    def _measure(self, lane: int, index: int, frame: Frame, now_ns: int) -> None:
        """Measure the picture of a frame as the engine got it."""
        self._measure_due_ns[frame.camera] = now_ns + MEASURE_EVERY_NS
        luma = measure(self._pool.picture(lane, index), self._letterboxer.geometry(frame.width, frame.height))
        drift = self._guard.measured(frame.camera, ImageStats(**asdict(luma)))
        if drift is None:
            return
        if drift.drifted:
            text = f"the pictures of {frame.camera} are not like those it was calibrated on: {drift.reason}"
            self._event("drift", text, frame.camera, None)
        else:
            text = f"the pictures of {frame.camera} are like those it was calibrated on again"
            self._event("drift_over", text, frame.camera, None)

    def _report_changes(self, changes: Sequence[Change], now_ns: int) -> None:
        for change in changes:
            self._governor.observe(change, now_ns)
            if change.camera is None and len(self._measure_due_ns) == 1:
                continue  # that camera's veto, published already
            where = f"on {change.camera}" if change.camera is not None else "on all cameras"
            match change:
                case Vetoed():
                    text = f"{change.variant} is vetoed {where}: {change.why}"
                    self._event("veto", text, change.camera, change.variant)
                case Unvetoed():
                    text = f"{change.variant} may run {where} again: {change.why}"
                    self._event("veto_lifted", text, change.camera, change.variant)

    def _event(self, kind: str, text: str, camera: str | None, variant: str | None) -> None:
        log.warning("%s", text)
        self._publisher.publish(schema.Event(kind=kind, text=text, camera=camera, variant=variant))


def _drift(camera: str, drift: InputDrift) -> schema.InputDrift:
    none = {"brightness": None, "contrast": None, "low": None, "high": None}
    return schema.InputDrift(camera, drift.drifted, drift.reason, **(asdict(drift.median) if drift.median else none))
