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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
LIVE_S, AWAY_S = 13.0, 6.0
OUTAGES = 2


def book(message: Message, received: Counter[str], states: list[str]) -> State | None:
    """Count a result, note a new state of the RTSP camera, return a `state` message."""
    if isinstance(message, Result):
        received[message.camera] += 1
        return None
    cameras = message.cameras if isinstance(message, State) else [message] if isinstance(message, Status) else []
    states += [status.state for status in cameras if status.camera == "rtsp" and states[-1:] != [status.state]]
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
        outages, since, up = 0, time.monotonic(), True
        for message in client:
            before = states[-1:]
            last = book(message, received, states) or last
            now = time.monotonic()
            if states[-1:] != before and "live" in (states[-1:] + before):
                since = now
            if up and states[-1:] == ["live"] and now - since > LIVE_S:
                if outages == OUTAGES:
                    break
                camera.stop()
                outages, since, up = outages + 1, now, False
            elif not up and states[-1:] != ["live"] and now - since > AWAY_S:
                camera.start()
                up = True
        daemon.process.terminate()
        client.timeout_s = 2.0
        for message in client:
            last = book(message, received, states) or last
        lost = sum(client.gaps.values())
        assert daemon.process.wait(60) == 0
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
    assert by_name["rtsp"].reconnects >= OUTAGES
    assert states.count("live") == OUTAGES + 1, states
    for name in ("file", "scene"):  # another camera's outage is nothing to them
        assert by_name[name].state == "live" and by_name[name].reconnects == 0 and by_name[name].results > 0
