"""What holds for all tests: lanes, who shares a worker, and Hypothesis on slow machines."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about edged.
settings.register_profile("edged", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edged")

_DAEMON: Final = re.compile(
    r"tests\.support\.(daemon|loop|engine_loop|helped|jtop_service|machine|rtsp|mjpeg|shared_machine|mosquitto|nats_server)\b|"
    r"subprocess\.|multiprocessing|edged_calibration\.(cache|cli|zoo|evaluate|sparsity|int8|demo|tensorrt)"
)
"""Modules that start a daemon, a camera or another program, or make engines: left out by `scripts/test --fast`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if _starts_processes(item.path):
            item.add_marker(pytest.mark.daemon)
        group = _shared(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


@functools.cache
def _starts_processes(module: Path) -> bool:
    return _DAEMON.search(module.read_text()) is not None


def _shared(item: pytest.Function) -> str | None:
    """A group for the tests that share a fixture of their module, by the fixture's parameter: it is made once."""
    fixtures = item._fixtureinfo.name2fixturedefs
    shared = sorted(
        name for name, found in fixtures.items() if found[-1].scope == "module" and found[-1].baseid.endswith(".py")
    )
    if not shared:
        return None
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    own = [f"{name}-{parameters[name]}" for name in shared if isinstance(parameters.get(name), str)]
    return ":".join([item.path.stem, *own])
