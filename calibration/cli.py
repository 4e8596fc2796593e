"""The command line `edged-calibrate`: arguments in, an exit code out. Thin: each command is imported when it runs.

0: it went well. 1: it failed, or the gate refused. 2: wrong usage, recipe, model or pictures. 130: Ctrl-C or SIGTERM.
What a user can fix is reported in two lines, without a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import edged
from edged.errors import EdgedError, Interrupted, UsageError

INTERRUPTED = 130
_AGAIN_S = 0.5
"""An interrupt that arrives while a destructor or a library's callback runs is lost there, so it is raised again after
this time until something handles it."""
_EXTRA = "install the extra: pip install 'edged[calibration]'"
_EXTRA_MODULES = {"onnx": _EXTRA, "pycocotools": _EXTRA, "torch": "pip install 'edged[train]'", "matplotlib": _EXTRA}


class _Parser(argparse.ArgumentParser):
    """argparse with the error messages of edged."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background jobs ignore SIGINT
            signal.signal(number, _interrupt)
    try:
        try:
            return _run(arguments)
        finally:
            interrupted = _was_interrupted()
            _stop_repeating()
    except (Exception, KeyboardInterrupt) as error:
        _stop_repeating()  # once more: the signal may have come in the middle of the first time
        if isinstance(error, KeyboardInterrupt) or interrupted:
            print(
                "edged-calibrate: interrupted; the same command continues after the last finished step", file=sys.stderr
            )
            return INTERRUPTED
        return _explained(error)


def _run(arguments: Sequence[str] | None) -> int:
    found = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions; see `edged completion`
        import argcomplete

        argcomplete.autocomplete(found)
    parsed = found.parse_args(arguments)
    try:
        command = importlib.import_module(f"edged_calibration.commands.{parsed.module}")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_MODULES:
            raise
        raise EdgedError(f"{error.name} is not installed", _EXTRA_MODULES[error.name]) from error
    code: int = command.run(parsed)
    sys.stdout.flush()
    return code


