"""Zones, lines, masks and filters of a camera, as they are read and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config import CameraConfig, load
from edged.config.text import effective_toml
from edged.errors import UsageError

GOOD = """
mask = [[[0, 0], [1, 0], [1, 0.2]]]
[camera.zones.dock]
polygon = [[0.1, 0.5], [0.6, 0.5], [0.6, 1], [0.1, 1]]
attention = 3
[camera.lines.door]
from = [0.2, 0.5]
to = [0.8, 0.5]
[camera.objects."hand saw"]
min_score = 0.5
"""


def camera(path: Path, text: str) -> CameraConfig:
    path.write_text(f'bundle = "x"\n[[camera]]\nname = "gate"\nsource = "test://7"\n{text}')
    return load(path).camera[0]


def test_it_is_read_and_printed_as_it_was(tmp_path: Path) -> None:
    first = camera(tmp_path / "a.toml", GOOD)
    assert first.zones["dock"].attention == 3 and first.lines["door"].end == (0.8, 0.5) and first.tracked
    assert first.objects["hand saw"].min_score == 0.5
    (tmp_path / "b.toml").write_text(effective_toml(load(tmp_path / "a.toml")))
    assert load(tmp_path / "b.toml").camera[0] == first


def test_filters_alone_track_nothing(tmp_path: Path) -> None:
    assert not camera(tmp_path / "a.toml", "objects = { person = { min_score = 0.5 } }").tracked


@pytest.mark.parametrize(
    "text, message",
    [
        ("[camera.zones.dock]\npolygon = [[0,0],[1,1],[1,0],[0,1]]", "camera.1.zones.dock.polygon crosses itself"),
        ("[camera.zones.dock]\npolygon = [[0,0],[1,1],[1,2]]", "camera.1.zones.dock.polygon[2][1] is 2"),
        ("[camera.zones.dock]\npolygon = [[0,0],[0.5,0.5],[1,1]]", "covers 0.0e+00 of the picture"),
        ("[camera.zones.dock]\npolygon = [[0,0],[1,1]]", "a list of 3 to 64 corners"),
        ('[camera.zones."A b"]\npolygon = [[0,0],[1,1],[1,0]]', "expected as a name 1 to 32 lower-case"),
        ("[camera.zones]\ndock = 3", "camera.1.zones.dock is 3"),
        ("zones = [1]", "camera.1.zones is a list"),
        ("[camera.lines.a]\nfrm = [0,1]", "did you mean from?"),
        ("[camera.lines.a]\nfrom = [0,1]\nto = [0,1]", "begins and ends in the same point"),
        ("mask = [[[0,0],[1,0],[1,1],[0,1]]]", "covers the whole picture"),
        ("objects = { person = { min_score = 2 } }", "camera.1.objects.person.min_score is 2"),
        ("objects = { person = { min_area = 0.5, max_area = 0.1 } }", "min_area 0.5 is not below max_area 0.1"),
        (
            "[camera.zones.a]\npolygon = [[0,0],[1,1],[1,0]]\n[camera.lines.a]\nfrom = [0,0]\nto = [0,1]",
            "'a' names a zone and a line",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        camera(tmp_path / "a.toml", text)
    assert message in str(caught.value) and "a.toml" in str(caught.value)
