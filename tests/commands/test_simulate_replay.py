"""`edged simulate` and `edged replay` as a person runs them: tables, plots, logs that replay, refusals that help."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.cli import main
from edged.commands.simulate import SHIPPED
from edged.errors import UsageError
from edged.replay import record
from edged.simulate import scenario_file as reported
from edged.simulate.scenario import Truth
from edged.simulate.tables import NAMES
from edged.toml_file import read_toml

pytest.importorskip("matplotlib")

SHORT = """
about = "a short one"
T = 40
fps = 20
D = 60
cap = { k = "steps", t = [20], v = [9.0, 6.5] }
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    (tmp_path / "short.toml").write_text(SHORT)
    return str(tmp_path / "short.toml")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def told_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def test_what_motion_gates_leave_out_is_simulated_shown_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = '\nstill = { k = "steps", t = [30], v = [0.9, 0.0] }'
    (tmp_path / "gated.toml").write_text(SHORT + still)
    log, plot = str(tmp_path / "x.log"), str(tmp_path / "x.png")
    gated = told_json(capsys, "simulate", "--scenario", str(tmp_path / "gated.toml"), "--record", log, "--plot", plot)
    (tmp_path / "plain.toml").write_text(SHORT)
    plain = told_json(capsys, "simulate", "--scenario", str(tmp_path / "plain.toml"))
    assert gated["runs"][0]["still"] == {"camera-0": pytest.approx(0.7, abs=0.05)} and not plain["runs"][0]["still"]
    assert 0.2 < gated["runs"][0]["offered"] / plain["runs"][0]["offered"] < 0.45
    assert Path(plot).stat().st_size > 10_000
    code, out, _ = run(capsys, "replay", log)
    assert code == 0 and "the same, byte for byte" in out
    assert re.search(r"left out as still, camera-0 +6\d|left out as still, camera-0 +7\d", out)


def test_a_still_share_is_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.toml").write_text(SHORT + "\nstill = 1.5")
    code, _, err = run(capsys, "simulate", "--scenario", str(tmp_path / "odd.toml"))
    assert code == 2 and "still" in err and "Traceback" not in err


def test_every_shipped_scenario_can_run_on_every_device() -> None:
    for path in sorted(SHIPPED.glob("*.toml")):
        for device in NAMES:
            made = Truth({**reported.scenario(read_toml(path), device, path.stem), "T": 20}, 1)
            assert made.scenario["about"] and len(made.tick) > 10


def test_a_run_its_log_its_replay_and_what_other_limits_had_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str
) -> None:
    log, png = str(tmp_path / "run.log"), tmp_path / "run.png"
    code, out, _ = run(capsys, "simulate", "--scenario", scenario, "--record", log, "--plot", str(png))
    assert code == 0 and "a short one" in out and "simulated" in out and "~" in out
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = tmp_path / "whatif.html"
    code, out, err = run(capsys, "replay", log, "--set", "power_w=5", "--plot", str(page))
    assert code == 0, err
    assert "the same, byte for byte" in out and "power_w = 5" in out
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "<svg" in text and "frames offered" in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    whatif = told_json(capsys, "replay", log, "--set", "power_w=5")
    recorded, other = whatif["runs"]
    assert whatif["exact"] and other["estimated"] and other["mean_w"] < recorded["mean_w"] - 0.5
    assert other["offered"] == recorded["offered"]


def test_the_same_limits_in_a_counterfactual_give_nearly_the_same_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str
) -> None:
    log = str(tmp_path / "run.log")
    told_json(capsys, "simulate", "--scenario", scenario, "--record", log)
    recorded, other = told_json(capsys, "replay", log, "--set", "deadline_quantile=0.99")["runs"]
    assert other["offered"] == recorded["offered"]
    assert other["service"] == pytest.approx(recorded["service"], rel=0.05)
    assert other["mean_w"] == pytest.approx(recorded["mean_w"], rel=0.03)
    assert other["hottest_c"] == pytest.approx(recorded["hottest_c"], abs=1.5)


def test_profiles_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text('description = "mine"\n[limits]\npower_w = 5\n')
    (tmp_path / "edged.toml").write_text("")
    more = ("--profile", "mine", "--profile", "performance", "-c", str(tmp_path / "edged.toml"))
    mine, free = told_json(capsys, "simulate", "--scenario", scenario, *more)["runs"]
    assert (mine["name"], free["name"]) == ("mine", "performance")
    assert mine["mean_w"] < 5.1 < free["mean_w"]
    assert free["accuracy"] > mine["accuracy"]
    _, out, _ = run(capsys, "simulate", "--scenario", scenario, *more)
    assert re.search(r"time above the power budget +~0\.00 % +no limit\n", out), out


