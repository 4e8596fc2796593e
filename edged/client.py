"""For programs that use edged: `from edged.client import Client, request`. The public names, and nothing else."""

from edged.bus.cells import class_ids, mask_cells
from edged.bus.client import Client, bgr
from edged.bus.control_client import request
from edged.bus.curve import CurveClient
from edged.bus.schema import (
    ClassMap,
    Decision,
    Detection,
    Event,
    Mask,
    Message,
    Result,
    State,
    Status,
    Telemetry,
    Track,
)
from edged.errors import EdgedError

__all__ = [
    "ClassMap",
    "Client",
    "CurveClient",
    "Decision",
    "Detection",
    "EdgedError",
    "Event",
    "Mask",
    "Message",
    "Result",
    "State",
    "Status",
    "Telemetry",
    "Track",
    "bgr",
    "class_ids",
    "mask_cells",
    "request",
]
