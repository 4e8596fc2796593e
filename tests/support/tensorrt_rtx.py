"""A real TensorRT core that builds plans without a GPU: TensorRT for RTX, for a process of its own.

`install` fetches its two wheels into the user's cache. `python -m tests.support.tensorrt_rtx DIRECTORY JOBS` builds the
files that the JSON `JOBS` names, with this project's own builder, and prints what became of each as JSON: the refusal,
or what the log reports of the layers. The plans cannot be loaded without a driver, so nothing here runs one.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.tensorrt_bindings import CACHE, NotHadError

VERSION = "1.7.1.116"
LARGEST_BATCH = 16
_KINDS = ("correlation", "gemm", "runtime_fusion")  # what Myelin calls a kernel that multiplies by weights


def install() -> Path:
    """The directory with the packages, fetched once. NotHadError says why they cannot be had here."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        raise NotHadError("TensorRT for RTX has wheels for Linux on x86-64 alone")
    directory = CACHE / f"rtx-{VERSION}-cp{sys.version_info.major}{sys.version_info.minor}"
    if directory.is_dir():
        return directory
    part = directory.with_suffix(f".{os.getpid()}")
    names = [f"tensorrt-rtx-cu13-{half}=={VERSION}" for half in ("libs", "bindings")]
    arguments = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--target", str(part)]
    command = [sys.executable, "-m", "pip", "install", *arguments, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        if done.returncode:
            raise NotHadError(f"no TensorRT for RTX {VERSION}: {done.stderr.strip().splitlines()[-1:]}")
        part.rename(directory)
    except subprocess.TimeoutExpired as error:
        raise NotHadError(f"pip did not bring TensorRT for RTX {VERSION} in time") from error
    except OSError:
        if not directory.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return directory


def load(directory: Path) -> ModuleType:
    """The module `tensorrt` of this process from now on: it builds for compute capability 8.6."""
    sys.path.append(str(directory))
    rtx = importlib.import_module("tensorrt_rtx_bindings")
    module = ModuleType("tensorrt")
    vars(module).update({name: value for name, value in vars(rtx).items() if not name.startswith("__")})

    class Builder(rtx.Builder):  # type: ignore[misc, name-defined]
        def create_builder_config(self) -> Any:
            config = super().create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
            return config

    vars(module).update(Builder=Builder, __version__=rtx.__version__)
    sys.modules["tensorrt"] = module
    return module


def layers(lines: list[str]) -> list[dict[str, Any]]:
    """The layers of an engine, from the log, by the names that the inspector's JSON uses. `Kernel types` are those of
    the first input and of the weights of what multiplies; `Nodes` are the nodes of the ONNX graph."""
    found = []
    for line in lines:
        match = re.match(
            r"Name: (\S+), LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[(.*?)\], Outputs: \[(.*)", line
        )
        if match is None:
            continue
        inputs, constants = (_tensors(text) for text in match.group(3, 4))
        tactic = re.search(r"TacticName: ([^,]*),", match[5])
        matrices = [tensor for tensor in constants if sum(side > 1 for side in tensor["Dimensions"]) > 1]
        read = [*inputs[:1], *matrices[:1]] if match[2] in _KINDS else []
        found.append(
            {
                "Name": match[1],
                "LayerType": match[2],
                "Inputs": inputs,
                "Constants": constants,
                "TacticName": tactic[1] if tactic else "",
                "Kernel types": [tensor["Datatype"] for tensor in read],
                "Nodes": re.findall(r"\[ONNX Layer: ([^\]]+)\]", match[5]),
            }
        )
    return found


def _tensors(text: str) -> list[dict[str, Any]]:
    found = re.findall(r"Name: (\S+), Dimensions: \[([-\d,]*)\],.*?Datatype: (\w+)", text)
    return [
        {"Name": name, "Dimensions": [int(side) for side in sides.split(",") if side], "Datatype": kind}
        for name, sides, kind in found
    ]


def build(file: Path, side: tuple[int, int]) -> dict[str, Any]:
    """What became of one file: `refused` or `layers`, and the `report` of the build's log, as users get it."""
    import tensorrt as trt

    from edged.engines import trt as engine_room
    from edged.engines.manifest import InputSpec
    from edged.errors import EdgedError
    from edged_calibration.tensorrt import build_plan

    ours = engine_room.new_logger()
    heard: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            heard.extend(msg.splitlines())
            ours.log(severity, msg)

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

    original, engine_room.new_logger = engine_room.new_logger, Log
    try:
        spec = InputSpec("image", *side)
        cache = file.with_suffix(".cache")
        build_plan.build_plan(file.read_bytes(), spec, LARGEST_BATCH, cache, lambda *_: True)
    except EdgedError as error:
        return {"refused": error.message, "report": ours.report()}
    finally:
        engine_room.new_logger = original
    return {"refused": None, "layers": layers(heard), "report": ours.report()}


def main() -> None:
    directory, jobs = sys.argv[1:]
    warnings.simplefilter("ignore", DeprecationWarning)  # of the binding's, about the timing cache
    load(Path(directory))
    asked = json.loads(jobs)
    print(json.dumps({name: build(Path(name), (width, height)) for name, (width, height) in asked.items()}))


if __name__ == "__main__":
    main()
