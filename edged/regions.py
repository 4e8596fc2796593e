"""What a camera's configuration says of places in its picture: zones, lines, masks, filters; and whether they can be.

All in shares of the picture. Plain data, any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from edged import geometry
from edged.errors import UsageError

Share = Annotated[float, Meta(ge=0, le=1, description="a share of the picture, from 0 to 1")]
Polygon = Annotated[
    list[tuple[Share, Share]],
    Meta(min_length=3, max_length=64, description="a list of 3 to 64 corners [x, y], in shares of the picture"),
]

Tiles = Annotated[
    str,
    Meta(pattern=r"^([2-4]x[1-4]|1x[2-4])$", description='columns by rows in quotes, up to "4x4", such as "2x2"'),
]


class Zone(Struct, frozen=True, forbid_unknown_fields=True):
    """An area whose entries and exits are reported. For `attention_s` after an entry the camera's weight is multiplied
    by `attention`. A track that is in it for `stay_s` is reported once; None: it is not."""

    polygon: Polygon
    attention: Annotated[float, Meta(ge=1, le=1000, description="a factor from 1 to 1000")] = 1.0
    attention_s: Annotated[float, Meta(gt=0, le=3600, description="seconds, above 0 and at most 3600")] = 10.0
    stay_s: Annotated[float, Meta(gt=0, le=86400, description="seconds, above 0 and at most 86400")] | None = None


class Line(Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """A line whose crossings are reported with their direction."""

    start: tuple[Share, Share]
    end: tuple[Share, Share]


class ObjectFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which detections of a label count. Areas are shares of the picture."""

    min_score: Annotated[float, Meta(ge=0, le=1, description="a score from 0 to 1")] = 0.0
    min_area: Share = 0.0
    max_area: Share = 1.0


class CameraMotion(Struct, frozen=True, forbid_unknown_fields=True):
    """How the motion gate looks at a camera: `mask` is left out; above 1 `sensitivity` sees weaker motion. While
    nothing moves, one frame in `keep_alive_s` is inferred all the same."""

    keep_alive_s: Annotated[float, Meta(gt=0, le=3600, description="seconds, above 0 and at most 3600")] = 2.0
    sensitivity: Annotated[float, Meta(ge=0.1, le=10, description="a number from 0.1 to 10")] = 1.0
    mask: list[Polygon] = []


class HasRegions(Protocol):
    """A camera's table."""

    @property
    def name(self) -> str: ...
    @property
    def zones(self) -> Mapping[str, Zone]: ...
    @property
    def lines(self) -> Mapping[str, Line]: ...
    @property
    def motion(self) -> CameraMotion: ...
    @property
    def mask(self) -> Sequence[Polygon]: ...
    @property
    def objects(self) -> Mapping[str, ObjectFilter]: ...


class HasTiles(Protocol):
    """A camera's table."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> tuple[int, int] | None: ...


def check_tiles(task: str, max_batch: int, cameras: Sequence[HasTiles]) -> None:
    """UsageError for tiles that a bundle for `task`, with batches of at most `max_batch`, cannot look at."""
    for camera in cameras:
        if camera.grid is None:
            continue
        columns, rows = camera.grid
        where = f'camera {camera.name}: tiles = "{columns}x{rows}"'
        if task not in ("detect", "segment", "pose", "oriented"):
            raise UsageError(f"{where} needs a bundle that finds objects, and this one is for {task}", "remove tiles")
        if columns * rows > max_batch:
            raise UsageError(
                f"{where} makes batches of {columns * rows}, and the engines are loaded for {max_batch} at most",
                "choose fewer tiles, or raise engine.max_batch, up to the bundle's own, and restart edged",
            )


def check_regions(camera: HasRegions, where: str) -> None:
    """Polygons that are areas, lines that have a length, a mask that leaves something. UsageError that begins with
    `where`, the table's place in its file."""
    polygons = {f"zones.{name}.polygon": zone.polygon for name, zone in camera.zones.items()}
    polygons |= {f"mask[{n}]": polygon for n, polygon in enumerate(camera.mask)}
    polygons |= {f"motion.mask[{n}]": polygon for n, polygon in enumerate(camera.motion.mask)}
    hint = f"`edged zones {camera.name}` shows a still with zones, lines and masks drawn"
    for key, polygon in polygons.items():
        found = geometry.problem(polygon)
        if found is not None:
            raise UsageError(f"{where}.{key} {found}", hint)
    if camera.mask and geometry.covers_picture(camera.mask):
        raise UsageError(f"{where}.mask covers the whole picture: no object would count", hint)
    if camera.motion.mask and geometry.covers_picture(camera.motion.mask):
        raise UsageError(f"{where}.motion.mask covers the whole picture: no motion would be seen", hint)
    for name, line in camera.lines.items():
        if line.start == line.end:
            raise UsageError(f"{where}.lines.{name} begins and ends in the same point", hint)
    both = sorted(set(camera.zones) & set(camera.lines))
    if both:
        raise UsageError(f"{where}: {both[0]!r} names a zone and a line", "rename one")
    for label, wanted in camera.objects.items():
        if wanted.min_area >= wanted.max_area:
            raise UsageError(
                f"{where}.objects.{label}: min_area {wanted.min_area:g} is not below max_area {wanted.max_area:g}",
                "areas are shares of the picture, from 0 to 1",
            )
