"""Decoded pictures into the ring: what is kept of them."""

from __future__ import annotations

import gc

import av
import numpy as np

from edged.frames.video.decoder import Decoder
from edged.frames.video.picture import Picture
from tests.support.clips import access_units


def pictures_alive() -> int:
    return sum(isinstance(thing, av.VideoFrame) and bool(thing.width) for thing in gc.get_objects())


def test_no_picture_outlives_the_next_one() -> None:
    """Not even until the next garbage collection: a keyframe a second is a 4K picture of 12 MB a second."""
    decoder: Decoder[int] = Decoder("h264")
    picture, into = Picture(), np.empty((360, 320), np.uint8)
    gc.disable()
    try:
        before = pictures_alive()  # of other tests
        for number, unit in enumerate(access_units(fps=2, count=12)):  # every second one is a keyframe
            for frame, _ in decoder.decode(b"".join(b"\0\0\0\1" + nal for nal in unit), number):
                picture.take(frame, 1.0, 2.0, "h264")
                picture.draw(into)
            del frame
        alive = pictures_alive() - before
    finally:
        gc.enable()
    assert alive == 1, "the current one"
