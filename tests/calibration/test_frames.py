"""Pictures as the daemon feeds them, and sentences for those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged.synthetic.scene import LABELS
from edged_calibration.evaluate.average_precision import Boxes
from edged_calibration.recipe.frames import Feeds, open_frames
from edged_calibration.recipe.input_normalisation import Normalisation
from tests.support.calibration import pictures

SPEC = InputSpec(name="image", width=64, height=32)


def test_a_folder_is_read_in_order_and_letterboxed(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 3, width=40, height=40)
    pictures(tmp_path / "a" / "b", 2, seed=5, width=128, height=64)
    frames = open_frames("a", tmp_path, SPEC, 100)
    assert len(frames) == 5
    names = [frames.read(number).name for number in range(5)]
    assert names == sorted(names)
    square = next(frames.read(n) for n in range(5) if "/" not in names[n])
    assert square.image.shape == (32, 64, 3)
    assert (square.image[:, :16] == 114).all() and (square.image[:, 48:] == 114).all()
    assert square.letterbox.source_width == 40 and square.truth is None


def test_so_many_are_taken_evenly(tmp_path: Path) -> None:
    frames = open_frames(pictures(tmp_path / "a", 11).name, tmp_path, SPEC, 3)
    assert [frames.read(n).name for n in range(3)] == ["0000.png", "0005.png", "0010.png"]


def test_rendered_pictures_are_the_same_every_time_and_have_boxes() -> None:
    frames = open_frames("scene://3?count=4", Path(), SPEC, 100, "scene", LABELS)
    again = open_frames("scene://3?count=4", Path(), SPEC, 100, "scene", LABELS)
    first, second = frames.read(2), again.read(2)
    assert np.array_equal(first.image, second.image) and frames.digest() == again.digest()
    assert isinstance(first.truth, Boxes)
    other = open_frames("scene://3?count=4&textures=2", Path(), SPEC, 100)
    assert other.digest() != frames.digest() and other.read(2).truth is None


def test_the_digest_is_of_the_pictures_and_of_the_choice(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", 6)
    before = open_frames("a", tmp_path, SPEC, 100).digest()
    assert open_frames("a", tmp_path, SPEC, 3).digest() != before
    cv2.imwrite(str(folder / "0001.png"), np.zeros((40, 48, 3), np.uint8))
    assert open_frames("a", tmp_path, SPEC, 100).digest() != before


def test_feeds_are_made_when_asked_for(tmp_path: Path) -> None:
    frames = open_frames(pictures(tmp_path / "a", 10).name, tmp_path, SPEC, 100)
    feeds = Feeds(frames, "x", Normalisation((0.0,) * 3, (255.0,) * 3), batch=4)
    assert [len(feed["x"]) for feed in feeds] == [4, 4, 2] and len(feeds[:2]) == 2
    assert feeds[0]["x"].shape == (4, 3, 32, 64) and feeds[0]["x"].dtype == np.float32
    assert np.allclose(feeds[0]["x"][1] * 255, frames.read(1).image.transpose(2, 0, 1), atol=1e-3)


def test_arrays_have_the_size_of_the_model(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 32, 64, 3), np.uint8))
    assert len(open_frames("a.npy", tmp_path, SPEC, 100)) == 3
    np.save(tmp_path / "b.npy", np.zeros((3, 64, 64, 3), np.uint8))
    with pytest.raises(UsageError, match="expected uint8 n x 32 x 64 x 3"):
        open_frames("b.npy", tmp_path, SPEC, 100)
    (tmp_path / "c.npy").write_bytes(b"no array")
    with pytest.raises(UsageError, match=r"not a \.npy file"):
        open_frames("c.npy", tmp_path, SPEC, 100)


def test_what_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    for source, message in (
        ("none", "does not exist"),
        ("empty", "it is empty"),
        ("texts", "no pictures in it"),
        ("texts/a.txt", "not a folder"),
        ("scene://x", "cannot be rendered"),
        ("scene://1?colour=2", "cannot be rendered"),
        ("scene://1?count=0", "no pictures"),
    ):
        with pytest.raises(UsageError, match=message):
            open_frames(source, tmp_path, SPEC, 100)


def test_a_picture_that_is_none_or_far_too_small_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", 2)
    (folder / "0001.png").write_bytes(b"not a picture")
    frames = open_frames("a", tmp_path, SPEC, 100)
    with pytest.raises(UsageError, match=r"0001\.png is not a picture"):
        frames.read(1)
    pictures(tmp_path / "small", 1, width=20, height=10)
    with pytest.raises(UsageError, match="20x10 pixels, less than half"):
        open_frames("small", tmp_path, SPEC, 100).read(0)


def test_an_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path / "a", 1)

    def refuse(self: Path, pattern: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rglob", refuse)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        open_frames(folder.name, tmp_path, SPEC, 100)
