"""The table [schedule] of the configuration: power profiles by local time of day. Pure data, any thread."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from msgspec import Meta

from edged.errors import UsageError

TIME_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z"
PROFILE_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}\Z"
OWN_LIMITS: Final = "none"
"""in the place of a profile: the limits of the configuration alone"""

ScheduleConfig = dict[
    Annotated[str, Meta(pattern=TIME_PATTERN, description="a local time of day, such as 22:00")],
    Annotated[str, Meta(pattern=PROFILE_PATTERN, description="the name of a power profile, or none")],
]


def check_schedule(table: Any, where: str) -> None:
    """UsageError, with the file `where`, for an entry that is no time with a profile. Before the table is converted, so
    that the message can name the entry."""
    for time, profile in table.items() if isinstance(table, dict) else ():
        if not re.match(TIME_PATTERN, time):
            raise UsageError(
                f"{where}: schedule has the key {time[:40]!r}, expected a local time from 00:00 to 23:59",
                'write for example "22:00" = "night", with quotes',
            )
        if not isinstance(profile, str) or not re.match(PROFILE_PATTERN, profile):
            raise UsageError(
                f'{where}: schedule."{time}" is {str(profile)[:40]!r}, expected the name of a power profile in quotes',
                '"none" stands for the limits of the configuration alone',
            )
