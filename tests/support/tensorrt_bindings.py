"""NVIDIA's own Python bindings of TensorRT, of the versions that matter, on a stand-in core library of ours.

The bindings are small wheels on PyPI; the core library they link against is not there. `unpack` fetches a wheel into
the user's cache, `build_core` compiles tests/trt/nvinfer.cpp into it, `load` brings both into this process.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

VERSIONS = {"10.3.0": "cu12", "10.13.3.9": "cu13", "10.16.1.11": "cu13", "11.4.0.106": "cu13"}
"""JetPack 6; JetPack 7 on Thor; JetPack 7.2; the newest."""
CACHE = Path(
    os.environ.get("EDGED_TENSORRT_BINDINGS_DIR")  # where nothing can be fetched, it is brought along
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged" / "tensorrt"
)
SOURCE = Path(__file__).parent.parent / "trt" / "nvinfer.cpp"


class NotHadError(Exception):
    """Why the bindings cannot be had here: a test is skipped with it."""


def unpack(version: str, python: str = "{}.{}".format(*sys.version_info)) -> Path:
    """A directory with the package `tensorrt`, as a device has it, for this version of Python. Fetched once."""
    of, python = python, f"cp{python.replace('.', '')}"
    directory = CACHE / f"{version}-{python}"
    if (directory / "tensorrt").is_dir():
        return directory
    wheels = CACHE / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    name = f"tensorrt_{VERSIONS[version]}_bindings"
    arguments = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    arguments += ["--python-version", of]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "-d", str(wheels), f"{name}=={version}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = sorted(wheels.glob(f"{name}-{version}-{python}-*.whl"))
    if not found:
        raise NotHadError(f"no bindings {version} for Python {python}: {done.stderr.strip().splitlines()[-1:]}")
    part = directory.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(found[-1]) as wheel:
        for entry in wheel.infolist():
            package, _, rest = entry.filename.partition("/")
            if package == "tensorrt_bindings":
                entry.filename = f"tensorrt/{rest}"
                wheel.extract(entry, part)
    _put(part, directory)
    return directory


def build_core(version: str) -> list[Path]:
    """The three libraries that the bindings ask for, by the names they ask for. Built once for each major version and
    each state of the source."""
    major = version.partition(".")[0]
    names = [f"{name}.so.{major}" for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")]
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    key = hashlib.sha256(SOURCE.read_bytes() + platform.machine().encode()).hexdigest()[:12]
    directory = CACHE / f"core{major}-{key}"
    if not directory.is_dir():
        if compiler is None:
            raise NotHadError("there is no C++ compiler")
        part = directory.with_suffix(f".{os.getpid()}")
        part.mkdir(parents=True)
        for name in names:
            source = ["-x", "c++", str(SOURCE) if name.startswith("libnvinfer.") else os.devnull]
            flags = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-DMAJOR={major}", f"-Wl,-soname,{name}"]
            subprocess.run([compiler, *flags, "-o", str(part / name), *source, "-ldl"], check=True, timeout=120)
        _put(part, directory)
    return [directory / name for name in names]


def load(version: str) -> tuple[ModuleType, ctypes.CDLL]:
    """(the module `tensorrt`, the stand-in core library), both of this process from now on."""
    handles = [ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL) for library in build_core(version)]
    handles[0].stand_in_faults.restype = ctypes.c_char_p
    sys.path.insert(0, str(unpack(version)))
    return importlib.import_module("tensorrt"), handles[0]


def main() -> None:
    """Everything that a machine without a network needs, into $EDGED_TENSORRT_BINDINGS_DIR, to be taken there."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.tensorrt_bindings", description=main.__doc__)
    parser.add_argument("--python", required=True, metavar="3.N", help="the version that the other machine has")
    arguments = parser.parse_args()
    for version in VERSIONS:
        try:
            print(unpack(version, arguments.python), build_core(version)[0])
        except NotHadError as error:
            print(f"left out: {error}")
    shutil.rmtree(CACHE / "wheels", ignore_errors=True)


def _put(part: Path, directory: Path) -> None:
    """Whole or not at all; if another process was faster, its work stays."""
    try:
        part.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise
        shutil.rmtree(part)


if __name__ == "__main__":
    main()
