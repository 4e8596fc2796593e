"""The options among which each choice is made, and which variants another dominates."""

from __future__ import annotations

import pytest

from edged.governor.messages import Device, Variant
from edged.governor.planner.options import PLACEHOLDER_MS, tables
from edged.governor.profile import assumed

FAST = Variant("fast", 0.7, (10.0, 14.0, 18.0, 22.0), (2.0, 1.0), (3.0, 9.0))
SLOW = Variant("slow", 0.9, (30.0, 60.0))
DEVICE = Device((4.0, 5.0))


def test_latency_watts_and_accuracy_by_clock() -> None:
    known = tables([FAST, SLOW], DEVICE, 1)
    assert known.nominal_s == ((0.02, 0.01), (0.03, 0.03)) and known.accuracy == (0.7, 0.9)
    assert known.active_w[0].tolist() == [3.0, 9.0] and known.active_w[1].tolist() == [0.0, 0.0]
    assert known.nominal_j[0] == pytest.approx((0.06, 0.09)) and known.nominal_s[0][0] == 2 * known.nominal_s[0][1]


def test_frames_go_as_one_batch_where_that_is_quicker_and_one_by_one_where_not() -> None:
    known = tables([FAST, SLOW], DEVICE, 8)
    offered = {(o.variant, o.frames): o.times for o in known.offers[8]}
    assert set(offered) == {(0, 1), (0, 2), (0, 3), (0, 4), (1, 1)}, "no batch is larger than what was measured"
    assert offered[0, 4] == pytest.approx(2.2) and known.batch_times(0, 8) == pytest.approx(4.4)
    assert known.batched and known.max_batch == 4
    assert not tables([SLOW], DEVICE, 8).batched


@pytest.mark.parametrize("cameras", [1, 2, 3, 8, 16])
def test_every_number_of_waiting_frames_has_offers_that_fit_it(cameras: int) -> None:
    known = tables([FAST, SLOW], DEVICE, cameras)
    assert known.cameras == cameras and known.offers[0] == ()
    for waiting in range(1, cameras + 1):
        offered = known.offers[waiting]
        assert {o.variant for o in offered} == {0, 1} and len(offered) <= 8
        assert all(1 <= o.frames <= waiting for o in offered)
        assert [o.variant for o in offered] == sorted(o.variant for o in offered)


def test_what_is_not_known_is_a_placeholder_or_a_marked_guess() -> None:
    known = tables([Variant("new", None, ())], assumed(6.0), 1)
    assert known.latency_s[0, 0] * 1000 == PLACEHOLDER_MS and known.accuracy == (0.0,)
    assert known.assumed == (True,) and known.active_w[0, 0] == 6.0
    assert tables([FAST], assumed(6.0), 1).assumed == (False,)


def test_a_variant_is_dominated_by_one_at_least_as_accurate_fast_and_cheap() -> None:
    dense, sparse = Variant("dense", 0.80, (8.0, 12.0)), Variant("sparse", 0.79, (8.5, 12.0))
    assert tables([dense, sparse], assumed(5.0), 2).dominated_by == ((), (0,))
    quicker = Variant("sparse", 0.79, (7.9, 12.5))
    assert tables([dense, quicker], assumed(5.0), 2).dominated_by == ((), ())
    cheaper = Variant("sparse", 0.79, (8.5, 12.0), (1.0,), (2.0,))
    costly = Variant("dense", 0.80, (8.0, 12.0), (1.0,), (9.0,))
    assert tables([costly, cheaper], Device((5.0,)), 2).dominated_by == ((), ())
    twins = [Variant("a", 0.8, (8.0,)), Variant("b", 0.8, (8.0,))]
    assert tables(twins, assumed(5.0), 1).dominated_by == ((), ()), "equals do not exclude each other"
    assert tables([dense, Variant("new", None, (99.0,))], assumed(5.0), 1).dominated_by == ((), ())
