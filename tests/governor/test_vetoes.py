from __future__ import annotations

from dataclasses import replace
from time import perf_counter_ns

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.governor import governor
from edged.governor.messages import (
    Budget,
    Choice,
    Compared,
    Device,
    Observation,
    Pinned,
    Sensed,
    ShadowDone,
    Tick,
    Unvetoed,
    Variant,
    VariantLost,
    Vetoed,
    Waiting,
    Workload,
)
from edged.governor.standing import State
from edged.replay.codec import codec

FP16 = Variant("fp16", 0.78, (10.0, 19.0, 28.0, 37.0), (1.0,), (8.0,))
MIXED = Variant("mixed", 0.775, (7.0, 13.0, 19.0, 25.0), (1.0,), (6.0,))
INT8 = Variant("int8", 0.77, (4.0, 7.0, 10.0, 13.0), (1.0,), (4.0,))
VARIANTS = (FP16, MIXED, INT8)
BUDGET = Budget(deadline_ms=200.0, deadline_quantile=0.99, min_accuracy=0.0, power_w=4.8)
DEVICE = Device(idle_w=(3.0,))


def started(cameras: int = 3, budget: Budget = BUDGET, fps: float = 20.0) -> State:
    """A device where watts are scarce, so that the cheap variant runs."""
    state, _ = governor.start(VARIANTS, budget, 0, DEVICE)
    return told(state, Workload(cameras, cameras * fps, 0), Sensed(power_w=3.5), Tick())


def told(state: State, *observations: Observation, at_s: float = 1.0) -> State:
    for observation in observations:
        state, _ = governor.step(state, observation, int(at_s * NS_PER_S))
    return state


def asked(state: State, *cameras: str, last: str | None = None) -> Choice:
    waiting = Waiting(len(cameras), 5.0, 50.0, cameras=cameras, last=last)
    return governor.choose(state, waiting, 2 * NS_PER_S)


def test_a_veto_of_one_camera_leaves_the_others_and_the_decision_alone() -> None:
    state = started()
    before, usual = state.decision, asked(state, "yard").variant
    assert usual == "int8"
    state = told(state, Vetoed("int8", "it sees nothing", "gate"))
    assert state.decision is before
    assert asked(state, "yard").variant == "int8"
    assert asked(state, "gate").variant in ("fp16", "mixed")


def test_a_choice_for_several_frames_takes_none_that_its_variant_may_not_run() -> None:
    state = told(started(), Vetoed("int8", "blind", "gate"))
    for cameras in (("gate", "yard", "dock"), ("yard", "gate", "dock"), ("yard", "dock", "gate")):
        choice = asked(state, *cameras)
        assert choice.variant is not None
        assert choice.variant != "int8" or "gate" not in cameras[: choice.frames]


def test_the_end_of_a_veto_ends_that_veto_alone() -> None:
    state = told(
        started(), Vetoed("int8", "blind", "gate"), Vetoed("int8", "blind", "yard"), Vetoed("mixed", "x", "gate")
    )
    assert asked(state, "gate").variant == "fp16"
    state = told(state, Unvetoed("int8", "it sees", "gate"))
    assert asked(state, "gate").variant == "int8"
    assert asked(state, "yard").variant in ("fp16", "mixed")
    assert told(state, Unvetoed("int8", "again", "gate")) is state
    assert told(state, Vetoed("nobody", "blind", "gate")) is state


def test_a_barred_variant_that_ran_last_holds_nobody_to_it() -> None:
    """Changes are rationed; but to stay with a vetoed variant is no choice."""
    state = told(started(), Vetoed("int8", "blind", "gate"))
    poor = replace(
        state, economy=replace(state.economy, switching=replace(state.economy.switching, left=0.0, at_s=2.0))
    )
    assert asked(poor, "gate", last="int8").variant in ("fp16", "mixed")


def test_before_watts_are_known_the_standing_variant_gives_way_on_that_camera() -> None:
    state, _ = governor.start(VARIANTS, replace(BUDGET, deadline_ms=7.0, power_w=None), 0)
    state = told(state, Workload(1, 10.0, 0))
    assert state.decision.variant == "int8"
    state = told(state, Vetoed("int8", "blind", "gate"))
    assert governor.variant_for(state, "yard") == "int8"
    assert governor.variant_for(state, "gate") == "fp16"
    assert governor.variant_for(told(state, Unvetoed("int8", "it sees", "gate")), "gate") == "int8"


