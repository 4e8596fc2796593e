"""Loads variants and lets them go while the loop runs. On the engine loop, with a thread of its own for the work.

In: what the governor needs, `[limits] memory_mb`, the memory that is free. Out: variants that come and go, and what the
governor, subscribers and people are to know of it. `edged/engines/residency.py` decides. Where the runtime is
`concurrent` an engine is loaded, warmed and closed on the thread `variants`; on a GPU only loaded there, and warmed run
by run between two batches, for which a busy loop is held up now and then.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
from collections.abc import Callable, Generator
from typing import Final

from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.engines import residency
from edged.engines.cuda import CudaError
from edged.engines.engine import Engine
from edged.engines.loading import Loaded, PoolVariant
from edged.engines.pool import Pool, free
from edged.engines.residency import LetGo, Load, Member, Need, Room
from edged.errors import EdgedError, UsageError
from edged.governor.messages import Residency, VariantLost
from edged.loop.governor_client import GovernorClient
from edged.loop.messages import log_event
from edged.power.memory import MemoryReader
from edged.process_memory import give_back_freed, held_bytes
from edged.worker import Worker

EVERY_NS: Final = clock.NS_PER_S
SETTLED_NS: Final = 2 * clock.NS_PER_S
"""After a variant went, until what is held is what stays."""
SHARE_DECAY: Final = 0.8
"""Of a variant's share of the results, each time: what ran in the last ten seconds counts as needed."""
STOP_S: Final = 5.0
WARMING_SHARE: Final = 0.1
"""Of the loop's time, at most: a first run on a GPU may take as long as three frames of a camera."""

_NO_MEMORY: Final = re.compile(r"bad_alloc|out ?of ?memory|failed to allocate|ALLOC_FAILED", re.IGNORECASE)

log = logging.getLogger("edged")


