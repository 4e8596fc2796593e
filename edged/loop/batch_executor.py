"""Chosen frames through the engine: prepared, submitted, collected, decoded, published. On the engine loop's thread.

In: frames and their variant. Out: one result each on the bus, or a drop with its cause; and for the
governor what the batch took: its service (preparation, its own time on the engine, decoding) apart from its waiting.
With an engine of several lanes the next batch is prepared while the one before still runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from edged import clock
from edged.clock import NS_PER_MS
from edged.engines.cuda import CudaError
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError
from edged.frames.cameras import Cameras
from edged.frames.frame import DropCause, Frame
from edged.governor.messages import BatchDone
from edged.loop.dispatcher import Chosen
from edged.loop.governor_client import GovernorClient
from edged.loop.result_publisher import BatchMeta, Decoded, ResultPublisher
from edged.loop.status_reporter import StatusReporter
from edged.vision.letterbox import GpuLetterboxer, Letterboxer
from edged.vision.results import Detections, Predictions
from edged.vision.tiles import Tile, TileCutter, merged, tiles_of


class Batch(NamedTuple):
    """What is in flight on one lane. Times are of the monotonic clock. `grid`: columns and rows of the tiles of its
    only frame; None where frames are looked at as a whole."""

    lane: int
    variant: str
    frames: list[Frame]
    start_ns: int
    submitted_ns: int
    grid: tuple[int, int] | None = None

    @property
    def tiles(self) -> Sequence[Tile]:
        return _tiles(self.frames[0], self.grid)

    @property
    def size(self) -> int:
        """Inputs of the engine."""
        return len(self.frames) if self.grid is None else self.grid[0] * self.grid[1]

    @property
    def views(self) -> Sequence[Frame]:
        """What each input shows: a tile is a frame of its own size."""
        if self.grid is None:
            return self.frames
        width, height = self.tiles[0].size
        return [replace(self.frames[0], width=width, height=height)] * self.size


class CompletedBatch(NamedTuple):
    """A batch whose results are all published; its lane still holds the input. `views` and `seen`: what each input
    showed, a frame or a tile of one, and what the engine saw there; `frames` and `objects`: as published."""

    lane: int
    variant: str
    views: Sequence[Frame]
    seen: Sequence[Predictions]
    start_ns: int
    frames: Sequence[Frame]
    objects: Sequence[Predictions]


class BatchExecutor:
    """`deadline_ms` is the one in force."""

    def __init__(
        self,
        cameras: Cameras,
        pool: Pool,
        letterboxer: Letterboxer | GpuLetterboxer,
        result_publisher: ResultPublisher,
        governor: GovernorClient,
        reporter: StatusReporter,
    ) -> None:
        self._cameras = cameras
        self._pool = pool
        self._letterboxer = letterboxer
        self._result_publisher = result_publisher
        self._governor = governor
        self._reporter = reporter
        self._free_lanes = deque(range(pool.lanes))
        self._in_flight: deque[Batch] = deque()
        self._took_ms: dict[tuple[str, int], float] = {}
        self._cutter = TileCutter()
        self._collected_ns = 0
        self.deadline_ms = 0.0
        self.submitted_ns = 0

    @property
    def can_start(self) -> bool:
        return bool(self._free_lanes)

    @property
    def busy(self) -> bool:
        return bool(self._in_flight)

    def free_ns(self, now_ns: int) -> int:
        """When the engine can begin: after what is in flight, if each batch takes as long as the last of its kind."""
        if not self._in_flight:
            return now_ns
        busy_ms = sum([self._took_ms.get((batch.variant, batch.size), 0.0) for batch in self._in_flight])
        begun_ns = max(self._in_flight[0].submitted_ns, self._collected_ns)
        return max(now_ns, begun_ns + int(busy_ms * NS_PER_MS))

    def start(self, chosen: Chosen, start_ns: int) -> None:
        """Prepare and submit a batch on a free lane."""
        lane, (frames, variant, grid) = self._free_lanes[0], chosen
        tiles = _tiles(frames[0], grid)
        intact: list[Frame] = []
        try:
            self._prepare(frames, tiles, lane, variant, intact)
            if not intact:
                return
            submitted_ns = clock.mono_ns()
            self._pool.submit(lane, len(tiles) or len(intact), variant)
        except VariantError as error:
            self._lost(intact, error)
            return
        self.submitted_ns = submitted_ns
        self._free_lanes.popleft()
        self._in_flight.append(Batch(lane, variant, intact, start_ns, submitted_ns, grid))

    def finish(self) -> CompletedBatch | None:
        """Collect the oldest batch in flight and publish its frames. What is returned is good until the next start."""
        batch = self._in_flight.popleft()
        try:
            return self._finish(batch)
        finally:
            self._free_lanes.append(batch.lane)

    def dropped(self, frame: Frame, cause: DropCause) -> None:
        """A frame given to the executor has no result."""
        self._cameras.count_drop(frame.camera, cause)
        self._cameras.taken(frame)
        self._governor.dropped(cause)

    def _prepare(
        self, frames: Sequence[Frame], tiles: Sequence[Tile], lane: int, variant: str, intact: list[Frame]
    ) -> None:
        """Scale each frame, or the tiles of the only one, into the lane, and append those that were not overwritten
        meanwhile to `intact`. A torn frame was overwritten by a newer one of its camera, which the next turn takes.
        VariantError if the GPU refuses a picture: then all frames are in `intact`, or counted."""
        for index, frame in enumerate(frames):
            try:
                self._fill(frame, tiles, lane, len(intact))
            except CudaError as error:
                for lost in frames[index:]:
                    intact.append(lost)
                    self._cameras.taken(lost)
                raise VariantError(variant, error.message) from error
            except EdgedError:  # its ring is gone: the camera was reopened meanwhile
                self.dropped(frame, "torn")
                continue
            if (self._letterboxer.reads_late and not tiles) or self._cameras.intact(frame):
                intact.append(frame)
                self._cameras.taken(frame)
            else:
                self.dropped(frame, "torn")

    def _fill(self, frame: Frame, tiles: Sequence[Tile], lane: int, index: int) -> None:
        pixels, letterboxer = self._cameras.pixels(frame), self._letterboxer
        if not tiles:
            letterboxer.fill(letterboxer.geometry(frame.width, frame.height), pixels, frame.format, lane, index)
        for place, tile in enumerate(tiles, index):
            part = self._cutter.cut(pixels, frame.format, tile, lane, place)
            letterboxer.fill(letterboxer.geometry(*tile.size), part, frame.format, lane, place)

    def _finish(self, batch: Batch) -> CompletedBatch | None:
        size = batch.size
        try:
            outputs = self._pool.collect(batch.lane)
        except VariantError as error:
            self._lost(batch.frames, error)
            return None
        collected_ns = self._collected_ns = clock.mono_ns()
        self._took_ms[batch.variant, size] = self._pool.took_ms(batch.lane)
        self._governor.ran(batch.variant, batch.submitted_ns, collected_ns)
        places = self._still_intact(batch)
        views = batch.views
        views = [views[place] for place in places]
        frames = views if batch.grid is None else batch.frames
        decoded: list[Decoded] = []
        try:
            for place, view in zip(places, views, strict=True):
                geometry = self._letterboxer.geometry(view.width, view.height)
                decoded.append(self._result_publisher.decode(outputs, place, geometry))
        except EdgedError as error:  # an output that is no number; the frames before it are good
            lost = frames[len(decoded) :] if batch.grid is None else frames
            self._lost(lost, VariantError(batch.variant, error.message))
        seen = [one.objects for one in decoded]
        if batch.grid is not None:
            decoded = [_merged(batch.tiles, batch.grid, decoded)] if len(decoded) == size else []
        energy_mj = self._governor.energy_mj(batch.variant, size)
        if energy_mj is not None:
            energy_mj *= size / len(batch.frames)
        meta = BatchMeta(
            batch.variant, size, energy_mj, self.deadline_ms, batch.start_ns, batch.submitted_ns, collected_ns
        )
        late = self._publish(frames, decoded, meta)
        if len(seen) < size:
            return None
        self._report(batch, decoded, late)
        objects = [one.objects for one in decoded]
        return CompletedBatch(batch.lane, batch.variant, views, seen, batch.start_ns, frames, objects)

    def _still_intact(self, batch: Batch) -> Sequence[int]:
        """The places of the frames that were not overwritten while the engine read them. All are checked at once, since
        a camera may overwrite the last one while the first is decoded."""
        if batch.grid is not None or not self._letterboxer.reads_late:
            return range(batch.size)
        places = [place for place, frame in enumerate(batch.frames) if self._cameras.intact(frame)]
        for place in set(range(len(batch.frames))) - set(places):
            self._cameras.count_drop(batch.frames[place].camera, "torn")
            self._governor.dropped("torn")
        return places

    def _publish(self, frames: Sequence[Frame], decoded: Sequence[Decoded], meta: BatchMeta) -> int:
        """Send the results; returns how many were late."""
        late = 0
        for frame, one in zip(frames, decoded, strict=False):
            on_time = self._result_publisher.publish(frame, one, meta)
            late += not on_time
            self._cameras.count_result(frame.camera)
            self._reporter.published(meta.variant, on_time)
        return late

    def _report(self, batch: Batch, decoded: Sequence[Decoded], late: int) -> None:
        """Report a batch without losses to the governor."""
        done_ns, size = clock.mono_ns(), batch.size
        prepared_ms = (batch.submitted_ns - batch.start_ns) / NS_PER_MS
        decoded_ms = sum([one.post_ms for one in decoded])
        service_ms = prepared_ms + self._took_ms[batch.variant, size] + decoded_ms
        oldest_ns = min([frame.mono_capture_ns for frame in batch.frames])
        wait_ms = max(0.0, (done_ns - oldest_ns) / NS_PER_MS - service_ms)
        self._governor.succeeded(batch.variant)
        clock_index = self._governor.gpu_clock.clock
        self._governor.observe(
            BatchDone(batch.variant, size, service_ms, wait_ms, late * size // len(batch.frames), clock_index), done_ns
        )
        self._reporter.batch_done(batch.variant, size, service_ms)

    def _lost(self, frames: Sequence[Frame], error: VariantError) -> None:
        """The engine gave no result for these frames."""
        for frame in frames:
            self._cameras.count_drop(frame.camera, "engine")
        self._governor.failed(error, clock.mono_ns())


def _tiles(frame: Frame, grid: tuple[int, int] | None) -> Sequence[Tile]:
    return () if grid is None else tiles_of(frame.width, frame.height, *grid)


def _merged(tiles: Sequence[Tile], grid: tuple[int, int], decoded: Sequence[Decoded]) -> Decoded:
    """The result of a frame from those of its tiles."""
    begun_ns = clock.mono_ns()
    objects = merged(tiles, [one.objects for one in decoded if isinstance(one.objects, Detections)])
    took_ms = sum([one.post_ms for one in decoded]) + (clock.mono_ns() - begun_ns) / NS_PER_MS
    return Decoded(objects, took_ms, "{}x{}".format(*grid))
