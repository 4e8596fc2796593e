"""What the TensorRT adapter itself costs per inference: NVIDIA's real bindings on the stand-in core library.

The library computes next to nothing, host memory plays the GPU's, and the bare way makes the same calls in the same
order without the adapter: what is left is the adapter. Runs the bindings in a process of their own; needs PyPI (the
first time) and a C++ compiler. Nothing here tells how fast TensorRT is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from edged import clock
from edged.errors import UsageError
from scripts.benches.report import Figure, Report
from tests.support import tensorrt_bindings
from tests.support.tensorrt_bindings import VERSIONS, NotHadError

ROOT = Path(__file__).parent.parent.parent
TARGET_US = 3.0
TIMES = 2000
PLAN = """EDGED STAND-IN
input image uint8 -1,32,64,3
output scores float32 -1,3,4,8
output boxes float16 -1,4,4,8
memory 4096
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bindings", choices=VERSIONS, default="10.3.0", help="which version (default %(default)s)")


def measure(quick: bool = False, bindings: str = "10.3.0") -> Report:
    try:
        tensorrt_bindings.unpack(bindings)
        tensorrt_bindings.build_core(bindings)
    except NotHadError as error:
        raise UsageError(f"bench trt-adapter: {error}", "it needs PyPI the first time, and a C++ compiler") from error
    command = [sys.executable, "-m", "scripts.benches.trt_adapter", bindings, "3" if quick else "15"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise UsageError("bench trt-adapter: its process failed", done.stderr.strip()[-500:])
    times: dict[str, list[float]] = json.loads(done.stdout)
    report = Report("trt-adapter", notes={"bindings": bindings})
    for name, way, bare in (
        ("adapter", "adapter", "bare"),
        ("adapter, graph", "adapter, graph", "bare, graph"),
        ("adapter and pool", "pool", "bare"),
    ):
        extra = [a - b for a, b in zip(times[way], times[bare], strict=True)]
        report.figures.append(Figure(name, median(extra), "us", TARGET_US, spread=(min(extra), max(extra))))
    report.notes["us per inference"] = ", ".join(f"{way} {median(us):.1f}" for way, us in times.items())
    return report


def child(version: str, rounds: int) -> dict[str, list[float]]:
    """Microseconds per inference of each way, a figure a round; the ways take turns."""
    tensorrt_bindings.load(version)
    ways = _ways()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first to warm up
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            work = ways[name]
            begun = clock.mono_ns()
            for _ in range(TIMES):
                work()
            if number:
                found[name].append((clock.mono_ns() - begun) / TIMES / 1000)
    return found


def _ways() -> dict[str, Callable[[], None]]:
    """TensorRT's module must be there before these are imported."""
    from edged.engines.bundle import load_bundle
    from edged.engines.pool import Pool
    from edged.engines.trt import TrtEngine, TrtRuntime, version
    from tests.support.host_gpu import HostGpu
    from tests.support.models import file_entry, manifest_for, write_bundle

    class Quiet(HostGpu):
        """Keeps no list of what was called."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = _Nothing()

    gpu = Quiet()
    content = PLAN.encode()
    built = {"tensorrt": version(), "capability": "8.7", "device": gpu.name, "max_batch": 2}
    built["source"] = hashlib.sha256(content).hexdigest()
    manifest = manifest_for({"a": content})
    manifest["variants"][0]["files"] = [file_entry("a.plan", content, runtime="tensorrt", built=built)]
    with TemporaryDirectory() as directory:
        write_bundle(Path(directory), {}, manifest)
        (Path(directory) / "a.plan").write_bytes(content)
        pool = Pool(load_bundle(directory), TrtRuntime(gpu), 2)  # type: ignore[arg-type]
    engine = pool._engines["a"]
    assert isinstance(engine, TrtEngine)
    slot, memory = engine._slots[0, 1], engine._memory
    context, graph = slot._context, slot._graph
    held = memory.input(0)[:1]
    image, size = memory.scaler.inputs[0], held.nbytes

    def fill() -> None:
        gpu.copy(image, held.ctypes.data, size)

    def bare() -> None:
        fill()
        context.execute_async_v3(gpu.stream)
        for to, source, count in slot._copies:
            gpu.copy(to, source, count)

    def bare_graph() -> None:
        fill()
        assert graph is not None
        graph.launch()

    def adapter() -> None:
        engine.submit(0, 1)
        engine.collect(0)

    def by(way: Callable[[], None], with_graph: bool) -> Callable[[], None]:
        def work() -> None:
            slot._graph = graph if with_graph else None
            way()

        return work

    def through_pool() -> None:
        pool.submit(0, 1)
        pool.collect(0)

    return {
        "bare": bare,
        "adapter": by(adapter, False),
        "pool": by(through_pool, False),
        "bare, graph": bare_graph,
        "adapter, graph": by(adapter, True),
    }


class _Nothing(list[str]):
    def append(self, _: str) -> None:
        pass


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], int(sys.argv[2]))))
