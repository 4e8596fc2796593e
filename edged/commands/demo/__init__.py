"""`edged demo`: a real daemon on rendered cameras, observed by an ordinary subscriber, in three acts.

Out: the live screen or plain lines, a summary, edged-demo.png and edged-demo.mp4. The daemon is a child process; the
rest runs on the main thread. Exit 1 if the daemon exited or gave no results.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import edged
from edged.commands.demo.fixture import Fixture
from edged.commands.demo.pictures import CLIP, Clip
from edged.commands.demo.screen import LiveScreen, PlainScreen, Screen
from edged.commands.demo.stats import Stats, knows
from edged.commands.demo.subscriber import Subscriber, connect
from edged.engines.bundle import load_bundle
from edged.errors import Interrupted, UsageError
from edged.terminal import console, progress

NICE: Final = 5
"""The subscriber must not take CPU time from the daemon."""


def run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if not os.path.isdir(out):
        raise UsageError(f"--out {out} is not a directory", "create it, or choose another")
    bundle = load_bundle(arguments.bundle or Path(edged.__file__).parent / "bundles" / "demo")
    with _interrupted_by_sigterm(), Fixture(arguments.cameras, bundle.directory) as fixture:
        if fixture.page is not None:
            print(f"In a browser, as soon as it runs: {fixture.page}", file=sys.stderr, flush=True)
        with progress("rendering the cameras' video and starting the daemon"):
            fixture.prepare()
            fixture.start()
            os.nice(NICE)
            stats = Stats(fixture.cameras, knows(bundle.manifest.labels))
            client = connect(fixture)
        with contextlib.closing(client), Clip(out / CLIP) as clip:
            subscriber = Subscriber(fixture, client, clip, stats, arguments)
            subscriber.watch(_screen(arguments))
        return subscriber.finish(out)


def _screen(arguments: argparse.Namespace) -> Screen:
    if arguments.json:
        return PlainScreen(sys.stderr)
    if arguments.plain or not sys.stdout.isatty():
        return PlainScreen(sys.stdout)
    return LiveScreen(console())


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a closed terminal, end the demo and its daemon as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
