"""A shared-memory ring of frames: one writer, many readers, no lock, the latest wins.

In: the pixels of a camera's frames, written by its child process. Out: references to the newest frame, its pixels in
place, and whether they have been overwritten meanwhile. The daemon makes the file (`create`), the child maps it to
write (`RingWriter`), anyone who may read the file maps it read-only (`RingReader`). Any thread, one thread per object.

Layout, all words 64 bits in the machine's own order. A write has a number n, counted on through all rings of a camera,
so that (slot, seq) never means two frames. Frame n lies in slot n % 4; that slot's word `seq` is 2n - 1 while the frame
is being written and 2n once it is whole. Readers of a slot compare `seq` before and after.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.errors import EdgedError
from edged.frames.frame import CaptureClock, Frame, PixelFormat

SHM: Final = Path("/dev/shm")
SLOTS: Final = 4
MAX_SIDE: Final = 8192

_MAGIC: Final = int.from_bytes(b"EDGEDRNG", "little")
_LAYOUT: Final = 3
_PAGE: Final = 4096
# Words of the header. The daemon writes those up to _W_FORMAT, and _W_FIRST; the child the others.
_W_MAGIC, _W_LAYOUT, _W_SLOTS, _W_SLOT_BYTES, _W_WIDTH, _W_HEIGHT, _W_FORMAT, _W_STRIDE = range(8)
_W_LATEST, _W_RATE, _W_CORRUPT, _W_FROZEN = range(8, 12)
_W_FIRST: Final = 12
_W_STILL: Final = 13
_W_LOST_PACKETS, _W_DECODE_US, _W_BITRATE, _W_KEYFRAME_MS = range(16, 20)
# Words of a slot's own header, relative to its first. One cache line each.
_SLOT_WORDS: Final = 8
_W_FIRST_SLOT: Final = 24
_S_SEQ, _S_FRAME, _S_CAPTURE, _S_MONO, _S_CLOCK, _S_STILL = range(6)
_CLOCKS: Final[tuple[CaptureClock, ...]] = ("arrival", "camera")
_LIMIT: Final = 1 << 62
_FIGURE_LIMIT: Final = 1 << 40


class GarbageError(Exception):
    """A writer left in its ring what no sane writer does."""


@dataclass(frozen=True)
class RingSpec:
    """The size of a ring's pictures; `pixel_bytes` of them, in slots a whole number of pages apart."""

    width: int
    height: int
    format: PixelFormat

    @property
    def shape(self) -> tuple[int, ...]:
        if self.format.is_nv12:
            return (self.height * 3 // 2, self.width)
        return (self.height, self.width, 3)

    @property
    def pixel_bytes(self) -> int:
        return math.prod(self.shape)

    @property
    def slot_bytes(self) -> int:
        return -(-self.pixel_bytes // _PAGE) * _PAGE

    @property
    def file_bytes(self) -> int:
        return _PAGE + SLOTS * self.slot_bytes

    def header(self) -> tuple[int, ...]:
        stride = self.width * (3 if self.format is PixelFormat.BGR24 else 1)
        return (_MAGIC, _LAYOUT, SLOTS, self.slot_bytes, self.width, self.height, int(self.format), stride)


def spec_of(width: int, height: int, format_: int) -> RingSpec:
    """A checked spec. Raises ValueError for what no ring can hold."""
    if not (2 <= width <= MAX_SIDE and 2 <= height <= MAX_SIDE):
        raise ValueError(f"a picture of {width}x{height} is not within 2x2 and {MAX_SIDE}x{MAX_SIDE}")
    pixel_format = PixelFormat(format_)
    if pixel_format.is_nv12 and (width % 2 or height % 2):
        raise ValueError(f"NV12 needs even sides, not {width}x{height}")
    return RingSpec(width, height, pixel_format)


class _Fence(threading.local):
    """Orders the memory accesses before a call against those after it, also on Arm, where they may otherwise swap.

    Releasing and then taking a lock is the only full barrier Python has; the lock guards nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()
        self._lock.acquire()


_fence = _Fence()


def create(name: str, spec: RingSpec, first: int = 0, directory: Path = SHM) -> None:
    """Make the ring's file, all of its memory reserved; frame numbers go on after `first`.

    Raises EdgedError when the memory is not there: a reservation now is a sentence, a missing page later is a SIGBUS.
    """
    path = directory / name
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise EdgedError(f"cannot create the frame ring {path}: {error.strerror}") from error
    try:
        os.fchmod(fd, 0o640)
        os.posix_fallocate(fd, 0, spec.file_bytes)
        words = (*spec.header(), first, 0, 0, 0, first)  # nothing written yet, nothing counted
        os.pwrite(fd, np.array(words, np.uint64).tobytes(), 0)
    except OSError as error:
        path.unlink()
        raise EdgedError(
            f"cannot reserve {spec.file_bytes / 2**20:.1f} MiB for the frame ring {path}: {error.strerror}",
            f"free or enlarge {directory} (mount -o remount,size=...), or use fewer or smaller cameras",
        ) from error
    finally:
        os.close(fd)


def unlink(name: str, directory: Path = SHM) -> None:
    """Remove a ring of ours; one that is gone already, or was replaced by something else, is left."""
    with contextlib.suppress(OSError):
        (directory / name).unlink()


class _Ring:
    """The mapping both sides share: `words` of the header page and one array of pixels per slot."""

    def __init__(self, name: str, writable: bool, directory: Path) -> None:
        self.name = name
        path = directory / name
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise EdgedError(f"cannot open the frame ring {path}: {error.strerror}") from error
        try:
            self.spec = _read_spec(fd, path)
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            memory = mmap.mmap(fd, self.spec.file_bytes, access=access)
        finally:
            os.close(fd)
        # A cast memoryview reads and writes one whole word per access, which struct's standard mode does not promise.
        self.words = memoryview(memory)[:_PAGE].cast("Q")
        everything = np.frombuffer(memory, np.uint8)
        starts = range(_PAGE, self.spec.file_bytes, self.spec.slot_bytes)
        self.slots = [everything[s : s + self.spec.pixel_bytes].reshape(self.spec.shape) for s in starts]


def _read_spec(fd: int, path: Path) -> RingSpec:
    """What the header says, if the file is as long as that needs."""
    words = os.pread(fd, 64, 0)
    if len(words) == 64:
        magic, layout, *_, width, height, format_, _stride = (int(w) for w in np.frombuffer(words, np.uint64))
        if magic == _MAGIC and layout == _LAYOUT:
            try:
                spec = spec_of(width, height, format_)
            except ValueError as error:
                raise EdgedError(f"{path} is a damaged frame ring: {error}") from error
            if os.fstat(fd).st_size == spec.file_bytes:
                return spec
    raise EdgedError(f"{path} is not a frame ring of this version of edged")


@dataclass(frozen=True)
class StreamFigures:
    """What a stream costs: packets lost since it was opened; of the last second the CPU time to decode a picture and
    its rate; the time between its last two keyframes. None: not known."""

    lost_packets: int
    decode_ms: float | None
    mbit_s: float | None
    keyframe_interval_s: float | None

    def words(self) -> str:
        """For people."""
        known = [] if self.decode_ms is None else [f"{self.decode_ms:.1f} ms to decode a picture"]
        known += [] if self.mbit_s is None else [f"{self.mbit_s:.1f} Mbit/s"]
        if self.keyframe_interval_s is not None:
            known.append(f"a keyframe every {self.keyframe_interval_s:.1f} s")
        known += [f"{self.lost_packets} packets lost"] if self.lost_packets else []
        return ", ".join(known)


class RingWriter(_Ring):
    """The child's side. `begin`, fill the array, then `commit`; a frame begun again and not committed is lost."""

    def __init__(self, name: str, directory: Path = SHM) -> None:
        super().__init__(name, True, directory)
        self._number = self.words[_W_LATEST]
        self._first = self.words[_W_FIRST]

    def begin(self) -> NDArray[np.uint8]:
        """The pixels of the next slot, now marked as being written."""
        number = self._number + 1
        slot = number % SLOTS
        self.words[_W_FIRST_SLOT + slot * _SLOT_WORDS + _S_SEQ] = 2 * number - 1
        _fence()
        return self.slots[slot]

    def commit(
        self, frame: int, t_capture_ns: int, mono_capture_ns: int, clock: CaptureClock, still: bool = False
    ) -> None:
        """The frame begun is whole and the latest."""
        words = self.words
        number = self._number + 1
        base = _W_FIRST_SLOT + number % SLOTS * _SLOT_WORDS
        words[base + _S_FRAME] = frame
        words[base + _S_CAPTURE] = t_capture_ns
        words[base + _S_MONO] = mono_capture_ns
        words[base + _S_CLOCK] = _CLOCKS.index(clock)
        words[base + _S_STILL] = still
        _fence()
        words[base + _S_SEQ] = 2 * number
        words[_W_LATEST] = number
        self._number = number

    def previous(self) -> NDArray[np.uint8] | None:
        """The pixels last committed to this ring."""
        return self.slots[self._number % SLOTS] if self._number > self._first else None

    def count(self, rate: int, corrupt: int, frozen: int, still: int) -> None:
        """How many captured frames were not written, by cause, since the ring was made."""
        words = self.words
        words[_W_RATE], words[_W_CORRUPT], words[_W_FROZEN], words[_W_STILL] = rate, corrupt, frozen, still

    def figures(self, lost_packets: int, decode_us: int, bitrate: int, keyframe_ms: int) -> None:
        """What the stream costs; 0 where that is not known."""
        words = self.words
        words[_W_LOST_PACKETS], words[_W_DECODE_US] = lost_packets, decode_us
        words[_W_BITRATE], words[_W_KEYFRAME_MS] = bitrate, keyframe_ms


class RingReader(_Ring):
    """A reader's side, read-only. What it reads may be garbage that a dying writer left: it is checked or None."""

    def __init__(self, name: str, camera: str = "", directory: Path = SHM) -> None:
        super().__init__(name, False, directory)
        self._camera = camera
        self.first = self.words[_W_FIRST]

    @classmethod
    def open(cls, name: str, camera: str = "", directory: Path = SHM) -> RingReader:
        """Map the ring of that name, as a local program does with the name in a result. Raises EdgedError."""
        if "/" in name or not name.startswith("edged-"):
            raise EdgedError(f"{name!r} is not the name of a frame ring")
        return cls(name, camera, directory)

    def latest(self) -> Frame | None:
        """The newest whole frame; None when there is none yet, or it is being overwritten this moment.

        Raises GarbageError when what the writer left cannot be."""
        for _ in range(SLOTS):  # a reader is overtaken at most once in practice; never spin on a writer gone mad
            number = self.words[_W_LATEST]
            if number == self.first:
                return None
            frame = self._frame(number)
            if frame is not None:
                return frame
        return None

    def _frame(self, number: int) -> Frame | None:
        words, spec = self.words, self.spec
        slot = number % SLOTS
        base = _W_FIRST_SLOT + slot * _SLOT_WORDS
        seq = words[base + _S_SEQ]
        _fence()
        index, t_capture, mono = words[base + _S_FRAME], words[base + _S_CAPTURE], words[base + _S_MONO]
        clock, still = words[base + _S_CLOCK], words[base + _S_STILL]
        _fence()
        if seq != 2 * number or words[base + _S_SEQ] != seq:
            return None
        if max(index, t_capture, mono) >= _LIMIT or clock >= len(_CLOCKS) or still > 1:
            raise GarbageError(f"frame {index} of {mono} ns, {t_capture} ns on clock {clock}")
        return Frame(
            self._camera,
            index,
            slot,
            seq,
            spec.width,
            spec.height,
            spec.format,
            mono,
            t_capture,
            _CLOCKS[clock],
            bool(still),
        )

    def counts(self) -> tuple[int, int, int, int, int]:
        """(number of the latest frame, rate, corrupt, frozen, still) as the child wrote them: to be checked by the
        caller."""
        words = self.words
        return words[_W_LATEST], words[_W_RATE], words[_W_CORRUPT], words[_W_FROZEN], words[_W_STILL]

    def stream_figures(self) -> StreamFigures | None:
        """What the child measured of its stream; None for garbage."""
        lost, decode_us, bitrate, keyframe_ms = (int(word) for word in self.words[_W_LOST_PACKETS : _W_KEYFRAME_MS + 1])
        if max(lost, decode_us, bitrate, keyframe_ms) >= _FIGURE_LIMIT:
            return None
        return StreamFigures(lost, decode_us / 1e3 or None, bitrate / 1e6 or None, keyframe_ms / 1e3 or None)

    def pixels(self, slot: int) -> NDArray[np.uint8]:
        """A read-only view of a slot's pixels."""
        return self.slots[slot]

    def intact(self, slot: int, seq: int) -> bool:
        """Whether what was read from the slot until now is that of `seq`."""
        _fence()
        return self.words[_W_FIRST_SLOT + slot * _SLOT_WORDS + _S_SEQ] == seq

    def copy(self, slot: int, seq: int) -> NDArray[np.uint8] | None:
        """A copy of the pixels of (slot, seq), as a result names them; None when they have been overwritten."""
        if not (0 <= slot < SLOTS and self.intact(slot, seq)):
            return None
        pixels = self.slots[slot].copy()
        return pixels if self.intact(slot, seq) else None
