"""edged-calibrate as a person uses it: whole runs on a small model, and every mistake answered in a sentence."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edged.cli import main as edged_main
from edged.config import EngineConfig
from edged.engines.bundle import load_bundle, verify_file
from edged.engines.device_profile import Conditions, profile_path
from edged.engines.pool import Pool
from edged.loop.device_info import read_device_info
from edged_calibration.cli import main
from edged_calibration.graph.index import Graph, session
from edged_calibration.graph.model_file import check_model
from edged_calibration.int8.calibrate import ranges
from edged_calibration.int8.write import calibrate, quantize
from tests.support.calibration import RECIPE, SIDE, classifier, pictures, recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `edged-calibrate all` has run."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["all", str(recipe(folder)), "--out", str(folder / "bundle")]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and what was said; never a traceback."""
    code = main([str(argument) for argument in arguments])
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return code, message


# ---- whole runs


def test_all_leaves_a_bundle_that_the_daemon_takes(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(made / "bundle")
    manifest = bundle.manifest
    assert [variant.name for variant in manifest.variants] == ["fp16", "int8"] and manifest.reference == "fp16"
    assert manifest.metric == "agreement" and manifest.drift is not None
    for variant in manifest.variants:
        for file in variant.files:
            verify_file(bundle, file)
    assert {"recipe", "model", "calibration_sha256", "tools", "gate int8.x86_64.onnx"} <= set(manifest.provenance)
    assert str(made) not in "".join(manifest.provenance.values())
    config = tmp_path / "edged.toml"
    config.write_text(f'bundle = "{made / "bundle"}"\n[[camera]]\nname = "a"\nsource = "test://1?fps=15"\n')
    edged_main(["check", "-c", str(config), "--json"])
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["bundle"]["level"] == "ok"
    assert findings["variant fp16"]["level"] == "ok" and "digest right" in findings["variant fp16"]["text"]


def test_the_report_lies_beside_the_bundle(made: Path) -> None:
    text = (made / "bundle.html").read_text()
    assert "stem" in text and "head" in text and 'src="http' not in text


def test_a_second_run_takes_what_is_there(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = {path: path.stat().st_mtime_ns for path in (made / "bundle.work").iterdir() if path.is_dir()}
    start = time.monotonic()
    assert main(["all", str(made / "small.toml"), "--out", str(made / "bundle")]) == 0
    assert time.monotonic() - start < 20
    assert {path: path.stat().st_mtime_ns for path in steps} == steps
    assert "passed" in capsys.readouterr().out


def test_every_recipe_command_takes_the_same_work(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, work = str(made / "small.toml"), ["--work", str(made / "bundle.work")]
    main(["evaluate", source, *work, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["float"]["figures"]["agreement"] == 1 and found["float"]["images"] == 96  # 24 of 120 decide
    assert main(["gate", source, *work]) == 0
    assert "int8.tensorrt.onnx" in capsys.readouterr().out
    main(["quantize", source, *work, "--json", "--out", str(made / "int8")])
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == ["int8.tensorrt.onnx", "int8.x86_64.onnx"]
    assert {error["node"] for error in found["errors"]["int8"]["layers"]} == {"stem", "a", "b", "add", "head"}
    assert sorted(os.listdir(made / "int8")) == found["files"]


def test_diff_and_profile_of_a_bundle(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(made / "bundle")
    assert main(["diff", bundle, bundle]) == 0
    assert "no difference" in capsys.readouterr().out
    assert main(["diff", bundle, str(ROOT / "edged" / "bundles" / "demo")]) == 1
    assert "agreement" in capsys.readouterr().out
    assert main(["profile", bundle, "--seconds", "1", "--batches", "1,2"]) == 0
    assert "p99" in capsys.readouterr().out
    loaded = load_bundle(bundle)
    with Pool.open(loaded, EngineConfig(device="cpu")) as pool:
        known = read_device_info(pool, loaded)
        path = profile_path(loaded.directory, Conditions(pool.machine, "cpu"))
    assert known.refused is None and len(json.loads(path.read_text())["runs"]) == 4
    assert [len(variant.latency_ms) for variant in known.variants] == [2, 2]


@pytest.mark.parametrize("option", [["--soak", "5"], ["--soak", "30d"], ["--soak", "1s"], ["--batches", "0"]])
def test_profile_refuses_what_it_cannot_use(option: list[str], made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(made / "bundle"), *option]) == 2
    assert "is not a" in capsys.readouterr().err


def test_steps_work_alone_on_a_bare_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(classifier(channels=64), tmp_path / "m.onnx")
    pictures(tmp_path / "frames", 20)
    model, frames = str(tmp_path / "m.onnx"), ["--frames", str(tmp_path / "frames")]
    assert main(["analyze", model]) == 0
    assert "stem" in capsys.readouterr().out
    assert main(["sparsify", model, *frames, "--out", str(tmp_path / "s.onnx"), "--layers", "all"]) == 0
    assert "2:4" in capsys.readouterr().out
    session(onnx.load(tmp_path / "s.onnx"))
    assert main(["quantize", str(tmp_path / "s.onnx"), *frames, "--out", str(tmp_path / "q"), "--mean", "120"]) == 0
    assert "signal to noise" in capsys.readouterr().out
    assert len(os.listdir(tmp_path / "q")) == 3
    assert main(["halve", model, *frames, "--out", str(tmp_path / "h")]) == 0
    assert os.listdir(tmp_path / "h") == ["fp16.onnx"]


# ---- refusals of the gate


def test_black_frames_lead_to_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recipe(tmp_path)
    pictures(tmp_path / "calibration", 70, brightness=0)
    code, message = refused(capsys, "all", file, "--out", tmp_path / "bundle")
    assert code == 2 and "only 1 of 70 calibration pictures differ" in message
    assert not (tmp_path / "bundle").exists()


def test_frames_of_the_night_are_refused_by_the_gate_with_layers_to_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All different, so they may be calibrated on; but ranges measured in the dark clip every picture of the day."""
    text = RECIPE.replace("mean = [120.0, 118.0, 110.0]", "mean = [0.0, 0.0, 0.0]")  # a dark picture is near zero
    file = recipe(tmp_path, text)
    pictures(tmp_path / "calibration", 70, seed=1, brightness=0.12)
    code, message = refused(capsys, "all", file, "--out", tmp_path / "bundle")
    assert code == 1
    assert "look like the calibration set" in message
    assert "the bundle is refused" in message and "agreement drops by" in message and "look at the layers" in message
    assert not (tmp_path / "bundle").exists() and (tmp_path / "bundle.html").exists()


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("analyse",), "invalid choice"),
        (("analyze", "none.onnx"), "none.onnx cannot be read"),
        (("all", "none.toml"), "none.toml: there is no such file"),
        (("all", "model.onnx"), "is not a recipe"),
        (("quantize", "model.onnx"), "needs pictures"),
        (("diff", "none", "none"), "bundle 'none'"),
        (("profile", "none"), "bundle 'none'"),
        (("profile", "none", "--batches", "0"), "not a whole number"),
        (("analyze", "m.onnx", "--size", "3"), "not a size"),
        (("quantize", "m.onnx", "--mean", "1,2"), "neither one number nor three"),
    ],
)
def test_wrong_usage_is_reported(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    code, reported = refused(capsys, *arguments)
    assert code == 2 and message in reported and "hint:" in reported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"no model"), "is not an ONNX model"),
        (lambda folder: (folder / "model.onnx").unlink(), "cannot be read"),
        (lambda folder: (folder / "small.toml").write_text(RECIPE + "[gates]\n"), "gates is not a known key"),
        (lambda folder: [path.unlink() for path in (folder / "calibration").iterdir()], "it is empty"),
        (lambda folder: (folder / "validation" / "0003.png").write_bytes(b"x"), "0003.png is not a picture"),
        (
            lambda folder: (folder / "small.toml").write_text(RECIPE.replace('logits = "logits"', 'logits = "out"')),
            "names the tensor 'out'",
        ),
        (
            lambda folder: (folder / "small.toml").write_text('labels = ["a", "b"]' + RECIPE),
            "2 labels, but the model has 6 classes",
        ),
        (
            lambda folder: (folder / "small.toml").write_text(RECIPE + '[quantize]\nkeep_float = ["hed"]\n'),
            "no node of the model is named 'hed'",
        ),
    ],
    ids=["no model", "model missing", "unknown key", "no pictures", "no picture", "no tensor", "labels", "node"],
)
def test_wrong_input_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], object], message: str
) -> None:
    file = recipe(tmp_path, calibration=20, validation=20)
    change(tmp_path)
    code, reported = refused(capsys, "all", file, "--out", tmp_path / "bundle")
    assert code == 2 and message in reported and "hint:" in reported
    assert not (tmp_path / "bundle").exists()


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "analyze",
        "sparsify",
        "quantize",
        "halve",
        "sensitivity",
        "evaluate",
        "gate",
        "profile",
        "package",
        "all",
        "diff",
    ]
    for name in names:
        with pytest.raises(SystemExit) as done:
            main([name, "--help"])
        assert done.value.code == 0
        assert f"edged-calibrate {name}" in capsys.readouterr().out.split("example:")[1]


# ---- interruptions


def started_with_sigint(*module: str, paths: str = str(ROOT)) -> subprocess.Popen[bytes]:
    """`python -m ...`, which handles Ctrl-C also where these tests run as a shell's background job."""
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def started(file: Path, out: Path) -> subprocess.Popen[bytes]:
    return started_with_sigint("calibration", "all", str(file), "--out", str(out))


def wait_for_a_step(work: Path, deadline_s: float = 100) -> None:
    end = time.monotonic() + deadline_s
    while not any(path.name.startswith("ranges-") and path.suffix != ".partial" for path in work.glob("*")):
        assert time.monotonic() < end, "no step was finished in time"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    file, out, work = recipe(tmp_path, validation=1000), tmp_path / "bundle", tmp_path / "bundle.work"
    with started(file, out) as run:
        wait_for_a_step(work)  # to evaluate 1000 pictures takes a second or more
        run.send_signal(number)
        _, message = run.communicate(timeout=100)
    assert run.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), message
    assert b"Traceback" not in message and not out.exists()
    if number != signal.SIGKILL:
        assert b"continues after the last finished step" in message
        assert not list(work.glob("*.partial"))
    done = {path: path.stat().st_mtime_ns for path in work.iterdir() if path.is_dir() and path.suffix != ".partial"}
    with started(file, out) as again:
        again.communicate(timeout=100)
    assert done and again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert load_bundle(out).manifest.name == "small"


SWALLOWS = """
        pass  # as where a destructor runs
    time.sleep(60)
"""
DISGUISES = """
        raise TypeError("incompatible function arguments")  # as pybind11 does
"""
DIES_AT_EXIT = """
        exec("raise error")  # the flag that CPython sets here
"""
CLEANS_UP = """
        time.sleep(1.5)  # longer than until the next alarm
        print("clean", file=sys.stderr)
        raise
"""
LIBRARY = """
import sys, time, types
from edged_calibration import cli

def run(_parsed):
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt as error:%s
    return 0

sys.modules["edged_calibration.commands.diff"] = types.SimpleNamespace(run=run)
sys.exit(cli.main(["diff", "a", "b"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize(
    "library", [SWALLOWS, DISGUISES, DIES_AT_EXIT, CLEANS_UP], ids=["swallows", "disguises", "exec", "cleans up"]
)
def test_an_interrupt_is_never_lost(tmp_path: Path, number: signal.Signals, library: str) -> None:
    (tmp_path / "as_installed.py").write_text(LIBRARY % library)
    with started_with_sigint("as_installed", paths=f"{tmp_path}:{ROOT}") as run:
        assert run.stdout is not None and run.stdout.readline() == b"ready\n"
        run.send_signal(number)
        _, message = run.communicate(timeout=100)
    assert run.returncode == 130 and b"interrupted" in message and b"Traceback" not in message
    assert (b"clean" in message) == (library == CLEANS_UP)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    file, out = recipe(tmp_path), tmp_path / "bundle"

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-B", "-m", "edged_calibration", "all", str(file), "--out", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, preexec_fn=small_files, timeout=100)
    message = run.stderr.decode()
    assert run.returncode == 1 and "no space left" in message and "hint: make room" in message
    assert "Traceback" not in message and not out.exists()
    assert not list((tmp_path / "bundle.work").glob("*.partial"))
    assert main(["all", str(file), "--out", str(out)]) == 0
    assert load_bundle(out).manifest.input.width == SIDE


def test_a_model_quantised_in_training_is_taken_with_its_own_ranges(made: Path, tmp_path: Path) -> None:
    """The TensorRT form of one's own INT8 file on planes stands for what a training framework exports."""
    file = recipe(tmp_path, RECIPE + '[quantize]\nmodel = "qat.onnx"\n')
    model = check_model(classifier(), "model")
    feeds = [{"pixels": np.random.default_rng(0).standard_normal((8, 3, SIDE, SIDE)).astype(np.float32)}]
    trained = quantize(model, ranges(calibrate(model, feeds)), "trt")
    onnx.save(trained, tmp_path / "qat.onnx")
    assert main(["all", str(file), "--out", str(tmp_path / "bundle")]) == 0
    graph = Graph(onnx.load(tmp_path / "bundle" / "int8.tensorrt.onnx"))
    wanted = Graph(trained)
    scales = {float(graph.array(name).ravel()[0]) for name in graph.constants if "_scale" in name}
    assert float(wanted.array("v_scale")) in scales  # of the tensor that `b` reads
