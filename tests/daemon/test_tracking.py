"""A real daemon on the rendered belt: identities on the wire, events in order, a mask that hides."""

from __future__ import annotations

from pathlib import Path

import edged
from edged.client import Result, Track
from tests.support.daemon import RunningDaemon, write_config

BUNDLE = Path(edged.__file__).parent / "bundles" / "demo"
REGIONS = """fps = 10
mask = [[[0, 0], [1, 0], [1, 0.5], [0, 0.5]]]
[camera.zones.dock]
polygon = [[0.3, 0], [0.7, 0], [0.7, 1], [0.3, 1]]
[camera.lines.door]
from = [0.5, 0]
to = [0.5, 1]
"""


def test_objects_on_the_belt_are_followed(tmp_path: Path) -> None:
    cameras = {"belt": f"test://7?fps=30\n{REGIONS}"}
    config = write_config(tmp_path, BUNDLE, cameras, "[limits]\ndeadline_ms = 60000\n[record]\nmax_mb = 0")
    events: dict[int, list[str]] = {}
    lowest = 1.0
    named = False
    with RunningDaemon(config, tmp_path) as daemon, daemon.client("track/belt", "result/belt") as client:
        for message in client:
            if isinstance(message, Result):
                assert isinstance(message.detections, list)
                lowest = min([lowest, *(d.box[3] / message.height for d in message.detections)])
                named |= any(isinstance(d.track, int) and d.zones == ("dock",) for d in message.detections)
            elif isinstance(message, Track):
                where = message.zone or message.line or "picture"
                events.setdefault(message.track, []).append(f"{message.kind} {where}")
            if named and any(e[-1] == "end picture" and len(e) >= 5 for e in events.values()):
                break
        assert not sum(client.gaps.values())
    whole = next(e for e in events.values() if e[-1] == "end picture" and len(e) >= 5)
    assert whole[0] == "enter picture" and "cross door" in whole
    assert whole.index("enter dock") < whole.index("cross door") < whole.index("leave dock")
    assert lowest >= 0.5  # what stands in the upper half does not count
