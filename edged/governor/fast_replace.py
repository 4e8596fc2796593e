"""`dataclasses.replace` in a tenth of its time, for the estimates that change with every batch. Pure.

The governor's state is one frozen whole of dataclasses without slots, `__post_init__` or anything cached: a copy of the
fields with the changed ones laid over is the same as a new one made from them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace  # so that names and types of the changes are checked as ever
else:
    T = TypeVar("T")

    def replace(of: T, /, **changes: Any) -> T:
        new = object.__new__(type(of))
        fields = new.__dict__
        fields.update(of.__dict__)
        fields.update(changes)
        return new


__all__ = ["replace"]
