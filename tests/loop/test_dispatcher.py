"""Which frames run next and on what: the schedule's order, the governor's choice, and why frames are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from edged.clock import NS_PER_S
from edged.frames.frame import DropCause, Frame, PixelFormat
from edged.frames.schedule import Scheduler
from edged.governor.governor import Governor
from edged.governor.messages import Budget, Cause, Choice, Variant, Waiting
from edged.loop.dispatcher import Dispatcher

MS = 1_000_000
WEIGHTS = {"light": 0.5, "middle": 1.0, "heavy": 1.5}
Answer = Callable[[Waiting], Choice]


def frame(camera: str, number: int = 1) -> Frame:
    return Frame(camera, number, 0, 2, 64, 32, PixelFormat.BGR24, 0, 0, "arrival")


def take(variant: str | None, frames: int = 0, cause: Cause = "none") -> Choice:
    return Choice(variant, frames, cause, 0.0, 0.0)


class ScriptedGovernor:
    """Answers as it is told; `test_it_asks_what_a_governor_has` holds it against the real one."""

    def __init__(self, answer: Answer, max_batch: int = 4, min_fps: float = 0.0) -> None:
        self.answer = answer
        self.energy_limited = True
        self.max_batch = max_batch
        self.state = SimpleNamespace(budget=Budget(100.0, 0.99, 0.0, min_fps=min_fps))
        self.asked: list[Waiting] = []

    def schedule_ms(self) -> tuple[float, ...]:
        return (5.0, 5.5, 6.0, 6.5)

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        return (10.0, 20.0) if variant == "fine" else (5.0, 10.0)

    def least_ms(self) -> float:
        return 3.0

    def variant_for(self, camera: str) -> str:
        return "fine"

    def choose(self, waiting: Waiting, now_ns: int) -> Choice:
        if len(set(waiting.cameras)) == len(waiting.cameras) > 1:
            assert list(waiting.weights) == [WEIGHTS[name] for name in waiting.cameras]
        self.asked.append(waiting)
        return self.answer(waiting)


class Desk:
    def __init__(self, answer: Answer, max_batch: int = 4, min_fps: float = 0.0) -> None:
        self.governor = ScriptedGovernor(answer, max_batch, min_fps)
        governor: Any = self.governor
        self.schedule = Scheduler()
        self.dropped: list[tuple[str, DropCause]] = []
        self.dispatcher = Dispatcher(
            self.schedule, governor, 4, lambda gone, cause: self.dropped.append((gone.camera, cause))
        )
        self.dispatcher.weights = WEIGHTS
        self.offer()

    def offer(self, at_ns: int = 0) -> None:
        for name in WEIGHTS:
            self.schedule.offer(frame(name), at_ns + 100 * MS, WEIGHTS[name])

    def next(self, at_ns: int = 0, probing: bool = False) -> tuple[list[str], str] | None:
        chosen = self.dispatcher.next(at_ns, at_ns, probing)
        return None if chosen is None else (names(chosen[0]), chosen[1])


def names(frames: Sequence[Frame]) -> list[str]:
    return [frame.camera for frame in frames]


def test_it_asks_what_a_governor_has() -> None:
    real, scripted = Governor([Variant("fine", 0.9, (5.0,))], Budget(100.0, 0.99, 0.0), 0), ScriptedGovernor(take)  # type: ignore[arg-type]
    for name in (n for n in vars(ScriptedGovernor) if not n.startswith("_")):
        assert callable(getattr(real, name)) and type(getattr(real, name)) is type(getattr(scripted, name))
    assert isinstance(real.energy_limited, bool) and isinstance(real.max_batch, int)


def test_the_heaviest_come_first_and_the_rest_waits() -> None:
    desk = Desk(lambda waiting: take("fast", 2))
    assert desk.next() == (["heavy", "middle"], "fast")
    assert len(desk.schedule) == 1 and desk.dropped == []
    desk.governor.answer = lambda waiting: take("fine", 1)
    assert desk.next() == (["light"], "fine")


def test_what_the_budget_does_not_reach_is_dropped_with_its_cause() -> None:
    desk = Desk(lambda waiting: take(None, cause="budget"))
    assert desk.next() is None
    assert sorted(desk.dropped) == sorted((name, "budget") for name in WEIGHTS) and not len(desk.schedule)


def test_where_energy_is_free_the_cause_is_the_governors_and_a_probe_runs_all_the_same() -> None:
    desk = Desk(lambda waiting: take(None, cause="overload"))
    desk.governor.energy_limited = False
    chosen = desk.next(probing=True)
    assert chosen is not None and len(chosen[0]) == 1 and chosen[1] == "fine" and len(desk.schedule) == 2
    assert desk.next() is None
    assert {cause for _, cause in desk.dropped} == {"overload"} and not len(desk.schedule)


def test_a_probe_does_not_spend_what_a_budget_keeps() -> None:
    desk = Desk(lambda waiting: take(None, cause="budget"))
    assert desk.next(probing=True) is None and {cause for _, cause in desk.dropped} == {"budget"}


def test_a_frame_handed_back_is_late_in_its_time() -> None:
    desk = Desk(lambda waiting: take("fast", 1))
    desk.next()
    assert desk.next(98 * MS) is None
    assert {cause for _, cause in desk.dropped} == {"late"} and len(desk.dropped) == 2 and not len(desk.schedule)


def test_a_frame_for_which_the_prediction_leaves_no_time_is_asked_for_all_the_same() -> None:
    desk = Desk(lambda waiting: take("fast", 1))
    assert desk.next(96 * MS) == (["heavy"], "fast")
    assert [waiting.cameras for waiting in desk.governor.asked] == [("heavy",)] and desk.dropped == []


def test_a_camera_without_a_result_for_too_long_is_owed_one_whatever_the_budget() -> None:
    def answer(waiting: Waiting) -> Choice:
        return take("fast", 1) if waiting.required else take(None, cause="budget")

    desk = Desk(answer, min_fps=0.5)
    assert desk.next() is None, "nothing is owed in the first two seconds"
    desk.offer(2 * NS_PER_S)
    assert desk.next(2 * NS_PER_S) is None
    desk.offer(3 * NS_PER_S)
    served = [desk.next(3 * NS_PER_S) for _ in WEIGHTS]
    assert sorted(chosen[0][0] for chosen in served if chosen) == sorted(WEIGHTS)
    desk.offer(4 * NS_PER_S)
    assert desk.next(4 * NS_PER_S) is None, "each had one a second ago"


def test_the_variant_that_ran_last_and_the_clock_are_named() -> None:
    desk = Desk(lambda waiting: take("fast", 1))
    desk.dispatcher.next(0, 0, False, 2)
    desk.dispatcher.next(0, 0, False, 1)
    assert [(w.last, w.clock) for w in desk.governor.asked] == [(None, 2), ("fast", 1)]


class TiledDesk(Desk):
    """The camera "heavy" alone, its frames looked at in 2x2 tiles."""

    def offer(self, at_ns: int = 0) -> None:
        self.dispatcher.grids = {"heavy": (2, 2)}
        self.schedule.offer(frame("heavy"), at_ns + 100 * MS, WEIGHTS["heavy"])


def test_tiles_are_frames_to_the_governor() -> None:
    desk = TiledDesk(lambda waiting: take("fine", 4))
    chosen = desk.dispatcher.next(0, 0, False)
    assert chosen is not None and chosen.grid == (2, 2) and names(chosen.frames) == ["heavy"]
    (asked,) = desk.governor.asked
    assert (asked.frames, asked.cameras) == (4, ("heavy",) * 4)
    assert asked.weights == (1.5, 0.75, 0.75, 0.75), "each adds detail to a frame: half as much as one"


def test_tiles_one_after_another_run_if_the_last_would() -> None:
    """On a CPU a batch gains nothing: the governor's answer is one frame at a time."""
    desk = TiledDesk(lambda waiting: take("fine" if waiting.frames > 1 else "fast", 1))
    chosen = desk.dispatcher.next(0, 0, False)
    assert chosen is not None and (chosen.variant, chosen.grid) == ("fast", (2, 2)), "what the last one needs"
    last = desk.governor.asked[1]
    assert (last.frames, last.weights) == (1, (0.75,))
    assert last.age_ms == 30.0, "when the three before it are done"


