"""When a picture left the camera, on this machine's clock, from its RTP time stamp and its arrival. Pure.

The arrival alone hides what lay in this machine's socket buffers or came late because the processor was busy. The time
stamps tell how far apart the pictures were at the camera, so the least delay of the last seconds gives the zero that
the others are late against. Delays that all pictures share, such as the encoder's, stay unknown.
"""

from __future__ import annotations

from typing import Final

from edged.clock import NS_PER_MS, NS_PER_S

_WINDOW_NS: Final = 2 * NS_PER_S
_FIRST_WINDOWS_NS: Final = _WINDOW_NS // 4
"""until two of them have shown whether the time stamps follow a clock"""
_STEADY_NS: Final = 50 * NS_PER_MS
"""Between the least delays of two windows: more means that the time stamps do not follow a clock."""
_LATEST_NS: Final = 10 * NS_PER_S
_BACK_NS: Final = NS_PER_S
"""further than B frames are reordered"""


class CaptureTime:
    """One stream; `clock_hz` of its RTP time stamps."""

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._last: int | None = None
        self._ticks = 0
        self._window_ns = 0
        self._least_ns: int | None = None
        self._before_ns: int | None = None
        self._steady: bool | None = None

    def mono_ns(self, timestamp: int, arrival_ns: int, fresh: bool) -> int:
        """The capture time of a picture, at most its arrival. `fresh`: its first packet was waited for."""
        before_ns, media_ns = self._media(timestamp)
        delay_ns = arrival_ns - media_ns
        known = [least for least in (self._least_ns, self._before_ns) if least is not None]
        # A time stamp of so long ago is of a count that has begun anew; the same one again tells no time.
        restarted = media_ns < before_ns - _BACK_NS or (fresh and media_ns == before_ns)
        if known and (restarted or abs(delay_ns - min(known)) > _LATEST_NS):
            known, self._least_ns, self._before_ns = [], None, None
        window_ns = _FIRST_WINDOWS_NS if self._steady is None else _WINDOW_NS
        if arrival_ns - self._window_ns > window_ns and fresh:
            if self._least_ns is not None and self._before_ns is not None:
                self._steady = abs(self._least_ns - self._before_ns) < _STEADY_NS
            self._before_ns, self._least_ns, self._window_ns = self._least_ns, None, arrival_ns
        if fresh:
            self._least_ns = delay_ns if self._least_ns is None else min(self._least_ns, delay_ns)
        if not known or self._steady is False:
            return arrival_ns
        return min(arrival_ns, media_ns + min(known))

    def _media(self, timestamp: int) -> tuple[int, int]:
        """(of the picture before, of this one): time since the first time stamp; they wrap round at 32 bits."""
        before = self._ticks
        if self._last is not None:
            step = timestamp - self._last & 0xFFFFFFFF
            self._ticks += step - (1 << 32 if step >= 1 << 31 else 0)
        self._last = timestamp
        return before * NS_PER_S // self._clock_hz, self._ticks * NS_PER_S // self._clock_hz