def test_a_pinned_variant_that_is_vetoed_on_a_camera_stays_pinned_elsewhere() -> None:
    state = told(started(), Pinned("int8"), Vetoed("int8", "blind", "gate"))
    assert state.decision.pinned and asked(state, "yard").variant == "int8"
    assert asked(state, "gate").variant == "fp16"  # no result at all would serve nobody
    assert not told(state, Vetoed("int8", "blind")).decision.pinned


def test_where_all_are_vetoed_the_most_accurate_that_works_stands_in() -> None:
    state = told(started(), *(Vetoed(v.name, "blind", "gate") for v in VARIANTS))
    assert asked(state, "gate").variant == "fp16"
    state = told(state, VariantLost("fp16", "it broke"))
    assert asked(state, "gate").variant == "mixed"


def test_a_shadow_run_is_paid_for_and_serves_nobody() -> None:
    state = started()
    seen = (Compared("gate", "int8", 0.9),)
    after = told(state, *[ShadowDone("fp16", 1, 10.0, seen)] * 20)
    assert after.decision is state.decision
    spent_j = sum(map(sum, after.economy.energy.pending_j)) - sum(map(sum, state.economy.energy.pending_j))
    assert spent_j == pytest.approx(20 * 8.0 * 0.010, rel=0.01)  # 8 W above rest for 10 ms, twenty times
    assert after.economy.spending.processed == state.economy.spending.processed
    assert told(state, ShadowDone("nobody", 1, 10.0)) is state
    assert told(state, ShadowDone("fp16", 0, 10.0)) is state


CAMERAS = ("a", "b", "c")
SAID = st.tuples(st.booleans(), st.sampled_from(["fp16", "mixed", "int8"]), st.sampled_from([*CAMERAS, None]))


@settings(max_examples=60, deadline=None)
@given(st.lists(SAID, max_size=12), st.permutations(CAMERAS), st.integers(1, 3))
def test_no_vetoed_variant_runs_while_another_may(
    script: list[tuple[bool, str, str | None]], order: list[str], frames: int
) -> None:
    state, standing = started(), set[tuple[str, str | None]]()
    for veto, variant, camera in script:
        state = told(state, Vetoed(variant, "w", camera) if veto else Unvetoed(variant, "w", camera))
        (standing.add if veto else standing.discard)((variant, camera))
    choice = asked(state, *order[:frames])
    assert choice.variant is not None
    for camera in order[: choice.frames]:
        free = [v.name for v in VARIANTS if (v.name, None) not in standing and (v.name, camera) not in standing]
        assert choice.variant in (free or [v.name for v in VARIANTS])
        assert governor.variant_for(state, camera) in (free or [v.name for v in VARIANTS])


def test_vetoes_cost_the_fast_path_little() -> None:
    def median_ns(state: State) -> float:
        times = []
        for _ in range(400):
            begin = perf_counter_ns()
            asked(state, "a", "b", "c")
            times.append(perf_counter_ns() - begin)
        return sorted(times)[200]

    plain = started()
    vetoed = told(plain, Vetoed("int8", "w", "a"), Vetoed("mixed", "w", "b"))
    assert median_ns(vetoed) < 2.5 * median_ns(plain)


def test_vetoes_and_shadow_runs_are_recorded_exactly() -> None:
    done = ShadowDone("fp16", 1, 10.25, (Compared("gate", "int8", 0.875), Compared("gate", "mixed", None)))
    state = told(started(), Vetoed("int8", "blind", "gate"), done)
    for kind, value in ((ShadowDone, done), (Vetoed, Vetoed("int8", "blind", "gate"))):
        log = codec(kind)
        assert log.thaw(log.freeze(value)) == value
    log = codec(State)
    again = log.thaw(log.freeze(state))
    assert again.barred == state.barred
    assert asked(again, "gate") == asked(state, "gate") and asked(again, "yard") == asked(state, "yard")
