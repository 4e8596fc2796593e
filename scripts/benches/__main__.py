"""`scripts/bench NAME [--json]`."""

from __future__ import annotations

import argparse
import importlib
import sys

NAMES = {
    "pipeline": "the daemon against a bare single-thread loop: CPU per frame, frames per second, age",
    "switch": "10,000 switches of the variant under load: drops, memory, cost",
    "wire": "publish to receive in another process, against bare pyzmq",
    "cameras": "memory and CPU per camera, from 1 to 16",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure edged on this machine; the machine should be idle.",
        epilog="\n".join(f"  {name:10} {what}" for name, what in NAMES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a smoke test, not a measurement")
    arguments = parser.parse_args()
    report = importlib.import_module(f"scripts.benches.{arguments.name}").measure(quick=arguments.quick)
    if arguments.json:
        print(report.as_json())
    else:
        report.show()
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
