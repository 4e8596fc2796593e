"""The peers' half of `bench tracking`, run in an environment with `trackers`: DIRECTORY in, scores as JSON out.

DIRECTORY holds truth.txt and edged.txt in the MOT format, and frames.json with the rate and each frame's boxes, scores
and classes. Printed: {tracker: {"IDF1": points, "HOTA": points}}.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import supervision as sv
import trackers
from trackers.eval import evaluate_mot_sequence

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
PEERS = ("ByteTrackTracker", "SORTTracker", "OCSORTTracker")


def main() -> None:
    directory = Path(sys.argv[1])
    given = json.loads((directory / "frames.json").read_text())
    for peer in PEERS:
        tracker = getattr(trackers, peer)(frame_rate=given["rate"])
        lines = []
        for place, (boxes, scores, classes) in enumerate(given["frames"], 1):
            detections = sv.Detections(
                xyxy=np.array(boxes, float).reshape(-1, 4),
                confidence=np.array(scores, float),
                class_id=np.array(classes, int),
            )
            tracked = tracker.update(detections)
            for box, identity in zip(tracked.xyxy, tracked.tracker_id, strict=True):
                if identity >= 0:
                    x0, y0, x1, y1 = box
                    lines.append(f"{place},{identity + 1},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},1,1,1\n")
        (directory / f"{peer}.txt").write_text("".join(lines))
    found = {}
    for name in ("edged", *PEERS):
        scores = evaluate_mot_sequence(
            directory / "truth.txt", directory / f"{name}.txt", metrics=["CLEAR", "HOTA", "Identity"]
        )
        found[name] = {"IDF1": 100 * float(scores.Identity.IDF1), "HOTA": 100 * float(scores.HOTA.HOTA)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
