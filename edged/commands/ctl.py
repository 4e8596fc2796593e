"""`edged ctl`: one request to the running daemon, its reply in a sentence. A refusal is an error with its hint."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from edged.commands.daemon_requests import ask
from edged.errors import UsageError
from edged.terminal import printable, progress

"""A board takes about ten seconds to change its power mode."""


def run(arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "set":
            changes = changes_of(arguments.changes)
            reply = ask(arguments, "set", **_set_request(changes))
            lines = [f"{key} = {_shown(_in_force(reply, key))}" for key in changes]
        case "pin":
            variant = None if arguments.variant == "none" else arguments.variant
            reply = ask(arguments, "pin", variant=variant)
            state = "is loaded first, and pinned then" if reply.get("loading") else "is pinned"
            lines = [f"{variant} {state}" if variant else "the governor chooses again"]
        case "trigger":
            reply = ask(arguments, "trigger", camera=arguments.camera)
            lines = [f"the motion gate of camera {arguments.camera} is open for 10 s"]
        case "profile":
            reply, lines = _profile(arguments)
        case "reload":
            reply = ask(arguments, "reload")
            lines = [*reply["changes"], *(f"needs a restart: {key}" for key in reply["needs_restart"])]
            lines = lines or ["nothing changed"]
        case "modes":
            reply = ask(arguments, "modes")
            lines = _mode_lines(reply["modes"])
        case "mode":
            clocks = None if arguments.clocks is None else arguments.clocks == "on"
            wanted = {"mode": arguments.mode, "clocks": clocks, "fan": arguments.fan}
            with progress("setting the mode and verifying it"):
                reply = ask(arguments, "set_mode", **wanted)
            lines = _mode_lines(reply["modes"])[:3]
        case _:
            print(json.dumps(ask(arguments, "snapshot")["state"], indent=2))
            return 0
    print(json.dumps(reply) if arguments.json else "\n".join(lines))
    return 0


def _profile(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Put a profile in force and report what that changed; without a name, list the profiles."""
    if arguments.profile is None:
        reply = ask(arguments, "profile")
        width = max((len(one["name"]) for one in reply["profiles"]), default=0)
        lines = [
            f"{'>' if one['name'] == reply['profile'] else ' '} {one['name']:{width}}  "
            + (one["description"] if one["problem"] is None else f"cannot be used: {one['problem']}")
            for one in reply["profiles"]
        ]
        return reply, lines if reply["profile"] else ["> no profile: the configuration's own limits", *lines]
    name = None if arguments.profile == "none" else arguments.profile
    with progress("putting the profile in force"):
        reply = ask(arguments, "profile", name=name)
    head = f"profile {name} is in force" if name else "no profile: the configuration's own limits are in force"
    return reply, [head, *(f"  {change}" for change in reply["changes"] or ["no limit changed"])]


def _mode_lines(modes: dict[str, Any]) -> list[str]:
    """The three settings, and then what else there is."""
    lines = [
        f"power mode     {printable(modes['current'] or 'unknown')}",
        f"jetson_clocks  {printable(modes['clocks'] or 'unknown')}",
        f"fan            {printable(modes['fan'] or 'unknown')}",
        "",
    ]
    for mode in modes["modes"]:
        notes = {True: "needs a reboot", False: "", None: "may need a reboot"}[mode["needs_reboot"]]
        mark = ">" if mode["name"] == modes["current"] else " "
        lines.append(f"{mark} {mode['id']}  {printable(mode['name']):<16} {notes}".rstrip())
    if modes["fans"]:
        lines += ["", "fan profiles: " + ", ".join(printable(name) for name in modes["fans"] if name != "manual")]
    lines += ["", f"cannot be set: {modes['not_settable']}" if modes["not_settable"] else f"set through {modes['way']}"]
    return lines


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


def _set_request(changes: Mapping[str, float | None]) -> dict[str, Any]:
    """`camera.gate.fps` goes into the request's map of cameras, all other keys are limits."""
    request: dict[str, Any] = {}
    for key, value in changes.items():
        kind, _, rest = key.partition(".")
        if kind != "camera":
            request[key] = value
            continue
        name, _, setting = rest.partition(".")
        if not (name and setting):
            raise UsageError(f"{key} names no setting of a camera", "write for example camera.gate.fps=5")
        request.setdefault("cameras", {}).setdefault(name, {})[setting] = value
    return request


def _in_force(reply: dict[str, Any], key: str) -> float | None:
    """The value of a key in the daemon's reply to `set`."""
    kind, _, rest = key.partition(".")
    name, _, setting = rest.partition(".")
    value: float | None = reply["cameras"][name][setting] if kind == "camera" else reply["limits"].get(key)
    return value


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
