"""When the device's own complaints are worth a person's attention, and how often."""

from __future__ import annotations

from edged.clock import NS_PER_S
from edged.power.telemetry import Sample
from edged.power.throttle import Alarms


def sample(at_s: float, throttled: bool | None = None, **events: int | None) -> Sample:
    return Sample("sysfs", int(at_s * NS_PER_S), throttled=throttled, throttle_events=events)


def test_throttling_is_reported_when_it_begins_and_when_it_ends() -> None:
    alarms = Alarms()
    reported = [
        alarm.text
        for at, state in enumerate([False, True, True, None, True, False])
        for alarm in alarms.of(sample(at, state))
    ]
    assert reported == ["the device throttles itself: it is too hot", "throttling ended"]


def test_counts_from_before_the_start_are_no_alarm_and_new_ones_are() -> None:
    alarms = Alarms()
    assert alarms.of(sample(0, under_voltage=7, average_over_current=3)) == []
    (alarm,) = alarms.of(sample(1, under_voltage=8, average_over_current=3))
    assert alarm.kind == "over_current" and alarm.text.startswith("under voltage once: ")


def test_a_storm_is_reported_once_a_minute_with_its_count() -> None:
    alarms = Alarms()
    reported = [alarm.text for at in range(125) for alarm in alarms.of(sample(at, average_over_current=5 * at))]
    assert [text.split(":")[0] for text in reported] == [
        "average over current 5 times",
        "average over current 300 times",
        "average over current 300 times",
    ]


def test_peaks_are_an_alarm_only_when_they_race() -> None:
    alarms = Alarms()
    assert [a for at in range(100) for a in alarms.of(sample(at, peak_over_current=28 * at))] == []
    (alarm,) = [a for at in range(100, 140) for a in alarms.of(sample(at, peak_over_current=2800 + 200 * (at - 100)))]
    assert alarm.text.startswith("peak over current ")


def test_unknown_and_reset_counters_are_quiet() -> None:
    alarms = Alarms()
    for at, count in enumerate([5, None, 5, 0, None, 0]):
        assert alarms.of(sample(at, under_voltage=count, peak_over_current=count)) == []
