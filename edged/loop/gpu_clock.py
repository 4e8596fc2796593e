"""The GPU's clock between the governor and the actuator: what is planned in, what is confirmed out. On the engine loop.

Only what the actuator has confirmed counts. While it confirms nothing the clock is not controlled, whether
control is off, the helper does not run, or it has died. Each change is an observation of the governor and an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.governor.messages import ClockRange
from edged.power.clocks import SAME_CLOCK, ClockState

CLOCK_DWELL_S: Final = 2.0
"""A clock is kept for so long at least: a change stalls the GPU."""
REPEAT_AFTER_NS: Final = 10 * NS_PER_S
"""A ceiling changed by others (a power mode, the kernel when it is hot) is answered at most so often."""
UNKNOWN: Final = ClockState()


class Actuator(Protocol):
    """As `power.clocks.ClockActuator`."""

    @property
    def state(self) -> ClockState: ...
    def set(self, index: int | None) -> None: ...
    def again(self) -> None: ...


class GpuClock:
    """Begins by requesting the highest clock: that limits nothing, and the answer shows whether the clock can be set,
    and up to which one."""

    def __init__(
        self, clocks_mhz: Sequence[float], actuator: Actuator | None = None, dwell_s: float = 0.0, now_ns: int = 0
    ) -> None:
        """`clocks_mhz` ascends; a clock is kept for `dwell_s` at least. Without an actuator
        the clock is not controlled."""
        self.clocks_mhz = tuple(clocks_mhz)
        self._actuator = actuator
        self._dwell_ns = int(dwell_s * NS_PER_S)
        self._top = self._wanted = self._highest = len(self.clocks_mhz) - 1
        self._requested_ns = self._repeated_ns = now_ns
        self._handled = UNKNOWN
        self._controlled = False
        self._reported: int | None = None
        self._problem: str | None = None
        if actuator is not None:
            actuator.set(self._top)

    @property
    def clock(self) -> int | None:
        """The index of the clock that the actuator confirmed; None while the clock is not controlled."""
        return None if self._actuator is None else self._actuator.state.index

    @property
    def report(self) -> schema.ClockControl | None:
        """For a status; None where control is not configured."""
        if self._actuator is None:
            return None
        mhz = None if self.clock is None else self.clocks_mhz[self.clock]
        problem = self._problem if self._controlled or self._problem else "the clock helper has not answered yet"
        return schema.ClockControl(mhz, self.clocks_mhz[0], self.clocks_mhz[self._highest], problem)

    def at(self, ceiling_mhz: float | None) -> int | None:
        """The clock index of a ceiling in MHz; None for None, or if there is no clock so low."""
        if ceiling_mhz is None:
            return None
        below = [n for n, mhz in enumerate(self.clocks_mhz) if mhz <= ceiling_mhz * (1 + SAME_CLOCK)]
        return below[-1] if below else None

    def ask(self, index: int, now_ns: int) -> None:
        """What the governor plans: requested unless the dwell time since the last request has not passed."""
        index = min(index, self._highest)
        if self._actuator is None or not self._controlled or index == self._wanted:
            return
        if now_ns - self._requested_ns >= self._dwell_ns:
            self._wanted, self._requested_ns = index, now_ns
            self._actuator.set(index)

    def sensed(self, ceiling_mhz: float | None, now_ns: int) -> None:
        """The ceiling that a sensor reads. If it is not the confirmed one, another program has changed it since: then
        the clock is requested once more, and the highest one available may be another than before."""
        if self._actuator is None or ceiling_mhz is None or (confirmed := self._actuator.state.ceiling_mhz) is None:
            return
        settled = now_ns - max(self._requested_ns, self._repeated_ns) >= REPEAT_AFTER_NS
        if settled and abs(ceiling_mhz - confirmed) > SAME_CLOCK * confirmed:
            self._repeated_ns, self._highest = now_ns, self._top
            self._actuator.again()

    def news(self) -> tuple[ClockRange | None, schema.Event | None]:
        """A change for the governor and an event for people, each returned once. Called twice a second."""
        if self._actuator is None or (state := self._actuator.state) is self._handled or state == UNKNOWN:
            return None, None
        self._handled = state
        return self._lost(state) if state.index is None else self._held(state.index)

    def _held(self, index: int) -> tuple[ClockRange | None, schema.Event | None]:
        if index < self._wanted:
            self._highest = index
        event, before, self._reported = None, self._reported, self._highest
        if not self._controlled:
            low_mhz, high_mhz = self.clocks_mhz[0], self.clocks_mhz[self._highest]
            event = schema.Event(
                kind="clock_control", text=f"edged controls the GPU clock, {low_mhz:g} to {high_mhz:g} MHz"
            )
        self._controlled, self._problem = True, None
        return ClockRange(self._highest) if self._highest != before else None, event

    def _lost(self, state: ClockState) -> tuple[ClockRange | None, schema.Event | None]:
        assert self._actuator is not None
        problem = state.problem or f"the ceiling is {state.ceiling_mhz:g} MHz, below every clock to choose from"
        event = None
        if problem != self._problem:
            event = schema.Event(kind="clock_control", text=f"GPU clock control is unavailable: {problem}")
        was, self._controlled, self._problem, self._reported = self._controlled, False, problem, None
        # when it is back, it begins again with the clock that limits nothing
        self._wanted = self._highest = self._top
        self._actuator.set(self._top)
        return ClockRange(None) if was else None, event
