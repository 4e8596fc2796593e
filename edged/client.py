"""For programs that use edged: `from edged.client import Client, request`. The public names, and nothing else."""

from edged.bus.client import Client, bgr
from edged.bus.control import request
from edged.bus.curve import CurveClient
from edged.bus.schema import Decision, Detection, Event, Message, Result, State, Status, Telemetry, Track
from edged.errors import EdgedError

__all__ = [
    "Client", "CurveClient", "Decision", "Detection", "EdgedError", "Event", "Message", "Result", "State", "Status",
    "Telemetry", "Track", "bgr", "request",
]  # fmt: skip
