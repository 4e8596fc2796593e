"""How a camera's picture is to be shown, as the configuration says it: types and checks. Pure; any thread."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from edged.errors import UsageError

Aspect = Annotated[
    str, Meta(pattern=r"^[1-9]\d{0,3}:[1-9]\d{0,3}\Z", description='the shape of the picture, such as "16:9"')
]
Rotation = Literal[0, 90, 180, 270]
Share = Annotated[float, Meta(ge=0, le=1, description="a share of the picture, from 0 to 1")]
Crop = tuple[Share, Share, Share, Share]

_LEAST_CROP: Final = 0.01  # of a side: less is a mistake
_WIDEST: Final = 8.0


def check_view(aspect: str | None, crop: Crop | None, where: str) -> None:
    """UsageError, beginning with `where`, for a crop that leaves nothing or a shape that no picture has."""
    if crop is not None:
        left, top, right, bottom = crop
        if right - left < _LEAST_CROP or bottom - top < _LEAST_CROP:
            raise UsageError(
                f"{where}.crop is {list(crop)}, which leaves nothing of the picture",
                "write [left, top, right, bottom] as shares of the picture, such as [0.25, 0, 1, 0.5]",
            )
    if aspect is not None:
        across, down = (int(number) for number in aspect.split(":"))
        if not 1 / _WIDEST <= across / down <= _WIDEST:
            raise UsageError(f"{where}.aspect is {aspect!r}, which no picture has", 'write it as "16:9"')
