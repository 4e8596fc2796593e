"""A still with zones, lines and masks drawn, from a camera opened as the daemon opens it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edged.cli import main
from edged.config import CameraConfig
from edged.overlays import draw_regions
from edged.regions import CameraMotion, Line, Zone

TABLE = """bundle = "x"
[[camera]]
name = "gate"
source = "test://7?width=640&height=360"
mask = [[[0, 0], [1, 0], [1, 0.25], [0, 0.25]]]
[camera.zones.dock]
polygon = [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]
"""


def test_the_picture_is_written_with_its_size_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.toml").write_text(TABLE)
    out = tmp_path / "still.png"
    assert main(["zones", "gate", "-c", str(tmp_path / "e.toml"), "--out", str(out)]) == 0
    picture = cv2.imread(str(out))
    assert picture is not None and picture.shape == (360, 640, 3)
    assert f"{out}: 640x360, 1 zone, 0 lines, 1 mask" in capsys.readouterr().out


def test_a_camera_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.toml").write_text(TABLE)
    assert main(["zones", "yard", "-c", str(tmp_path / "e.toml")]) == 2
    shown = capsys.readouterr().err
    assert "no camera 'yard'" in shown and "cameras are gate" in shown


def test_a_camera_without_a_picture_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.toml").write_text(TABLE.replace("test://7?width=640&height=360", "/nowhere/clip.mp4?loop=0"))
    assert main(["zones", "gate", "-c", str(tmp_path / "e.toml")]) == 1
    assert "camera gate gives no picture" in capsys.readouterr().err


def test_each_thing_is_drawn_where_it_lies() -> None:
    half = [(0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0)]
    camera = CameraConfig(
        name="gate",
        source="test://7",
        zones={"dock": Zone(polygon=half)},
        lines={"door": Line(start=(0.0, 0.4), end=(0.4, 0.4))},
        mask=[[(0.0, 0.0), (1.0, 0.0), (1.0, 0.2), (0.0, 0.2)]],
        motion=CameraMotion(mask=[[(0.0, 0.8), (0.2, 0.8), (0.2, 1.0), (0.0, 1.0)]]),
    )
    plain = np.full((400, 400, 3), 128, np.uint8)
    drawn = plain.copy()
    draw_regions(drawn, camera)
    assert drawn[20, 200].max() < 100  # masked: dark
    assert (drawn[390, 390] != 128).any() and (drawn[390, 20] != 128).any()
    assert drawn[157:163, 100, 2].max() > drawn[157:163, 100, 0].min() + 50  # the line is red
    assert (drawn[250, 50] == 128).all()
