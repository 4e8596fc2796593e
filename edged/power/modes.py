"""Power modes of a Jetson (nvpmodel), jetson_clocks and the fan: what there is, and setting it. Never in the loop.

An operator requests it, or a power profile. There are two ways. jtop.service, whose root process accepts requests from
the group jtop: the daemon, which has no privileges, uses this. Or NVIDIA's `nvpmodel` itself, which any user may query
and only root may set with: for a daemon run by root. What is set is read back; what needs a reboot is refused with the
command for it, and nothing is forced. May wait for some ten seconds: for any thread but the engine loop's.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edged import clock
from edged.errors import EdgedError, UsageError
from edged.power.jtop import JtopLink, Reading, SetRequest
from edged.power.nvpmodel import SYSTEM_PATH, Nvpmodel

FIRST_READING_S: Final = 6.0
"""The child imports its library and connects."""
VERIFY_S: Final = 7.0
"""A switch takes under half a second, with jetson_clocks on over one."""
READINGS_EVERY_S: Final = 0.5
CLOCKS_ON: Final = ("running",)
CLOCKS_OFF: Final = ("inactive",)


@dataclass(frozen=True)
class Mode:
    """`needs_reboot`: from the mode in force; None if not known beforehand."""

    id: int
    name: str
    needs_reboot: bool | None


@dataclass(frozen=True)
class Modes:
    """What there is. `current`: the name of the mode in force. `clocks`: the state of jetson_clocks in jtop's words,
    `fan` its profile; None where it is not known. `not_settable`: empty, or why this process cannot set any of it."""

    way: Literal["jtop", "nvpmodel"]
    modes: tuple[Mode, ...]
    current: str | None
    clocks: str | None = None
    fan: str | None = None
    fans: tuple[str, ...] = ()
    not_settable: str = ""


class ModeControl:
    """`path`: where nvpmodel is searched for, as in $PATH."""

    def __init__(self, jtop_socket: Path, path: str = SYSTEM_PATH) -> None:
        self._socket = jtop_socket
        self._tool = Nvpmodel.find(path)
        self._link: JtopLink | None = None
        self._closed = False

    def read(self) -> Modes:
        """EdgedError if this machine has no power modes, or nothing here can read them."""
        try:
            with self._linked() as link:
                return self._through_jtop(_first(link))
        except EdgedError as no_jtop:
            if self._tool is None:
                raise _no_modes(no_jtop) from no_jtop
            return self._through_tool(self._tool, no_jtop)

    def set(self, mode: str | None = None, clocks: bool | None = None, fan: str | None = None) -> Modes:
        """Set what is not None, and verify it. UsageError for an unknown name, EdgedError for what cannot be."""
        with self._linked() as link:
            try:
                reading = _first(link)
            except EdgedError as no_jtop:
                if self._tool is None:
                    raise _no_modes(no_jtop) from no_jtop
                return self._set_by_tool(self._tool, mode, clocks, fan, no_jtop)
            if mode is not None:
                reading = self._switch(link, reading, mode)
            if clocks is not None:
                reading = _switch_clocks(link, reading, clocks)
            if fan is not None:
                reading = _switch_fan(link, reading, fan)
            return self._through_jtop(reading)

    def close(self) -> None:
        """From any thread: whoever waits for a mode gives up at once, with an EdgedError. There will be no other."""
        self._closed = True
        if (link := self._link) is not None:
            link.abandon()

    @contextlib.contextmanager
    def _linked(self) -> Iterator[JtopLink]:
        """A child of its own for each request: nothing is left of it afterwards."""
        try:
            self._link = JtopLink(self._socket, READINGS_EVERY_S)
        except OSError as error:
            raise EdgedError(f"the jtop process cannot be started: {error.strerror}") from error
        with self._link as link:
            if self._closed:
                raise EdgedError("edged is stopping")
            yield link

    # --- through jtop -------------------------------------------------------------------------------------------------

    def _through_jtop(self, reading: Reading) -> Modes:
        current = _name(reading)
        modes = tuple(Mode(n, mode.name, not mode.ready) for n, mode in enumerate(reading.modes))
        return Modes("jtop", modes, current, reading.clocks, reading.fan, tuple(reading.fans))

    def _switch(self, link: JtopLink, reading: Reading, name: str) -> Reading:
        names = [mode.name for mode in reading.modes]
        number = _number_of(name, names)
        if self._tool is not None and [mode.id for mode in self._tool.modes()] != list(range(len(names))):
            raise EdgedError(
                "the modes in /etc/nvpmodel.conf are not numbered 0, 1, 2...: jtop would set another one",
                "number them without gaps, or set it yourself: sudo nvpmodel -m NUMBER",
            )
        if reading.mode == number:
            return reading
        if not reading.modes[number].ready:
            raise _reboot(names[number], number)
        if reading.mode_changing:
            raise EdgedError("another change of the power mode is going on", "try again in a few seconds")
        link.send(SetRequest(mode=number))
        end_ns = clock.mono_ns() + int(VERIFY_S * clock.NS_PER_S)
        while reading.mode != number or reading.mode_changing:
            reading = _later(link, reading, end_ns, f"the power mode does not become {names[number]}")
            if not reading.mode_changing and not (_at(reading, number)):
                raise _reboot(names[number], number)
        return reading

    # --- through nvpmodel ---------------------------------------------------------------------------------------------

    def _through_tool(self, tool: Nvpmodel, no_jtop: EdgedError) -> Modes:
        listed, (current, _) = tool.modes(), tool.current()
        masks = {mode.id: mode.mask for mode in listed}
        modes = tuple(
            Mode(mode.id, mode.name, None if current is None else mode.mask != masks.get(current)) for mode in listed
        )
        name = next((mode.name for mode in listed if mode.id == current), None)
        why = "" if os.geteuid() == 0 else f"only root may set it, and jtop cannot: {no_jtop.message}"
        return Modes("nvpmodel", modes, name, not_settable=why)

    def _set_by_tool(
        self, tool: Nvpmodel, mode: str | None, clocks: bool | None, fan: str | None, no_jtop: EdgedError
    ) -> Modes:
        before = self._through_tool(tool, no_jtop)
        if clocks is not None or fan is not None:
            raise EdgedError(f"jetson_clocks and the fan are set through jtop: {no_jtop.message}", no_jtop.hint)
        if mode is None:
            return before
        wanted = before.modes[_number_of(mode, [m.name for m in before.modes])]
        if wanted.name == before.current:
            return before
        if before.not_settable:
            raise EdgedError(before.not_settable, no_jtop.hint or f"or set it yourself: sudo nvpmodel -m {wanted.id}")
        if wanted.needs_reboot or not tool.set(wanted.id):
            raise _reboot(wanted.name, wanted.id)
        after = self._through_tool(tool, no_jtop)
        if after.current != wanted.name:
            raise EdgedError(f"nvpmodel did not set {wanted.name}: the mode is still {after.current}")
        return after


def _first(link: JtopLink) -> Reading:
    reading = link.next(FIRST_READING_S)
    if reading is None:
        raise EdgedError(f"jtop.service gave nothing within {FIRST_READING_S:g} s", "sudo systemctl restart jtop")
    if not reading.modes:
        raise EdgedError("jtop.service knows no power modes of this board", "is nvpmodel installed?")
    return reading


def _later(link: JtopLink, before: Reading, end_ns: int, late: str) -> Reading:
    """A reading after `before`; EdgedError when the time is over."""
    left_s = (end_ns - clock.mono_ns()) / clock.NS_PER_S
    reading = link.next(left_s) if left_s > 0 else None
    if reading is None:
        now = f"mode {_name(before)}, jetson_clocks {before.clocks}, fan {before.fan}"
        raise EdgedError(f"{late} within {VERIFY_S:g} s; it is still {now}", "see `journalctl -u jtop`")
    return reading


def _switch_clocks(link: JtopLink, reading: Reading, on: bool) -> Reading:
    wanted = CLOCKS_ON if on else CLOCKS_OFF
    if reading.clocks is None:
        raise EdgedError("this board has no jetson_clocks")
    if reading.clocks not in CLOCKS_ON + CLOCKS_OFF:
        raise EdgedError(
            f"jetson_clocks is {reading.clocks}, and cannot be switched", "try again after a minute of uptime"
        )
    if reading.clocks not in wanted:
        link.send(SetRequest(clocks=on))
    end_ns = clock.mono_ns() + int(VERIFY_S * clock.NS_PER_S)
    while reading.clocks not in wanted:
        reading = _later(link, reading, end_ns, "jetson_clocks does not follow")
    return reading


def _switch_fan(link: JtopLink, reading: Reading, profile: str) -> Reading:
    profiles = [name for name in reading.fans if name != "manual"]  # manual stops the fan's control, and stays so
    if not profiles:
        raise EdgedError("this board has no fan that jtop controls")
    if profile not in profiles:
        raise UsageError(f"there is no fan profile {profile[:64]!r}", f"name one of: {', '.join(profiles)}")
    if reading.fan != profile:
        link.send(SetRequest(fan=profile))
    end_ns = clock.mono_ns() + int(VERIFY_S * clock.NS_PER_S)
    while reading.fan != profile:
        reading = _later(link, reading, end_ns, "the fan does not follow")
    return reading


def _number_of(name: str, names: Sequence[str]) -> int:
    for number, known in enumerate(names):
        if known.lower() == name.lower():
            return number
    near = difflib.get_close_matches(name[:64], names, 1)
    raise UsageError(
        f"there is no power mode {name[:64]!r}",
        f"did you mean {near[0]}?" if near else f"name one of: {', '.join(names)}",
    )


def _name(reading: Reading) -> str | None:
    """Of the mode in force."""
    number = reading.mode
    return reading.modes[number].name if number is not None and 0 <= number < len(reading.modes) else None


def _at(reading: Reading, number: int) -> bool:
    """Whether that mode can still come: jtop marks it when nvpmodel refused it."""
    return number < len(reading.modes) and reading.modes[number].ready


def _reboot(name: str, number: int) -> EdgedError:
    return EdgedError(
        f"the power mode {name} needs a reboot, which edged never does",
        f"sudo nvpmodel -m {number}   asks, and restarts the board at once",
    )


def _no_modes(no_jtop: EdgedError) -> EdgedError:
    return EdgedError(f"no power modes: there is no nvpmodel here, and {no_jtop.message}", no_jtop.hint)