def test_the_same_seed_gives_the_same_run_and_a_free_clock_another(
    capsys: pytest.CaptureFixture[str], scenario: str
) -> None:
    command = ("simulate", "--device", "orin-nx", "--scenario", scenario)
    first = told_json(capsys, *command)
    assert first == told_json(capsys, *command)
    assert first != told_json(capsys, *command, "--free-clock")


def test_a_ring_outlives_a_power_cut_a_boot_and_an_upgrade(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str
) -> None:
    """Each file that cannot be read costs itself, and is named."""
    ring = tmp_path / "record"
    ring.mkdir()
    names = [ring / f"edged-{number:08d}.log" for number in range(1, 6)]
    told_json(capsys, "simulate", "--scenario", scenario, "--record", str(names[1]))
    whole = names[1].read_bytes()
    names[0].write_bytes(
        whole.replace(record.SHAPE.encode(), b"f" * len(record.SHAPE))
    )  # the header's checksum is wrong
    names[2].write_bytes(b"")
    names[3].write_bytes(whole)
    names[4].write_bytes(whole[: len(whole) // 2])
    code, out, _ = run(capsys, "replay", str(ring))
    assert code == 0 and "the same, byte for byte" in out and "of 3 files" in out
    assert "left out: " in out and "edged-00000001.log: its header is damaged" in " ".join(out.split())
    assert "edged-00000003.log is not a log of edged" in " ".join(out.split()) and "the last record is torn" in out
    replayed = told_json(capsys, "replay", str(ring), "--set", "power_w=6")
    assert 75 < replayed["seconds"] < 120
    for path in names[1:]:
        path.unlink()
    code, _, err = run(capsys, "replay", str(ring))
    assert code == 2 and "its header is damaged" in err


def test_a_log_in_which_nothing_can_be_compared_is_not_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str
) -> None:
    path = tmp_path / "a [bold]log[x].log"
    told_json(capsys, "simulate", "--scenario", scenario, "--record", str(path))
    raw = bytearray(path.read_bytes())
    raw[600] ^= 1
    path.write_bytes(raw)
    code, out, _ = run(capsys, "replay", str(path))
    assert code == 1 and "nothing could be compared" in out and "a checksum is wrong" in out and path.name in out


def test_a_log_that_was_changed_is_named_and_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = str(tmp_path / "run.log")
    told_json(capsys, "simulate", "--scenario", scenario, "--record", log)
    from edged.governor.estimators import latency

    monkeypatch.setattr(latency, "NOISE_VAR", 0.03)
    monkeypatch.setattr("edged.commands.replay.governor_digest", lambda: "another")
    code, out, _ = run(capsys, "replay", log)
    assert code == 1
    assert "NOT the same after" in out and " was " in out and "another version of the governor" in out


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("simulate",), "which scenario"),
        (("simulate", "--scenario", "nigt"), "no scenario 'nigt'"),
        (("simulate", "--scenario", "/nowhere.toml"), "no such file"),
        (("simulate", "--scenario", "calm", "--set", "power=3"), "limits.power is not a known key"),
        (("simulate", "--scenario", "calm", "--set", "power_w=-3"), "expected watts"),
        (("simulate", "--scenario", "calm", "--profile", "nite"), "did you mean night?"),
        (("simulate", "--scenario", "calm", "--plot", "x.pdf"), "must end in .png or .html"),
        (("simulate", "--scenario", "calm", "--plot", "/nowhere/x.png"), "no directory /nowhere"),
        (("simulate", "--scenario", "calm", "--record", "/nowhere/x.log"), "cannot be written"),
        (("replay", "/nowhere"), "cannot be read"),
        (("replay", "/etc/hostname"), "is not a log of edged"),
        (("replay", "/usr"), "holds no log of edged"),
    ],
)
def test_a_mistake_is_reported_with_its_remedy(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], reported: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2 and reported in err and "hint:" in err and not out


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("T = 5", "T is 5, expected seconds"),
        ("fps = 0", "fps is not between 1e-06 and 1000"),
        ("fps = 1e9", "fps is not between"),
        ("fps = 1000\nT = 172800", "fps gives more than 2000000 frames"),
        ("cap = -5", "cap is not between 0 and"),
        ("rsa = 0", "rsa is not between 0.01 and 100"),
        ("amb = nan", "amb must be a finite number"),
        ("amb = []", "amb is no shape over time: expected a number"),
        ('amb = ["hot"]', "amb is no shape over time: expected a number"),
        ('amb = { k = "spiral" }', "amb is no shape over time: k is 'spiral'"),
        ('amb = { k = "steps" }', "amb is no shape over time: there is no"),
        ('amb = { k = "ramp", t = [9, 3], v = [1, 2] }', "its times t must go up"),
        ('amb = { k = "sine", m = 3, a = 1, p = 0 }', "its period p must be above 0"),
        ('amb = { k = "walk", m = 3, s = 1, lo = 2, hi = 2 }', "hi must be above lo"),
        ('amb = { k = "markov", v = [1], d = [3] }', "two levels v or more"),
        ("mis = 1000", "mis is 1000, expected a standard deviation"),
        ("bat = { cap_wh = 0 }", "bat.cap_wh is 0, expected watt-hours"),
        ("ambient = 3", "ambient is not a known key"),
        ("Tlim = 120", "expected degrees"),
        ("[device.orin-mini]\nD = 3", "no device 'orin-mini'"),
        ("bat = { wh = 3 }", "bat.wh is not a known key"),
    ],
)
def test_a_wrong_scenario_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, reported: str
) -> None:
    named = {part.split(" ")[0] for part in line.splitlines()}
    kept = [text for text in SHORT.splitlines() if text.split(" ")[0] not in named]
    (tmp_path / "bad.toml").write_text("\n".join([*kept, line]))
    code, _, err = run(capsys, "simulate", "--scenario", str(tmp_path / "bad.toml"))
    assert code == 2 and reported in err


