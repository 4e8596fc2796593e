"""The parts and the ground of the rendered belt: how they look, for pictures of any size.

In: a random generator, which decides everything. Out: sprites, boxes and textures. Pure but for `blend`, which draws
into the picture it is given; any thread. Boxes are (x0, y0, x1, y1) in pixels, where pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

LABELS = ("disc", "washer", "nut", "gear", "plate", "bracket", "bolt", "knob")

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]

# Lengths below are in reference pixels, those of a picture that just fits into the demo model's input of 320x192.
MIN_RADIUS, MAX_RADIUS = 7.0, 34.0
MIN_SIDE = 6.0  # an object with a shorter visible side is not in the truth
MIN_VISIBLE = 0.4  # nor is one of which less than this share of its box lies inside the picture


@dataclass(frozen=True, eq=False)
class Sprite:
    """A drawn part: `light` is what it adds, `through` how much of the ground stays (0..255), both [h, w, 3].

    `left`, `top` place the patch and `box` the part, relative to the whole pixel that the part is put on.
    """

    class_id: int
    light: Image
    through: Image
    left: int
    top: int
    box: Box


def picture_scale(width: int, height: int) -> float:
    """Pixels per reference pixel: letterboxed into 320x192, parts have the same size for every picture size."""
    return max(width / 320, height / 192)


def _circle(points: int) -> NDArray[np.float64]:
    angle = np.arange(points) * (2 * np.pi / points)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _outline(class_id: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """The outline of a part as a polygon [n, 2] about the origin, unit radius, and the radius of its hole."""
    match LABELS[class_id]:
        case "disc":
            return _circle(40), 0.0
        case "washer":
            return _circle(40), rng.uniform(0.35, 0.6)
        case "nut":
            return _circle(6), rng.uniform(0.35, 0.55)
        case "gear":
            points = 4 * int(rng.integers(8, 13))
            radius = np.where(np.arange(points) % 4 < 2, 1.0, rng.uniform(0.76, 0.84))
            return _circle(points) * radius[:, None], rng.uniform(0.25, 0.45)
        case "plate":
            h = rng.uniform(0.55, 0.8)
            return np.array([[-1, -h], [1, -h], [1, h], [-1, h]]), 0.0
        case "bracket":
            a, t = 0.9, 2 * rng.uniform(0.3, 0.45)
            return np.array([[-a, -a], [t - a, -a], [t - a, a - t], [a, a - t], [a, a], [-a, a]]), 0.0
        case "bolt":
            s, h, k = rng.uniform(0.14, 0.22), rng.uniform(0.38, 0.5), rng.uniform(0.3, 0.42) - 1
            return np.array([[-1, -h], [k, -h], [k, -s], [1, -s], [1, s], [k, s], [k, h], [-1, h]]), 0.0
        case _:  # knob
            lobes = int(rng.integers(5, 7))
            radius = 0.82 + 0.18 * np.cos(lobes * np.arange(48) * (2 * np.pi / 48))
            return _circle(48) * radius[:, None], 0.0


def _colour(rng: np.random.Generator, ground: float) -> NDArray[np.float32]:
    """A random BGR colour that stands out from a ground of this mean brightness."""
    colour = rng.uniform(25, 235) * 0.75 + rng.uniform(25, 235, 3) * 0.25
    difference = colour.mean() - ground
    if abs(difference) < 30:
        away = 1 if difference >= 0 else -1
        colour = np.clip(ground + away * rng.uniform(30, 70), 8, 247) + rng.uniform(-12, 12, 3)
    return colour.astype(np.float32)


def draw(class_id: int, radius: float, phase: tuple[float, float], ground: float, rng: np.random.Generator) -> Sprite:
    """Draw one part with a random shape, turn, colour, shading and shadow; `phase` is its sub-pixel position."""
    polygon, hole = _outline(class_id, rng)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    points = polygon @ np.array([[cos, sin], [-sin, cos]]) * radius + phase
    cast_shadow = rng.random() < 0.5
    reach = round(0.13 * radius) if cast_shadow else 0
    (low_x, low_y), (high_x, high_y) = points.min(axis=0), points.max(axis=0)
    left, top = math.floor(low_x) - 2, math.floor(low_y) - 2
    width, height = math.ceil(high_x) + 3 + 2 * reach - left, math.ceil(high_y) + 3 + 2 * reach - top

    # OpenCV draws with 4 fractional bits and takes a pixel's centre as its whole coordinate, hence the half pixel.
    mask = np.zeros((height, width), np.uint8)
    corner = np.array([left + 0.5, top + 0.5])
    cv2.fillPoly(mask, [np.round((points - corner) * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    if hole:
        centre = np.round((np.array(phase) - corner) * 16).astype(int)
        cv2.circle(mask, (int(centre[0]), int(centre[1])), int(radius * hole * 16), (0,), -1, cv2.LINE_AA, 4)
    opacity = mask.astype(np.float32) / 255
    through = 1 - opacity
    if reach:
        shadow = np.zeros_like(opacity)
        shadow[reach:, reach:] = opacity[:-reach, :-reach]
        through *= 1 - 0.4 * cv2.blur(shadow, (reach, reach))

    tilt_x, tilt_y = rng.uniform(-0.3, 0.3, 2) / radius
    x = np.arange(width, dtype=np.float32) + np.float32(corner[0] - phase[0])
    y = np.arange(height, dtype=np.float32) + np.float32(corner[1] - phase[1])
    shade = 1 + np.float32(tilt_x) * x[None, :] + np.float32(tilt_y) * y[:, None]
    light = np.clip(shade[..., None] * _colour(rng, ground), 0, 255) * opacity[..., None]
    return Sprite(
        class_id,
        light.astype(np.uint8),
        cast(Image, cv2.merge([(through * 255).round().astype(np.uint8)] * 3)),
        left,
        top,
        (float(low_x), float(low_y), float(high_x), float(high_y)),
    )


def blend(image: Image, sprite: Sprite, x: int, y: int) -> None:
    """Put the sprite on pixel (x, y) of the picture, in place; what lies outside is cut off."""
    height, width = image.shape[:2]
    left, top = x + sprite.left, y + sprite.top
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + sprite.light.shape[1], width), min(top + sprite.light.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    window = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    target = image[y0:y1, x0:x1]
    cv2.multiply(target, sprite.through[window], dst=target, scale=1 / 255)
    cv2.add(target, sprite.light[window], dst=target)


def visible(box: Box, width: int, height: int) -> Box | None:
    """The box clipped to the picture, or None where too little of it is left to count."""
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    side = MIN_SIDE * picture_scale(width, height)
    if x1 - x0 < side or y1 - y0 < side:
        return None
    share = (x1 - x0) * (y1 - y0) / ((box[2] - box[0]) * (box[3] - box[1]))
    return (x0, y0, x1, y1) if share >= MIN_VISIBLE else None


def moved(box: Box, x: int, y: int) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def texture(rng: np.random.Generator, width: int, height: int, scale: float) -> Image:
    """A random ground [height, width, 3]: four octaves of noise, then stripes, scratches or neither."""
    image = np.empty((height, width, 3), np.float32)
    image[:] = rng.uniform(40, 190, 3) * 0.5 + rng.uniform(40, 190) * 0.5
    for cells, amplitude in ((4, 26), (10, 20), (28, 14), (80, 8)):  # cells across 320 reference pixels
        cell = 320 * scale / cells
        shape = (max(2, int(height / cell) + 1), max(2, int(width / cell) + 1))
        grey = rng.normal(0, 0.8, (*shape, 1)) + rng.normal(0, 0.35, (*shape, 3))
        strength = np.float32(amplitude * rng.uniform(0.2, 1.2))
        image += cv2.resize(grey.astype(np.float32) * strength, (width, height), interpolation=cv2.INTER_CUBIC)
    kind = rng.integers(4)
    if kind == 1:
        period, turn = rng.uniform(10, 50) * scale / (2 * np.pi), rng.uniform(0, np.pi)
        wave = np.arange(width) * (math.cos(turn) / period) + (np.arange(height) * (math.sin(turn) / period))[:, None]
        image += (np.float32(rng.uniform(6, 28)) * np.sign(np.sin(wave)).astype(np.float32))[..., None]
    elif kind == 2:
        for _ in range(int(rng.integers(4, 20) * width / (320 * scale))):
            line(image, rng.uniform(0, 1, 2) * (width, height), rng.normal(0, 70 * scale, 2), scale, rng)
    return np.clip(image, 0, 255).astype(np.uint8)


def line(
    image: Image | NDArray[np.float32],
    start: NDArray[np.float64],
    run: NDArray[np.float64],
    scale: float,
    rng: np.random.Generator,
) -> None:
    """Draw a line of random colour and thickness; `start` and `run` are (x, y) in pixels."""
    begin, end = start.astype(int), (start + run).astype(int)
    blue, green, red = (float(c) for c in rng.integers(20, 230, 3))
    thickness = max(1, round(int(rng.integers(1, 4)) * 0.7 * scale))
    cv2.line(
        image, (int(begin[0]), int(begin[1])), (int(end[0]), int(end[1])), (blue, green, red), thickness, cv2.LINE_AA
    )
