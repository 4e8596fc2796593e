"""A command's request to the running daemon. No command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edged.bus.control_client import request
from edged.bus.curve import CurveClient
from edged.errors import EdgedError


def curve_of(arguments: argparse.Namespace) -> CurveClient | None:
    return CurveClient(Path(arguments.curve[0]), Path(arguments.curve[1])) if arguments.curve else None


def ask(arguments: argparse.Namespace, op: str, **more: Any) -> dict[str, Any]:
    """The daemon's reply to a request; its refusal becomes an EdgedError."""
    return checked(request(op, arguments.endpoint, curve=curve_of(arguments), **more))


def checked(reply: dict[str, Any]) -> dict[str, Any]:
    if not reply["ok"]:
        raise EdgedError(str(reply.get("error", "the daemon refused without a reason")), str(reply.get("hint", "")))
    return reply