def test_without_time_for_the_last_tile_the_whole_frame_is_taken() -> None:
    desk = TiledDesk(lambda waiting: take("fine", 1) if waiting.age_ms < 20 else take(None, cause="late"))
    chosen = desk.dispatcher.next(0, 0, False)
    assert chosen is not None and (chosen.variant, chosen.grid) == ("fine", None)
    assert [waiting.frames for waiting in desk.governor.asked] == [4, 1, 1]
    assert desk.dropped == []


def test_without_energy_for_tiles_the_whole_frame_is_asked_for() -> None:
    desk = TiledDesk(lambda waiting: take(None, cause="budget") if waiting.frames > 1 else take("fast", 1))
    chosen = desk.dispatcher.next(0, 0, False)
    assert chosen is not None and (chosen.variant, chosen.grid) == ("fast", None)


def test_frames_of_other_cameras_are_not_kept_waiting_by_tiles() -> None:
    desk = TiledDesk(lambda waiting: take("fast", waiting.frames) if waiting.age_ms < 20 else take(None, cause="late"))
    desk.schedule.offer(frame("light"), 300 * MS, WEIGHTS["light"])
    desk.schedule.offer(frame("middle"), 300 * MS, WEIGHTS["middle"])
    chosen = desk.dispatcher.next(0, 0, False)
    assert chosen is not None and chosen.grid is None and "heavy" in names(chosen.frames)
    assert desk.governor.asked[1].age_ms == 25.0, "two other frames and three tiles come first"
