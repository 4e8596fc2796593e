"""URI -> opened source. In: a camera's configuration. Out: its frames, one by one, drawn into memory of the caller.

Runs in the camera's child process (and in `edged check`); the libraries behind a kind of source are imported when it is
opened, so that a machine needs only what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edged import paths
from edged.config import CameraConfig
from edged.errors import EdgedError, UsageError
from edged.frames.frame import CaptureClock, PixelFormat
from edged.uri import SourceUri, parse


@dataclass(frozen=True)
class SourceInfo:
    """What an open source gives. `fps` None: it does not say. `paced` False: as fast as the reader takes frames."""

    width: int
    height: int
    format: PixelFormat
    fps: float | None
    codec: str
    paced: bool = True


@dataclass(frozen=True)
class Grabbed:
    """One frame that has come, not yet drawn.

    `mono_ns` is its arrival, or when it is due (which may lie ahead) for a source that has no arrival. `wall_ns` is the
    capture time by the camera's own clock, where it sends one. `corrupt` frames are not to be drawn.
    """

    mono_ns: int
    wall_ns: int | None = None
    corrupt: bool = False

    @property
    def clock(self) -> CaptureClock:
        return "arrival" if self.wall_ns is None else "camera"


class Source(Protocol):
    """An open source. `info` may change with a `grab`: then the frame just grabbed has the new size."""

    @property
    def info(self) -> SourceInfo: ...

    def grab(self) -> Grabbed | None:
        """Wait for the next frame; None at the end of a source that ends. Raises EdgedError when the source fails."""
        ...

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        """Draw the frame grabbed last into an array of the shape that info's size and format have."""
        ...

    def close(self) -> None: ...


def open_source(config: CameraConfig, first_frame: int = 0, credentials: Path | None = None) -> Source:
    """Open a camera's source. `first_frame` is the index at which a test scene goes on.

    Raises UsageError for what cannot work on this machine, EdgedError for what may work later.
    """
    uri = with_password(parse(config.source), config, credentials)
    if config.decoder == "hardware":
        if uri.kind not in ("rtsp", "csi"):
            raise UsageError(
                f'camera {config.name}: decoder = "hardware" does not go with a {uri.kind} source',
                'it is for rtsp:// and csi:// sources; remove it or write decoder = "software"',
            )
        return _gstreamer(uri)
    match uri.kind:
        case "test":
            from edged.frames.sources.scene import SceneSource

            return SceneSource(uri, first_frame)
        case "file":
            from edged.frames.sources.ffmpeg import FileSource

            return FileSource(uri)
        case "rtsp" | "http":
            from edged.frames.sources.ffmpeg import NetworkSource

            return NetworkSource(uri)
        case "v4l2":
            from edged.frames.sources.v4l2 import V4l2Source

            return V4l2Source(uri)
        case "csi":
            return _gstreamer(uri)


def _gstreamer(uri: SourceUri) -> Source:
    from edged.frames.sources.gstreamer import open_gstreamer

    return open_gstreamer(uri)


def with_password(uri: SourceUri, config: CameraConfig, credentials: Path | None) -> SourceUri:
    """The source with the password of its credential, if it names a user and no password."""
    if uri.user is None or uri.password is not None:
        return uri
    name = config.password_credential or f"camera.{config.name}"
    path = (credentials or paths.CREDENTIALS_DIR) / name
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        if config.password_credential is None:
            return uri
        raise EdgedError(f"there is no credential {name}", f"sudo edged credential set {name}") from None
    except (OSError, UnicodeDecodeError) as error:
        if credentials is None and config.password_credential is None:
            return uri  # not root, and no service: these passwords are not for us
        raise EdgedError(
            f"cannot read the password of camera {config.name} from {path}: {type(error).__name__}"
        ) from None
    return SourceUri(uri.kind, uri.target, uri.options, uri.user, password)


def credentials_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where systemd put the service's credentials (LoadCredential=), if it did."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None
