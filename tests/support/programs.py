"""Servers of Debian that tests run against; fetched where they are missing and root may fetch them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

import pytest


@functools.cache
def program(name: str, package: str) -> str:
    """Its path. Skips the test, with one sentence, where it cannot be had."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    if shutil.which(name, path=path) is None and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        wait = ["-o", "DPkg::Lock::Timeout=120"]  # other tests may be at it
        subprocess.run(["apt-get", "-qq", *wait, "update"], timeout=120, check=False, **quiet)  # type: ignore[call-overload]
        command = ["apt-get", "-qq", *wait, "install", "-y", "--no-install-recommends", package]
        subprocess.run(command, timeout=200, check=False, **quiet)  # type: ignore[call-overload]
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not there: apt-get install {package}")
    return found
