"""URI -> opened source. In: a camera's configuration. Out: its frames, one by one, drawn into memory of the caller.

Runs in the camera's child process (and in `edged check`); the libraries behind a kind of source are imported when it is
opened, so that a machine needs only what it uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edged import paths
from edged.config import CameraConfig
from edged.credentials import read_secret
from edged.errors import EdgedError, UsageError
from edged.frames.sources.base import Report, Source
from edged.uri import SourceUri, parse

READ_S: Final = 4.0
"""The daemon notices silence earlier; this ends the child of a daemon that does not."""
_PERIODS: Final = 6


def open_source(
    config: CameraConfig, first_frame: int = 0, credentials: Path | None = None, report: Report = lambda text: None
) -> Source:
    """Open a camera's source. `first_frame` is the index at which a test scene goes on.

    Raises UsageError for what cannot work on this machine, EdgedError for what may work later.
    """
    uri = with_password(parse(config.source), config, credentials)
    source = _open(uri, config, first_frame, report)
    from edged.frames.video.view import ViewedSource

    try:
        return ViewedSource(source, config)
    except EdgedError:
        source.close()
        raise


def _open(uri: SourceUri, config: CameraConfig, first_frame: int, report: Report) -> Source:
    if config.decoder == "hardware" and uri.kind not in ("rtsp", "csi"):
        raise UsageError(
            f'camera {config.name}: decoder = "hardware" does not go with a {uri.kind} source',
            'it is for rtsp:// and csi:// sources; remove it or write decoder = "software"',
        )
    match uri.kind:
        case "test":
            from edged.frames.sources.scene import SceneSource

            return SceneSource(uri, first_frame)
        case "file":
            from edged.frames.sources.file import FileSource

            return FileSource(uri)
        case "http":
            return _open_http(uri, config, report)
        case "rtsp" if config.decoder == "software":
            return _open_rtsp(uri, config, report)
        case "v4l2":
            from edged.frames.sources.v4l2 import V4l2Source

            return V4l2Source(uri)
        case "rtsp" | "csi":
            from edged.frames.sources.gstreamer import open_gstreamer

            return open_gstreamer(uri, config.transport)


def _read_s(config: CameraConfig) -> float:
    """How long a camera of this rate may be silent before its connection is given up."""
    period_s = config.poll_s or (1 / config.fps if config.fps else 0.0)
    return max(READ_S, _PERIODS * period_s)


def _open_rtsp(uri: SourceUri, config: CameraConfig, report: Report) -> Source:
    from edged.frames.rtsp.session import UnknownCodecError
    from edged.frames.sources.rtsp import RtspSource

    try:
        return RtspSource(uri, config.transport, _read_s(config), report)
    except UnknownCodecError:
        from edged.frames.sources.network import NetworkSource

        return NetworkSource(uri, config.transport, _read_s(config))


def _open_http(uri: SourceUri, config: CameraConfig, report: Report) -> Source:
    """What the answer says that it is, decides who reads it."""
    from edged.frames.sources.http import open_pictures

    pictures = open_pictures(uri, config, _read_s(config), report)
    if pictures is not None:
        return pictures
    from edged.frames.sources.network import NetworkSource

    return NetworkSource(uri, config.transport, _read_s(config))


def with_password(uri: SourceUri, config: CameraConfig, credentials: Path | None) -> SourceUri:
    """The source with the password of its credential, if it names a user and no password."""
    if uri.user is None or uri.password is not None:
        return uri
    name = config.password_credential or f"camera.{config.name}"
    path = (credentials or paths.CREDENTIALS_DIR) / name
    try:
        password = read_secret(path)
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
