"""Publish to receive in another process: edged's publisher and typed client against bare pyzmq with the same payload.

The bare side packs and unpacks the same payload with the same library, and nothing else. A third side, reported without
a target, sends bytes packed beforehand and does not unpack them: the way of ZeroMQ alone. The sides run at the same
time, message by message in turn, so that they meet the same noise.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import msgspec
import zmq

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.client import Client
from scripts.benches.report import Figure, Report

TARGET = 1.3
TOPIC = b"result/gate"


def result() -> schema.Result:
    detection = schema.Detection("washer", 1, 0.9134, (12.25, 40.5, 118.0, 203.75))
    return schema.Result(
        camera="gate",
        frame=1,
        t_capture=1.7e9,
        mono_capture_ns=time.monotonic_ns(),
        variant="fp16",
        batch=1,
        latency_ms=schema.Latency(0.2, 0.1, 1.3, 0.1),
        deadline_ms=50.0,
        energy_mj=None,
        width=1280,
        height=720,
        ring=schema.RingRef("edged-0123abcd-gate-0", 2, 8),
        detections=[detection] * 8,
    )


def receive(pipe: Connection, bare_endpoint: str, edged_endpoint: str) -> None:
    """In a process of its own: one message of each side in turn; sends back when each had arrived."""
    context = zmq.Context()
    bare = context.socket(zmq.SUB)
    bare.subscribe(TOPIC)
    bare.connect(bare_endpoint)
    with Client(edged_endpoint, ["result/gate"]) as client:
        pipe.send("ready")
        while (side := pipe.recv()) != "end":
            if side == "raw":
                bare.recv_multipart()
                pipe.send(time.monotonic_ns())
            elif side == "bare":
                msgspec.msgpack.decode(bare.recv_multipart()[1])
                pipe.send(time.monotonic_ns())
            else:
                message = client.receive(5.0)
                pipe.send(time.monotonic_ns() if isinstance(message, schema.Result) else 0)
    bare.close(0)
    context.term()


def measure(quick: bool = False) -> Report:
    """p50 and p99 at 120 messages a second (four cameras at 30 fps), as a ratio."""
    messages, rate = (200, 400) if quick else (2500, 120)
    context = zmq.Context()
    sides: dict[str, list[float]] = {"bare": [], "edged": [], "raw": []}
    with tempfile.TemporaryDirectory() as directory:
        endpoints = [f"ipc://{Path(directory) / name}.ipc" for name in ("bare", "edged")]
        bare = context.socket(zmq.PUB)
        bare.bind(endpoints[0])
        publisher = Publisher(context, endpoints[1])
        pipe, other = multiprocessing.get_context("spawn").Pipe()
        child = multiprocessing.get_context("spawn").Process(target=receive, args=(other, *endpoints), daemon=True)
        child.start()
        pipe.recv()
        settle(publisher)
        message = result()
        payload = msgspec.msgpack.encode(message)
        for n in range(messages):
            for side in ("bare", "edged", "raw") if n % 2 else ("raw", "edged", "bare"):
                pipe.send(side)
                time.sleep(0.5 / rate)
                begun = time.monotonic_ns()
                if side == "raw":
                    bare.send_multipart([TOPIC, payload])
                elif side == "bare":
                    bare.send_multipart([TOPIC, msgspec.msgpack.encode(message)])
                else:
                    publisher.publish(message)
                sides[side].append((pipe.recv() - begun) / 1000)
        pipe.send("end")
        child.join(5.0)
        publisher.close()
        bare.close(0)
    context.term()
    return compare(sides)


def settle(publisher: Publisher) -> None:
    """Subscriptions travel in their own time; nothing is measured before they are in."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        publisher.serve()
        time.sleep(0.01)


def compare(sides: dict[str, list[float]]) -> Report:
    report = Report("wire")
    rounds = 10
    ratios = []
    for n in range(rounds):  # the spread is that of ten stretches of the run
        part = {side: times[n * len(times) // rounds : (n + 1) * len(times) // rounds] for side, times in sides.items()}
        ratios.append(median(part["edged"]) / median(part["bare"]))
    p50 = median(sides["edged"]) / median(sides["bare"])
    report.figures.append(Figure("publish to receive, p50", p50, "x bare", TARGET, spread=(min(ratios), max(ratios))))
    report.notes["p50 against ZeroMQ alone, x raw"] = round(median(sides["edged"]) / median(sides["raw"]), 3)
    for side, times in sides.items():
        ordered = sorted(times)
        report.notes[side] = {
            "p50_us": round(median(ordered), 1),
            "p99_us": round(ordered[int(0.99 * len(ordered))], 1),
            "messages": len(ordered),
        }
    return report
