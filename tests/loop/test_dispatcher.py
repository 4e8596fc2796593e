"""Which frames run next and on what: the schedule's order, the governor's choice, and what is given up for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edged.frames.frame import DropCause, Frame, PixelFormat
from edged.frames.schedule import Scheduler
from edged.governor.messages import Choice, Decision
from edged.loop.dispatcher import Dispatcher

MS = 1_000_000
Answer = Callable[[list[str]], Choice]


def frame(camera: str, number: int = 1) -> Frame:
    return Frame(camera, number, 0, 2, 64, 32, PixelFormat.BGR24, 0, 0, "arrival")


def take(variant: str | None, frames: int, batch: int) -> Choice:
    return Choice(variant, frames, batch, None, 0.0, 0.0)


class Steering:
    """In the place of the governor's shell: answers as it is told."""

    def __init__(self, answer: Answer, max_batch: int = 4) -> None:
        self.answer = answer
        self.rationed = True
        self.decision = Decision("fine", max_batch, "none", "", (), False)
        self.asked: list[list[str]] = []

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        return (10.0, 11.0, 12.0, 13.0)

    quickest_ms = lambda self: (5.0, 5.5, 6.0, 6.5)  # noqa: E731
    least_ms = lambda self: 3.0  # noqa: E731

    def variant_for(self, camera: str) -> str:
        return self.decision.variant

    def choose(self, frames: Sequence[Frame], weights: Sequence[float], start_ns: int, now_ns: int) -> Choice:
        names = [frame.camera for frame in frames]
        assert list(weights) == [WEIGHTS[name] for name in names]
        self.asked.append(names)
        return self.answer(names)


WEIGHTS = {"light": 0.5, "middle": 1.0, "heavy": 1.5}


def made(answer: Answer, max_batch: int = 4) -> tuple[Dispatcher, Steering, Scheduler, list[tuple[str, DropCause]]]:
    steering, schedule, dropped = Steering(answer, max_batch), Scheduler(), []
    chooser = Dispatcher(schedule, steering, 4, lambda gone, cause: dropped.append((gone.camera, cause)))  # type: ignore[arg-type]
    chooser.weights = WEIGHTS
    for name in WEIGHTS:
        schedule.offer(frame(name), 100 * MS, WEIGHTS[name])
    return chooser, steering, schedule, dropped


def names(chosen: tuple[Sequence[Frame], str] | None) -> tuple[list[str], str]:
    assert chosen is not None
    return [frame.camera for frame in chosen[0]], chosen[1]


def test_the_heaviest_come_first_and_the_rest_waits() -> None:
    chooser, steering, schedule, dropped = made(lambda asked: take("fast", 2, 2))
    assert names(chooser.next(0, 0, False)) == (["heavy", "middle"], "fast")
    assert len(schedule) == 1 and dropped == []
    steering.answer = lambda asked: take("fine", 1, 1)
    assert names(chooser.next(0, 0, False)) == (["light"], "fine")


def test_one_after_the_other_is_asked_one_by_one() -> None:
    chooser, steering, _, _ = made(lambda asked: take("fast", len(asked), 1))
    for left in (3, 2, 1):
        taken, _variant = names(chooser.next(0, 0, False))
        assert len(taken) == 1 and len(steering.asked[-1]) == left
    assert chooser.next(0, 0, False) is None


def test_what_the_budget_does_not_reach_is_dropped_with_its_cause() -> None:
    chooser, _, schedule, dropped = made(lambda asked: take(None, 0, 0))
    assert chooser.next(0, 0, False) is None
    assert sorted(dropped) == sorted((name, "budget") for name in WEIGHTS) and not len(schedule)


def test_where_joules_cost_nothing_a_frame_is_given_up_only_as_late_and_a_probe_runs_all_the_same() -> None:
    chooser, steering, schedule, dropped = made(lambda asked: take(None, 0, 0))
    steering.rationed = False
    taken, variant = names(chooser.next(0, 0, True))
    assert len(taken) == 1 and variant == "fine" and len(schedule) == 2 and dropped == []
    assert chooser.next(0, 0, False) is None
    assert sorted(dropped) == sorted((name, "late") for name in WEIGHTS if name not in taken) and not len(schedule)


def test_a_probe_does_not_spend_what_a_budget_keeps() -> None:
    chooser, _, _, dropped = made(lambda asked: take(None, 0, 0))
    assert chooser.next(0, 0, True) is None and {cause for _, cause in dropped} == {"budget"}


def test_a_frame_handed_back_is_late_in_its_time() -> None:
    chooser, _, schedule, dropped = made(lambda asked: take("fast", 1, 1))
    names(chooser.next(0, 0, False))
    assert chooser.next(98 * MS, 98 * MS, False) is None
    assert {cause for _, cause in dropped} == {"late"} and len(dropped) == 2 and not len(schedule)


def test_a_frame_for_which_the_prediction_leaves_no_time_is_asked_for_all_the_same() -> None:
    chooser, steering, _, dropped = made(lambda asked: take("fast", 1, 1))
    assert names(chooser.next(96 * MS, 96 * MS, False)) == (["heavy"], "fast")
    assert steering.asked == [["heavy"]] and dropped == []
