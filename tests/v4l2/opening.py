"""An open V4L2 source: what it gives against what was asked, its time stamps and pixels; and what cannot be opened."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.source import open_source
from edged.frames.sources.base import Source
from tests.v4l2 import vivid


@contextlib.contextmanager
def opened(query: str = "", device: str = vivid.DEVICE) -> Iterator[Source]:
    source = open_source(CameraConfig(name="cam", source=f"v4l2://{device}{query}"))
    try:
        yield source
    finally:
        source.close()


def stamps_ns(source: Source, count: int) -> list[int]:
    """The arrivals of frames that are all taken at once."""
    found: list[int] = []
    for _ in range(count):
        grabbed = source.grab()
        assert grabbed is not None and grabbed.clock == "arrival"
        found.append(grabbed.mono_ns)
    return found


def picture(source: Source) -> NDArray[np.uint8]:
    into = np.zeros((source.info.height, source.info.width, 3), np.uint8)
    assert source.grab() is not None
    source.retrieve(into)
    return into


def mean_fps(stamps: list[int]) -> float:
    return clock.NS_PER_S * (len(stamps) - 1) / (stamps[-1] - stamps[0])


def reported(source: Source) -> tuple[int, int, float]:
    info = source.info
    assert info.fps is not None
    return info.width, info.height, round(info.fps, 3)


def a_size_and_a_rate_that_it_has_are_given() -> str:
    for width, height, fps in ((640, 360, 15), (320, 180, 30)):
        with opened(f"?width={width}&height={height}&fps={fps}") as source:
            assert reported(source) == vivid.given() == (width, height, fps), (reported(source), vivid.given())
            assert picture(source).any()
            measured = mean_fps(stamps_ns(source, 20)[5:])
            assert abs(measured - fps) < 0.1 * fps, f"{measured:.1f} fps"
    return f"640x360 at 15, 320x180 at 30 ({measured:.2f} measured)"


def in_place_of_what_it_has_not_the_nearest_is_given_and_said() -> str:
    with opened("?width=600&height=400&fps=27") as source:
        assert reported(source) == vivid.given() != (600, 400, 27), (reported(source), vivid.given())
        assert picture(source).any()
        measured = mean_fps(stamps_ns(source, 20)[5:])
        assert abs(measured - reported(source)[2]) < 0.1 * measured, f"{measured:.1f} fps"
        return "600x400 at 27 asked, {}x{} at {:g} given".format(*reported(source))


def a_width_alone_counts() -> str:
    with opened("?width=320") as source:
        assert reported(source)[0] == 320, f"asked for a width of 320, given {reported(source)}"
        return "{}x{}".format(*reported(source)[:2])


def a_broken_rate_counts() -> str:
    seen = []
    for asked, wanted in ((12.5, 12.5), (0.5, 1.0)):  # a frame a second is the slowest it has
        with opened(f"?width=320&height=180&fps={asked}") as source:
            assert reported(source)[2] == vivid.given()[2] == wanted, (asked, reported(source), vivid.given())
            seen.append(f"{asked} asked, {wanted:g} given")
    return "; ".join(seen)


def without_settings_it_says_what_it_has() -> str:
    with opened() as source:
        assert reported(source) == vivid.given(), (reported(source), vivid.given())
        assert picture(source).any()
        return "{}x{} at {:g}".format(*reported(source))


def time_stamps_are_the_arrival_and_rise() -> str:
    """The kernel's of the buffer: a frame that waited for us keeps the time at which it came."""
    with opened("?width=320&height=180&fps=10") as source:
        stamps_ns(source, 3)
        before_ns = clock.mono_ns()
        found = stamps_ns(source, 20)
        after_ns = clock.mono_ns()
        steps_ms = np.diff(found) / clock.NS_PER_MS
        assert (steps_ms > 0).all(), steps_ms
        assert abs(float(np.median(steps_ms)) - 100) < 10, steps_ms
        assert before_ns - clock.NS_PER_S < found[0] and after_ns - clock.NS_PER_S < found[-1] <= after_ns
        clock.sleep_s(0.5)
        stamp, now_ns = stamps_ns(source, 1)[0], clock.mono_ns()
        waited_ms, step_ms = (now_ns - stamp) / clock.NS_PER_MS, (stamp - found[-1]) / clock.NS_PER_MS
        assert 80 < step_ms < 300 and waited_ms > 200, f"{step_ms:.0f} ms after the last, {waited_ms:.0f} ms old"
    return f"{np.median(steps_ms):.1f} ms apart at 10 fps; one that waited: {step_ms:.0f} apart, {waited_ms:.0f} ms old"


