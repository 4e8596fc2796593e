"""`edged metrics`: the metrics of `edged gateway` on stdout, in Prometheus' text format."""

from __future__ import annotations

import argparse

from edged.commands.daemon_requests import curve_of
from edged.commands.gateway import require_prometheus_client


def run(arguments: argparse.Namespace) -> int:
    require_prometheus_client()
    from edged.gateway.exporter import expositions

    for text in expositions(arguments.endpoint, curve_of(arguments)):
        print(text, end="" if arguments.once else "\n", flush=True)
        if arguments.once:
            break
    return 0
