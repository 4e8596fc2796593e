"""The engine loop's schedule, chooser and governor on a machine that others use too: deterministic, in simulated time.

Inferences take what the profile says, until a co-running load comes: then each takes a quarter more, and now and then
one is put aside for some milliseconds, as a scheduler of processes does. Cameras have phases of their own.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from edged.clock import NS_PER_MS, NS_PER_S
from edged.config import Limits
from edged.frames.frame import DropCause, Frame, PixelFormat
from edged.frames.schedule import Scheduler
from edged.governor.messages import BatchDone, Variant, Workload
from edged.loop.device_info import DeviceInfo
from edged.loop.dispatcher import Chosen, Dispatcher
from edged.loop.governor_client import GovernorClient

DECODED_NS = 2 * NS_PER_MS
"""From capture until the loop has the frame."""
STALL_MS = 4.0
STALLS_PER_MS = 0.2
SLOWER = 1.25


@dataclass
class Outcome:
    """Of the frames under the load."""

    on_time: list[str] = field(default_factory=list)
    """the variant of each that came within the deadline"""
    late: int = 0
    dropped: int = 0

    @property
    def share(self) -> float:
        return len(self.on_time) / (len(self.on_time) + self.late + self.dropped)

    def of(self, variant: str) -> float:
        return self.on_time.count(variant) / len(self.on_time)


class SharedMachine:
    """`latency_ms` of the better and of the faster variant, `better` and `faster`. `alone`: that one runs everything,
    whatever its chances."""

    def __init__(
        self, cameras: int, fps: float, limits: Limits, latency_ms: tuple[float, float], alone: str | None = None
    ) -> None:
        self.now_ns = 0
        self.limits = limits
        self.latency_ms = dict(zip(("better", "faster"), latency_ms, strict=True))
        self.alone = alone
        self.under_load = Outcome()
        self._random = random.Random(1)
        pool: Any = SimpleNamespace(select=lambda variant: None, resident=("better", "faster"))
        publisher: Any = SimpleNamespace(publish=lambda message: message)
        times = [tuple(ms * k for k in range(1, 5)) for ms in latency_ms]
        known = DeviceInfo((Variant("better", 0.80, times[0]), Variant("faster", 0.79, times[1])))
        self._steering = GovernorClient(pool, known, limits, publisher, 0)
        self._schedule = Scheduler()
        self._chooser = Dispatcher(self._schedule, self._steering.governor, 4, self._give_up)
        self._cameras = cameras
        self._period_ns = int(NS_PER_S / fps)
        self._coming = [(self._random.randrange(self._period_ns), name, 0) for name in range(cameras)]
        heapq.heapify(self._coming)
        self._loaded = False
        self._offered = self._told_ns = self._ran_ns = 0
        self._steering.observe(Workload(cameras, 0.0), 0)

    def run(self, seconds: float, loaded: bool) -> None:
        end_ns = self.now_ns + int(seconds * NS_PER_S)
        self._loaded = loaded
        while self.now_ns < end_ns:
            self._take()
            if len(self._schedule):
                self._serve()
            self._tell()
            if not len(self._schedule):
                self.now_ns = max(self.now_ns, min(self._coming[0][0] + DECODED_NS, self._steering.due_ns))

    def _take(self) -> None:
        while self._coming[0][0] + DECODED_NS <= self.now_ns:
            captured_ns, name, number = heapq.heappop(self._coming)
            heapq.heappush(self._coming, (captured_ns + self._period_ns, name, number + 1))
            frame = Frame(str(name), number, 0, 0, 640, 360, PixelFormat.BGR24, captured_ns, captured_ns, "arrival")
            self._offered += 1
            due_ms = self.limits.deadline_ms if self.alone is None else 1000.0
            drop = self._schedule.offer(frame, captured_ns + int(due_ms * NS_PER_MS))
            if drop is not None:
                self._give_up(drop.frame, drop.cause)

    def _serve(self) -> None:
        if self.alone is None:
            probing = self.now_ns - self._ran_ns > NS_PER_S // 4
            chosen = self._chooser.next(self.now_ns, self.now_ns, probing)
        else:
            chosen = Chosen(self._schedule.next_batch(self.now_ns, (), 1, 0.0)[0], self.alone)
        if chosen is None:
            return
        frames, variant, _ = chosen
        begun_ns = self.now_ns
        self.now_ns += sum(self._service_ns(variant) for _ in frames)
        self._ran_ns = self.now_ns
        ages_ns = [self.now_ns - frame.mono_capture_ns for frame in frames]
        late = sum(age_ns > self.limits.deadline_ms * NS_PER_MS for age_ns in ages_ns)
        if self._loaded:
            self.under_load.late += late
            self.under_load.on_time += [variant] * (len(frames) - late)
        service_ms = (self.now_ns - begun_ns) / NS_PER_MS
        done = BatchDone(variant, len(frames), service_ms, max(ages_ns) / NS_PER_MS - service_ms, late)
        self._steering.ran(variant, begun_ns, self.now_ns)
        self._steering.observe(done, self.now_ns)

    def _service_ns(self, variant: str) -> int:
        ms = self.latency_ms[variant] * math.exp(self._random.gauss(0, 0.05))
        if self._loaded:
            ms *= SLOWER
            if self._random.random() < 1 - math.exp(-STALLS_PER_MS * ms):
                ms += self._random.expovariate(1 / STALL_MS)
        return int(ms * NS_PER_MS)

    def _tell(self) -> None:
        self._steering.report_drops(self.now_ns)
        seconds = (self.now_ns - self._told_ns) / NS_PER_S
        if seconds >= 1:
            fps = self._offered / seconds
            self._steering.observe(Workload(self._cameras, fps), self.now_ns)
            self._told_ns, self._offered = self.now_ns, 0
        if self.now_ns >= self._steering.due_ns:
            self._steering.tick(self.now_ns)

    def _give_up(self, frame: Frame, cause: DropCause) -> None:
        self._steering.dropped(cause)
        if self._loaded:
            self.under_load.dropped += 1