def a_time_stamp_that_cannot_be_gives_way_to_the_clock() -> str:
    vivid.control(wrap_timestamp=1)
    with opened("?width=320&height=180&fps=10") as source:
        for _ in range(5):
            clock.sleep_s(0.25)  # so that the kernel's own stamp of the frame that waits would be older
            before_ns = clock.mono_ns()
            (stamp,) = stamps_ns(source, 1)
            assert before_ns <= stamp <= clock.mono_ns(), (before_ns, stamp)
    return "5 of 5"


def the_pixels_are_blue_green_red() -> str:
    vivid.control(osd_text_mode=2)
    names = ("white", "yellow", "cyan", "green", "magenta", "red", "blue", "black")
    with opened("?width=640&height=360") as source:
        row = picture(source)[180]
        codec = source.info.codec
    found = [tuple(int(v) for v in row[640 * (2 * i + 1) // 16] > 90) for i in range(8)]
    wanted = [(1, 1, 1), (0, 1, 1), (1, 1, 0), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 0, 0), (0, 0, 0)]
    assert found == wanted, dict(zip(names, found, strict=True))
    return f"the eight colour bars ({codec})"


# ---- what cannot be opened -------------------------------------------------------------------------------------------


def refusal(device: str) -> str:
    """The sentence, the only thing that is said: nothing on the terminal beside it."""
    script = (
        "import sys; from tests.v4l2.opening import opened\n"
        "try:\n    with opened(device=sys.argv[1]) as source: source.grab(); print('it opens')\n"
        "except Exception as error: print(type(error).__name__ + '|' + str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, device], capture_output=True, text=True, timeout=90, check=True
    )
    kind, _, text = done.stdout.strip().partition("|")
    assert kind in (EdgedError.__name__, "UsageError"), done.stdout
    assert device in text and "\n" not in text and len(text) < 300, text
    assert not done.stderr, f"beside the sentence: {done.stderr.strip()}"
    return text


def a_missing_device_is_one_sentence() -> str:
    return refusal("/dev/video9")


def a_device_in_use_is_one_sentence() -> str:
    with opened("?width=320&height=180") as source:
        stamps_ns(source, 2)
        text = refusal(vivid.DEVICE)
        assert "in use" in text, text
        stamps_ns(source, 5)  # and whoever has it is not disturbed
    return text


def a_device_of_another_user_is_one_sentence() -> str:
    mode = Path(vivid.DEVICE).stat().st_mode
    Path(vivid.DEVICE).chmod(0o600)
    os.seteuid(65534)
    try:
        with opened():
            raise AssertionError("it opens")
    except EdgedError as error:
        return str(error)
    finally:
        os.seteuid(0)
        Path(vivid.DEVICE).chmod(mode)


def a_device_that_gives_no_frames_is_one_sentence() -> str:
    return refusal(vivid.OUTPUT)


def a_file_is_no_device() -> str:
    return refusal("/etc/passwd")


CHECKS: tuple[Callable[[], str], ...] = (
    a_size_and_a_rate_that_it_has_are_given,
    in_place_of_what_it_has_not_the_nearest_is_given_and_said,
    a_width_alone_counts,
    a_broken_rate_counts,
    without_settings_it_says_what_it_has,
    time_stamps_are_the_arrival_and_rise,
    a_time_stamp_that_cannot_be_gives_way_to_the_clock,
    the_pixels_are_blue_green_red,
    a_missing_device_is_one_sentence,
    a_device_in_use_is_one_sentence,
    a_device_of_another_user_is_one_sentence,
    a_device_that_gives_no_frames_is_one_sentence,
    a_file_is_no_device,
)
