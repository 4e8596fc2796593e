"""The rendered belt: the same bytes for the same arguments, and a truth that the pixels agree with."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from edged.synthetic.scene import LABELS, Scene, _Part, picture_scale, sample, textures
from tests.support.heap import python_bytes

SIZES = [(320, 192), (1280, 720), (640, 480), (480, 640), (1920, 400)]


def render(scene: Scene, index: int) -> np.ndarray:
    out = np.empty((scene.height, scene.width, 3), np.uint8)
    scene.render(index, out)
    return out


def digest(scene: Scene, index: int) -> str:
    return hashlib.sha256(render(scene, index).tobytes() + repr(scene.truth(index)).encode()).hexdigest()


def test_any_frame_in_any_order_is_the_same() -> None:
    forward = [digest(Scene(5, 320, 192), i) for i in (0, 7, 4000)]
    scene = Scene(5, 320, 192)
    assert [digest(scene, i) for i in (4000, 7, 0)] == forward[::-1]


def test_another_process_draws_the_same_bytes() -> None:
    script = (
        "import hashlib, numpy as np; from edged.synthetic.scene import Scene\n"
        "s = Scene(9, 640, 480, 15.0); out = np.empty((480, 640, 3), np.uint8); s.render(333, out)\n"
        "print(hashlib.sha256(out.tobytes() + repr(s.truth(333)).encode()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == digest(Scene(9, 640, 480, 15.0), 333)


def test_seeds_make_different_worlds() -> None:
    assert digest(Scene(1, 320, 192), 10) != digest(Scene(2, 320, 192), 10)


def test_consecutive_frames_differ_all_over() -> None:
    scene = Scene(3, 320, 192, fps=1000.0)  # at this rate the belt stands still between most frames
    for index in range(0, 200, 7):
        changed = (render(scene, index) != render(scene, index + 1)).any(axis=2)
        assert changed.mean() > 0.5


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_boxes_are_inside_and_some_parts_are_visible(width: int, height: int) -> None:
    scene = Scene(4, width, height)
    counts = []
    for index in range(0, 2000, 40):
        objects = scene.truth(index)
        counts.append(len(objects))
        for item in objects:
            x0, y0, x1, y1 = item.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert min(x1 - x0, y1 - y0) >= 6 * picture_scale(width, height)
            assert item.label == LABELS[item.class_id]
    assert 1 <= np.median(counts) <= 9


def test_a_picture_of_the_common_sizes_shows_three_to_nine_parts() -> None:
    counts = [len(scene.truth(index)) for scene in map(Scene, range(3)) for index in range(0, 9000, 90)]
    assert np.mean([3 <= count <= 9 for count in counts]) > 0.9


class Without(Scene):
    """A belt from which the part at one place was taken."""

    taken: _Part | None = None

    def _parts(self, shift: int) -> list[_Part]:
        return [part for part in super()._parts(shift) if part is not self.taken]


@pytest.mark.parametrize(("width", "height"), [(320, 192), (1280, 720)])
def test_a_box_encloses_the_pixels_that_its_part_changes(width: int, height: int) -> None:
    scene = Without(6, width, height)
    checked = 0
    for index in range(0, 600, 60):
        scene.taken = None
        full = render(scene, index).astype(int)
        shift = scene._shift(index)
        for part in scene._parts(shift):
            x0, y0, x1, y1 = (v + o for v, o in zip(part.sprite.box, (part.x - shift, part.y) * 2, strict=True))
            if x0 < 0 or x1 > width:
                continue
            assert any(np.allclose(item.box, (x0, y0, x1, y1)) for item in scene.truth(index))
            scene.taken = part
            changed = np.abs(full - render(scene, index)).max(axis=2) > 8
            scene.taken = None
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            shadow = 0.3 * (x1 - x0)  # falls to the right and below
            assert abs(columns[0] - x0) <= 2 and abs(rows[0] - y0) <= 2
            assert -2 <= columns[-1] + 1 - x1 <= shadow and -2 <= rows[-1] + 1 - y1 <= shadow
            checked += 1
    assert checked > 10


def test_parts_travel_with_the_belt() -> None:
    scene = Scene(8, 1280, 720, fps=30.0)
    moved = 0
    for index in range(0, 300, 30):
        later = {(item.class_id, item.box[1], item.box[2] - item.box[0]): item.box for item in scene.truth(index + 6)}
        for item in scene.truth(index):
            width = item.box[2] - item.box[0]
            box = later.get((item.class_id, item.box[1], width))
            if item.box[0] > 40 and item.box[2] < 1270 and box is not None:
                assert item.box[0] - box[0] == pytest.approx(1280 / 8 / 30 * 6, abs=1)
                moved += 1
    assert moved > 10


def test_rendering_allocates_no_picture() -> None:
    scene = Scene(2)
    out = np.empty((720, 1280, 3), np.uint8)

    def render() -> None:
        for index in range(0, 400, 40):
            scene.render(index, out)

    _, in_passing = python_bytes(render)
    assert in_passing < out.nbytes / 10


def test_samples_depend_on_their_rng_alone() -> None:
    grounds = textures(1, 4, 320, 192)
    first, again = (sample(np.random.default_rng((3, 14)), grounds, 320, 192) for _ in range(2))
    assert all(np.array_equal(first[part], again[part]) for part in range(3))
    assert not np.array_equal(first[0], sample(np.random.default_rng((3, 15)), grounds, 320, 192)[0])
    assert all(np.array_equal(a, b) for a, b in zip(grounds, textures(1, 4, 320, 192), strict=True))


def test_samples_cover_all_classes_with_boxes_in_the_picture() -> None:
    grounds = textures(1, 4, 320, 192)
    seen: set[int] = set()
    for number in range(60):
        image, boxes, classes = sample(np.random.default_rng((0, number)), grounds, 320, 192)
        assert image.shape == (192, 320, 3) and image.dtype == np.uint8
        assert boxes.shape == (len(classes), 4) and boxes.dtype == np.float32
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (320, 192)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 5.99).all()
        seen |= set(classes.tolist())
    assert seen == set(range(len(LABELS)))
