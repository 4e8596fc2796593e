"""edged as one system of `peers`: the daemon as a child, and one subscriber that reads each result's frame.

python -m scripts.benches.peer_edged JSON: urls, bundle, log, notes. The log is as of peer_systems, so that writing it
costs no system more than another; besides, NOTES gets a line of JSON for each change of a camera's state, and the
counts at the end (SIGTERM).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from edged.bus.schema import Status
from edged.client import Client, Result
from scripts.benches.daemon import RunningDaemon
from scripts.benches.peer_systems import RECORD, number_of

DEADLINE_MS = 500.0
"""The peers have no deadline; this one lets a slow machine give results too, and the newest frame wins all the same."""


def main() -> None:
    options = json.loads(sys.argv[1])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    cameras = {f"c{n}": url for n, url in enumerate(options["urls"])}
    with (
        RunningDaemon(cameras, deadline_ms=DEADLINE_MS, bundle=Path(options["bundle"])) as daemon,
        open(options["log"], "ab", buffering=0) as log,
        open(options["notes"], "a", buffering=1) as notes,
        Client(daemon.results, ["result", "status"], 0.2) as client,
    ):
        while not stopping:
            message = client.receive(0.2)
            if isinstance(message, Result):
                at_s = time.monotonic()
                number = _number(client, message)
                boxes, age_us = len(message.detections or ()), round(1e3 * message.age_ms)
                log.write(RECORD.pack(int(message.camera[1:]), number, boxes, age_us, at_s))
            elif isinstance(message, Status):
                state = {"camera": message.camera, "state": message.state, "reason": message.reason}
                notes.write(json.dumps({**state, "at": time.monotonic()}) + "\n")
        results, drops = daemon.counted()
        notes.write(json.dumps({"results": results, "drops": drops}) + "\n")


def _number(client: Client, message: Result) -> int:
    """From the luma as it lies in the ring: the conversion to BGR would be counted as edged's work."""
    ring: Any = client._rings._ring(message)
    pixels = ring.pixels(message.ring.slot)
    number = number_of(pixels[: message.height])
    return number if ring.intact(message.ring.slot, message.ring.seq) else -1


if __name__ == "__main__":
    main()
