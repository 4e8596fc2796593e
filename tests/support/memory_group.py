"""A control group with a memory limit, for one process: version 1 or 2, where this process may make one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

_TREES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


@contextlib.contextmanager
def memory_group(megabytes: float) -> Iterator[Path | None]:
    """Its directory, to whose `cgroup.procs` a process writes its id; None where there can be none."""
    for tree, limit in _TREES:
        group = tree / f"edged-test-{uuid4().hex[:8]}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(int(megabytes * 1e6)))
            yield group
            return
        except OSError:  # the controller is not given to this group
            continue
        finally:
            for process in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            with contextlib.suppress(OSError):
                group.rmdir()
    yield None
