"""The manifest's decoder as one call: the outputs of a batch in, what is seen in one of its frames out.

Runs on the engine loop's thread; a decoder owns scratch memory and serves one thread.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.engines.engine import Outputs
from edged.engines.manifest import CenterDecoder, ClassifyDecoder, Manifest, YoloDecoder
from edged.vision.classify import Classes, LogitsDecoder
from edged.vision.detect import CenterPeaks, Detections, YoloBoxes
from edged.vision.letterbox import Letterbox

Decode = Callable[[Outputs, int, Letterbox], Detections | Classes]
"""(outputs of the batch, index of the frame in it, its letterbox) -> what is seen, in pixels of the source frame.
EdgedError naming the output if it is not finite: a broken model is never published."""


def make_decoder(manifest: Manifest) -> Decode:
    match manifest.output:
        case CenterDecoder():
            return CenterPeaks(manifest.output, manifest.input, len(manifest.labels))
        case YoloDecoder():
            return YoloBoxes(manifest.output, manifest.input, len(manifest.labels))
        case ClassifyDecoder():
            return LogitsDecoder(manifest.output, len(manifest.labels))
