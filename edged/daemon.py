"""Builds the daemon from a Config and takes it down again: start order, stop order, signals, reload.

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
import select
import selectors
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

import cv2
import msgspec
import zmq
from msgspec import UNSET

from edged import clock, paths, profiles
from edged.bus import requests, schema
from edged.bus.control import ControlServer
from edged.bus.endpoint import CurveServer, curve_server
from edged.bus.publisher import Publisher
from edged.bus.requests import Modes, Pin, Reload, Request, Set, SetMode, Snapshot, Why
from edged.config import CameraConfig, Config, Limits, diff, limit_changes, load
from edged.engines.bundle import Bundle, load_bundle
from edged.engines.manifest import Manifest
from edged.engines.pool import Pool
from edged.errors import EdgedError
from edged.frames.cameras import Cameras, check_sources
from edged.health import Health, Heartbeats, Notifier
from edged.loop import event_log
from edged.loop.device_info import DeviceInfo, as_simulated, what_is_known
from edged.loop.engine_loop import STAGE, EngineLoop
from edged.loop.governor_client import GovernorClient
from edged.loop.gpu_clock import CLOCK_DWELL_S, GpuClock
from edged.loop.limit_monitor import LimitMonitor
from edged.loop.loop_calls import LoopCalls
from edged.loop.result_publisher import ResultPublisher
from edged.loop.sensor_feed import SensorFeed
from edged.loop.shadow_runner import ShadowRunner
from edged.loop.status_reporter import StatusReporter
from edged.power.clocks import ClockActuator
from edged.power.host_paths import HERE, HostPaths
from edged.power.modes import ModeControl
from edged.power.power_mode_manager import PowerModeManager
from edged.power.simulated import SimulatedProvider
from edged.power.telemetry import Sampler, open_provider
from edged.profiles import Profile
from edged.replay.recorder import Recorder, directory_of
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import open_letterboxer

STUCK_AFTER_S: Final = 5.0  # a turn takes milliseconds; a first CUDA call or a paged-out model may take seconds
CONTROL_STUCK_AFTER_S: Final = 20.0
"""A request waits for the engine loop for a few seconds at most, a reload reads files, a power mode takes up to 15."""
RELOAD_LOCK_S: Final = 1.0
LOADING_AT_MOST_S: Final = 120.0
GREET_EVERY_S: Final = 0.1
UNPRICED: Final = "there is no device profile that says what each clock costs"
HEALTH_EVERY_NS: Final = clock.NS_PER_S // 2

log = logging.getLogger("edged")


class Daemon:
    def __init__(self, path: Path, config: Config, machine: HostPaths = HERE) -> None:
        """`path` is read again on a reload. UsageError for a profile that is not there or wrong."""
        self._path = path
        self._machine = machine
        self._config = config
        self._profile = None if config.profile is None else profiles.find(config.profile, path)
        self._limits = config.limits if self._profile is None else self._profile.apply(config.limits)
        self._reload_wanted = threading.Event()
        self._reload_lock = threading.Lock()
        self._stopping = threading.Event()

    def run(self) -> None:
        """From start to the end of the drain after SIGTERM or SIGINT. EdgedError if it cannot start or go on."""
        faulthandler.enable()
        cv2.setNumThreads(1)  # a frame is scaled in 0.1 ms: waking other threads for it costs more
        self._notifier = Notifier()
        with contextlib.ExitStack() as stack:
            self._build(stack)
            stack.callback(self._notifier.stopping)
            gc.collect()
            gc.freeze()  # what was loaded stays: a collection that walks it all would cost a frame its deadline
            with self._signals():
                log.info("ready: %s", self._summary())
                self._notifier.ready(self._summary())
                try:
                    self._pipeline.run()
                finally:
                    self._calls.stop()
            log.info("stopping: finished what was in flight")

    def _build(self, stack: contextlib.ExitStack) -> None:
        config = self._config
        check_sources(config.camera)
        context = zmq.Context()
        stack.callback(context.term)
        results = config.bus.results or paths.results_endpoint()
        control = config.bus.control or paths.control_endpoint()
        curve = curve_server(context, config.bus)
        if curve is not None:
            stack.callback(curve.close)
        self._publisher = Publisher(context, results, _secured(results, curve))
        stack.callback(self._publisher.close)

        bundle = load_bundle(Path(config.bundle))
        self._notifier.extend_timeout(LOADING_AT_MOST_S)
        self._pool = stack.enter_context(Pool.open(bundle, config.engine))
        for variant in self._pool.variants:
            if variant.refused is not None:
                text = f"variant {variant.name} is refused: {variant.refused}"
                event = schema.Event(kind="engine_refused", text=text, variant=variant.name)
                event_log.happened(self._publisher.publish(event))
        provider = open_provider(config.power, self._machine.root)
        self._simulated = provider if isinstance(provider, SimulatedProvider) else None
        self._sampler = Sampler(provider, config.power.interval_s)
        self._sampler.start()
        modes = ModeControl(Path(config.power.jtop_socket), self._machine.tools)
        self._modes = PowerModeManager(modes, lambda text: self._tell("power_mode", text))
        stack.callback(self._sampler.stop)
        self._build_loop(stack, bundle, _instance(results))

        server = ControlServer(context, control, self._handle, _secured(control, curve))
        stack.callback(server.close)
        stack.callback(self._modes.close)  # first: a request that waits for a power mode gives up
        if self._profile is not None and self._profile.mode is not None:
            self._modes.soon(self._profile.name, self._profile.mode)
        housekeeping = threading.Thread(target=self._housekeeping, name="housekeeping", daemon=True)
        housekeeping.start()
        stack.callback(housekeeping.join, 2.0)
        stack.callback(self._stopping.set)

    def _build_loop(self, stack: contextlib.ExitStack, bundle: Bundle, instance: str) -> None:
        """Everything that lives on the engine loop."""
        pool, publisher, config, manifest = self._pool, self._publisher, self._config, bundle.manifest
        selector = stack.enter_context(selectors.DefaultSelector())
        self._calls = LoopCalls(selector)
        stack.callback(self._calls.close)
        cameras = Cameras(selector, instance, lambda camera: self._reports.camera_changed(camera))
        stack.callback(cameras.close)
        self._heartbeats = Heartbeats({STAGE: STUCK_AFTER_S, "control": CONTROL_STUCK_AFTER_S})
        self._health = Health(self._heartbeats, self._notifier)
        now_ns, (recorder, recording) = clock.mono_ns(), self._recorder(stack, manifest)
        on_call = None if recorder is None else recorder.on_call
        ran = None if self._simulated is None else self._simulated.ran
        known = self._known(bundle)
        steering = GovernorClient(
            pool, known, self._limits, publisher, now_ns, on_call, ran, self._ceiling(stack, known, now_ns)
        )
        self._steering = steering
        budgets = LimitMonitor({variant.name: variant.accuracy for variant in pool.variants}, publisher, now_ns)
        senses = SensorFeed(self._sampler, steering, budgets, now_ns, None if recorder is None else recorder.sample)
        letterboxer = open_letterboxer(manifest.input, pool)
        shadow = ShadowRunner(manifest, pool, letterboxer, make_decoder(manifest), publisher, steering)
        self._reports = StatusReporter(
            manifest, cameras, pool, steering, publisher, self._sampler, budgets, shadow, self._heartbeats, self._mode,
            recording,
        )  # fmt: skip
        presenter = ResultPublisher(publisher, make_decoder(manifest), manifest.labels, cameras.ring_name)
        self._pipeline = EngineLoop(
            selector, self._calls, cameras, pool, letterboxer, presenter, steering, senses, shadow, self._reports,
            self._heartbeats,
        )  # fmt: skip
        self._apply(config.camera, self._limits, self._profile)

    def _ceiling(self, stack: contextlib.ExitStack, known: DeviceInfo, now_ns: int) -> GpuClock:
        """The GPU's clock, in the hands of the actuator where it was asked for and what each clock costs is known."""
        if not self._config.power.clock_control:
            return GpuClock(known.clocks_mhz)
        if known.device is None or not known.clock_matters:
            log.warning("the GPU's clock is a given: %s; measure it: edged-calibrate profile", UNPRICED)
            self._tell("clock_control", f"the GPU's clock is a given: {UNPRICED}")
            return GpuClock(known.clocks_mhz)
        actuator = ClockActuator(known.clocks_mhz, self._machine.clock_helper)
        stack.callback(actuator.close)
        return GpuClock(known.clocks_mhz, actuator, CLOCK_DWELL_S, now_ns)

    def _tell(self, kind: str, text: str) -> None:
        """An event. Any thread."""
        self._publisher.publish(schema.Event(kind=kind, text=text))

    def _mode(self) -> schema.ProfileMode | None:
        wanted = self._modes.wanted
        return None if wanted is None else schema.ProfileMode(wanted.mode, wanted.problem)

    def _recorder(
        self, stack: contextlib.ExitStack, manifest: Manifest
    ) -> tuple[Recorder | None, Callable[[], schema.Recording | None]]:
        """What keeps the log of decisions, started; None if nothing is or can be recorded. And how that stands."""
        digest = hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()
        try:
            recorder = Recorder.open(self._config.record, digest, self._tell, estimated=self._simulated is not None)
        except EdgedError as error:
            log.warning("%s; %s", error.message, error.hint)
            self._tell("recording_stopped", error.message)
            failed = schema.Recording(str(directory_of(self._config.record)), 0.0, 0, error.message)
            return None, lambda: failed
        if recorder is None:
            return None, lambda: None
        recorder.start()
        stack.callback(recorder.close)
        return recorder, lambda: recorder.status

    def _known(self, bundle: Bundle) -> DeviceInfo:
        """What the governor begins with; a device profile that is none is said, and done without."""
        known = what_is_known(self._pool, bundle)
        if known.refused is not None:
            text = f"the device profile is not used: {known.refused.message}"
            log.warning("%s; %s", text, known.refused.hint)
            self._tell("profile_refused", text)
        if self._simulated is not None:
            known = as_simulated(known, self._pool, self._simulated.device)
            self._simulated.expect({variant.name: variant.active_w[0] for variant in known.variants})
        return known

    def _apply(self, cameras: list[CameraConfig], limits: Limits, profile: Profile | None) -> None:
        """On the engine loop. UsageError, and nothing changed, if they cannot be taken."""
        self._pipeline.configure(cameras, limits)
        self._limits_changed(limits, profile)

    def _set_limits(self, limits: Limits, profile: Profile | None) -> None:
        """On the engine loop. UsageError, and nothing changed, if no variant could hold them."""
        self._pipeline.set_limits(limits)
        self._limits_changed(limits, profile)

    def _limits_changed(self, limits: Limits, profile: Profile | None) -> None:
        self._limits, self._profile = limits, profile
        self._reports.limits_changed(limits, None if profile is None else profile.name)

    def _summary(self) -> str:
        variants = [variant.name for variant in self._pool.variants if variant.refused is None]
        return f"{len(self._config.camera)} cameras, {', '.join(variants)} on {self._pool.device}"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """TERM and INT stop, HUP reloads; each ends the engine loop's wait at once. A second TERM or INT kills."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        wakeup_fd = signal.set_wakeup_fd(self._calls.wake_fd, warn_on_full_buffer=False)

        def stop(number: int, frame: FrameType | None) -> None:
            for again in (signal.SIGTERM, signal.SIGINT):
                signal.signal(again, signal.SIG_DFL)
            self._pipeline.stop()

        def hang_up(number: int, frame: FrameType | None) -> None:
            self._reload_wanted.set()

        try:
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            signal.signal(signal.SIGHUP, hang_up)
            yield
        finally:
            signal.set_wakeup_fd(wakeup_fd)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _housekeeping(self) -> None:
        """Greets subscribers, feeds the watchdog, reloads on SIGHUP: what must go on while the engine loop is busy."""
        health_due_ns = 0
        while not self._stopping.is_set():
            select.select([self._publisher.fd], [], [], GREET_EVERY_S)
            while self._publisher.serve():
                pass
            now_ns = clock.mono_ns()
            self._reports.housekeep(now_ns)
            if now_ns >= health_due_ns:
                health_due_ns = now_ns + HEALTH_EVERY_NS
                self._health.tick(now_ns)
            if self._reload_wanted.is_set():
                self._reload_wanted.clear()
                try:
                    self._reload()
                except EdgedError as error:
                    log.error("%s", error)

    def _handle(self, request: Request) -> Mapping[str, Any]:
        """A control request, on the control thread. EdgedError becomes the error of the reply."""
        self._heartbeats.beat("control")
        try:
            return self._answer(request)
        finally:
            self._heartbeats.idle("control")

    def _answer(self, request: Request) -> Mapping[str, Any]:
        match request:
            case Snapshot():
                return {"state": self._reports.state}
            case Why():
                return {"decisions": self._calls.call(lambda: self._steering.why(request.n))}
            case Set():
                limits = request.apply(self._limits)
                self._calls.call(lambda: self._set_limits(limits, self._profile))
                log.info("limits set: %s", "; ".join(f"{key} = {value}" for key, value in request.changes().items()))
                return {"limits": limits}
            case Pin():
                self._calls.call(lambda: self._steering.pin(request.variant, clock.mono_ns()))
                log.info("pinned: %s", request.variant or "nothing, the governor chooses")
                return {"pinned": request.variant}
            case requests.Profile():
                return self._answer_profile(request)
            case Reload():
                changes, needs_restart = self._reload()
                return {"changes": changes, "needs_restart": needs_restart}
            case Modes():
                return {"modes": self._modes.read()}
            case SetMode():
                return {"modes": self._modes.set(request.mode, request.clocks, request.fan)}

    def _answer_profile(self, request: requests.Profile) -> Mapping[str, Any]:
        """List the profiles, or take one up in place of the limits in force. EdgedError, and nothing changed, if it is
        wrong or no variant could hold it."""
        if request.name is UNSET:
            in_force = None if self._profile is None else self._profile.name
            return {"profile": in_force, "profiles": profiles.listed(self._path)}
        with _within(self._reload_lock, RELOAD_LOCK_S):
            profile = None if request.name is None else profiles.find(request.name, self._path)
            limits = self._config.limits if profile is None else profile.apply(self._config.limits)
            changes = limit_changes(self._limits, limits)
            if profile is not None and profile.mode is not None:
                # the limits are tried first: once the board runs in another mode there is no quick way back
                self._calls.call(lambda: self._steering.check(limits))
                modes = self._modes.set(profile.mode)
                changes.append(f"power mode {modes.current}")
            self._calls.call(lambda: self._set_limits(limits, profile))
            self._modes.taken(request.name, None if profile is None else profile.mode)
        log.info("profile %s: %s", request.name or "none", "; ".join(changes) or "nothing changed")
        return {"profile": request.name, "changes": changes, "limits": limits}

    def _reload(self) -> tuple[list[str], list[str]]:
        """Read the configuration again and take what can be taken live. If wrong, EdgedError and nothing changes."""
        self._notifier.reloading()
        try:
            with _within(self._reload_lock, RELOAD_LOCK_S):
                new = load(self._path)
                profile = self._profile_after(new)
                limits = new.limits if profile is None else profile.apply(new.limits)
                in_force = msgspec.structs.replace(self._config, limits=self._limits)
                changes, needs_restart = diff(in_force, msgspec.structs.replace(new, limits=limits))
                before = self._profile
                self._calls.call(lambda: self._apply(new.camera, limits, profile))
                if profile is None or profile.mode is None:
                    self._modes.taken(None, None)
                elif before is None or (before.name, before.mode) != (profile.name, profile.mode):
                    self._modes.soon(profile.name, profile.mode)
                    changes.append(f"power mode: {profile.mode} is being set, an event will tell")
                self._config = msgspec.structs.replace(
                    self._config, camera=new.camera, limits=new.limits, profile=new.profile
                )
        except EdgedError as error:
            text = f"reload refused, the old configuration stays: {error.message}"
            self._tell("reload_refused", text)
            raise EdgedError(text, error.hint) from error
        finally:
            self._notifier.ready(self._summary())
        log.info("reloaded: %s", "; ".join(changes) or "nothing changed")
        for key in needs_restart:
            log.warning("needs a restart: %s", key)
        return changes, needs_restart

    def _profile_after(self, new: Config) -> Profile | None:
        """The one the configuration names now; if it names the same as before, the one in force, read again."""
        name = new.profile
        if new.profile == self._config.profile and self._profile is not None:
            name = self._profile.name
        return None if name is None else profiles.find(name, self._path)


@contextlib.contextmanager
def _within(lock: threading.Lock, timeout_s: float) -> Iterator[None]:
    if not lock.acquire(timeout=timeout_s):
        raise EdgedError("another reload is still going on", "try again when it is done")
    try:
        yield
    finally:
        lock.release()


def _secured(endpoint: str, curve: CurveServer | None) -> CurveServer | None:
    """CURVE is for the network; a local socket is guarded by its directory."""
    return curve if endpoint.startswith("tcp://") else None


def _instance(endpoint: str) -> str:
    """A name for this daemon's rings: one per results endpoint, of which no two daemons have the same."""
    return hashlib.sha256(endpoint.encode()).hexdigest()[:8]
