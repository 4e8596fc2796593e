"""The manifest's decoder as one call: the outputs of a batch in, the predictions for one of its frames out.

Runs on the engine loop's thread; a decoder owns scratch memory and serves one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edged.engines import decoder_spec
from edged.engines.decoder_spec import Decoder
from edged.engines.engine import Outputs
from edged.engines.manifest import InputSpec, Manifest
from edged.vision.decoders.boxes import GivenDetections, ScoredBoxes
from edged.vision.decoders.center import CenterFaces, CenterPeaks
from edged.vision.decoders.grid import DflBoxes, ScrfdFaces, YoloxBoxes, YunetFaces
from edged.vision.decoders.whole import BestClasses, CellClasses, Vectors
from edged.vision.decoders.yolo import YoloBoxes
from edged.vision.letterbox import Letterbox
from edged.vision.results import Predictions

Decode = Callable[[Outputs, int, Letterbox], Predictions]
"""(outputs of the batch, index of the frame in it, its letterbox) -> its predictions, in pixels of the source frame.
EdgedError naming the output if it is not finite: a broken model is never published."""

_DECODERS: Final[dict[type, Callable[..., Decode]]] = {
    decoder_spec.CenterDecoder: CenterPeaks,
    decoder_spec.YoloDecoder: YoloBoxes,
    decoder_spec.BoxesDecoder: ScoredBoxes,
    decoder_spec.DetectionsDecoder: GivenDetections,
    decoder_spec.YoloxDecoder: YoloxBoxes,
    decoder_spec.DflDecoder: DflBoxes,
    decoder_spec.ScrfdDecoder: ScrfdFaces,
    decoder_spec.YunetDecoder: YunetFaces,
    decoder_spec.CenterFaceDecoder: CenterFaces,
    decoder_spec.ClassifyDecoder: BestClasses,
    decoder_spec.SemanticDecoder: CellClasses,
    decoder_spec.EmbedDecoder: Vectors,
}


def make_decoder(manifest: Manifest) -> Decode:
    """The decoder that the manifest declares."""
    return decoder_for(manifest.output, manifest.input, len(manifest.labels))


def decoder_for(output: Decoder, image: InputSpec, classes: int) -> Decode:
    """The decoder of one declaration, for so many classes."""
    return _DECODERS[type(output)](output, image, classes)
