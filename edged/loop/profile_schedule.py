"""Which power profile the table [schedule] has in force at a local time. Pure: the time comes in.

An entry begins once: a profile taken by hand stays until the next one. Where local time jumps ahead (summer time
begins, the clock is set), the last entry that was passed holds at once. Where it goes back by at most REPEATED, as when
summer time ends, what is repeated begins nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Final, NamedTuple

from edged.bus import schema
from edged.config.schedule import OWN_LIMITS

REPEATED: Final = timedelta(hours=3)
DAY: Final = timedelta(days=1)


class Entry(NamedTuple):
    """`since`: when it began, in local time; `profile` None: the limits of the configuration alone."""

    since: datetime
    profile: str | None


class ProfileSchedule:
    """Changed by one thread at a time; `report` may be called from any."""

    def __init__(self, entries: Mapping[str, str], now: datetime) -> None:
        """The entry that holds `now`, which is local time, counts as taken."""
        self.replace(entries, now)

    def replace(self, entries: Mapping[str, str], now: datetime) -> None:
        """Another table, as at the start."""
        self._entries = sorted((time.fromisoformat(at), profile) for at, profile in entries.items())
        self._latest = now
        self.current = self._entry(now)
        self._problem: str | None = None

    def due(self, now: datetime) -> Entry | None:
        """The entry that has begun and was not `taken` yet."""
        if not timedelta(0) <= self._latest - now <= REPEATED:
            self._latest = now
        entry = self._entry(self._latest)
        return None if entry == self.current else entry

    def taken(self, entry: Entry, problem: str | None = None) -> None:
        """It is in force, or refused for a reason."""
        self.current, self._problem = entry, problem

    def report(self) -> schema.ScheduleState | None:
        """For `state`: None without a schedule."""
        entry, entries = self.current, self._entries
        if entry is None or not entries:
            return None
        at, following = next(((at, name) for at, name in entries if at > entry.since.time()), entries[0])
        return schema.ScheduleState(
            entry.profile, f"{entry.since:%H:%M}", _profile(following), f"{at:%H:%M}", self._problem
        )

    def _entry(self, now: datetime) -> Entry | None:
        """The last one at or before `now`: of today, else the last of yesterday."""
        if not self._entries:
            return None
        today = [entry for entry in self._entries if entry[0] <= now.time()]
        at, profile = (today or self._entries)[-1]
        day = now.date() if today else (now - DAY).date()
        return Entry(datetime.combine(day, at), _profile(profile))


def _profile(name: str) -> str | None:
    return None if name == OWN_LIMITS else name
