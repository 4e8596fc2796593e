"""The limits in layers: whatever the order of requests, none takes back what another brought."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config import Limits
from edged.errors import UsageError
from edged.loop.limit_layers import LimitControl, LimitLayers
from edged.profiles import Profile


def profile(name: str = "night", **limits: float | None) -> Profile:
    return Profile(name, "for a test", Path("/night.toml"), limits)


def control(configured: Limits | None = None) -> LimitControl:
    """It refuses an accuracy floor above 0.9."""

    def put_in_force(layers: LimitLayers) -> None:
        if layers.in_force.min_accuracy > 0.9:
            raise UsageError("no variant holds it")

    return LimitControl(LimitLayers(configured or Limits()), put_in_force)


def test_each_layer_lies_over_the_one_before() -> None:
    layers = LimitLayers(
        Limits(power_w=10.0, temperature_c=80.0, deadline_ms=50.0),
        profile(power_w=6.0, temperature_c=None),
        {"power_w": None, "min_accuracy": 0.5},
    )
    assert layers.in_force == Limits(deadline_ms=50.0, min_accuracy=0.5)
    assert layers.profile_name == "night"


def test_two_clients_each_keep_what_they_set() -> None:
    limits = control()
    limits.set({"deadline_ms": 40.0})
    assert limits.set({"power_w": 8.0}) == Limits(deadline_ms=40.0, power_w=8.0)
    assert limits.set({"power_w": None}) == Limits(deadline_ms=40.0)


def test_a_set_after_a_reload_or_a_profile_brings_back_nothing_of_before() -> None:
    limits = control(Limits(deadline_ms=50.0))
    limits.set({"min_accuracy": 0.3})
    assert limits.reload(Limits(deadline_ms=60.0), None) == [
        "limits: deadline_ms 50.0 -> 60.0",
        "limits: min_accuracy 0.3 -> 0.0",
    ]
    assert limits.set({"min_accuracy": 0.4}) == Limits(deadline_ms=60.0, min_accuracy=0.4)
    assert limits.take_profile(profile(deadline_ms=70.0))
    assert limits.set({"min_accuracy": 0.5}) == Limits(deadline_ms=70.0, min_accuracy=0.5)
    limits.take_profile(None)
    assert limits.layers == LimitLayers(Limits(deadline_ms=60.0))


def test_what_is_refused_changes_nothing() -> None:
    limits = control()
    limits.set({"power_w": 8.0})
    before = limits.layers
    for refused in (
        lambda: limits.set({"min_accuracy": 0.95}),
        lambda: limits.take_profile(profile(min_accuracy=0.95)),
        lambda: limits.reload(Limits(min_accuracy=0.95), None),
    ):
        with pytest.raises(UsageError):
            refused()
        assert limits.layers is before


keys = st.sampled_from(["deadline_ms", "power_window_s", "min_accuracy"])
changes = st.dictionaries(keys, st.floats(0.1, 0.9), min_size=1)
requests = st.lists(st.tuples(st.sampled_from(["set", "profile", "reload"]), changes), max_size=12)


@given(requests)
def test_in_any_order_of_requests_each_layer_keeps_its_last_word(
    asked: list[tuple[str, Mapping[str, float]]],
) -> None:
    limits = control()
    configured: dict[str, float] = {}
    chosen: dict[str, float] = {}
    overrides: dict[str, float] = {}
    for op, values in asked:
        if op == "set":
            limits.set(values)
            overrides |= values
        elif op == "profile":
            limits.take_profile(profile("night", **values))
            chosen, overrides = dict(values), {}
        else:
            limits.reload(Limits(**values), limits.layers.profile)
            configured, overrides = dict(values), {}
    assert limits.layers.in_force == Limits(**(configured | chosen | overrides))
