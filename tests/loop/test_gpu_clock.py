"""The clock between governor and actuator: nothing counts but what was confirmed, and what is lost is said once."""

from __future__ import annotations

from edged.clock import NS_PER_S
from edged.governor.messages import ClockRange
from edged.loop.gpu_clock import REPEAT_AFTER_NS, GpuClock
from edged.power.clocks import ClockState

S = NS_PER_S
MHZ = (300.0, 600.0, 900.0)
GONE = ClockState(problem="the clock helper has gone")


class Hand:
    """In the place of the actuator."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []
        self.repeated = 0
        self.state = ClockState()

    def set(self, index: int | None) -> None:
        if not self.asked or self.asked[-1] != index:
            self.asked.append(index)

    def again(self) -> None:
        self.repeated += 1

    def confirms(self, index: int) -> None:
        self.state = ClockState(index, MHZ[index])


def controlled() -> tuple[GpuClock, Hand]:
    hand = Hand()
    ceiling = GpuClock(MHZ, hand, dwell_s=2.0)
    hand.confirms(2)
    assert ceiling.news()[0] == ClockRange(2)
    return ceiling, hand


def test_without_an_actuator_the_clock_is_a_given() -> None:
    ceiling = GpuClock(MHZ)
    ceiling.ask(0, 100 * S)
    assert (ceiling.clock, ceiling.news(), ceiling.report) == (None, (None, None), None)
    assert [ceiling.at(mhz) for mhz in (None, 250.0, 298.0, 612.0, 5000.0)] == [None, None, 0, 1, 2]


def test_control_begins_when_it_is_confirmed_and_holds_nothing_down() -> None:
    hand = Hand()
    ceiling = GpuClock(MHZ, hand)
    assert hand.asked == [2]
    assert ceiling.news() == (None, None) and ceiling.clock is None
    ceiling.ask(0, 100 * S)
    assert hand.asked == [2], "nothing is asked for before it is known that it can be had"
    assert ceiling.report is not None and "not answered yet" in str(ceiling.report.problem)
    hand.confirms(2)
    ranged, event = ceiling.news()
    assert ranged == ClockRange(2) and event is not None and "300 to 900 MHz" in event.text
    assert ceiling.news() == (None, None), "told once"
    assert (now := ceiling.report) is not None and (now.clock_mhz, now.problem) == (900.0, None)


def test_the_confirmed_clock_counts_and_not_the_wish_and_each_is_kept_for_a_while() -> None:
    ceiling, hand = controlled()
    ceiling.ask(1, 10 * S)
    assert hand.asked == [2, 1] and ceiling.clock == 2
    ceiling.ask(0, 11 * S)
    assert hand.asked == [2, 1], "the dwell"
    hand.confirms(1)
    assert ceiling.clock == 1 and ceiling.news() == (None, None)
    ceiling.ask(0, 12 * S)
    assert hand.asked == [2, 1, 0]


def test_a_power_mode_that_allows_less_bounds_the_range() -> None:
    hand = Hand()
    ceiling = GpuClock(MHZ, hand, dwell_s=2.0)
    hand.confirms(1)
    ranged, event = ceiling.news()
    assert ranged == ClockRange(1) and event is not None and "300 to 600 MHz" in event.text
    ceiling.ask(2, 10 * S)
    assert hand.asked[-1] == 1, "2 cannot be had"
    # the mode is raised: the sensor says so, and it is tried again
    ceiling.sensed(900.0, 10 * S + REPEAT_AFTER_NS // 2)
    assert hand.repeated == 0, "a sensor's word may be older than the last change"
    ceiling.sensed(900.0, 11 * S + REPEAT_AFTER_NS)
    ceiling.sensed(900.0, 12 * S + REPEAT_AFTER_NS)
    assert hand.repeated == 1
    hand.state = ClockState(1, 600.5)
    assert ceiling.news() == (ClockRange(2), None)
    ceiling.ask(2, 40 * S)
    assert hand.asked == [2, 1, 2]


def test_a_lost_helper_is_reported_once_and_begins_anew_when_it_is_back() -> None:
    ceiling, hand = controlled()
    ceiling.ask(0, 10 * S)
    hand.confirms(0)
    ceiling.news()
    hand.state = GONE
    ranged, event = ceiling.news()
    assert ranged == ClockRange(None) and event is not None
    assert event.text == "GPU clock control is unavailable: the clock helper has gone"
    assert hand.asked[-1] == 2 and ceiling.clock is None
    hand.state = ClockState(problem="the clock helper has gone")
    assert ceiling.news() == (None, None)
    hand.state = ClockState(problem="/run/x: No such file or directory")
    ranged, event = ceiling.news()
    assert ranged is None and event is not None and "No such file" in event.text
    report = ceiling.report
    assert report is not None and report.clock_mhz is None and report.problem == "/run/x: No such file or directory"
    ceiling.ask(0, 50 * S)
    assert hand.asked[-1] == 2
    hand.confirms(2)
    ranged, event = ceiling.news()
    assert ranged == ClockRange(2) and event is not None and "edged controls" in event.text
