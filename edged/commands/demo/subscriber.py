"""The demo's subscriber: receives results as any program would, counts them, runs the script and feeds the screen.

In: messages of the daemon and the time. Out: the screen, the clip, at the end the summary and the picture. On the
demo's main thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import msgspec

import edged
from edged import clock
from edged.bus.client import Client
from edged.bus.control_client import request
from edged.bus.schema import Decision, Result, State
from edged.commands.daemon_requests import checked
from edged.commands.demo import summary
from edged.commands.demo.fixture import FIRST_DEADLINE_MS, Fixture
from edged.commands.demo.pictures import CLIP, PICTURE, Clip, Gallery
from edged.commands.demo.screen import Screen, View
from edged.commands.demo.script import Script
from edged.commands.demo.stats import Stats
from edged.errors import EdgedError
from edged.terminal import console

START_S: Final = 120.0
"""To load and warm every engine and to open the cameras; a slow device may need most of it."""
SETTLE_RESULTS: Final = 20
"""Of every camera before the acts begin: opening cameras causes a burst that is not typical."""
POLL_S: Final = 0.1
BURST: Final = 200


class Subscriber:
    """Receives, counts, runs the script and shows."""

    def __init__(
        self, fixture: Fixture, client: Client, clip: Clip, stats: Stats, arguments: argparse.Namespace
    ) -> None:
        self._fixture, self._client, self._clip, self._arguments = fixture, client, clip, arguments
        self._seconds: float = arguments.seconds
        self._stats = stats
        self._gallery = Gallery([camera.name for camera in fixture.cameras])
        self._script = Script(self._seconds, FIRST_DEADLINE_MS, self._request)
        self._state: State | None = None
        self._decision: Decision | None = None
        self._started_ns = clock.mono_ns()

    def watch(self, screen: Screen) -> None:
        """Until the time is over. EdgedError if the daemon exits."""
        self._started_ns = clock.mono_ns()
        try:
            while (now_s := self._now_s()) < self._seconds:
                self._fixture.require_alive()
                act = self._script.advance(now_s)
                if act is not None:
                    screen.begin(act, now_s)
                self._receive(screen)
                now_s = self._now_s()
                self._clip.add(self._gallery, self._panel(), now_s)
                screen.show(self._view(now_s))
        finally:
            screen.close()

    def finish(self, out: Path) -> int:
        """Print the summary and save the picture. The daemon must still run: its frame counters are requested."""
        state = msgspec.convert(self._request("snapshot")["state"], State)
        if not self._stats.results:
            raise EdgedError("the daemon gave no results", "run `edged check` on a configuration with these cameras")
        title = f"edged {edged.__version__}: the same cameras under each variant of bundle {state.bundle}"
        files = [str(out / CLIP)]
        if self._gallery.save(out / PICTURE, title, [variant.name for variant in state.variants]):
            files.insert(0, str(out / PICTURE))
        lost = sum(self._client.gaps.values())
        if self._arguments.json:
            print(json.dumps(summary.as_object(self._stats, state, self._seconds, lost, files)))
        else:
            terminal = console()
            summary.show(terminal, self._stats, state, self._seconds, lost)
            terminal.print(f"\nLook at {' and '.join(files)}.", markup=False)
        return 0

    def _receive(self, screen: Screen) -> None:
        """Handle what has arrived: at most BURST messages, after waiting for at most POLL_S."""
        message = self._client.receive(POLL_S)
        for _ in range(BURST):
            if message is None:
                return
            now_s = self._now_s()
            match message:
                case Result():
                    self._stats.add(message, now_s)
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
        return View(
            now_s, self._seconds, self._script.act, self._stats, self._state, self._decision, lost, self._fixture.page
        )

    def _panel(self) -> list[str]:
        act, decision = self._script.act, self._decision
        return [f"act {act.number} of 3: {act.name}", act.caption, decision.reason if decision else ""]

    def _request(self, op: str, **arguments: Any) -> dict[str, Any]:
        return checked(request(op, self._fixture.control, **arguments))

    def _now_s(self) -> float:
        return (clock.mono_ns() - self._started_ns) / clock.NS_PER_S


def connect(fixture: Fixture) -> Client:
    """A client, once every camera has delivered SETTLE_RESULTS. EdgedError after START_S."""
    client = Client(fixture.results)
    waiting = {camera.name: SETTLE_RESULTS for camera in fixture.cameras}
    end_ns = clock.mono_ns() + int(START_S * clock.NS_PER_S)
    try:
        while any(left > 0 for left in waiting.values()):
            fixture.require_alive()
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