class VariantResidency:
    def __init__(
        self,
        pool: Pool,
        governor: GovernorClient,
        publisher: Publisher,
        reader: MemoryReader,
        reference: str,
        wake: Callable[[], None],
    ) -> None:
        """`reference`: the accuracy guard's. `wake` ends the engine loop's wait, from any thread."""
        self._pool, self._governor, self._publisher = pool, governor, publisher
        self._reference, self._wake = reference, wake
        self._reader = reader
        self._state = residency.State()
        self._room = Room()
        self._shares: dict[str, float] = {}
        self._loading: str | None = None
        self._warming: tuple[Loaded, Generator[None, None, tuple[float, ...]]] | None = None
        self._warm_due_ns = 0
        self._leaving: str | None = None
        self._pinning: str | None = None
        self._were_loaded = set(pool.resident)
        self._problem: str | None = None
        self._waiting: str | None = None
        self._work: queue.SimpleQueue[str | Engine] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Loaded | tuple[str, EdgedError]] = queue.SimpleQueue()
        self.worker = Worker("variants", self._turn)
        self.limit_mb: float | None = None
        self.due_ns = self._decide_ns = clock.mono_ns()

    def close(self) -> None:
        """Before the pool is closed."""
        self._wake = lambda: None  # its pipe is closed soon
        if not self.worker.stop(STOP_S):
            log.warning("a variant is still being loaded: what it uses is freed with the process")
            self._pool.leave()
            return
        with contextlib.suppress(queue.Empty):
            if isinstance(done := self._done.get_nowait(), Loaded):
                free(done.engine)
        if self._warming is not None:
            free(self._warming[0].engine)

    @property
    def settled(self) -> bool:
        """Nothing is being loaded, and nothing that is away could be."""
        away = any(variant.refused is None and not variant.resident for variant in self._pool.variants)
        return self._loading is None and not away

    def pin(self, variant: str | None, now_ns: int) -> bool:
        """Pin a variant, or None. False: it is loaded first, and pinned then. UsageError for one that cannot be."""
        self._pinning = None
        known = next((v for v in self._pool.variants if v.name == variant), None)
        if known is None or known.refused is not None or known.resident:
            self._governor.pin(variant, now_ns)
            return True
        bar, _ = self._governor.would_run(known.name)
        if bar is not None:
            raise UsageError(f"{variant} cannot be pinned: {bar}", "first lower [limits] min_accuracy, or unpin")
        self._pinning = variant
        self._decide_ns = self.due_ns = now_ns
        return False

    def budget(self) -> schema.BudgetState:
        """The limit beside what counts against it."""
        held_mb = self._room.held_mb
        note = self._problem or "of the daemon's process and its engines, without the cameras' processes"
        return schema.BudgetState("memory", self.limit_mb, held_mb and round(held_mb, 1), "MB", False, note)

    def report(self) -> schema.Memory:
        room = self._room
        return schema.Memory(
            held_mb=room.held_mb and round(room.held_mb, 1),
            shared_mb=round(self._pool.shared_mb, 1),
            available_mb=room.available_mb and round(room.available_mb, 1),
            stalled_percent=room.stalled_percent,
            loading=self._loading,
            problem=self._problem or self._waiting,
        )

    # ---- on the engine loop ----------------------------------------------------------------------------------------

    def holds_up(self, now_ns: int) -> bool:
        """Whether no batch is to be started now: an engine waits for a moment in which nothing is in flight."""
        return self._warming is not None and now_ns >= self._warm_due_ns

    def look(self, now_ns: int, idle: bool) -> None:
        """Take what the thread has done, and once a second decide. `idle`: nothing is in flight."""
        with contextlib.suppress(queue.Empty):
            self._arrived(self._done.get_nowait(), now_ns)
        if self._warming is not None and idle and now_ns >= self._warm_due_ns:
            self._warm_on(*self._warming, now_ns)
            after_ns = clock.mono_ns()
            self._warm_due_ns = after_ns + int((after_ns - now_ns) / WARMING_SHARE)
        if self._leaving is not None:
            self._let_go(self._leaving, now_ns)
        elif now_ns >= self._decide_ns:
            self._decide_ns = now_ns + EVERY_NS
            self._decide(now_ns)
        self.due_ns = now_ns if self._leaving is not None else self._decide_ns
        if self._warming is not None:  # a loop that is held up must come here as soon as nothing is in flight
            self.due_ns = min(self.due_ns, self._warm_due_ns)
        if not self._done.empty():  # since it was looked at
            self.due_ns = now_ns

    def _decide(self, now_ns: int) -> None:
        self._free_retired()
        members = self._members()
        self._room = room = self._read_room()
        self._state, action = residency.decide(self._state, members, room, self._loading is not None, now_ns)
        self._waiting = self._pin_that_waits(members, room)
        match action:
            case Load(name):
                self._loading = name
                self._work.put(name)
            case LetGo(name, why):
                self._tell_away(name, why, now_ns)
                self._let_go(name, now_ns)
        if now_ns - self._state.changed_ns > SETTLED_NS and self._loading is None:
            self._judge_limit(room)

    def _free_retired(self) -> None:
        """Those that failed too often while they ran. Not on a GPU, which may be in a fault."""
        for variant in self._pool.variants if self._pool.concurrent else ():
            if variant.resident and variant.refused is not None:
                engine = self._pool.let_go(variant.name)
                if engine is not None:
                    self._work.put(engine)

    def _pin_that_waits(self, members: list[Member], room: Room) -> str | None:
        """Why a variant that is to be pinned is not loaded; None while nothing waits, or it is on its way."""
        for member in members:
            if member.pinned and not member.resident and self._loading != member.name:
                lacks_mb = room.lacks_mb(member.peak_mb)
                if lacks_mb > 0:
                    return f"{member.name} waits to be pinned: {lacks_mb:.0f} MB are missing to load it"
        return None

    def _members(self) -> list[Member]:
        """What can be loaded, the most needed first."""
        decision = self._governor.decision
        shares = dict(decision.shares)
        known = {variant.name: variant for variant in self._pool.variants if variant.refused is None}
        for name in known:
            self._shares[name] = max(shares.get(name, 0.0), SHARE_DECAY * self._shares.get(name, 0.0))
        needs, allowed = [], set()
        for name, variant in known.items():
            bar, fits = self._governor.would_run(name)
            latency_ms = variant.latency_ms[0] if variant.latency_ms else None
            if bar is None:
                allowed.add(name)
            needs.append(Need(name, bar is None, fits, self._shares[name], variant.accuracy, latency_ms))
        pinned = self._pinning or (decision.variant if decision.pinned else None)
        return [
            Member(v.name, v.resident, v.file_mb or 0.0, v.memory_mb, v.load_s, v.name == pinned, v.name in allowed)
            for v in (known[name] for name in residency.ranked(needs, pinned, self._reference))
        ]

    def _read_room(self) -> Room:
        reading, held = self._reader.read(), held_bytes()
        held_mb = None if held is None else held / 1e6
        if held_mb is not None and not self._pool.concurrent:  # what lies on a GPU is not in the process's own count
            held_mb += self._pool.shared_mb + sum(v.memory_mb or 0.0 for v in self._pool.variants if v.resident)
        return Room(self.limit_mb, held_mb, reading.available_mb, reading.total_mb, reading.stalled_percent)

    def _arrived(self, done: Loaded | tuple[str, EdgedError], now_ns: int) -> None:
        if not isinstance(done, Loaded):
            self._loading, self._decide_ns = None, now_ns
            self._failed(*done, now_ns)
        elif done.latency_ms:
            self._adopt(done, done.latency_ms, now_ns)
        else:
            self._warming = done, self._pool.warm(done)

    def _warm_on(self, loaded: Loaded, steps: Generator[None, None, tuple[float, ...]], now_ns: int) -> None:
        """One more run of an engine that is not warm yet."""
        try:
            next(steps)
        except StopIteration as end:
            self._warming = None
            self._adopt(loaded, end.value, now_ns)
        except EdgedError as error:
            self._warming = self._loading = None
            free(loaded.engine)
            self._failed(loaded.name, error, now_ns)

    def _adopt(self, loaded: Loaded, latency_ms: tuple[float, ...], now_ns: int) -> None:
        self._loading, self._decide_ns = None, now_ns
        variant = self._pool.adopt(loaded, latency_ms)
        self._governor.observe(Residency(variant.name, None, latency_ms), now_ns)
        text = f"{variant.name} is loaded{_taken(variant)} in {variant.load_s:.2g} s"
        if variant.name in self._were_loaded:
            self._event("memory", text, variant.name)
        else:
            log.info("%s", text)
        self._were_loaded.add(variant.name)
        if self._pinning == variant.name:
            self._pinning = None
            try:
                self._governor.pin(variant.name, now_ns)
            except UsageError as error:  # vetoed meanwhile
                self._event("memory", error.message, variant.name)

    def _failed(self, name: str, error: EdgedError, now_ns: int) -> None:
        """A variant could not be loaded: for want of memory, then later, or never."""
        if _wants_memory(error):
            self._state = residency.short(self._state, now_ns)
            self._event("memory", f"{name} is not loaded: {error.message}", name)
            return
        if self._pinning == name:
            self._pinning = None
        self._pool.refuse(name, error.message)
        self._event("engine_refused", f"variant {name} is refused: {error.message}", name)
        self._governor.observe(VariantLost(name, error.message), now_ns)

    def _tell_away(self, name: str, why: str, now_ns: int) -> None:
        variant = next(v for v in self._pool.variants if v.name == name)
        self._event("memory", f"{name} is let go{_taken(variant)}: {why}", name)
        self._governor.observe(Residency(name, away(variant)), now_ns)

    def _let_go(self, name: str, now_ns: int) -> None:
        if self._pool.resident == [name]:  # the others failed while its last batch was in flight
            self._leaving = None
            self._governor.observe(Residency(name, None), now_ns)
            return
        engine = self._pool.let_go(name)
        self._leaving = name if engine is None else None
        if engine is None:
            return
        if self._pool.concurrent:
            self._work.put(engine)
        else:
            free(engine)

    def _judge_limit(self, room: Room) -> None:
        """Report a limit that the last variant alone exceeds, once."""
        over = room.limit_mb is not None and room.held_mb is not None and room.held_mb > room.limit_mb
        if not over or len(self._pool.resident) > 1 or self._leaving is not None:
            self._problem = None if not over else self._problem
        elif self._problem is None:
            self._problem = f"memory_mb = {room.limit_mb:g} cannot be held: {room.held_mb:.0f} MB with one variant"
            self._event("unenforceable", self._problem, self._pool.active)

    def _event(self, kind: str, text: str, variant: str) -> None:
        log_event(self._publisher.publish(schema.Event(kind=kind, text=text, variant=variant)))

    # ---- on the thread ---------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        try:
            work = self._work.get(timeout=1.0)
        except queue.Empty:
            return
        if isinstance(work, str):
            try:
                self._done.put(self._pool.load(work))
            except EdgedError as error:
                self._done.put((work, error))
            except Exception as error:  # a runtime's binding raises a dozen unrelated types
                no_memory = isinstance(error, MemoryError)
                text = "there is no memory to load it" if no_memory else f"{type(error).__name__}: {error}"
                failed = EdgedError(text)
                failed.__cause__ = error
                self._done.put((work, failed))
            give_back_freed()
            self.due_ns = 0
            self._wake()
        else:
            free(work)
            del work
            give_back_freed()


def _wants_memory(error: BaseException | None) -> bool:
    """Whether a load failed for want of memory: only the words say so where a runtime wraps it."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, CudaError) and error.out_of_memory):
            return True
        if _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def away(variant: PoolVariant) -> str:
    """Why a variant that is not loaded may not run."""
    load_s = "" if variant.load_s is None else f", which takes {variant.load_s:.2g} s"
    return f"it is not loaded{load_s}"


def _taken(variant: PoolVariant) -> str:
    return "" if variant.memory_mb is None else f" ({variant.memory_mb:.1f} MB)"
