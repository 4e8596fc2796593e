"""When a picture left the camera: delays on our side count, whatever the camera's clock does."""

from __future__ import annotations

import random

from edged.frames.rtsp.capture_time import CaptureTime

MS, S = 1_000_000, 1_000_000_000
HZ = 90_000


def run(delays_ms: list[float], fps: float = 15, tick: float | None = None, fresh: bool = True) -> list[float]:
    """The age in ms that each picture is found to have on arrival. `tick`: what the camera's clock counts a picture."""
    clock, ages = CaptureTime(HZ), []
    for n, delay_ms in enumerate(delays_ms):
        arrival_ns = 1000 * S + int(n * S / fps + delay_ms * MS)
        timestamp = int(4_294_000_000 + n * (HZ / fps if tick is None else tick)) & 0xFFFFFFFF
        ages.append((arrival_ns - clock.mono_ns(timestamp, arrival_ns, fresh)) / MS)
    return ages


def test_a_steady_camera_has_no_age_on_arrival_also_where_its_time_stamps_wrap() -> None:
    assert max(run([3.0] * 100)) < 0.1


def test_what_came_late_is_old() -> None:
    ages = run([0.0] * 20 + [40.0, 0.0, 25.0])
    assert [round(age) for age in ages[-3:]] == [40, 0, 25]


def test_jitter_is_distinguished_from_the_least_delay() -> None:
    rng = random.Random(1)
    delays = [rng.uniform(5, 25) for _ in range(300)]
    ages = run(delays)
    assert all(abs(age - (delay - 5)) < 3 for age, delay in list(zip(ages, delays, strict=True))[60:])


def test_a_backlog_in_our_buffers_stays_visible_however_long_it_lasts() -> None:
    clock, ages = CaptureTime(HZ), []
    for n in range(300):
        backlog_ms = min(400.0, max(0, n - 30) * 10.0)
        arrival_ns = 1000 * S + int(n * S / 15 + backlog_ms * MS)
        ages.append((arrival_ns - clock.mono_ns(n * 6000, arrival_ns, n <= 30)) / MS)
    assert abs(ages[-1] - 400) < 1


def test_time_stamps_of_the_wrong_rate_are_not_believed() -> None:
    assert max(run([0.0] * 300, fps=15, tick=HZ / 25)[120:]) < 5  # it says 25 and sends 15: no clock


def test_a_camera_that_paused_its_clock_is_believed_again_within_seconds() -> None:
    ages = run([0.0] * 60 + [1500.0] * 120)
    assert max(ages[60:]) < 1501 and max(ages[-40:]) < 1


def test_a_clock_that_jumps_far_begins_anew() -> None:
    clock = CaptureTime(HZ)
    for n in range(30):
        clock.mono_ns(n * 6000, n * S // 15, True)
    assert clock.mono_ns(30 * 6000 + HZ * 3600, 2 * S, True) == 2 * S
    assert clock.mono_ns(31 * 6000 + HZ * 3600, 2 * S + S // 15, True) >= 2 * S + S // 15 - MS


def test_the_same_time_stamp_again_and_again_is_no_age() -> None:
    assert max(run([0.0] * 100, tick=0)) == 0


def test_time_stamps_of_half_the_rate_are_found_out_within_a_second_and_a_half() -> None:
    ages = run([0.0] * 100, fps=20, tick=HZ / 40)
    assert max(ages) < 700 and max(ages[30:]) == 0


def test_time_stamps_that_go_back_are_a_count_that_begins_anew() -> None:
    clock = CaptureTime(HZ)
    for n in range(100):
        back = 5 * HZ if n >= 60 else 0
        arrival_ns = n * S // 20
        assert arrival_ns - clock.mono_ns(n * HZ // 20 - back & 0xFFFFFFFF, arrival_ns, True) < MS, n
