"""The energy horizon across a restart: one small file in the state directory. On the thread "power.energy".

Written at most once a minute and at the end of an orderly stop, each time atomically: a power failure loses what was
used in the last minute. How much of the horizon has passed since is counted so that no clock can refill the budget:
within one boot by the monotonic clock; after another boot by the time since that boot began, and by the wall clock only
if the kernel had it synchronised both when the file was written and when it is read. Time switched off that cannot be
proved this way does not count, so the horizon ends later, never sooner.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from edged import clock, files
from edged.clock import NS_PER_S
from edged.power.energy_meter import HorizonUse
from edged.worker import Worker

FILE: Final = "energy-used.json"
WRITE_EVERY_S: Final = 60.0
STOP_S: Final = 2.0
MAX_BYTES: Final = 4096
MOST: Final = 1e12
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_UNSYNCHRONISED: Final = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_BYTES: Final = 512  # struct timex takes 208 of them

log = logging.getLogger(__name__)


class _Saved(Struct, frozen=True, forbid_unknown_fields=True):
    """`passed_s` of the horizon at the moment that the three clocks name."""

    passed_s: float
    length_s: float
    spent_j: float
    metered_s: float
    boot_id: str
    mono_s: float
    wall_s: float
    synchronised: bool


class Moment(Struct, frozen=True):
    """Now, by every clock there is."""

    boot_id: str
    mono_s: float
    wall_s: float
    synchronised: bool


def moment() -> Moment:
    """The time now. Without a boot id, no other time counts as one of the same boot."""
    try:
        boot_id = BOOT_ID.read_text().strip()
    except OSError:
        boot_id = ""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None).adjtimex(timex)
    return Moment(boot_id, clock.mono_ns() / NS_PER_S, clock.wall_ns() / NS_PER_S, 0 <= state < _UNSYNCHRONISED)


class EnergyStore:
    def __init__(self, directory: Path | None, now: Callable[[], Moment] = moment) -> None:
        """None: there is no state directory, and nothing is kept."""
        self._path = None if directory is None else directory / FILE
        self._now = now
        self._use: Callable[[], HorizonUse | None] = lambda: None
        self._failing = False
        self.worker = Worker("power.energy", self._turn)

    def load(self) -> HorizonUse | None:
        """The horizon of the last run, with the time that has passed since; None without one. A file that cannot be
        used is reported and ignored."""
        if self._path is None:
            return None
        try:
            with files.open_regular(self._path) as file:
                saved = msgspec.json.decode(file.read(MAX_BYTES), type=_Saved)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s cannot be used, the energy horizon starts at zero: %s", self._path, error)
            return None
        numbers = (saved.passed_s, saved.spent_j, saved.metered_s)
        if not all(0 <= number < MOST for number in numbers) or not 0 < saved.length_s < MOST:
            log.warning("%s has a number that cannot be, the energy horizon starts at zero", self._path)
            return None
        now = self._now()
        passed_s = saved.passed_s + _passed_since(saved, now)
        return HorizonUse(int((now.mono_s - passed_s) * NS_PER_S), saved.length_s, saved.spent_j, saved.metered_s)

    def start(self, use: Callable[[], HorizonUse | None]) -> None:
        """Keep what `use` returns, called from this thread; None: there is nothing to keep."""
        self._use = use
        if self._path is not None:
            self.worker.start()

    def close(self) -> None:
        """Write what is in force now, and end."""
        self.worker.stop(STOP_S)

    def _turn(self) -> None:
        self.worker.stopping.wait(WRITE_EVERY_S)
        try:
            self._write(self._use())
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("%s cannot be written, a restart would forget the energy used: %s", self._path, error)
            self._failing = True

    def _write(self, use: HorizonUse | None) -> None:
        assert self._path is not None
        if use is None:
            files.remove(self._path)
            return
        now = self._now()
        passed_s = use.passed_s(int(now.mono_s * NS_PER_S))
        saved = _Saved(
            passed_s, use.length_s, use.spent_j, use.metered_s, now.boot_id, now.mono_s, now.wall_s, now.synchronised
        )
        files.write_atomic(self._path, msgspec.json.encode(saved))


def _passed_since(saved: _Saved, now: Moment) -> float:
    """Seconds since the file was written that are certain to have passed."""
    if saved.boot_id and saved.boot_id == now.boot_id:
        return max(0.0, now.mono_s - saved.mono_s)
    if saved.synchronised and now.synchronised:
        return max(now.mono_s, now.wall_s - saved.wall_s)
    return now.mono_s
