"""The long lane: a minute of one file, one RTSP and one test camera, whose RTSP server is stopped and restarted twice.

`scripts/test --slow tests/daemon/test_long_run.py -s` prints the counts; they must add up.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

import edged
from edged.bus.schema import Message, Result, State, Status
from tests.support.clips import access_units
from tests.support.daemon import RunningDaemon, write_config
from tests.support.rtsp import RtspCamera

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
RUN_S = 60.0
OUTAGES_S = ((15.0, 20.0), (35.0, 42.0))


def book(message: Message, received: Counter[str], states: list[str]) -> State | None:
    """Count a result, note a new state of the RTSP camera, return a `state` message."""
    if isinstance(message, Result):
        received[message.camera] += 1
    elif isinstance(message, Status) and message.camera == "rtsp" and states[-1:] != [message.state]:
        states.append(message.state)
    return message if isinstance(message, State) else None


def test_a_minute_with_a_camera_that_goes_and_comes(tmp_path: Path) -> None:
    from scripts.benches.clip import write_clip

    clip = write_clip(tmp_path / "scene.mp4", 150)
    camera = RtspCamera(access_units()).start()
    sources = {"file": f"file://{clip}", "rtsp": camera.url, "scene": "test://7"}
    received: Counter[str] = Counter()
    states: list[str] = []
    last: State | None = None
    with RunningDaemon(write_config(tmp_path, BUNDLE, sources), tmp_path) as daemon, daemon.client() as client:
        begun = time.monotonic()
        switches = [
            (begun + at, act) for pair in OUTAGES_S for at, act in zip(pair, (camera.stop, camera.start), strict=True)
        ]
        for message in client:
            now = time.monotonic()
            if switches and now > switches[0][0]:
                switches.pop(0)[1]()
            last = book(message, received, states) or last
            if now - begun > RUN_S:
                break
        daemon.process.terminate()
        client.timeout_s = 2.0
        for message in client:
            last = book(message, received, states) or last
        lost = sum(client.gaps.values())
        assert daemon.process.wait(10) == 0
    camera.stop()
    assert last is not None and lost == 0
    print(f"\n{'camera':8}{'captured':>10}{'results':>10}{'received':>10}{'reconnects':>12}  drops")
    for status in last.cameras:
        print(
            f"{status.camera:8}{status.captured:10}{status.results:10}{received[status.camera]:10}"
            f"{status.reconnects:12}  {status.drops}"
        )
        assert status.captured == status.results + sum(status.drops.values())
        assert status.results - 30 <= received[status.camera] <= status.results  # we joined when it ran already
    by_name = {status.camera: status for status in last.cameras}
    assert by_name["rtsp"].reconnects >= 2
    assert states.count("live") == 3, states
    assert by_name["scene"].results > 0.9 * by_name["scene"].captured
