"""`edged watch`: messages as they arrive, one line each, for people or as JSON. Ends at --count or Ctrl-C.

Its own reports (no daemon, lost messages) go to stderr, so that stdout carries only messages.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

import msgspec

from edged.bus.client import Client
from edged.bus.schema import (
    TOPICS,
    ClassMap,
    Decision,
    Detection,
    Event,
    Message,
    Result,
    State,
    Status,
    Telemetry,
    Track,
    topic_of,
)
from edged.commands.daemon_requests import curve_of
from edged.errors import UsageError
from edged.paths import find_results_endpoint
from edged.terminal import at, causes, number, printable, span

SILENCE_S = 3.0
"""`state` is published once a second, so after this silence there is no daemon."""


def run(arguments: argparse.Namespace) -> int:
    topics = [_checked(topic) for topic in arguments.topics]
    encoder = msgspec.json.Encoder()
    client = _open(arguments, topics)
    silent = False
    reported: Counter[str] = Counter()
    left = arguments.count
    try:
        while left is None or left > 0:
            message = client.receive(SILENCE_S)
            if message is None:
                if not silent and client.refused:
                    _report(f"the daemon at {client.endpoint} refuses this key; waiting until it is let in there")
                elif not silent:
                    _report(f"no daemon answers at {client.endpoint}; waiting (start one with `edged run`)")
                silent = True
                if arguments.endpoint is None and find_results_endpoint() != client.endpoint:
                    client.close()  # another daemon has started, such as the system service
                    client = _open(arguments, topics)
                continue
            if silent:
                _report(f"the daemon at {client.endpoint} answers")
                silent = False
            topic = topic_of(message)
            if topics and not any(_matches(topic, prefix) for prefix in topics):
                continue
            lost = client.gaps[topic] - reported[topic]
            if lost > 0:
                reported[topic] = client.gaps[topic]
                _report(f"lost {lost} message{'' if lost == 1 else 's'} of {topic}: this program is too slow")
            print(_json(encoder, topic, message) if arguments.json else line(message), flush=True)
            left = None if left is None else left - 1
    finally:
        client.close()
    return 0


def line(message: Message) -> str:
    """The message in one line for a person."""
    match message:
        case Result():
            text = _result(message)
        case Status():
            text = _status(message)
        case Track():
            text = _track(message)
        case Decision():
            yielded = f"; relaxed: {', '.join(message.yielded).replace('_', ' ')}" if message.yielded else ""
            text = f"decision  {message.reason} [bound: {message.bound}{yielded}]"
        case Event():
            about = message.camera or message.variant
            text = f"event     {message.kind}{f' ({about})' if about else ''}: {message.text}"
        case Telemetry():
            text = _telemetry(message)
        case State():
            live = sum(camera.state == "live" for camera in message.cameras)
            variant = message.decision.variant if message.decision else "nothing yet"
            health = "healthy" if message.healthy else "STUCK"
            text = (
                f"state     {health}, {live} of {len(message.cameras)} cameras live, "
                f"running {variant}, up {span(message.uptime_s)}"
            )
    return f"{at(message.t_publish)} {printable(text)}"


def _object(seen: Detection) -> str:
    identity = f" {seen.track}" if isinstance(seen.track, int) else ""
    zones = f" in {', '.join(seen.zones)}" if isinstance(seen.zones, tuple) and seen.zones else ""
    return f"{seen.label}{identity} {seen.score:.2f}{zones}"


def _result(message: Result) -> str:
    late = "" if message.deadline_met else f" LATE (deadline {message.deadline_ms:g} ms)"
    if isinstance(message.detections, list):
        objects = message.detections
        seen = f"{len(objects)} object{'' if len(objects) == 1 else 's'}"
        listed = ", ".join(_object(o) for o in sorted(objects, key=lambda o: -o.score))
    elif isinstance(message.class_map, ClassMap):
        ids = set(message.class_map.runs[::2])
        seen, listed = f"class map {message.class_map.columns}x{message.class_map.rows}", f"{len(ids)} classes"
    elif isinstance(message.embedding, list):
        seen, listed = f"embedding of {len(message.embedding)} numbers", ""
    else:
        classes = message.classes if isinstance(message.classes, list) else []
        seen, listed = "classes", ", ".join(f"{c.label} {c.score:.2f}" for c in classes)
    again = " (run again)" if message.escalated else ""
    energy = "" if message.energy_mj is None else f" {message.energy_mj:.3g} mJ"
    return (
        f"result    {message.camera} #{message.frame} {message.age_ms:5.1f} ms{late} {message.variant}{again}{energy} "
        f"{seen}{': ' if listed else ''}{listed}"
    )


def _track(message: Track) -> str:
    did = {"enter": "entered", "leave": "left", "cross": "crossed", "stay": "stays in", "end": "is gone"}[message.kind]
    where = message.zone or message.line or ("" if message.kind == "end" else "the picture")
    to = f" to the {message.direction}" if message.direction else ""
    after = "" if message.kind in ("enter", "cross") else f" after {span(message.duration_s)}"
    return f"track     {message.camera} {message.label} {message.track} {did}{f' {where}' if where else ''}{to}{after}"


def _status(message: Status) -> str:
    why = f": {message.reason}" if message.reason else ""
    return (
        f"status    {message.camera} {message.state} for {span(message.since_s)}{why} (captured {message.captured}, "
        f"results {message.results}, dropped: {causes(message.drops)}, reconnects {message.reconnects})"
    )


def _telemetry(message: Telemetry) -> str:
    estimated = " (estimated)" if message.power_estimated else ""
    gpu = ""
    if message.gpu_percent is not None or message.gpu_mhz is not None:
        gpu = f"GPU {number(message.gpu_percent, 0, ' %')} at {number(message.gpu_mhz, 0, ' MHz')}, "
    return (
        f"telemetry {message.provider}: power {number(message.power_w, 1, ' W')}{estimated}, "
        f"temperature {number(message.temperature_c, 1, ' C')}, {gpu}CPU {number(message.cpu_percent, 0, ' %')}, "
        f"memory free {number(message.memory_available_mb, 0, ' MB')}{', throttled' if message.throttled else ''}"
    )


def _open(arguments: argparse.Namespace, topics: list[str]) -> Client:
    # `state` is always subscribed: it tells a silent daemon from a missing one.
    return Client(arguments.endpoint, {*topics, "state"} if topics else ("",), curve=curve_of(arguments))


def _matches(topic: str, prefix: str) -> bool:
    return topic.startswith(prefix) if prefix.endswith("/") else topic == prefix


def _checked(given: str) -> str:
    """`result` -> `result/`, of every camera. UsageError for an unknown topic."""
    name, slash, camera = given.partition("/")
    topic = TOPICS.get(name)
    if topic is None or (slash and not topic.per_camera):
        names = ", ".join(f"{t}[/CAMERA]" if spec.per_camera else t for t, spec in TOPICS.items())
        raise UsageError(f"there is no topic {given!r}", f"topics are {names}")
    return topic.prefix + camera


def _json(encoder: msgspec.json.Encoder, topic: str, message: Message) -> str:
    fields: dict[str, Any] = msgspec.to_builtins(message)  # leaves out `classes` where there are `detections`
    return encoder.encode({"topic": topic, **fields}).decode()


def _report(text: str) -> None:
    print(f"edged: {text}", file=sys.stderr, flush=True)
