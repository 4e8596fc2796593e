from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.engines import residency
from edged.engines.residency import Action, LetGo, Load, Member, Need, Room, State, decide, ranked

NEEDS = [
    Need("fp32", may=True, fits=False, share=0.0, accuracy=0.9, latency_ms=40.0),
    Need("fp16", may=True, fits=True, share=0.7, accuracy=0.88, latency_ms=20.0),
    Need("int8", may=True, fits=True, share=0.3, accuracy=0.8, latency_ms=10.0),
    Need("tiny", may=True, fits=True, share=0.0, accuracy=0.6, latency_ms=5.0),
]


def test_the_most_accurate_that_fits_is_needed_most_then_what_ran_then_the_quickest() -> None:
    assert ranked(NEEDS, None, "fp32") == ["fp16", "int8", "tiny", "fp32"]
    assert ranked(NEEDS, "fp32", "fp32")[0] == "fp32"
    barred = [replace(need, may=need.name == "int8") for need in NEEDS]
    assert ranked(barred, None, "fp32")[0] == "int8"
    unknown = [replace(need, fits=False, share=0.0, latency_ms=None) for need in NEEDS]
    assert ranked(unknown, None, "fp32") == ["fp32", "fp16", "int8", "tiny"]


@dataclass
class Machine:
    """Memory as the decisions change it: a load takes a second, what is let go is free at once."""

    members: list[Member]
    room: Room = field(default_factory=Room)
    state: State = field(default_factory=State)
    now_s: float = 100.0
    loading: str | None = None
    other_mb: float = 100.0
    free_mb: float = 1e6

    def step(self, seconds: float = 0.5) -> Action | None:
        self.now_s += seconds
        held_mb = self.other_mb + sum(m.takes_mb for m in self.members if m.resident)
        room = replace(self.room, held_mb=held_mb, available_mb=self.free_mb - held_mb)
        self.state, action = decide(self.state, self.members, room, False, int(self.now_s * NS_PER_S))
        if action is not None:
            self.members = [
                replace(m, resident=isinstance(action, Load), load_s=m.load_s or 1.0) if m.name == action.name else m
                for m in self.members
            ]
        return action

    def run(self, seconds: float) -> list[Action]:
        return [action for _ in range(int(2 * seconds)) if (action := self.step()) is not None]

    @property
    def resident(self) -> list[str]:
        return [m.name for m in self.members if m.resident]


def machine(*resident: str, **fields: float) -> Machine:
    sizes = {"a": 50.0, "b": 100.0, "c": 200.0}
    return Machine([Member(name, name in resident, mb, mb) for name, mb in sizes.items()], **fields)  # type: ignore[arg-type]


def test_all_are_loaded_one_by_one_where_there_is_room() -> None:
    some = machine("a")
    assert some.run(5) == [Load("b"), Load("c")]


def test_no_more_is_loaded_than_the_limit_allows_the_copies_of_a_load_included() -> None:
    some = machine("a")
    some.room = Room(limit_mb=100 + 50 + 100 + 2 * 100)
    assert some.run(60) == [Load("b")]
    less = machine("a")
    less.room = Room(limit_mb=100 + 50 + 100 + 2 * 100 - 1)
    assert less.run(60) == []


def test_a_limit_that_is_lowered_lets_the_least_needed_go_and_never_the_last() -> None:
    some = machine("a", "b", "c")
    some.room = Room(limit_mb=260)
    first = some.step()
    assert isinstance(first, LetGo) and first.name == "c" and "memory_mb is 260" in first.why
    assert some.run(60) == []
    some.room = Room(limit_mb=10)
    assert [action.name for action in some.run(60)] == ["b"] and some.resident == ["a"]


def test_a_variant_that_alone_exceeds_the_limit_goes_before_a_smaller_one_that_does_not() -> None:
    some = machine("a", "b", "c")
    some.members = some.members[::-1]  # the largest is needed most
    some.room = Room(limit_mb=210)
    assert [action.name for action in some.run(60)] == ["c", "a"] and some.resident == ["b"]


def test_one_that_alone_exceeds_the_limit_gives_way_to_the_most_needed_that_does_not() -> None:
    some = machine("c")
    some.members = some.members[::-1]
    some.room = Room(limit_mb=210)
    assert some.run(60) == [Load("b"), LetGo("c", "400 MB are in use, memory_mb is 210")]
    assert some.run(600) == [] and some.resident == ["b"]
    some.room = Room(limit_mb=2000)
    assert some.run(60)[0] == Load("c")


