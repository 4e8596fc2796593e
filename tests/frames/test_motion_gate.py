"""What the gate lets through: motion, what was triggered, and a frame now and then."""

from __future__ import annotations

import numpy as np

from edged.frames.motion_gate import HOLD_S, TRIGGER_S, MotionGate, Verdict
from edged.regions import CameraMotion

STILL = np.full((360, 640), 90, np.uint8)


def moving(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = STILL.copy()
    picture[100:180, 50 + 10 * n : 130 + 10 * n] = 200
    return picture


def settled(keep_alive_s: float = 2.0) -> MotionGate:
    gate = MotionGate(CameraMotion(keep_alive_s=keep_alive_s))
    gate.enabled = True
    for n in range(45):
        gate.judge(STILL, n / 15)
    return gate


def test_a_gate_that_is_off_lets_all_through() -> None:
    gate = MotionGate(CameraMotion())
    assert {gate.judge(STILL, n / 15) for n in range(60)} == {Verdict.MOTION}


def test_one_still_frame_in_keep_alive_s_goes_through_and_is_marked() -> None:
    gate = settled()
    verdicts = [gate.judge(STILL, 3 + n / 15) for n in range(150)]
    assert Verdict.MOTION not in verdicts
    assert verdicts.count(Verdict.KEEP_ALIVE) == 5  # in ten seconds


def test_motion_opens_it_and_holds_it_open_a_little() -> None:
    gate = settled()
    assert any(gate.judge(moving(n), 3 + n / 15) is Verdict.MOTION for n in range(8))
    last_s = 3 + 7 / 15
    assert gate.judge(moving(7), last_s + HOLD_S / 2) is Verdict.MOTION


def test_a_trigger_opens_it_for_some_seconds() -> None:
    gate = settled(keep_alive_s=1000)
    gate.trigger(3.0)
    assert gate.judge(STILL, 3.1) is Verdict.MOTION
    assert gate.judge(STILL, 3.0 + TRIGGER_S - 0.1) is Verdict.MOTION
    assert gate.judge(STILL, 3.0 + TRIGGER_S + 0.1) is Verdict.STILL
