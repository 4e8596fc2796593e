"""`scripts/bench NAME [--json]`."""

from __future__ import annotations

import argparse
import importlib
import sys

from edged.errors import UsageError

NAMES = {
    "pipeline": "the daemon against a bare single-thread loop: CPU per frame, frames per second, age",
    "switch": "10,000 switches of the variant under load: drops, memory, cost",
    "wire": "publish to receive in another process, against bare pyzmq",
    "memory": "what the variants of a bundle take together, against the largest one alone",
    "cameras": "memory and CPU per camera, from 1 to 16",
    "peers": "beside OpenCV reader threads, a PyAV loop and GStreamer: age from the camera's socket, CPU, memory",
    "gpu": "on a GPU: frame in the ring to result on the host, the preprocessing kernel, the host's share",
    "calibration": "a ResNet-50 analysed, pruned and quantised; the demo detector's accuracy and speed against float",
    "trt-adapter": "what the TensorRT adapter costs per inference, under the real bindings on a stand-in library",
    "governor": "the governor in the arena against a bound that knows the future, and what it costs",
    "tracking": "identities at 30, 10 and 5 fps and with frames dropped, beside the package trackers",
    "motion": "the motion gate beside decoding, and what it sees in noise, rain and steps of light",
    "motion-energy": "one energy limit on a simulated device, with the motion gate and without: accuracy per frame",
    "closed-loop": "the deadline beside a load that comes and goes: governed against every fixed variant",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure edged on this machine; the machine should be idle.",
        epilog="\n".join(f"  {name:13} {what}" for name, what in NAMES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a smoke test, not a measurement")
    # a benchmark with options of its own adds them: its name must be known before they are read
    named = next((name for name in sys.argv[1:] if name in NAMES), None)
    bench = importlib.import_module(f"scripts.benches.{named.replace('-', '_')}") if named is not None else None
    if bench is not None and hasattr(bench, "add_arguments"):
        bench.add_arguments(parser)
    arguments = vars(parser.parse_args())
    as_json, _ = arguments.pop("json"), arguments.pop("name")
    assert bench is not None, "argparse has refused other names"
    try:
        report = bench.measure(**arguments)
    except UsageError as error:
        parser.error(f"{error.message} ({error.hint})")
    if as_json:
        print(report.as_json())
    else:
        report.show()
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
