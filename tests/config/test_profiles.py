"""Power profiles: found beside the configuration or shipped, laid over its limits, refused with helpful sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged import profiles
from edged.config import Limits
from edged.errors import UsageError

CONFIG = "bundle = 'b'\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "edged.toml").write_text(CONFIG)
    return tmp_path / "edged.toml"


def write(config: Path, name: str, text: str) -> None:
    (config.parent / "profiles" / f"{name}.toml").write_text(text)


def test_every_shipped_profile_is_right_and_says_what_it_is_for(config: Path) -> None:
    assert profiles.names(config) == ["balanced", "emergency", "night", "performance", "solar"]
    for name in profiles.names(config):
        profile = profiles.find(name, config)
        assert len(profile.description) > 10
        assert profile.apply(Limits()) != Limits()


def test_it_is_laid_over_the_configurations_limits_and_lifts_what_it_names(config: Path) -> None:
    write(config, "mine", 'description = "mine"\nlift = ["power_w"]\n[limits]\ntemperature_c = 70\n')
    base = Limits(deadline_ms=33.0, power_w=9.0, energy_wh=5.0)
    assert profiles.find("mine", config).apply(base) == Limits(deadline_ms=33.0, energy_wh=5.0, temperature_c=70)


def test_ones_own_comes_before_the_shipped_one(config: Path) -> None:
    write(config, "night", 'description = "our night"\n[limits]\npower_w = 3\n')
    assert profiles.find("night", config).description == "our night"
    assert profiles.names(config).count("night") == 1


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ('description = "x"\n[limits]\npower_wt = 3\n', r"limits.power_wt is not a known key.*power_w"),
        ('description = "x"\n[limits]\npower_w = -3\n', r"limits.power_w is -3, expected watts"),
        ('description = "x"\n[limits]\npower_w = nan\n', r"finite number"),
        ('description = "x"\n[limits]\npower_w = "9"\n', r"expected watts"),
        ("[limits]\npower_w = 3\n", r"description is missing"),
        ('description = "x"\n', r"it changes no limit"),
        ('description = "x"\nlift = ["power_w"]\n[limits]\npower_w = 3\n', r"both set and lifted"),
        ('description = "x"\nlift = ["deadline_ms"]\n', r"lift names 'deadline_ms'.*power_w, energy_wh, temperature_c"),
        ("description = \n", r"is not valid TOML"),
    ],
)
def test_a_wrong_one_is_refused_with_file_key_and_remedy(config: Path, text: str, reported: str) -> None:
    write(config, "bad", text)
    with pytest.raises(UsageError, match=rf"(?s)bad\.toml.*{reported}"):
        profiles.find("bad", config)
    assert isinstance(dict(profiles.find_all(config))["bad"], UsageError)


def test_a_file_name_that_is_not_utf_8_is_listed_as_a_problem(config: Path) -> None:
    write(config, "n\udce4chts", 'description = "x"\n[limits]\npower_w = 3\n')
    problems = {name: one for name, one in profiles.find_all(config) if isinstance(one, UsageError)}
    assert list(problems) == [r"n\udce4chts"]


def test_a_name_that_is_not_there_and_one_that_leads_elsewhere(config: Path) -> None:
    with pytest.raises(UsageError, match=r"no profile 'nite'.*did you mean night\?.*profiles/nite\.toml"):
        profiles.find("nite", config)
    for name in ("../edged", "", "a/b", "Night", "x" * 40, "night\n"):
        with pytest.raises(UsageError, match="is no name of a profile"):
            profiles.find(name, config)
