"""A rendered conveyor belt with machine parts: what the demo model is trained on and what the `test` source shows.

In: a seed and a size. Out: uint8 BGR pictures with exact boxes. Needs numpy and OpenCV, touches no file, runs on any
thread; a Scene belongs to one thread at a time. `sample` draws independent pictures for training and evaluation;
`Scene` is a moving belt, each of its frames a pure function of (seed, width, height, fps, index).

Boxes are (x0, y0, x1, y1) in pixels, where pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.synthetic.parts import (
    LABELS,
    MAX_RADIUS,
    MIN_RADIUS,
    Box,
    Image,
    Sprite,
    blend,
    draw,
    line,
    moved,
    picture_scale,
    texture,
    visible,
)

__all__ = ["LABELS", "Image", "Scene", "SceneObject", "picture_scale", "sample", "textures"]

_MAX_PARTS = 9  # in one training picture
_MAX_NOISE = 11.0  # standard deviation, grey levels

_LANES = 2  # where the height allows
_CELL = 88.0  # side of the cell of the belt that a part lies in, reference pixels: room for the largest plate
_OCCUPANCY = 0.75
_PALETTE = 40  # sprites drawn ahead for a Scene
_SPEED = 1 / 8  # picture widths per second
_SCENE_NOISE = 3.0
_NOISE_MARGIN = 64


@dataclass(frozen=True)
class SceneObject:
    """One part in a picture: its class, and its box (x0, y0, x1, y1) in pixels, clipped to the picture. `identity` is
    that of the same part in every frame of the scene."""

    class_id: int
    label: str
    box: Box
    identity: int


# ---- independent pictures ----------------------------------------------------------------------------------------


def textures(seed: int, count: int, width: int, height: int) -> list[Image]:
    """Grounds for `sample`, the same for the same arguments."""
    scale = picture_scale(width, height)
    return [texture(np.random.default_rng((seed, i)), width, height, scale) for i in range(count)]


def sample(
    rng: np.random.Generator, grounds: Sequence[Image], width: int, height: int
) -> tuple[Image, NDArray[np.float32], NDArray[np.int64]]:
    """One picture: (BGR [height, width, 3], boxes [n, 4] in pixels, class ids [n]), decided by the rng alone.

    The grounds must have the size of the picture.
    """
    scale = picture_scale(width, height)
    image = grounds[int(rng.integers(len(grounds)))]
    image = cast(Image, cv2.flip(image, int(rng.integers(-1, 2)))) if rng.random() < 0.75 else image.copy()
    for _ in range(int(rng.integers(0, 6))):  # clutter
        line(image, rng.uniform(0, 1, 2) * (width, height), rng.normal(0, 30 * scale, 2), scale, rng)
    boxes: list[Box] = []
    classes: list[int] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(0, _MAX_PARTS + 1))):
        place = _free_place(rng, width, height, taken)
        if place is None:
            continue
        taken.append(place)
        x, y, radius = place
        whole_x, whole_y = math.floor(x), math.floor(y)
        ground = image[min(max(whole_y, 0), height - 1), min(max(whole_x, 0), width - 1)].mean()
        sprite = draw(int(rng.integers(len(LABELS))), radius, (x - whole_x, y - whole_y), float(ground), rng)
        blend(image, sprite, whole_x, whole_y)
        box = visible(moved(sprite.box, whole_x, whole_y), width, height)
        if box is not None:
            boxes.append(box)
            classes.append(sprite.class_id)
    image = _photograph(image, rng, scale)
    return image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)


def _free_place(
    rng: np.random.Generator, width: int, height: int, taken: list[tuple[float, float, float]]
) -> tuple[float, float, float] | None:
    """(x, y, radius) of a part that hardly overlaps those taken; parts may leave the picture left and right."""
    scale = picture_scale(width, height)
    for _ in range(6):
        radius = math.exp(rng.uniform(math.log(MIN_RADIUS), math.log(MAX_RADIUS))) * scale
        x, y = rng.uniform(-0.3 * radius, width + 0.3 * radius), rng.uniform(0.5 * radius, height - 0.5 * radius)
        if all(math.hypot(x - ox, y - oy) > 0.8 * (radius + other) for ox, oy, other in taken):
            return x, y, radius
    return None


_noise_tiles: dict[tuple[int, int], Image] = {}


def _photograph(image: Image, rng: np.random.Generator, scale: float) -> Image:
    """Optics and sensor: focus or motion blur, gamma, exposure, noise."""
    height, width = image.shape[:2]
    blur = rng.random()
    if blur < 0.35:
        image = cast(Image, cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1) * scale))
    elif blur < 0.5:
        length = max(2, int(rng.integers(3, 6) * scale))
        image = cast(Image, cv2.blur(image, (length, 1) if rng.random() < 0.7 else (1, length)))
    curve = (np.arange(256) / 255) ** rng.uniform(0.65, 1.6) * rng.uniform(0.45, 1.25) * 255 + rng.uniform(-18, 18)
    image = cast(Image, cv2.LUT(image, np.clip(curve, 0, 255).astype(np.uint8)))
    if (height, width) not in _noise_tiles:
        _noise_tiles[height, width] = _noise_tile(np.random.default_rng(7), width, height, 32.0)
    strength = rng.uniform(0, _MAX_NOISE) / 32
    y, x = rng.integers(0, _NOISE_MARGIN, 2)
    noise = _noise_tiles[height, width][y : y + height, x : x + width]
    return cast(Image, cv2.addWeighted(image, 1, noise, strength, -128 * strength))


def _noise_tile(rng: np.random.Generator, width: int, height: int, sigma: float) -> Image:
    """Sensor noise about 128, a margin larger than the picture so that a shifted window of it looks new."""
    shape = (height + _NOISE_MARGIN, width + _NOISE_MARGIN, 3)
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma) + 128
    tile: Image = np.clip(np.rint(noise), 0, 255).astype(np.uint8)
    return tile


# ---- the moving belt ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    """A part on the belt: its sprite and its place in pixels, x from the start of the belt."""

    sprite: Sprite
    x: int
    y: int
    identity: int


class Scene:
    """An endless belt that moves to the left; parts are spawned by belt position, so any frame can be drawn first.

    With `pause_s` the belt runs for `run_s`, stands still for `pause_s`, and so on; light and noise go on. Holds about
    16 MB at 1280x720. `render` allocates nothing of a picture's size.
    """

    def __init__(
        self,
        seed: int,
        width: int = 1280,
        height: int = 720,
        fps: float = 30.0,
        run_s: float = 6.0,
        pause_s: float = 0.0,
    ) -> None:
        self.seed, self.width, self.height, self.fps = seed, width, height, fps
        self._run_s, self._pause_s = run_s, pause_s
        self._scale = picture_scale(width, height)
        self._pitch = _CELL * self._scale  # length of a cell along the belt
        self._lanes = max(1, min(_LANES, int(height / self._pitch)))
        rng = np.random.default_rng((seed, 0))
        period, fade = 2 * width, width // 8
        belt = texture(rng, period + fade, height, self._scale)
        ramp = np.linspace(0, 1, fade, dtype=np.float32)[:, None]
        seam = belt[:, :fade] * ramp + belt[:, period:] * (1 - ramp)  # the end runs into the beginning
        self._belt = belt[:, :period].copy()
        self._belt[:, :fade] = seam.astype(np.uint8)
        ground = float(self._belt[::16, ::16].mean())
        low, high = math.log(MIN_RADIUS), math.log(MAX_RADIUS)
        radii = np.exp(rng.uniform(low, high, _PALETTE)) * self._scale
        self._sprites = [draw(i % len(LABELS), float(r), (0.0, 0.0), ground, rng) for i, r in enumerate(radii)]
        self._noise = _noise_tile(rng, width, height, _SCENE_NOISE)
        self._columns: dict[int, list[_Part]] = {}

    def render(self, index: int, out: Image) -> None:
        """Draw frame `index` (from 0) into `out`, uint8 [height, width, 3] BGR."""
        shift = self._shift(index)
        start = shift % self._belt.shape[1]
        first = min(self._belt.shape[1] - start, self.width)
        out[:, :first] = self._belt[:, start : start + first]
        out[:, first:] = self._belt[:, : self.width - first]
        for part in self._parts(shift):
            blend(out, part.sprite, part.x - shift, part.y)
        seconds = index / self.fps
        gain = 1 + 0.12 * math.sin(seconds * (2 * math.pi / 47))
        offset = 6 * math.sin(seconds * (2 * math.pi / 31))
        # 37 and 23 are odd: the window moves with every frame and comes back after 64 of them.
        y, x = index * 23 % _NOISE_MARGIN, index * 37 % _NOISE_MARGIN
        noise = self._noise[y : y + self.height, x : x + self.width]
        cv2.addWeighted(out, gain, noise, 1, offset - 128, dst=out)

    def truth(self, index: int) -> list[SceneObject]:
        """The parts in frame `index` that show enough to count, in belt order."""
        shift = self._shift(index)
        objects = []
        for part in self._parts(shift):
            box = visible(moved(part.sprite.box, part.x - shift, part.y), self.width, self.height)
            if box is not None:
                class_id = part.sprite.class_id
                objects.append(SceneObject(class_id, LABELS[class_id], box, part.identity))
        return objects

    def _shift(self, index: int) -> int:
        """How far the belt has moved, in whole pixels: ground and parts move as one."""
        return round(self._moving_s(index) * _SPEED * self.width)

    def moves(self, index: int) -> bool:
        """Whether the belt runs at frame `index`."""
        return self._pause_s == 0 or index / self.fps % (self._run_s + self._pause_s) < self._run_s

    def _moving_s(self, index: int) -> float:
        """For how long the belt has run until frame `index`."""
        seconds = index / self.fps
        if self._pause_s == 0:
            return seconds
        rounds, into = divmod(seconds, self._run_s + self._pause_s)
        return rounds * self._run_s + min(into, self._run_s)

    def _parts(self, shift: int) -> list[_Part]:
        """Every part that may touch the picture, and some just outside it."""
        first, last = math.floor(shift / self._pitch) - 1, math.floor((shift + self.width) / self._pitch) + 1
        return [part for column in range(first, last + 1) for part in self._column(column)]

    def _column(self, column: int) -> list[_Part]:
        parts = self._columns.get(column)
        if parts is None:
            if len(self._columns) >= 64:
                self._columns.clear()
            parts = self._columns[column] = self._spawn(column)
        return parts

    def _spawn(self, column: int) -> list[_Part]:
        """The parts of one column of cells, at most one in each cell and none across its border."""
        rng = np.random.default_rng((self.seed, 1, column + 1))  # the first column asked for is -1
        lane_height = self.height / self._lanes
        parts = []
        for lane in range(self._lanes):
            occupied, sprite = rng.random() < _OCCUPANCY, self._sprites[int(rng.integers(len(self._sprites)))]
            x0, y0, x1, y1 = sprite.box
            right, down = rng.uniform(0, 1, 2)
            if occupied:
                x = column * self._pitch - x0 + right * max(self._pitch - (x1 - x0), 0)
                y = lane * lane_height - y0 + down * max(lane_height - (y1 - y0), 0)
                parts.append(_Part(sprite, round(x), round(y), (column + 1) * self._lanes + lane))
        return parts
