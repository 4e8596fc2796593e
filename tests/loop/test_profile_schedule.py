"""Profiles by local time: each entry begins once, whatever the clock does."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from edged.loop.profile_schedule import Entry, ProfileSchedule

TABLE = {"22:00": "night", "06:00": "none", "02:30": "deep"}


def at(text: str, day: int = 10) -> datetime:
    return datetime.fromisoformat(f"2026-03-{day:02} {text}")


def begun(schedule: ProfileSchedule, *times: datetime) -> list[Entry]:
    """The entries that begin while the clock shows these times."""
    found = []
    for now in times:
        if (entry := schedule.due(now)) is not None:
            schedule.taken(entry)
            found.append(entry)
    return found


@pytest.mark.parametrize(
    ("now", "since", "profile"),
    [
        (at("00:10"), at("22:00", 9), "night"),
        (at("02:30"), at("02:30"), "deep"),
        (at("05:59:59"), at("02:30"), "deep"),
        (at("06:00"), at("06:00"), None),
        (at("21:59"), at("06:00"), None),
        (at("22:00"), at("22:00"), "night"),
    ],
)
def test_the_last_entry_that_began_holds(now: datetime, since: datetime, profile: str | None) -> None:
    schedule = ProfileSchedule(TABLE, now)
    assert schedule.current == Entry(since, profile)
    assert schedule.due(now) is None, "it holds from the start"


def test_each_entry_begins_once_a_day() -> None:
    schedule = ProfileSchedule({"22:00": "night"}, at("12:00"))
    minutes = [at("12:00") + timedelta(minutes=n) for n in range(3 * 24 * 60)]
    assert begun(schedule, *minutes) == [Entry(at("22:00", day), "night") for day in (10, 11, 12)]


def test_when_summer_time_begins_the_entry_in_the_missing_hour_holds_after_it() -> None:
    schedule = ProfileSchedule(TABLE, at("01:59"))
    assert begun(schedule, at("01:59:59"), at("03:00"), at("03:01")) == [Entry(at("02:30"), "deep")]


def test_when_summer_time_ends_no_entry_begins_twice() -> None:
    schedule = ProfileSchedule(TABLE, at("02:00"))
    times = [at("02:59"), at("02:00"), at("02:30"), at("02:59"), at("03:00")]
    assert begun(schedule, *times) == [Entry(at("02:30"), "deep")]


def test_a_clock_that_is_set() -> None:
    schedule = ProfileSchedule(TABLE, datetime(1970, 1, 1, 0, 1))
    assert begun(schedule, at("12:00")) == [Entry(at("06:00"), None)], "as at a boot without a clock"
    assert begun(schedule, at("12:00", 9)) == [Entry(at("06:00", 9), None)], "it was a day ahead"
    assert begun(schedule, at("12:00", 9), at("11:59:58", 9)) == []


def test_the_report_names_what_holds_and_what_follows() -> None:
    schedule = ProfileSchedule(TABLE, at("23:00"))
    report = schedule.report()
    assert report is not None and (report.profile, report.since) == ("night", "22:00")
    assert (report.next_profile, report.next_at, report.problem) == ("deep", "02:30", None)
    entry = schedule.due(at("06:00", 11))
    assert entry is not None
    schedule.taken(entry, "a problem")
    report = schedule.report()
    assert report is not None and (report.profile, report.next_profile, report.problem) == (None, "night", "a problem")


def test_no_table_holds_nothing() -> None:
    schedule = ProfileSchedule({}, at("12:00"))
    assert (schedule.current, schedule.due(at("13:00")), schedule.report()) == (None, None, None)
