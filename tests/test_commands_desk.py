"""`edged simulate` and `edged replay` as a person runs them: tables, plots, logs that replay, refusals that help."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edged.cli import main
from edged.commands.simulate import SHIPPED
from edged.config import read_toml
from edged.simulate import told
from edged.simulate.tables import NAMES

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


def told_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    loaded: dict[str, object] = json.loads(out)
    return loaded


def test_every_shipped_scenario_can_run_on_every_device() -> None:
    for path in sorted(SHIPPED.glob("*.toml")):
        for device in NAMES:
            made = told.truth({**told.scenario(read_toml(path), device, path.stem), "T": 20}, 1)
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
    recorded, other = whatif["runs"]  # type: ignore[misc]
    assert whatif["exact"] and other["estimated"] and other["mean_w"] < recorded["mean_w"] - 0.5
    assert other["offered"] == recorded["offered"]


def test_the_same_limits_in_a_counterfactual_give_nearly_the_same_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str
) -> None:
    log = str(tmp_path / "run.log")
    told_json(capsys, "simulate", "--scenario", scenario, "--record", log)
    recorded, other = told_json(capsys, "replay", log, "--set", "deadline_quantile=0.99")["runs"]  # type: ignore[misc]
    assert other["offered"] == recorded["offered"]
    assert other["service"] == pytest.approx(recorded["service"], rel=0.05)
    assert other["mean_w"] == pytest.approx(recorded["mean_w"], rel=0.03)
    assert other["hottest_c"] == pytest.approx(recorded["hottest_c"], abs=1.5)


def test_profiles_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text('description = "mine"\n[limits]\npower_w = 5\n')
    (tmp_path / "edged.toml").write_text("")
    more = ("--profile", "mine", "--profile", "performance", "-c", str(tmp_path / "edged.toml"))
    mine, free = told_json(capsys, "simulate", "--scenario", scenario, *more)["runs"]  # type: ignore[misc]
    assert (mine["name"], free["name"]) == ("mine", "performance")
    assert mine["mean_w"] < 5.1 < free["mean_w"]
    assert free["accuracy"] > mine["accuracy"]


def test_the_same_seed_gives_the_same_run_and_a_free_clock_another(
    capsys: pytest.CaptureFixture[str], scenario: str
) -> None:
    command = ("simulate", "--device", "orin-nx", "--scenario", scenario)
    first = told_json(capsys, *command)
    assert first == told_json(capsys, *command)
    assert first != told_json(capsys, *command, "--free-clock")


def test_a_log_that_was_changed_is_named_and_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = str(tmp_path / "run.log")
    told_json(capsys, "simulate", "--scenario", scenario, "--record", log)
    from edged.governor import latency

    monkeypatch.setattr(latency, "NOISE_VAR", 0.03)
    monkeypatch.setattr("edged.commands.replay.governor_digest", lambda: "another")
    code, out, _ = run(capsys, "replay", log)
    assert code == 1
    assert "NOT the same after" in out and " was " in out and "another version of the governor" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
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
def test_a_mistake_is_told_with_its_remedy(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2 and told in err and "hint:" in err and not out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("T = 5", "T is 5, expected seconds"),
        ("fps = 0", "fps must stay above 0"),
        ("fps = 1e9", "at most"),
        ('amb = { k = "spiral" }', "no shape 'spiral'"),
        ('amb = { k = "steps" }', "one of its shapes is not right"),
        ("ambient = 3", "ambient is not a known key"),
        ("Tlim = 120", "expected degrees"),
        ("[device.orin-mini]\nD = 3", "no device 'orin-mini'"),
        ("bat = { wh = 3 }", "bat.wh is not a known key"),
    ],
)
def test_a_wrong_scenario_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, told: str) -> None:
    kept = [text for text in SHORT.splitlines() if text.split(" ")[0] != line.split(" ")[0]]
    (tmp_path / "bad.toml").write_text("\n".join([*kept, line]))
    code, _, err = run(capsys, "simulate", "--scenario", str(tmp_path / "bad.toml"))
    assert code == 2 and told in err


def test_without_matplotlib_one_sentence(
    capsys: pytest.CaptureFixture[str], scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run(capsys, "simulate", "--scenario", scenario, "--plot", "x.png")
    assert code == 2 and "--plot needs matplotlib" in err and 'pip install "edged[plot]"' in err
