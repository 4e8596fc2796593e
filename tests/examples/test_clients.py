"""The examples in other languages against a real daemon: they get its results, and the very pixels of their frames.

C and C++ need a compiler (and libzmq's headers); Go, Rust and JavaScript their tools and packages, which
`scripts/test-examples` installs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.frames import ring
from edged.frames.frame import PixelFormat
from edged.synthetic.scene import Scene
from tests.support.daemon import RunningDaemon, write_config
from tests.support.models import center_model, write_bundle

EXAMPLES = Path(__file__).parents[2] / "examples"
BUILD_S = 300
WORDS = (
    "magic", "layout", "slots", "slot_bytes", "width", "height", "format", "stride", "latest", "rate", "corrupt",
    "frozen", "first", "still", "lost_packets", "decode_us", "bitrate", "keyframe_ms",
)  # fmt: skip
SEED, WIDTH, HEIGHT, FPS = 3, 128, 64, 2  # so slow that a frame stays in its ring for two seconds
LINE = re.compile(r"gate (\d+) (?:fine|fast) [\d.]+ ms, mean (-?[\d.]+)")
DEBIAN_GO = Path("/usr/share/gocode/src/github.com/vmihailenco/msgpack")
DEBIAN_CRATES = Path("/usr/share/cargo/registry")


def build(*command: str | Path, cwd: Path, **environment: str) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    home = tmp_path_factory.mktemp("d")
    bundle = write_bundle(home / "b", {"fine": center_model(-100.0), "fast": center_model(-90.0)})
    camera = {"gate": f"test://{SEED}?width={WIDTH}&height={HEIGHT}&fps={FPS}"}
    with RunningDaemon(write_config(home, bundle, camera, "[limits]\ndeadline_ms = 2000"), home) as running:
        yield running


def assert_reads(daemon: RunningDaemon, *command: str | Path, cwd: Path) -> None:
    """The client prints five results, with the mean of the frame that the scene renders under that number."""
    done = subprocess.run(
        [*map(str, command), daemon.results, "5"], cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found = LINE.findall(done.stdout)
    assert len(found) == 5, done.stdout
    scene, picture, compared = Scene(SEED, WIDTH, HEIGHT, FPS), np.empty((HEIGHT, WIDTH, 3), np.uint8), 0
    for frame, mean in found:
        if float(mean) >= 0:  # else it was overwritten before the client came to it
            scene.render(int(frame), picture)
            assert float(mean) == pytest.approx(picture.mean(), abs=0.01)
            compared += 1
    assert compared


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_header_has_the_layout_of_the_ring(tmp_path: Path) -> None:
    slots = ("SEQ", "FRAME", "CAPTURE", "MONO", "CLOCK", "STILL")
    fields = dict(zip(slots, ("seq", "frame", "t_capture_ns", "mono_capture_ns", "clock", "still"), strict=True))
    expected = {f"ring.{name}": 8 * getattr(ring, f"_W_{name.upper()}") for name in WORDS}
    expected |= {f"slot.{fields[name]}": 8 * getattr(ring, f"_S_{name}") for name in slots}
    expected |= {"slot": 8 * ring._W_FIRST_SLOT, "slot bytes": 8 * ring._SLOT_WORDS, "slots": ring.SLOTS}
    expected |= {"magic": ring._MAGIC, "layout": ring._LAYOUT, "page": ring._PAGE, "side": ring.MAX_SIDE}
    expected |= {f"EDGED_{one.name}": int(one) for one in PixelFormat}
    prints = {key: f"offsetof(struct edged_{key.replace('.', ', ')})" for key in expected if "." in key}
    prints |= {"slot": "offsetof(struct edged_ring, slot)", "slot bytes": "sizeof(struct edged_slot)"}
    prints |= {"slots": "EDGED_RING_SLOTS", "magic": "EDGED_RING_MAGIC", "layout": "EDGED_RING_LAYOUT"}
    prints |= {"page": "EDGED_RING_PAGE", "side": "EDGED_RING_MAX_SIDE"}
    prints |= {key: key for key in expected if key.startswith("EDGED_")}
    lines = [f'    printf("{key}=%llu\\n", (unsigned long long){value});' for key, value in prints.items()]
    source = tmp_path / "layout.c"
    source.write_text(
        '#include <stddef.h>\n#include "edged_ring.h"\nint main(void) {\n' + "\n".join(lines) + "\n    return 0;\n}\n"
    )
    build("cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", EXAMPLES, "-o", "layout", source, cwd=tmp_path)
    out = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert {key: int(value) for key, _, value in (line.partition("=") for line in out.splitlines())} == expected


def test_every_example_names_the_layout_of_the_ring() -> None:
    for path, text in (("rust/src/main.rs", "LAYOUT: u64 = "), ("javascript/client.js", "LAYOUT = ")):
        assert f"{text}{ring._LAYOUT}" in (EXAMPLES / path).read_text()


@pytest.mark.daemon
@pytest.mark.skipif(
    shutil.which("g++") is None or not Path("/usr/include/zmq.hpp").exists(), reason="cppzmq-dev is not installed"
)
def test_cpp(daemon: RunningDaemon, tmp_path: Path) -> None:
    client = EXAMPLES / "cpp/client.cpp"
    options = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", EXAMPLES)
    build("g++", *options, client, "-lzmq", "-o", "client", cwd=tmp_path)
    assert_reads(daemon, tmp_path / "client", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("go") is None or not DEBIAN_GO.exists(), reason="Go and its MessagePack are not installed"
)
def test_go(daemon: RunningDaemon, tmp_path: Path) -> None:
    paths = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(tmp_path / "cache")}
    build("go", "build", "-o", tmp_path / "client", "client.go", cwd=EXAMPLES / "go", **paths)
    assert_reads(daemon, tmp_path / "client", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("cargo") is None or not (DEBIAN_CRATES / "zmq-0.9.2").exists(),
    reason="Rust's crates are not installed",
)
def test_rust(daemon: RunningDaemon, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "rust", tmp_path / "rust")
    (tmp_path / "rust/.cargo").mkdir()
    (tmp_path / "rust/.cargo/config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{DEBIAN_CRATES}"\n'
    )
    build("cargo", "build", "--offline", cwd=tmp_path / "rust")
    assert_reads(daemon, tmp_path / "rust/target/debug/edged-client", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not (EXAMPLES / "javascript/node_modules/zeromq").exists(),
    reason="the packages of examples/javascript are not installed",
)
def test_javascript(daemon: RunningDaemon) -> None:
    assert_reads(daemon, "node", "client.js", cwd=EXAMPLES / "javascript")
