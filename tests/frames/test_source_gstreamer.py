"""GStreamer's appsink as a source, with the system's own python3-gi; without it, the refusal with the fix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.config import CameraConfig
from edged.errors import EdgedError, UsageError
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingSpec
from edged.frames.source import open_source
from edged.frames.sources import gstreamer

# PyGObject before 3.44 still has the importer of old
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

SYSTEM = "/usr/lib/python3/dist-packages"


@pytest.fixture
def installed() -> Iterator[None]:
    """Debian's python3-gi serves the virtual environment if its Python is the same."""
    if Path(SYSTEM, "gi").exists():
        sys.path.append(SYSTEM)
    try:
        gstreamer.load()
    except UsageError as error:
        pytest.skip(f"no GStreamer here: {error.message}")
    else:
        yield
    finally:
        if SYSTEM in sys.path:
            sys.path.remove(SYSTEM)


def test_without_it_the_source_is_refused_with_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(UsageError) as caught:
        open_source(CameraConfig(name="gate", source="csi://0"))
    assert "apt-get install python3-gi gir1.2-gst-plugins-base-1.0" in caught.value.hint


@pytest.mark.parametrize(("width", "height"), [(320, 240), (322, 242)])  # the second has padded rows
def test_pictures_come_through_the_appsink(installed: None, width: int, height: int) -> None:
    caps = f"video/x-raw,format=NV12,width={width},height={height},framerate=30/1"
    source = gstreamer.GstSource(f"videotestsrc num-buffers=20 pattern=white ! {caps} ! identity", {})
    assert source.info.format is PixelFormat.NV12
    assert (source.info.width, source.info.height, source.info.fps) == (width, height, 30)
    into = np.zeros(RingSpec(width, height, PixelFormat.NV12).shape, np.uint8)
    assert source.grab() is not None
    source.retrieve(into)
    assert (into[:height] == 235).all()  # white, in limited range
    assert (into[height:] == 128).all()
    with pytest.raises(EdgedError, match="ended the stream"):
        for _ in range(30):
            source.grab()
    source.close()


def test_what_this_machines_gstreamer_has_not_is_reported(installed: None) -> None:
    with pytest.raises(UsageError, match="GStreamer cannot do it"):
        gstreamer.GstSource("nosuchelement", {})


def test_a_camera_that_gives_nothing_is_given_up(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "_OPEN_S", 1)
    with pytest.raises(EdgedError):
        gstreamer.GstSource("videotestsrc ! valve drop=true", {})


@pytest.mark.parametrize(
    ("colorimetry", "format_"),
    [("bt709", PixelFormat.NV12_709), ("bt601", PixelFormat.NV12), ("1:4:0:0", PixelFormat.NV12_FULL)],
)
def test_colours_and_the_shape_of_pixels_are_those_of_the_caps(
    installed: None, colorimetry: str, format_: PixelFormat
) -> None:
    caps = "video/x-raw,format=NV12,width=320,height=240,framerate=30/1,pixel-aspect-ratio=(fraction)4/3"
    source = gstreamer.GstSource(
        f"videotestsrc num-buffers=5 ! {caps},colorimetry=(string){colorimetry} ! identity", {}
    )
    assert source.info.format is format_
    assert abs(source.info.pixel_aspect - 4 / 3) < 1e-6
    source.close()