def test_a_scenario_in_json_may_be_anything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    for content in ("[" * 100_000, "[]", "nan", '{"T": 30, "D": 60, "cap": NaN}', '{"T": 30'):
        file.write_text(content)
        code, out, err = run(capsys, "simulate", "--scenario", str(file))
        assert code == 2 and str(file) in err and "hint:" in err and not out


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5), st.sampled_from(["x", None]))
VALUES = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=3))
SHAPES = st.one_of(
    NUMBERS,
    st.builds(
        lambda kind, fields: {"k": kind, **fields},
        st.sampled_from(["steps", "ramp", "sine", "saw", "square", "markov", "walk", "sun", 3]),
        st.dictionaries(st.sampled_from(["t", "v", "d", "s0", "m", "a", "p", "ph", "lo", "hi", "s", "peak"]), VALUES),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["amb", "rsa", "co", "gcont", "sun", "diff", "cap", "fps"]), SHAPES, min_size=1))
def test_any_shape_is_refused_with_a_sentence_or_stays_in_its_bounds(shapes: dict[str, object]) -> None:
    try:
        made = Truth(reported.scenario({"T": 10, "D": 60, "cap": 8, "fps": 5, **shapes}, "orin-nano", "any"), 1)
    except UsageError as error:
        assert error.message and error.hint
        return
    for values in (made.cap_w, made.ambient_c, made.sink_air, made.corunner_w, made.sun_w, made.fps, made.difficulty):
        assert np.isfinite(values).all()


def test_what_a_scenario_says_of_itself_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        SHORT.replace("a short one", "$^ [bold]x[/nope]\\u001b[31m").replace("T = 40", "T = 25")
    )
    png = str(tmp_path / "x.png")
    code, out, _ = run(capsys, "simulate", "--scenario", str(tmp_path / "x.toml"), "--plot", png)
    assert code == 0 and "$^ [bold]x[/nope]?[31m" in out.replace("\n", " ") and Path(png).is_file()


def test_a_plot_that_cannot_be_written_costs_no_more_than_itself(
    capsys: pytest.CaptureFixture[str], scenario: str, tmp_path: Path
) -> None:
    (tmp_path / "is.png").mkdir()
    code, out, err = run(capsys, "simulate", "--scenario", scenario, "--plot", str(tmp_path / "is.png"))
    assert code == 2 and "cannot be written" in err and not out
    (tmp_path / "full.png").symlink_to("/dev/full")
    code, out, err = run(capsys, "simulate", "--scenario", scenario, "--plot", str(tmp_path / "full.png"))
    assert code == 2 and "full.png: it cannot be written: No space left" in err and "frames offered" in out


def test_a_log_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], scenario: str) -> None:
    code, out, err = run(capsys, "simulate", "--scenario", scenario, "--record", "/dev/full")
    assert code == 1 and "/dev/full cannot be written: No space left on device" in err and not out


def test_without_matplotlib_one_sentence(
    capsys: pytest.CaptureFixture[str], scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run(capsys, "simulate", "--scenario", scenario, "--plot", "x.png")
    assert code == 2 and "--plot needs matplotlib" in err and 'pip install "edged[plot]"' in err