@pytest.mark.parametrize("kept", ["pinned", "vetoed", "no memory", "none fits"])
def test_the_last_one_stays_where_no_other_may_or_can_take_its_place(kept: str) -> None:
    some = machine("c", free_mb=400.0 if kept == "no memory" else 1e6)
    some.room = Room(limit_mb=110 if kept == "none fits" else 210, total_mb=100.0)
    some.members = [replace(m, may=kept != "vetoed" or m.resident) for m in some.members]
    some.members = [replace(m, pinned=kept == "pinned" and m.resident) for m in some.members]
    assert some.run(60) == []


def test_when_memory_runs_short_one_after_another_goes_and_what_fits_comes_back_after_a_calm_time() -> None:
    some = machine("a", "b", "c", free_mb=400.0)
    some.room = Room(total_mb=2000.0)
    assert some.room.reserve_mb == 100
    went = some.run(3)
    assert [action.name for action in went] == ["c"]
    assert isinstance(went[0], LetGo) and went[0].why == "0 MB of memory are left, 100 MB are kept free"
    some.free_mb = 2000.0
    assert some.run(residency.CALM_S - 4) == []
    assert some.run(10) == [Load("c")]


def test_shortages_that_follow_soon_make_the_calm_time_longer() -> None:
    some = machine("a", "b", "c", free_mb=2000.0)
    some.room = Room(total_mb=2000.0)
    calm = []
    for _ in range(4):
        some.free_mb = 500.0
        while some.step() is None:
            continue
        some.free_mb, begun_s = 2000.0, some.now_s
        while some.step() is None:
            continue
        calm.append(some.now_s - begun_s)
    assert calm == sorted(calm) and calm[-1] > 3 * calm[0]


def test_a_system_that_waits_for_memory_is_short_of_it_and_is_given_time_to_recover() -> None:
    some = machine("a", "b", "c")
    some.room = Room(stalled_percent=30.0)
    actions = some.run(4)
    assert [action.name for action in actions] == ["c"] and "waited for memory in 30 %" in str(actions)
    assert [action.name for action in some.run(5)] == ["b"]


def test_a_variant_that_is_needed_more_takes_the_place_of_another_once_its_load_is_paid() -> None:
    some = machine("b", "c")
    some.room = Room(limit_mb=420)
    some.members = [replace(some.members[0], file_mb=20.0, load_s=2.0), *some.members[1:]]
    begun_s = some.now_s
    while (action := some.step()) is None:
        continue
    assert isinstance(action, LetGo) and action.name == "c" and action.why == "a is needed more"
    assert some.now_s - begun_s >= residency.PAYBACK * 2.0
    assert some.step() == Load("a") and some.run(30) == []


@pytest.mark.parametrize("pinned", [False, True])
def test_a_large_variant_takes_the_place_of_two_small_ones(pinned: bool) -> None:
    small = [Member(f"small-{index}", True, 100.0, 100.0) for index in range(3)]
    machine = Machine([Member("large", False, 134.0, pinned=pinned), *small], Room(limit_mb=650.0))
    assert [action.name for action in machine.run(120)] == ["small-2", "small-1", "large", "small-1"]
    assert machine.resident == ["large", "small-0", "small-1"]


def test_a_pinned_variant_waits_for_nothing() -> None:
    some = machine("b", "c")
    some.members = [replace(some.members[0], pinned=True), *some.members[1:]]
    some.room = Room(limit_mb=420)
    assert [type(action) for action in some.run(3)] == [LetGo, Load] and some.resident == ["a", "b"]


@given(st.lists(st.tuples(st.floats(0, 4000), st.floats(0, 100), st.permutations("abc")), max_size=60))
def test_one_variant_always_stays_and_a_load_never_passes_limit_or_reserve(
    script: list[tuple[float, float, list[str]]],
) -> None:
    some = machine("a")
    some.room = Room(limit_mb=600.0, total_mb=4000.0)
    for free_mb, stalled, order in script:
        some.free_mb, some.room = free_mb, replace(some.room, stalled_percent=stalled)
        some.members = sorted(some.members, key=lambda m: order.index(m.name))
        held_mb = some.other_mb + sum(m.takes_mb for m in some.members if m.resident)
        action = some.step()
        assert some.resident
        if isinstance(action, Load):
            peak_mb = held_mb + next(m.peak_mb for m in some.members if m.name == action.name)
            assert peak_mb <= 600 and peak_mb + some.room.reserve_mb <= free_mb and stalled <= 10


@pytest.mark.parametrize(("total_mb", "reserve_mb"), [(None, 256), (400, 32), (2000, 100), (16000, 256)])
def test_the_reserve_follows_the_machine(total_mb: float | None, reserve_mb: float) -> None:
    assert Room(total_mb=total_mb).reserve_mb == reserve_mb
