"""The life of a camera: scripts, and what holds whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames import camera_state as life
from edged.frames.camera_state import Action
from tests.support.camera_script import play

S = 1_000_000_000


def test_a_good_life() -> None:
    camera = play("""
        0.0   start           -> opening spawn report
        0.2   opened 30       -> opening
        0.3   frame           -> live report
        0.4   frames 9        -> live
        9.0   end             -> ended kill report
        99    tick            -> ended
        """)
    assert camera.reconnects == 0
    assert camera.reason == "end of file"


def test_silence_is_noticed_within_three_seconds_and_repaired() -> None:
    camera = play("""
        0.0   start           -> opening spawn report
        0.2   opened 30       -> opening
        0.3   frame           -> live report
        2.29  tick            -> live
        2.3   tick            -> stalled kill report
        2.4   frame           -> stalled
        2.5   gone            -> stalled
        2.81  tick            -> opening spawn report
        2.9   frame           -> live report
        """)
    assert camera.reconnects == 1


def test_a_slow_camera_may_be_silent_for_five_periods() -> None:
    camera = play("""
        0     start           -> opening spawn report
        0.1   opened 0.5      -> opening
        1     frame           -> live report
        10.9  tick            -> live
        11    tick            -> stalled kill report
        """)
    assert camera.reason == "no frame for 10.0 s"


def test_a_camera_of_unknown_rate_is_shown_what_to_set() -> None:
    camera = play("""
        0     start           -> opening spawn report
        1     frame           -> live report
        3     tick            -> stalled kill report
        """)
    assert camera.reason == "no frame for 2.0 s; if this camera is slower than that, set its fps"


def test_a_configured_slow_rate_lengthens_the_opening() -> None:
    play("""
        0     start 0.1       -> opening spawn report
        49    tick            -> opening
        50    tick            -> backingoff kill report
        """)


def test_packets_without_a_keyframe_are_waited_for_up_to_a_minute_and_reported() -> None:
    camera = play("""
        0     start           -> opening spawn report
        2     waiting no keyframe yet -> opening report
        9     waiting no keyframe yet -> opening
        18    waiting no keyframe yet -> opening
        27    waiting no keyframe yet -> opening
        36    waiting no keyframe yet -> opening
        45    waiting no keyframe yet -> opening
        54    waiting no keyframe yet -> opening
        59.9  tick            -> opening
        60    tick            -> backingoff kill report
        """)
    assert camera.reason == "no keyframe yet (60 s)"


def test_a_keyframe_that_comes_late_makes_it_live() -> None:
    camera = play("""
        0     start           -> opening spawn report
        8     waiting no keyframe yet -> opening report
        17    tick            -> opening
        17.5  opened 15       -> opening
        17.6  frame           -> live report
        """)
    assert camera.reason == ""


def test_a_camera_that_was_live_is_tried_again_every_four_seconds_however_long_it_is_away() -> None:
    camera, _ = life.start("gate", 0)
    camera, _ = life.step(camera, life.FrameSeen(), S)
    now_ns, waits = 2 * S, []
    for _ in range(12):
        camera, _ = life.step(camera, life.ChildFailed("Connection refused"), now_ns)
        wake_ns = camera.wake_ns()
        assert wake_ns is not None
        waits.append(wake_ns - now_ns)
        now_ns = wake_ns
        camera, _ = life.step(camera, life.Tick(), now_ns)
    assert waits[0] <= S // 2 and 3 * S <= max(waits) <= 4 * S


def test_only_damaged_pictures_are_a_stall_with_the_child_kept() -> None:
    camera = play("""
        0     start           -> opening spawn report
        0.2   opened 15       -> opening
        1     frame           -> live report
        2     corrupt         -> live
        3     corrupt         -> stalled report
        4     corrupt         -> stalled
        5     frame           -> live report
        7     corrupt         -> stalled report
        26    corrupt         -> stalled
        27    tick            -> opening kill spawn report
        """)
    assert camera.reconnects == 1


def test_frames_above_the_rate_are_a_sign_of_life() -> None:
    play("""
        0     start           -> opening spawn report
        1     frame           -> live report
        2.9   alive           -> live
        4.8   alive           -> live
        6.7   tick            -> live
        6.8   tick            -> stalled kill report
        """)


def test_a_frozen_picture_is_stalled_with_the_child_kept_and_comes_back() -> None:
    camera = play("""
        0     start           -> opening spawn report
        1     frame           -> live report
        1.1   frozen          -> live
        2     frozen          -> live
        3     frozen          -> live
        3.1   frozen          -> stalled report
        4     frozen          -> stalled
        5     frame           -> live report
        5.1   frozen          -> live
        """)
    assert camera.reconnects == 0


def test_a_new_picture_in_between_starts_the_two_seconds_anew() -> None:
    play("""
        0     start           -> opening spawn report
        1     frame           -> live report
        1.1   frozen          -> live
        2.9   frame           -> live
        3.0   frozen          -> live
        4.9   frozen          -> live
        5.0   frozen          -> stalled report
        """)


def test_a_picture_that_stays_frozen_is_reopened_after_a_minute() -> None:
    script = [
        "0 start -> opening spawn report",
        "1 frame -> live report",
        "1 frozen -> live",
        "3 frozen -> stalled report",
    ]
    script += [f"{t} frozen -> stalled" for t in range(4, 63)]
    script += ["62.9 tick -> stalled", "63 tick -> opening kill spawn report"]
    camera = play("\n".join(script))
    assert camera.reconnects == 1


def test_a_frozen_camera_that_falls_silent_is_killed() -> None:
    camera = play("""
        0     start           -> opening spawn report
        1     frame           -> live report
        1     frozen          -> live
        3     frozen          -> stalled report
        5     tick            -> stalled kill report
        5.4   frame           -> stalled
        5.6   tick            -> opening spawn report
        """)
    assert camera.reconnects == 1


def test_failures_back_off_twice_as_long_each_time_up_to_the_cap() -> None:
    camera, _ = life.start("gate", 0)
    now, waits = 0, []
    for _ in range(12):
        camera, actions = life.step(camera, life.ChildFailed("connection refused"), now)
        assert actions == (Action.KILL, Action.REPORT)
        until = camera.wake_ns()
        assert until is not None
        waits.append((until - now) / S)
        now = until
        camera, actions = life.step(camera, life.Tick(), now)
        assert actions == (Action.SPAWN, Action.REPORT)
    for n, wait in enumerate(waits):
        full = min(30, 0.5 * 2**n)
        assert 0.75 * full <= wait <= full
    assert camera.reconnects == 12


def test_cameras_that_fail_together_do_not_come_back_together() -> None:
    waits = {life.backoff_ns(f"cam{i}", 6) for i in range(16)}
    assert len(waits) > 12
    assert life.backoff_ns("cam1", 6) == life.backoff_ns("cam1", 6)


@pytest.mark.parametrize(("live_s", "failures"), [(4.9, 4), (5.1, 1)])
def test_the_backoff_starts_anew_only_after_five_live_seconds(live_s: float, failures: int) -> None:
    camera = play(f"""
        0     start           -> opening spawn report
        0     failed x        -> backingoff kill report
        1     tick            -> opening spawn report
        1     failed x        -> backingoff kill report
        3     tick            -> opening spawn report
        3     failed x        -> backingoff kill report
        6     tick            -> opening spawn report
        7     frames {7 + live_s} -> live report
        {7 + live_s} gone     -> backingoff kill report
        """)
    assert camera.failures == failures


def test_opening_has_a_deadline_and_a_slow_camera_a_longer_one() -> None:
    play("""
        0     start           -> opening spawn report
        9.9   tick            -> opening
        10    tick            -> backingoff kill report
        """)
    play("""
        0     start           -> opening spawn report
        1     opened 0.2      -> opening
        25.9  tick            -> opening
        26    tick            -> backingoff kill report
        """)


def test_what_no_retry_repairs_is_refused_for_good() -> None:
    camera = play("""
        0     start           -> opening spawn report
        0.1   refused no GStreamer -> refused kill report
        1000  tick            -> refused
        """)
    assert (camera.reason, camera.wake_ns()) == ("no GStreamer", None)


EVENTS = st.one_of(
    st.builds(life.Opened, st.integers(-1, 10**13)),
    st.builds(life.ChildFailed, st.just("x")),
    st.sampled_from([life.FrameSeen(), life.FrozenSeen(), life.Alive(), life.ChildGone(), life.Tick()]),
)
STEPS = st.lists(st.tuples(EVENTS, st.integers(0, 3 * S)), max_size=120)


@given(STEPS)
def test_never_two_children_never_none_for_ever_and_no_wait_without_end(steps: list[tuple[life.Event, int]]) -> None:
    camera, actions = life.start("gate", 0)
    now, children = 0, actions.count(Action.SPAWN)
    for event, wait_ns in steps:
        now += wait_ns
        camera, actions = life.step(camera, event, now)
        for action in actions:
            if action is Action.SPAWN:
                assert children == 0
                children = 1
            elif action is Action.KILL:
                assert children == 1
                children = 0
        assert camera.has_child == (children == 1)
        wake_ns = camera.wake_ns()
        assert wake_ns is not None
        assert wake_ns - now <= (5 * 60 + 10) * S  # five periods of the slowest camera
    for _ in range(3):  # left alone, it opens again
        wake_ns = camera.wake_ns()
        assert wake_ns is not None
        now = max(now, wake_ns)
        camera, actions = life.step(camera, life.Tick(), now)
        if Action.SPAWN in actions:
            return
    raise AssertionError(f"never opened again: {camera}")


@given(STEPS)
def test_a_report_is_made_when_and_only_when_the_kind_of_state_changes(steps: list[tuple[life.Event, int]]) -> None:
    camera, _ = life.start("gate", 0)
    now = 0
    for event, wait_ns in steps:
        now += wait_ns
        before = type(camera.state)
        camera, actions = life.step(camera, event, now)
        changed = type(camera.state) is not before
        # a frozen picture that falls silent, or is reopened, changes its reason within Stalled
        assert (Action.REPORT in actions) == changed or (before is life.Stalled and Action.REPORT in actions)
