"""The daemon's life: start, stop, signals, reload.

Start: the bus (so that a second daemon is refused before it costs anything), the engines, the sensors, the cameras,
READY. Stop: what is in flight is finished and published, then everything in the reverse order. Threads: the engine loop
on the main thread, `control`, `housekeeping` and `power.telemetry`; one child process per camera.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import hashlib
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import cv2
import msgspec
import zmq

from edged import clock, paths, profiles
from edged.bus import schema
from edged.bus.admission import Admission
from edged.bus.connections import raise_open_files_limit
from edged.bus.control import ControlServer
from edged.bus.curve import Socket, server_keys
from edged.bus.publisher import Publisher
from edged.config import Config
from edged.crash_guard import state_directory
from edged.engines.bundle import load_bundle
from edged.engines.manifest import Manifest
from edged.errors import EdgedError
from edged.frames.cameras import check_sources
from edged.health import Health, Notifier
from edged.loop.build import Loop, Surroundings, build_loop
from edged.loop.profile_schedule import ProfileSchedule
from edged.loop.reconfiguration import Reconfiguration, Reloaded
from edged.loop.request_handler import RequestHandler
from edged.loop.status_reporter import Outside
from edged.power.energy_meter import HorizonUse
from edged.power.energy_store import EnergyStore
from edged.power.host_paths import HERE, HostPaths
from edged.power.modes import ModeControl
from edged.power.power_mode_manager import PowerModeManager
from edged.process_memory import give_back_freed, use_huge_pages
from edged.replay.recorder import Recorder, directory_of
from edged.worker import Worker

LOADING_AT_MOST_S: Final = 120.0
GREET_EVERY_S: Final = 0.1
BUSY_EVERY_S: Final = 0.25
"""The same while more is published than that: each message that goes out greets newcomers too."""
HEALTH_EVERY_NS: Final = clock.NS_PER_S // 2
COLLECT_AFTER: Final = (20_000, 20, 20)
"""Objects of a frame are freed as it ends, without the collector; some hundred of them live at a time. Python's own
threshold of 700 would start it at every other frame."""
COLLECT_FIRST_NS: Final = 2 * clock.NS_PER_S
COLLECT_EVERY_NS: Final = 60 * clock.NS_PER_S
"""Only a full collection frees what CPython keeps for reuse, and by itself none may come for days: a tuple made from a
generator, as by `dataclasses.asdict`, is kept when it ends, up to 2,000 of a length; that was 15 KB a minute. What was
there at the start is frozen, so that a full collection takes 0.2 ms. To return freed heap takes 0.2 ms as well: its
pages, touched one by one over hours, are growth too."""

log = logging.getLogger("edged")


class Daemon:
    def __init__(self, path: Path, config: Config, machine: HostPaths = HERE) -> None:
        """`path` is read again on a reload. UsageError for a power profile that is not there or wrong."""
        self._path = path
        self._machine = machine
        self._config = config
        self._schedule = ProfileSchedule(config.schedule, clock.local_time())
        entry = self._schedule.current
        self._profile = profiles.starting(config, path, None if entry is None else entry.profile)
        self._notifier = Notifier()
        self._loop: Loop | None = None
        self._reload_wanted = self._stop_wanted = False

    def run(self) -> None:
        """From start to the end of the drain after SIGTERM or SIGINT, within `signals`. EdgedError if it cannot start
        or go on."""
        faulthandler.enable()
        raise_open_files_limit()
        cv2.setNumThreads(1)  # a frame is scaled in 0.1 ms: waking other threads for it costs more
        with contextlib.ExitStack() as stack:
            stack.callback(self._notifier.close)
            loop = self._loop = self._start(stack)
            if self._stop_wanted:  # meanwhile
                loop.engine_loop.stop()
            stack.callback(self._notifier.stopping)
            gc.collect()
            gc.freeze()  # what was loaded stays: a collection that walks it all would cost a frame its deadline
            gc.set_threshold(*COLLECT_AFTER)
            give_back_freed()
            with _waking(loop):
                summary = _summary(self._config, loop)
                log.info("ready: %s", summary)
                self._notifier.ready(summary)
                try:
                    loop.engine_loop.run()
                finally:
                    loop.calls.stop()
            log.info("stopping: finished what was in flight")

    def _start(self, stack: contextlib.ExitStack) -> Loop:
        config = self._config
        check_sources(config.camera)
        context = zmq.Context()
        stack.callback(context.term)
        admission = Admission(context, server_keys(config.bus))
        stack.callback(admission.close)
        results = config.bus.results or paths.results_endpoint()
        publisher = Publisher(context, results, admission)
        stack.callback(publisher.close)

        bundle = load_bundle(Path(config.bundle))
        self._notifier.extend_timeout(LOADING_AT_MOST_S)
        modes = PowerModeManager(
            ModeControl(Path(config.power.jtop_socket), self._machine.tools),
            lambda text: _publish_event(publisher, "power_mode", text),
        )
        energy_store = EnergyStore(state_directory())
        around = self._surroundings(stack, publisher, bundle.manifest, modes, energy_store.load())
        loop = build_loop(stack, config, bundle, around)
        energy_store.start(lambda: loop.limit_monitor.horizon)
        stack.callback(energy_store.close)
        loop.heartbeats.watch(admission.worker, energy_store.worker)
        loop.sampler.start()
        loop.engine_loop.configure(config.camera)
        modes.profiled = None if loop.device_info.profile is None else loop.device_info.profile.power_mode
        self._serve(stack, context, admission, loop, modes)
        return loop

    def _surroundings(
        self,
        stack: contextlib.ExitStack,
        publisher: Publisher,
        manifest: Manifest,
        modes: PowerModeManager,
        energy_used: HorizonUse | None,
    ) -> Surroundings:
        recorder, recording = _start_recorder(stack, self._config, manifest, publisher)

        def mode() -> schema.ProfileMode | None:
            wanted = modes.wanted
            return None if wanted is None else schema.ProfileMode(wanted.mode, wanted.problem)

        return Surroundings(
            publisher,
            _instance(publisher.endpoint),
            self._profile,
            energy_used,
            self._machine,
            on_call=None if recorder is None else recorder.on_call,
            on_sample=None if recorder is None else recorder.sample,
            workers=() if recorder is None else (recorder.worker,),
            outside=Outside(mode, recording, self._schedule.report),
        )

    def _serve(
        self,
        stack: contextlib.ExitStack,
        context: zmq.Context[Socket],
        admission: Admission,
        loop: Loop,
        modes: PowerModeManager,
    ) -> None:
        """Start the threads beside the engine loop: `control` and `housekeeping`."""
        reconfiguration = Reconfiguration(self._path, self._config, loop, modes, self._schedule)

        def reload() -> Reloaded:
            return self._reload(reconfiguration, loop, admission)

        endpoint = self._config.bus.control or paths.control_endpoint()
        handler = RequestHandler(loop, modes, reconfiguration, reload)
        server = ControlServer(context, endpoint, handler, admission)
        stack.callback(server.close)
        stack.callback(modes.close)  # first: a request that waits for a power mode gives up
        if self._profile is not None and self._profile.mode is not None:
            modes.soon(self._profile.name, self._profile.mode)

        def turn() -> None:
            try:
                reconfiguration.follow_schedule(clock.local_time())
                if self._reload_wanted and not reconfiguration.busy:
                    self._reload_wanted = False
                    reload()
            except EdgedError as error:
                log.error("%s", error)

        housekeeping = Worker("housekeeping", self._housekeeping(loop, turn))
        housekeeping.start()
        stack.callback(housekeeping.stop, 2.0)
        loop.heartbeats.watch(*server.workers)

    def _housekeeping(self, loop: Loop, reconfigure: Callable[[], None]) -> Callable[[], None]:
        """Greets subscribers, feeds the watchdog, follows the schedule, reloads on SIGHUP: what must go on while the
        engine loop is busy."""
        health = Health(loop.heartbeats, self._notifier)
        health_due_ns, collect_due_ns, sent = 0, clock.mono_ns() + COLLECT_FIRST_NS, 0

        def turn() -> None:
            nonlocal health_due_ns, collect_due_ns, sent
            before, sent = sent, loop.publisher.sent
            if not loop.publisher.serve():
                # not woken by the publisher's descriptor: that signals after every result as well
                clock.sleep_s(BUSY_EVERY_S if sent - before > BUSY_EVERY_S / GREET_EVERY_S else GREET_EVERY_S)
            now_ns = clock.mono_ns()
            if now_ns >= health_due_ns:
                health_due_ns = now_ns + HEALTH_EVERY_NS
                health.tick(now_ns)
            if now_ns >= collect_due_ns:
                collect_due_ns = now_ns + COLLECT_EVERY_NS
                gc.collect()
                give_back_freed()
                use_huge_pages()
            loop.reporter.housekeep(now_ns)
            reconfigure()

        return turn

    def _reload(self, reconfiguration: Reconfiguration, loop: Loop, admission: Admission) -> Reloaded:
        """A reload, with notifications to the service manager; a refusal is published too."""
        self._notifier.reloading()
        try:
            # first: a key that was removed is refused also where the configuration has a mistake
            keys = admission.reload()
            changes, needs_restart = reconfiguration.reload()
            return Reloaded(changes + keys, needs_restart)
        except EdgedError as error:
            text = f"reload refused, the old configuration stays: {error.message}"
            _publish_event(loop.publisher, "reload_refused", text)
            raise EdgedError(text, error.hint) from error
        finally:
            self._notifier.ready(_summary(reconfiguration.config, loop))

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """TERM and INT stop, HUP reloads; during the start too, as soon as it is done. A second TERM or INT kills.

        `hang_up` calls nothing: Python interrupts a handler at a call for the next signal, so that a thousand of them
        would end in a RecursionError wherever the engine loop is."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

        def stop(number: int, frame: FrameType | None) -> None:
            for again in (signal.SIGTERM, signal.SIGINT):
                signal.signal(again, signal.SIG_DFL)
            self._stop_wanted = True
            if self._loop is not None:
                self._loop.engine_loop.stop()

        def hang_up(number: int, frame: FrameType | None) -> None:
            self._reload_wanted = True

        try:
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            signal.signal(signal.SIGHUP, hang_up)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _waking(loop: Loop) -> Iterator[None]:
    """Each signal ends the engine loop's wait at once."""
    before = signal.set_wakeup_fd(loop.calls.wake_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def _start_recorder(
    stack: contextlib.ExitStack, config: Config, manifest: Manifest, publisher: Publisher
) -> tuple[Recorder | None, Callable[[], schema.Recording | None]]:
    """The recorder of decisions, None if nothing is or can be recorded; and a function that returns its state."""
    digest = hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()

    def event(kind: str, text: str) -> None:
        _publish_event(publisher, kind, text)

    try:
        recorder = Recorder.open(config.record, digest, event, estimated=config.power.provider == "simulated")
    except EdgedError as error:
        log.warning("%s; %s", error.message, error.hint)
        event("recording_stopped", error.message)
        failed = schema.Recording(str(directory_of(config.record)), 0.0, 0, error.message)
        return None, lambda: failed
    if recorder is None:
        return None, lambda: None
    recorder.start()
    stack.callback(recorder.close)
    return recorder, lambda: recorder.status


def _publish_event(publisher: Publisher, kind: str, text: str) -> None:
    publisher.publish(schema.Event(kind=kind, text=text))


def _summary(config: Config, loop: Loop) -> str:
    variants = [variant.name for variant in loop.pool.variants if variant.refused is None]
    return f"{len(config.camera)} cameras, {', '.join(variants)} on {loop.pool.device}"


def _instance(endpoint: str) -> str:
    """A name for this daemon's rings: one per results endpoint, of which no two daemons have the same."""
    return hashlib.sha256(endpoint.encode()).hexdigest()[:8]
