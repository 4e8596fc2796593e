"""`edged ctl`: one request to the running daemon, its reply in a sentence. A refusal is an error with its hint."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from edged.commands.terminal import ask
from edged.errors import UsageError


def run(arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "set":
            changes = changes_of(arguments.changes)
            reply = ask(arguments, "set", **changes)
            told = [f"{key} = {_shown(reply['limits'].get(key))}" for key in changes]
        case "pin":
            variant = None if arguments.variant == "none" else arguments.variant
            reply = ask(arguments, "pin", variant=variant)
            told = [f"{variant} is pinned" if variant else "the governor chooses again"]
        case "profile":
            reply, told = _profile(arguments)
        case "reload":
            reply = ask(arguments, "reload")
            told = [*reply["changes"], *(f"needs a restart: {key}" for key in reply["needs_restart"])]
            told = told or ["nothing changed"]
        case _:
            print(json.dumps(ask(arguments, "snapshot")["state"], indent=2))
            return 0
    print(json.dumps(reply) if arguments.json else "\n".join(told))
    return 0


def _profile(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Take up a profile and say what that changed; without a name, what there is."""
    if arguments.profile is None:
        reply = ask(arguments, "profile")
        width = max((len(one["name"]) for one in reply["profiles"]), default=0)
        told = [
            f"{'>' if one['name'] == reply['profile'] else ' '} {one['name']:{width}}  "
            + (one["description"] if one["problem"] is None else f"cannot be used: {one['problem']}")
            for one in reply["profiles"]
        ]
        return reply, told if reply["profile"] else ["> no profile: the configuration's own limits", *told]
    name = None if arguments.profile == "none" else arguments.profile
    reply = ask(arguments, "profile", name=name)
    head = f"profile {name} is in force" if name else "no profile: the configuration's own limits are in force"
    return reply, [head, *(f"  {change}" for change in reply["changes"] or ["no limit changed"])]


def changes_of(pairs: list[str]) -> dict[str, Any]:
    """`["deadline_ms=40", "power_w=none"]` as a request carries them; whether they will do, the daemon says."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not (separator and key and text):
            raise UsageError(f"{pair!r} is not KEY=VALUE", "write for example deadline_ms=40, or power_w=none")
        if key in changes or key == "op":
            raise UsageError(f"{key} is given twice" if key in changes else "op is not a limit", "name each limit once")
        try:
            value = None if text.lower() in ("none", "null") else float(text)
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{key} is {text!r}, expected a number or none", f"write for example {key}=40")
        changes[key] = value
    return changes


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
