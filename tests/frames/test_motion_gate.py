"""What the gate lets through: motion, what was triggered, and a frame now and then."""

from __future__ import annotations

import numpy as np
import pytest

from edged.frames.motion import MotionDetector
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


def test_it_looks_less_often_while_nothing_differs_and_while_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    looks_s = []
    look = MotionDetector.look

    def counted(detector: MotionDetector, luma: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], at_s: float) -> bool:
        looks_s.append(at_s)
        return look(detector, luma, at_s)

    monkeypatch.setattr(MotionDetector, "look", counted)
    gate = settled()
    still_looks = len([s for s in looks_s if 1 <= s < 3])
    assert still_looks == 15  # of 30 frames: 0.1 s is less than two of them
    first = next(n for n in range(9) if gate.judge(moving(n), 3 + n / 15) is Verdict.MOTION)
    assert first <= 4, "once something differs each frame is looked at"
    looks_s.clear()
    assert all(gate.judge(moving(n), 3 + n / 15) is Verdict.MOTION for n in range(first + 1, 40))
    assert len(looks_s) == pytest.approx(39 / 3, abs=2)
