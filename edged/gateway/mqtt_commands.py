"""Commands of a broker's clients: a word and a payload in, the daemon's answer out. On a thread of its own.

The daemon may take seconds to answer, so a few commands wait in a queue; one that finds it full is answered at once.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edged.bus.control_client import request
from edged.errors import EdgedError
from edged.worker import Worker

COMMANDS: Final = ("profile", "pin", "limit", "trigger")
MAX_WAITING: Final = 16
MAX_PAYLOAD: Final = 4096
_TURN_S: Final = 0.5

Reply = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Command:
    """`reply` gets `{"command", "payload", "ok", ...}`, on any thread."""

    name: str
    payload: bytes
    reply: Reply


class Commands:
    def __init__(self, control: str | None) -> None:
        """`control`: the daemon's endpoint for requests; None: the default."""
        self._control = control
        self._waiting: queue.Queue[Command] = queue.Queue(MAX_WAITING)
        self.profiles: tuple[str, ...] = ()
        self._unlisted = True
        self._worker = Worker("gateway.commands", self._turn)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop(2 * _TURN_S)

    def put(self, command: Command) -> None:
        """Never blocks; any thread."""
        try:
            self._waiting.put_nowait(command)
        except queue.Full:
            self.refuse(command, "too many commands wait", "send fewer, or later")

    def refuse(self, command: Command, error: str, hint: str) -> None:
        """Answer without asking the daemon; any thread."""
        self._answer(command, {"ok": False, "error": error, "hint": hint})

    def list_profiles(self) -> None:
        """Ask the daemon for the names of its profiles again; any thread."""
        self._unlisted = True

    def _turn(self) -> None:
        if self._unlisted:
            self._unlisted = False
            with contextlib.suppress(EdgedError):  # asked again when the daemon is back
                reply = request("profile", self._control)
                self.profiles = tuple(one["name"] for one in reply.get("profiles", ()) if one["problem"] is None)
        try:
            command = self._waiting.get(timeout=_TURN_S)
        except queue.Empty:
            return
        try:
            operation, arguments = parse(command.name, command.payload)
            self._answer(command, request(operation, self._control, **arguments))
        except EdgedError as error:
            self.refuse(command, error.message, error.hint)

    def _answer(self, command: Command, answer: dict[str, Any]) -> None:
        payload = command.payload[:MAX_PAYLOAD].decode(errors="replace")
        command.reply({"command": command.name, "payload": payload, **answer})


def parse(name: str, payload: bytes) -> tuple[str, dict[str, Any]]:
    """The operation and its arguments; the daemon checks the values. EdgedError for what is no command."""
    try:
        text = payload.decode() if len(payload) <= MAX_PAYLOAD else None
    except UnicodeDecodeError:
        text = None
    if text is None or not text.strip():
        raise EdgedError(f"the payload of {name} is not a text of 1 to {MAX_PAYLOAD} bytes", "send for example a name")
    text = text.strip()
    value = None if text == "none" else text
    match name:
        case "profile":
            return "profile", {"name": value}
        case "pin":
            return "pin", {"variant": value}
        case "trigger":
            return "trigger", {"camera": text}
        case "limit":
            return "set", _limits(text)
    raise EdgedError(f"there is no command {name[:64]!r}", "name one of: " + ", ".join(COMMANDS))


def _limits(text: str) -> dict[str, Any]:
    try:
        limits = msgspec.json.decode(text, type=dict[str, float | None])
    except msgspec.DecodeError:
        raise EdgedError(
            "the payload of limit is no JSON object of numbers", 'send for example {"power_w": 8}, null to lift a limit'
        ) from None
    if not limits or limits.keys() & {"op", "endpoint", "timeout_s", "curve"}:
        raise EdgedError("the payload of limit names no limit", 'send for example {"power_w": 8}')
    return limits
