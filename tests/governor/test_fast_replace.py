"""The governor's own `replace` does what that of dataclasses does, and its dataclasses are such that it may."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import edged.governor
from edged.governor.energy_meter import fresh
from edged.governor.fast_replace import replace

MODULES = [
    importlib.import_module(f"edged.governor.{found.name}") for found in pkgutil.iter_modules(edged.governor.__path__)
]
KINDS = {
    kind
    for module in MODULES
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if dataclasses.is_dataclass(kind)
}


def test_it_is_a_new_one_with_the_changes_and_the_old_one_stays() -> None:
    old = fresh(3.0, 5)
    new = replace(old, drawn_j=7.0)
    assert new == dataclasses.replace(old, drawn_j=7.0) and old.drawn_j == 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        new.drawn_j = 8.0  # type: ignore[misc]


@pytest.mark.parametrize("kind", sorted(KINDS, key=str), ids=str)
def test_a_copy_of_the_fields_is_all_there_is(kind: type) -> None:
    assert not hasattr(kind, "__post_init__") and "__slots__" not in vars(kind)
    assert not any(type(value).__name__ == "cached_property" for value in vars(kind).values())