def _explained(error: Exception) -> int:
    """Print what a user can fix, and return the exit code; a defect of edged is raised again."""
    if isinstance(error, EdgedError):
        print(f"edged-calibrate: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, MemoryError):
        print("edged-calibrate: not enough memory\n  hint: give fewer calibration frames (count)", file=sys.stderr)
        return EdgedError.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (`| head`) has seen enough
        return 0
    raise error


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    if number == signal.SIGALRM and isinstance(sys.exc_info()[1], Interrupted):
        return  # it was handled, and the clean-up may take time
    raise Interrupted


def _stop_repeating() -> None:
    if _was_interrupted():
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _was_interrupted() -> bool:
    """A native library may hide the interrupt behind an error of its own (pybind11: "incompatible arguments")."""
    return signal.getsignal(signal.SIGALRM) is _interrupt


_Add = Callable[..., argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    """The whole command line, for parsing, completion and the documents' test."""
    parser = _Parser(
        prog="edged-calibrate",
        description="Makes a bundle of engines from a float ONNX model: pruned, quantised, measured, gated, packaged.",
        epilog="Exit codes: 0 ok, 1 failed or refused, 2 wrong usage or input. Each command has its own --help.",
    )
    parser.add_argument("--version", action="version", version=f"edged-calibrate {edged.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, what: str, example: str, module: str = "") -> argparse.ArgumentParser:
        found = commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example:\n  edged-calibrate {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        found.set_defaults(module=module or name)
        return found

    _add_model_commands(add)
    _add_recipe_commands(add)
    _add_bundle_commands(add)
    return parser


def _add_model_commands(add: _Add) -> None:
    """Commands that take a recipe, or a bare model with frames."""
    imported = add(
        "import",
        "look at an exported model and write a recipe for it",
        "import yolov8n.onnx --to my.toml",
        "import_model",
    )
    imported.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file, as it was exported")
    imported.add_argument("--to", type=Path, metavar="FILE", help="the recipe (default: NAME.toml here)")
    imported.add_argument("--force", action="store_true", help="replace a recipe that is there")
    imported.add_argument("--size", type=_size, metavar="WxH", help="of an input that leaves its sides open")
    imported.add_argument("--frames", metavar="DIR", help="pictures to calibrate on, for the recipe")
    imported.add_argument("--validation", metavar="DIR", help="other pictures to measure on, for the recipe")
    imported.add_argument("--json", action="store_true", help="one JSON object on stdout")
    analyze = add("analyze", "show what each layer costs and what INT8 and sparsity gain there", "analyze model.onnx")
    analyze.add_argument("--html", type=Path, metavar="FILE", help="write the report with its plots")
    prune = add("sparsify", "prune layers to 2:4 sparsity", "sparsify model.onnx --frames frames/ --out sparse.onnx")
    quantise = add("quantize", "write explicit INT8 files", "quantize model.onnx --frames frames/ --out int8/")
    halve = add("halve", "write the FP16 file", "halve model.onnx --frames frames/ --out half/")
    for command in (analyze, prune, quantise, halve):
        command.add_argument("source", type=Path, metavar="RECIPE|MODEL", help="a recipe (.toml) or a model (.onnx)")
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        _add_work(command)
        bare = command.add_argument_group("with a bare model")
        bare.add_argument("--frames", metavar="DIR", help="pictures to calibrate on, .npy, or scene://SEED?count=N")
        bare.add_argument("--count", type=_positive, default=128, metavar="N", help="at most so many (%(default)s)")
        bare.add_argument("--mean", type=_channels, default="0", metavar="M|R,G,B", help="of (p - mean) / std (0)")
        bare.add_argument("--std", type=_channels, default="255", metavar="S|R,G,B", help="of (p - mean) / std (255)")
        bare.add_argument("--color", choices=("RGB", "BGR"), default="RGB", help="the model's order (%(default)s)")
        bare.add_argument("--size", type=_size, metavar="WxH", help="of an input that leaves its sides open")
    prune.add_argument("--method", choices=("obs", "wanda", "magnitude"), default="obs", help="(%(default)s)")
    prune.add_argument("--layers", choices=("all", "worthwhile", "3x3"), default="worthwhile", help="(%(default)s)")
    prune.add_argument("--out", type=Path, metavar="FILE", help="where the pruned float model goes")
    quantise.add_argument("--out", type=Path, metavar="DIR", help="where the files go")
    quantise.add_argument(
        "--method",
        choices=("max", "percentile", "entropy", "mse"),
        default="max",
        help="with a bare model (%(default)s)",
    )
    halve.add_argument("--out", type=Path, metavar="DIR", help="where the file goes")


def _add_recipe_commands(add: _Add) -> None:
    """Commands that take a recipe: each makes what it needs, and takes what lies there from before."""
    demo = "calibration/recipes/demo.toml"
    search = add("sensitivity", "rank the layers by the accuracy that INT8 costs there", f"sensitivity {demo}")
    evaluate = add("evaluate", "measure every file on the held-out pictures", f"evaluate {demo}")
    gate = add("gate", "judge every file against the float model", f"gate {demo}")
    package = add("package", "write the bundle, if every file passes the gate", f"package {demo} --out bundles/demo")
    whole = add("all", "analyse, prune, quantise, halve, measure, judge and package", f"all {demo}")
    for command in (search, evaluate, gate, package, whole):
        command.add_argument("source", type=Path, metavar="RECIPE", help="a recipe (.toml)")
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        _add_work(command)
    for command in (package, whole):
        command.add_argument("--out", type=Path, metavar="DIR", help="the bundle (default: bundles/NAME here)")
    whole.set_defaults(module="package")


def _add_bundle_commands(add: _Add) -> None:
    profile = add("profile", "measure latency and energy of a bundle on this machine", "profile bundles/demo")
    profile.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the configured one")
    profile.add_argument("-c", "--config", metavar="FILE", help="default: $EDGED_CONFIG, else /etc/edged/edged.toml")
    profile.add_argument(
        "--seconds", type=_positive, default=3, metavar="N", help="for each variant, batch and clock (3)"
    )
    profile.add_argument("--batches", type=_numbers, metavar="N,N", help="default: 1 to [engine] max_batch")
    profile.add_argument("--threads", type=_batch, metavar="N", help="default: [engine] threads")
    devices = ("auto", "cpu", "cuda", "tensorrt")
    profile.add_argument("--device", choices=devices, help="default: [engine] device")
    profile.add_argument("--keep-clock", action="store_true", help="measure at the present clock of the GPU alone")
    profile.add_argument("--soak", type=_duration, metavar="TIME", help="thermal constants too: so long, as in 30m")
    profile.add_argument("--json", action="store_true", help="the profile on stdout")
    build = add("build", "build TensorRT engines of a bundle for this device", "build bundles/demo")
    build.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the configured one")
    build.add_argument("-c", "--config", metavar="FILE", help="default: $EDGED_CONFIG, else /etc/edged/edged.toml")
    build.add_argument("--max-batch", type=_batch, metavar="N", help="up to 64 (default: [engine] max_batch)")
    build.add_argument("--again", action="store_true", help="also what is up to date")
    build.add_argument("--json", action="store_true", help="a JSON list on stdout")
    diff = add("diff", "compare two bundles", "diff bundles/old bundles/new")
    diff.add_argument("first", type=Path, metavar="A")
    diff.add_argument("second", type=Path, metavar="B")
    diff.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keeps finished steps (default: bundles/NAME.work here)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _batch(text: str) -> int:
    found = _positive(text)
    if found > 64:
        raise argparse.ArgumentTypeError(f"{text!r} is above 64")
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({_batch(part) for part in text.split(",")}))


def _duration(text: str) -> float:
    """Seconds of "90s", "30m" or "2h"."""
    unit_s = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    if unit_s is None or not text[:-1].isdecimal() or not 60 <= int(text[:-1]) * unit_s <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 60s to 24h, as in 90s, 30m or 2h")
    return float(int(text[:-1]) * unit_s)


def _channels(text: str) -> tuple[float, float, float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one number nor three, as in 123.7,116.3,103.5")
    return found[0], found[-1 if len(found) == 1 else 1], found[-1]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 320x192")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
