"""A live camera as the daemon has it: Cameras, a capture process, its ring, and faults of the device under it.

All checks share one set of cameras, since starting the capture process's fork server takes the emulator seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edged import clock
from edged.config import CameraConfig
from edged.frames.frame import Frame
from tests.support.engine_loop import EngineLoop
from tests.v4l2 import vivid

_SOURCE = f"v4l2://{vivid.DEVICE}?width=320&height=180&fps=30"
_SLOW_S = 60  # for what has no deadline of its own: the machine is emulated
_MEASURE_S = 5

_shared: EngineLoop | None = None


def cam(name: str = "cam", source: str = _SOURCE) -> CameraConfig:
    return CameraConfig(name=name, source=source)


def live_loop() -> EngineLoop:
    """The cameras, of which `cam` is live and the only one."""
    global _shared
    if _shared is None:
        _shared = EngineLoop()
    _shared.configure(cam())
    _shared.until_state("live", _SLOW_S)
    _shared.until_frames(5)
    _shared.changes.clear()
    return _shared


def close() -> None:
    if _shared is not None:
        _shared.cameras.close()


def captured_fps(loop: EngineLoop) -> float:
    """By what the capture process counts and not by what we manage to look at."""
    before, begin_ns = loop.status().captured, clock.mono_ns()
    loop.run(_MEASURE_S)
    return (loop.status().captured - before) * clock.NS_PER_S / (clock.mono_ns() - begin_ns)


def states(loop: EngineLoop) -> list[str]:
    return [state for _, _, state, _ in loop.changes]


def reason_of(loop: EngineLoop, state: str) -> str:
    return next(reason for _, _, s, reason in loop.changes if s == state)


def a_live_camera_gives_results_by_rising_ids() -> str:
    loop = live_loop()
    first = len(loop.frames)
    means: list[float] = []
    ages_ms: list[float] = []

    def look(frame: Frame) -> None:
        ages_ms.append((clock.mono_ns() - frame.mono_capture_ns) / clock.NS_PER_MS)
        assert loop.cameras.pixels(frame).shape == (180, 320, 3)
        means.append(float(loop.cameras.pixels(frame).mean()))

    loop.on_frame = look
    loop.until_frames(60, _SLOW_S)
    loop.on_frame = lambda frame: None
    frames, status = loop.frames[first:], loop.status()
    ids, arrivals = [f.frame for f in frames], [f.mono_capture_ns for f in frames]
    assert (np.diff(ids) > 0).all() and (np.diff(arrivals) > 0).all(), (ids, arrivals)
    assert (status.width, status.height, status.clock) == (320, 180, "arrival")
    assert status.captured == status.results + sum(status.drops.values()), status
    assert min(means) > 20
    assert 0 <= float(np.median(ages_ms)) < 500, ages_ms
    skews = [abs(f.t_capture_ns - f.mono_capture_ns - (clock.wall_ns() - clock.mono_ns())) for f in frames]
    assert max(skews) < 0.1 * clock.NS_PER_S, max(skews)
    return f"{len(ids)} frames, ids {ids[0]} to {ids[-1]}, {np.median(ages_ms):.1f} ms old, drops {status.drops}"


def half_the_buffers_dropped_halve_the_rate() -> str:
    loop = live_loop()
    whole = captured_fps(loop)
    vivid.control(percentage_of_dropped_buffers=50)
    half = captured_fps(loop)
    vivid.control(percentage_of_dropped_buffers=0)
    again = captured_fps(loop)
    seen = f"{whole:.1f}, {half:.1f}, then {again:.1f} fps"
    assert whole > 24 and 0.3 < half / whole < 0.7 and again > 24, seen
    assert states(loop) == [], loop.changes
    return seen


def a_buffer_flagged_as_damaged_is_not_the_end() -> str:
    loop = live_loop()
    for _ in range(3):
        vivid.control(inject_v4l2_buf_flag_error=1)
        loop.until_frames(5, _SLOW_S)
    assert states(loop) == [], loop.changes
    return f"3 of them, drops {loop.status().drops}"


def a_fatal_streaming_error_ends_in_backoff_and_heals_by_itself() -> str:
    loop = live_loop()
    reconnects, first = loop.status().reconnects, len(loop.frames) - 1
    vivid.control(inject_fatal_streaming_error=1)
    noticed_s = loop.until_state("backoff", _SLOW_S)
    reason = loop.status().reason
    back_s = loop.until_state("live", _SLOW_S)
    loop.until_frames(20, _SLOW_S)
    assert states(loop)[:3] == ["backoff", "opening", "live"], loop.changes
    assert loop.status().reconnects == reconnects + 1
    ids = [f.frame for f in loop.frames[first:]]
    assert len(ids) > 20 and (np.diff(ids) > 0).all()
    assert vivid.DEVICE in reason, reason
    return f"{reason!r} after {noticed_s:.2f} s, live {back_s:.2f} s later, ids go on from {ids[0]} at {ids[1]}"


def silence_is_noticed_and_heals_by_itself() -> str:
    loop = live_loop()
    vivid.control(percentage_of_dropped_buffers=100)
    noticed_s = loop.until_state("stalled", _SLOW_S)
    reason = loop.status().reason
    assert noticed_s < 4 and reason.startswith("no frame for"), (noticed_s, reason)
    loop.run(1)
    vivid.control(percentage_of_dropped_buffers=0)
    back_s = loop.until_state("live", _SLOW_S)
    return f"{reason!r} after {noticed_s:.2f} s, live {back_s:.2f} s after its return"


def a_frozen_picture_is_stalled_and_not_handed_on() -> str:
    loop = live_loop()
    vivid.control(osd_text_mode=2)  # without its running text vivid's picture stands still
    noticed_s = loop.until_state("stalled", _SLOW_S)
    reason, before = loop.status().reason, len(loop.frames)
    loop.run(1)
    assert reason == "frozen picture" and len(loop.frames) == before, (reason, len(loop.frames) - before)
    vivid.control(osd_text_mode=0)
    back_s = loop.until_state("live", 10)
    return f"{reason!r} after {noticed_s:.2f} s, live {back_s:.2f} s after it moves"


def a_second_camera_waits_for_the_device() -> str:
    loop = live_loop()
    loop.configure(cam(), cam("second"))
    loop.until_state("backoff", _SLOW_S, "second")
    reason = loop.status("second").reason
    loop.until_frames(20, _SLOW_S)
    assert loop.status().state == "live" and "in use" in reason, (loop.status().state, reason)
    loop.configure(cam("second"))
    back_s = loop.until_state("live", _SLOW_S, "second")
    return f"{reason!r}, live {back_s:.1f} s after the first was removed"


def a_stream_that_does_not_start_is_tried_again() -> str:
    loop = live_loop()
    loop.configure()
    vivid.control(inject_vidioc_streamon_error=1)
    loop.configure(cam())
    loop.until_state("live", _SLOW_S)
    return f"{reason_of(loop, 'backoff')!r}, then live"


def an_unplugged_camera_comes_back_when_plugged_in() -> str:
    loop = live_loop()
    first = len(loop.frames) - 1
    vivid.control(disconnect=1)
    noticed_s = loop.until_state("backoff", _SLOW_S)
    reason = loop.status().reason
    vivid.unload()
    loop.until(lambda: "No such file" in loop.status().reason, _SLOW_S)
    missing = loop.status().reason
    vivid.load()
    back_s = loop.until_state("live", _SLOW_S)
    loop.until_frames(10, _SLOW_S)
    ids = [f.frame for f in loop.frames[first:]]
    assert (np.diff(ids) > 0).all(), ids
    return f"{reason!r} after {noticed_s:.2f} s, then {missing!r}, live {back_s:.1f} s after its return"


CHECKS: tuple[Callable[[], str], ...] = (
    a_live_camera_gives_results_by_rising_ids,
    half_the_buffers_dropped_halve_the_rate,
    a_buffer_flagged_as_damaged_is_not_the_end,
    a_fatal_streaming_error_ends_in_backoff_and_heals_by_itself,
    silence_is_noticed_and_heals_by_itself,
    a_frozen_picture_is_stalled_and_not_handed_on,
    a_second_camera_waits_for_the_device,
    a_stream_that_does_not_start_is_tried_again,
    an_unplugged_camera_comes_back_when_plugged_in,
)
