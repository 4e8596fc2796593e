"""`edged run` with a wall clock that SIGUSR1 steps: what a device without a battery for its clock goes through."""

from __future__ import annotations

import itertools
import signal
import sys
from types import FrameType

from edged import clock
from edged.cli import main

HOUR_NS = 3600 * clock.NS_PER_S
STEPS_NS = itertools.cycle((HOUR_NS, -2 * HOUR_NS, 15 * 365 * 24 * HOUR_NS, -50 * 365 * 24 * HOUR_NS, 0))

real_wall_ns = clock.wall_ns
offset_ns = 0


def step(number: int, frame: FrameType | None) -> None:
    global offset_ns
    offset_ns = next(STEPS_NS)


def stepped_wall_ns() -> int:
    return max(0, real_wall_ns() + offset_ns)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, step)
    clock.wall_ns = stepped_wall_ns
    sys.exit(main(sys.argv[1:]))
