"""The options among which each choice is made."""

from __future__ import annotations

import pytest

from edged.governor.device import assumed
from edged.governor.messages import Device, Variant
from edged.governor.planner.options import PLACEHOLDER_MS, tables

FAST = Variant("fast", 0.7, (10.0, 14.0, 18.0, 22.0), (2.0, 1.0), (3.0, 9.0), 0.5)
SLOW = Variant("slow", 0.9, (30.0, 60.0), core="dla")
DEVICE = Device((4.0, 5.0))


def test_latency_watts_and_accuracy_by_clock() -> None:
    known = tables([FAST, SLOW], DEVICE, 1)
    assert known.latency_s[0].tolist() == [0.02, 0.01] and known.latency_s[1].tolist() == [0.03, 0.03]
    assert known.active_w[0].tolist() == [3.0, 9.0] and known.active_w[1].tolist() == [0.0, 0.0]
    assert known.easy[0] - 0.4 * known.slope[0] == pytest.approx(0.7)  # what the bundle says holds at the typical scene
    assert known.cores == 2 and known.core == (0, 1)


def test_frames_go_as_one_batch_where_that_is_quicker_and_one_by_one_where_not() -> None:
    known = tables([FAST, SLOW], DEVICE, 4)
    whole = {(o.variant, o.frames): o for o in known.options}
    assert whole[0, 4].batch == 4 and whole[0, 4].times == pytest.approx(2.2)
    assert whole[1, 2].batch == 1 and whole[1, 2].times == 2.0
    assert whole[1, 4].batch == 1 and whole[1, 4].times == 4.0
    assert known.times(0, 8, 4) == pytest.approx(4.4) and known.times(0, 3, 1) == 3.0


@pytest.mark.parametrize("cameras", [1, 2, 3, 8, 16])
def test_every_number_of_waiting_frames_has_offers_that_fit_it(cameras: int) -> None:
    known = tables([FAST, SLOW], DEVICE, cameras)
    assert known.cameras == cameras and known.offers[0] == ()
    for waiting in range(1, cameras + 1):
        offered = [known.options[i] for i in known.offers[waiting]]
        assert {o.variant for o in offered} == {0, 1}
        assert max(o.frames for o in offered) == waiting and min(o.frames for o in offered) == 1
        assert len(offered) <= 8
        assert [o.variant for o in offered] == sorted(o.variant for o in offered)


def test_what_is_not_known_is_a_placeholder_or_a_guess_that_says_so() -> None:
    known = tables([Variant("new", None, ())], assumed(6.0), 1)
    assert known.latency_s[0, 0] * 1000 == PLACEHOLDER_MS and known.easy == (0.0,)
    assert known.assumed == (True,) and known.active_w[0, 0] == 6.0
    assert tables([FAST], assumed(6.0), 1).assumed == (False,)
