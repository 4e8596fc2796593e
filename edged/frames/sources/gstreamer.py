"""CSI cameras and hardware decoding through GStreamer: an appsink that gives NV12.

In: csi://N, or an RTSP URL with decoder = "hardware". Out: NV12 frames. Needs the system's python3-gi and plugins,
which pip cannot install; where they are missing the source is refused with the packages' names. Runs in the child.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.errors import EdgedError, UsageError
from edged.frames.frame import PixelFormat
from edged.frames.sources.base import Grabbed, SourceInfo
from edged.uri import SourceUri

PACKAGES: Final = (
    "apt-get install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad, "
    "and make the virtual environment with --system-site-packages"
)
_SINK: Final = "video/x-raw,format=NV12 ! appsink name=sink max-buffers=1 drop=true sync=false"
_CSI: Final = (
    "nvarguscamerasrc sensor-id={n} ! video/x-raw(memory:NVMM),width={w},height={h},framerate={f}/1 ! nvvidconv"
)
_RTSP: Final = "rtspsrc name=src protocols={transport} latency=0 ! parsebin ! nvv4l2decoder ! nvvidconv"
_FULL_RANGE: Final = 1
"""GST_VIDEO_COLOR_RANGE_0_255; its name is no Python name, and PyGObject's versions differ in how they give it."""
_OPEN_S: Final = 8
_READ_S: Final = 4


def load() -> tuple[ModuleType, ModuleType]:
    """(Gst, GstVideo), initialised. Raises UsageError with the fix when they are not installed."""
    try:
        gi = importlib.import_module("gi")
        for namespace in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(namespace, "1.0")
        gst, video = (importlib.import_module(f"gi.repository.{name}") for name in ("Gst", "GstVideo"))
        importlib.import_module("gi.repository.GstApp")  # gives appsink its methods
    except (ImportError, ValueError) as error:
        raise UsageError(f"csi:// and hardware decoding need GStreamer, which is not here: {error}", PACKAGES) from None
    gst.init(None)
    return gst, video


def open_gstreamer(uri: SourceUri, transport: str) -> GstSource:
    """The source for csi:// or a hardware-decoded rtsp://."""
    if uri.kind == "csi":
        options = uri.options
        width, height, fps = (int(options.get(k, d)) for k, d in (("width", 1280), ("height", 720), ("fps", 30)))
        return GstSource(_CSI.format(n=uri.target, w=width, h=height, f=max(fps, 1)), {})
    # As properties, not as text of the pipeline: a URL can then add nothing to it.
    return GstSource(
        _RTSP.format(transport=transport), {"location": uri.target, "user-id": uri.user, "user-pw": uri.password}
    )


class GstSource:
    """A pipeline whose end gives NV12; `properties` go to its element `src`."""

    cost = None

    def __init__(self, pipeline: str, properties: dict[str, str | None]) -> None:
        self._gst, self._video = load()
        try:
            self._pipeline: Any = self._gst.parse_launch(f"{pipeline} ! {_SINK}")
        except self._gst_error() as error:
            raise UsageError(f"this machine's GStreamer cannot do it: {error}", PACKAGES) from None
        for key, value in properties.items():
            if value is not None:
                self._pipeline.get_by_name("src").set_property(key, value)
        self._sink: Any = self._pipeline.get_by_name("sink")
        self._pipeline.set_state(self._gst.State.PLAYING)
        self._caps: Any = None
        self._sample: Any = None
        self.info = SourceInfo(2, 2, PixelFormat.NV12, None, "gstreamer")
        self._first: Grabbed | None = self._pull(_OPEN_S)

    def _gst_error(self) -> type[Exception]:
        error: type[Exception] = importlib.import_module("gi.repository.GLib").Error
        return error

    def grab(self) -> Grabbed | None:
        grabbed, self._first = self._first, None
        return grabbed if grabbed is not None else self._pull(_READ_S)

    def _pull(self, timeout_s: int) -> Grabbed:
        self._sample = self._sink.try_pull_sample(timeout_s * self._gst.SECOND)
        mono_ns = clock.mono_ns()
        if self._sample is None:
            reason = self._why(timeout_s)
            self.close()  # GStreamer complains loudly of pipelines that are dropped while they run
            raise EdgedError(reason)
        caps = self._sample.get_caps()
        if self._caps is None or not caps.is_equal(self._caps):
            self._caps = caps
            self._layout = self._video.VideoInfo.new_from_caps(caps)
            layout = self._layout
            fps = layout.fps_n / layout.fps_d if layout.fps_n and layout.fps_d else None
            fps = fps if fps and fps <= 1000 else None
            aspect = layout.par_n / layout.par_d if layout.par_n and layout.par_d else 1.0
            size = layout.width & ~1, layout.height & ~1
            self.info = SourceInfo(*size, self._format(layout.colorimetry), fps, "gstreamer", pixel_aspect=aspect)
        return Grabbed(mono_ns)

    def _format(self, colorimetry: Any) -> PixelFormat:
        full = int(colorimetry.range) == _FULL_RANGE
        if colorimetry.matrix == self._video.VideoColorMatrix.BT709:
            return PixelFormat.NV12_709_FULL if full else PixelFormat.NV12_709
        return PixelFormat.NV12_FULL if full else PixelFormat.NV12

    def _why(self, timeout_s: int) -> str:
        """The pipeline's own error, or that there was none."""
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is None:  # of the end itself the bus may hear later than the sink
            return "the camera ended the stream" if self._sink.is_eos() else f"no frame within {timeout_s} s"
        return f"GStreamer: {message.parse_error()[0].message}"

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        buffer = self._sample.get_buffer()
        height, width = into.shape[0] * 2 // 3, into.shape[1]
        ok, mapped = buffer.map(self._gst.MapFlags.READ)
        if not ok:
            raise EdgedError("GStreamer gave a frame that cannot be mapped")
        try:
            data = np.frombuffer(mapped.data, np.uint8)
            for plane, rows, target in ((0, height, into[:height]), (1, height // 2, into[height:])):
                stride, offset = self._layout.stride[plane], self._layout.offset[plane]
                source = np.lib.stride_tricks.as_strided(data[offset:], (rows, width), (stride, 1), writeable=False)
                np.copyto(target, source)
        finally:
            buffer.unmap(mapped)

    def close(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)
