"""The governor's shell: choices reach the pool and the bus, failing variants are left, the history is kept."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edged import clock
from edged.bus import schema
from edged.config import Limits
from edged.engines.pool import VariantError
from edged.errors import EdgedError, UsageError
from edged.loop.governor_client import (
    GIVE_UP_AFTER,
    REMEMBERED,
    REMEMBERED_BYTES,
    RETIRE_AFTER,
    DecisionHistory,
)
from tests.support.loop import Loop, built
from tests.support.models import center_model

TWO = {"fine": center_model(-100.0), "fast": center_model(-90.0)}


def fail(house: Loop, times: int) -> None:
    for _ in range(times):
        house.governor.failed(VariantError(house.pool.active, "out of memory"), clock.mono_ns())


def test_a_pin_reaches_the_pool_the_bus_and_the_history(tmp_path: Path) -> None:
    with built(tmp_path, TWO) as house:
        assert house.pool.active == house.governor.decision.variant == "fine"
        sent = house.publisher.last_seq("decision")
        house.governor.pin("fast", clock.mono_ns())
        assert house.pool.active == "fast" and house.governor.message.pinned
        assert house.publisher.last_seq("decision") == sent + 1
        last = [msgspec.msgpack.decode(one, type=schema.Decision) for one in house.governor.history.last(2)]
        assert [decision.variant for decision in last] == ["fine", "fast"] and last[1] == house.governor.message
        with pytest.raises(UsageError, match="none-such"):
            house.governor.pin("none-such", clock.mono_ns())
        assert house.pool.active == "fast"


def test_limits_that_no_variant_holds_are_refused(tmp_path: Path) -> None:
    with built(tmp_path, TWO) as house:
        with pytest.raises(UsageError, match="accuracy"):
            house.governor.set_limits(Limits(min_accuracy=0.95), clock.mono_ns())
        house.governor.pin("fast", clock.mono_ns())
        with pytest.raises(UsageError, match="fast cannot be pinned"):
            house.governor.set_limits(Limits(min_accuracy=0.85), clock.mono_ns())
        assert house.pool.active == "fast"
        house.governor.pin(None, clock.mono_ns())
        house.governor.set_limits(Limits(min_accuracy=0.85), clock.mono_ns())
        assert house.pool.active == "fine"


def test_one_failure_is_forgiven_three_in_a_row_are_not(tmp_path: Path) -> None:
    with built(tmp_path, TWO) as house:
        fail(house, RETIRE_AFTER - 1)
        house.governor.succeeded("fine")
        fail(house, RETIRE_AFTER - 1)
        assert house.pool.active == "fine"
        fail(house, 1)
        assert house.pool.active == house.governor.decision.variant == "fast"
        assert {v.name: v.refused for v in house.pool.variants} == {"fine": "out of memory", "fast": None}
        assert house.publisher.last_seq("event") == 3, "each first failure of a row, and the retirement"


def test_the_last_variant_is_tried_until_only_a_restart_helps(tmp_path: Path) -> None:
    with built(tmp_path, {"only": center_model()}) as house:
        fail(house, GIVE_UP_AFTER - 1)
        assert house.pool.active == "only"
        with pytest.raises(EdgedError, match="100 times in a row"):
            fail(house, 1)


@pytest.mark.parametrize("sentence", ["", "x" * 5000])
def test_the_history_is_bounded_in_number_and_in_bytes(sentence: str) -> None:
    history = DecisionHistory()
    for n in range(2 * REMEMBERED):
        history.add(
            schema.Decision(
                seq=n, variant="a", max_batch=1, bound="none", reason=sentence, alternatives=[], pinned=False
            )
        )
    kept = history.last(2 * REMEMBERED)
    assert sum(map(len, kept)) <= REMEMBERED_BYTES and len(kept) <= REMEMBERED
    assert len(kept) == REMEMBERED or sum(map(len, kept)) > 0.98 * REMEMBERED_BYTES
    numbers = [msgspec.msgpack.decode(one, type=schema.Decision).seq for one in kept]
    assert numbers == list(range(2 * REMEMBERED - len(kept), 2 * REMEMBERED))
    assert history.last(2) == kept[-2:]
