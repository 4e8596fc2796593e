"""`edged demo`: a real daemon on rendered cameras, watched by a subscriber like any other, in three acts.

Out: the live screen or plain lines, a summary, edged-demo.png and edged-demo.mp4. The daemon is a child process; the
rest runs on the main thread. Exit 1 if the daemon died or gave no results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

import edged
from edged import clock
from edged.bus.client import Client
from edged.bus.control import request
from edged.bus.schema import Decision, Result, State
from edged.commands.demo import summary
from edged.commands.demo.fixture import FIRST_DEADLINE_MS, Fixture
from edged.commands.demo.pictures import CLIP, PICTURE, Clip, Gallery
from edged.commands.demo.screen import LiveScreen, PlainScreen, Screen, View
from edged.commands.demo.script import Script
from edged.commands.demo.stats import Stats, knows
from edged.commands.terminal import checked, console, progress
from edged.engines.bundle import load_bundle
from edged.errors import EdgedError, Interrupted, UsageError

START_S: Final = 120.0
"""To load and warm every engine, and open the cameras; a slow device may need most of it."""
SETTLE_RESULTS: Final = 20
"""Of every camera, before the acts begin: opening cameras makes a burst that no later second is like."""
POLL_S: Final = 0.1
BURST: Final = 200
NICE: Final = 5
"""The onlooker must not take the CPU from what it looks at."""


def run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if not out.is_dir():
        raise UsageError(f"--out {out} is not a directory", "create it, or choose another")
    bundle = load_bundle(arguments.bundle or Path(edged.__file__).parent / "bundles" / "demo")
    with _terminated_in_order(), Fixture(arguments.cameras, bundle.directory) as stage:
        with progress("rendering the cameras' video and starting the daemon"):
            stage.prepare()
            stage.start()
            os.nice(NICE)
            tally = Stats(stage.cameras, knows(bundle.manifest.labels))
            client = _connect(stage)
        with contextlib.closing(client), Clip(out / CLIP) as clip:
            onlooker = _Onlooker(stage, client, clip, tally, arguments)
            onlooker.watch(_screen(arguments))
        return onlooker.conclude(out)


class _Onlooker:
    """The subscriber: receives, counts, plays the programme, shows."""

    def __init__(self, stage: Fixture, client: Client, clip: Clip, tally: Stats, arguments: argparse.Namespace) -> None:
        self._stage, self._client, self._clip, self._arguments = stage, client, clip, arguments
        self._seconds: float = arguments.seconds
        self._tally = tally
        self._gallery = Gallery([camera.name for camera in stage.cameras])
        self._programme = Script(self._seconds, FIRST_DEADLINE_MS, self._ask)
        self._state: State | None = None
        self._decision: Decision | None = None
        self._begun_ns = clock.mono_ns()

    def watch(self, screen: Screen) -> None:
        """Until the time is over. EdgedError if the daemon dies."""
        self._begun_ns = clock.mono_ns()
        try:
            while (now_s := self._now_s()) < self._seconds:
                self._stage.require_alive()
                act = self._programme.advance(now_s)
                if act is not None:
                    screen.begin(act, now_s)
                self._receive(screen)
                now_s = self._now_s()
                self._clip.add(self._gallery, self._panel(), now_s)
                screen.show(self._view(now_s))
        finally:
            screen.close()

    def conclude(self, out: Path) -> int:
        """The summary and the picture, while the daemon still runs: its last word on every frame is asked for."""
        state = msgspec.convert(self._ask("snapshot")["state"], State)
        if not self._tally.results:
            raise EdgedError("the daemon gave no results", "run `edged check` on a configuration with these cameras")
        title = f"edged {edged.__version__}: the same cameras under each variant of bundle {state.bundle}"
        files = [str(out / CLIP)]
        if self._gallery.save(out / PICTURE, title, [variant.name for variant in state.variants]):
            files.insert(0, str(out / PICTURE))
        lost = sum(self._client.gaps.values())
        if self._arguments.json:
            print(json.dumps(summary.as_object(self._tally, state, self._seconds, lost, files)))
        else:
            terminal = console()
            summary.show(terminal, self._tally, state, self._seconds, lost)
            terminal.print(f"\nLook at {' and '.join(files)}.", markup=False)
        return 0

    def _receive(self, screen: Screen) -> None:
        """What has come, for at most POLL_S of waiting and BURST messages."""
        message = self._client.receive(POLL_S)
        for _ in range(BURST):
            if message is None:
                return
            now_s = self._now_s()
            match message:
                case Result():
                    self._tally.take(message, now_s)
                    self._gallery.offer(self._client, message, now_s)
                case State():
                    self._state = message
                    self._decision = self._decision or message.decision
                case Decision():
                    changed = self._decision is not None and message.variant != self._decision.variant
                    self._decision = message
                    if changed:
                        screen.decided(message, now_s)
            message = self._client.receive(0)

    def _view(self, now_s: float) -> View:
        lost = sum(self._client.gaps.values())
        return View(now_s, self._seconds, self._programme.act, self._tally, self._state, self._decision, lost)

    def _panel(self) -> list[str]:
        act, decision = self._programme.act, self._decision
        return [f"act {act.number} of 3: {act.name}", act.caption, decision.reason if decision else ""]

    def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        return checked(request(op, self._stage.control, **arguments))

    def _now_s(self) -> float:
        return (clock.mono_ns() - self._begun_ns) / clock.NS_PER_S


def _connect(stage: Fixture) -> Client:
    """Subscribed, and every camera runs smoothly."""
    client = Client(stage.results)
    waiting = {camera.name: SETTLE_RESULTS for camera in stage.cameras}
    end_ns = clock.mono_ns() + int(START_S * clock.NS_PER_S)
    try:
        while any(left > 0 for left in waiting.values()):
            stage.require_alive()
            if clock.mono_ns() > end_ns:
                silent = ", ".join(name for name, left in waiting.items() if left > 0)
                raise EdgedError(f"too few results of {silent} within {START_S:.0f} s", "is this machine very busy?")
            message = client.receive(POLL_S)
            if isinstance(message, Result):
                waiting[message.camera] -= 1
    except BaseException:
        client.close()
        raise
    return client


def _screen(arguments: argparse.Namespace) -> Screen:
    if arguments.json:
        return PlainScreen(sys.stderr)
    if arguments.plain or not sys.stdout.isatty():
        return PlainScreen(sys.stdout)
    return LiveScreen(console())


@contextlib.contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is closed, end the demo as Ctrl-C does: with its daemon."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
