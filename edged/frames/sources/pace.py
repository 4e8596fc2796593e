"""How long a picture is shown, by time stamps that may make little sense. Pure; for files and for files on a server."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

from edged.clock import NS_PER_S

_PAUSE_NS: Final = NS_PER_S
_LONGEST_FIRST_NS: Final = 5 * NS_PER_S


class Steps:
    """From one picture to the next. `period_ns` is a first guess."""

    def __init__(self, period_ns: int) -> None:
        self._guess_ns = min(period_ns, _LONGEST_FIRST_NS)
        self._stamped_ns: deque[int] = deque(maxlen=9)

    def played_ns(self, stamped_ns: int) -> int:
        """The step to play where the time stamps are `stamped_ns` apart: a pause (a recording made on motion) is cut
        to a second, or to twice the usual step; what does not advance is a usual step."""
        usual_ns = int(statistics.median(self._stamped_ns)) if self._stamped_ns else self._guess_ns
        if stamped_ns <= 0:
            return usual_ns
        self._stamped_ns.append(stamped_ns)
        return min(stamped_ns, max(_PAUSE_NS, 2 * usual_ns))
