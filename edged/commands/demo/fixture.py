"""The demo's environment: a private directory, rendered cameras, and a real daemon as a child process.

The cameras are rendered scenes of the `test` source, whose objects are known in every frame, and a video file that is
encoded at start from another such scene. The daemon is `edged run` with a private runtime directory; where the extra
`gateway` is installed, `edged gateway` shows its page beside it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import av
import numpy as np

from edged.errors import EdgedError
from edged.paths import CONTROL, RESULTS
from edged.synthetic.scene import Scene

WIDTH, HEIGHT, FPS = 1280, 720, 10
RUN_S: Final = 4.0
VIDEO_SEED: Final = 30
VIDEO_FRAMES: Final = 80
FIRST_DEADLINE_MS: Final = 1000.0
"""Until the script sets one that fits this machine, so that nothing is late while the cameras open."""
STOP_S: Final = 10.0
LOG_TAIL_BYTES: Final = 2000
_EDGED: Final = (
    "import signal, sys; from edged.cli import main; from edged.frames.prctl import die_with_parent; "
    "die_with_parent(signal.SIGTERM); sys.exit(main())"
)
"""`edged`, which also stops when the demo is killed."""


@dataclass(frozen=True)
class DemoCamera:
    """`seed`: of the scene it shows; the truth of frame n is that scene's frame n, for "test" cameras only. With
    `pause_s` its belt runs for RUN_S and then stands still for so long."""

    name: str
    kind: Literal["test", "file"]
    seed: int
    pause_s: float = 0.0

    @property
    def scene(self) -> Scene:
        return Scene(self.seed, WIDTH, HEIGHT, FPS, RUN_S, self.pause_s)


GATEWAY_NEEDS: Final = ("aiohttp", "prometheus_client")


CAMERAS: Final = (
    DemoCamera("belt-1", "test", 1),
    DemoCamera("video", "file", VIDEO_SEED),
    DemoCamera("belt-2", "test", 2, pause_s=5.0),
)


class Fixture:
    """The daemon and its directory, from entry to exit; nothing is left behind."""

    def __init__(self, cameras: int, bundle: Path) -> None:
        self.cameras = CAMERAS[:cameras]
        self._bundle = bundle
        with _reporting_full_disk("temporary files"):
            self._directory = Path(tempfile.mkdtemp(prefix="edged-demo-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._gateway: subprocess.Popen[bytes] | None = None
        self._page_port = _free_port() if all(map(importlib.util.find_spec, GATEWAY_NEEDS)) else None

    @property
    def page(self) -> str | None:
        """Where to look with a browser; None without the extra `gateway`."""
        return None if self._page_port is None else f"http://127.0.0.1:{self._page_port}/"

    @property
    def results(self) -> str:
        return f"ipc://{self._directory / RESULTS}"

    @property
    def control(self) -> str:
        return f"ipc://{self._directory / CONTROL}"

    def __enter__(self) -> Fixture:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._stop()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def prepare(self) -> None:
        """Encode the video, if a camera uses it, and write the configuration."""
        video = self._directory / "belt.mp4"
        if any(camera.kind == "file" for camera in self.cameras):
            encode_scene(video, VIDEO_SEED, VIDEO_FRAMES)
        lines = [f'bundle = "{self._bundle}"', "[limits]", f"deadline_ms = {FIRST_DEADLINE_MS:g}"]
        lines += ["[motion]", 'gate = "on"', "[metrics]", 'textfile = "demo.prom"']
        if self._page_port is not None:
            lines += ["[web]", f'listen = "127.0.0.1:{self._page_port}"']
        for camera in self.cameras:
            scene = (
                f"test://{camera.seed}?width={WIDTH}&height={HEIGHT}&fps={FPS}&run_s={RUN_S}&pause_s={camera.pause_s}"
            )
            source = scene if camera.kind == "test" else f"file://{video}"
            lines += ["[[camera]]", f'name = "{camera.name}"', f'source = "{source}"']
        file = self._directory / "demo.toml"
        with _reporting_full_disk(file):
            file.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start the daemon and the gateway, each in its own session: Ctrl-C reaches the demo alone, which then stops
        them."""
        self._process = self._start("run", "daemon.log")
        if self._page_port is not None:
            self._gateway = self._start("gateway", "gateway.log")

    def _start(self, command: str, log_name: str) -> subprocess.Popen[bytes]:
        with (self._directory / log_name).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _EDGED, command, "-c", str(self._directory / "demo.toml")],
                env={**os.environ, "RUNTIME_DIRECTORY": str(self._directory)},
                cwd=self._directory,  # Python imports from the current directory first: a private one
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def require_alive(self) -> None:
        """EdgedError with the end of its log if the daemon has exited."""
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            tail = (self._directory / "daemon.log").read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
            raise EdgedError(f"the daemon ended with code {code}", f"the end of its log:\n{tail}")

    def _stop(self) -> None:
        running = [one for one in (self._gateway, self._process) if one is not None and one.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()  # a daemon's cameras die with it
                process.wait(STOP_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _reporting_full_disk(what: str | Path) -> Iterator[None]:
    """A full or read-only file system becomes an EdgedError."""
    try:
        yield
    except OSError as error:
        raise EdgedError(
            f"cannot write {what}: {error.strerror}", "make room there, or name another directory in TMPDIR"
        ) from error


def encode_scene(path: Path, seed: int, frames: int) -> None:
    """`frames` pictures of a scene as H.264. Encoded in memory, since FFmpeg crashes on a full file system."""
    encoded = io.BytesIO()
    scene = Scene(seed, WIDTH, HEIGHT, FPS)
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    with av.open(encoded, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            scene.render(index, picture)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    with _reporting_full_disk(path):
        path.write_bytes(encoded.getvalue())
