"""Vetoes of the accuracy guard: of all cameras, of one, and none of them leaves a camera without a variant."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.clock import NS_PER_S
from edged.governor import explain
from edged.governor.governor import Governor
from edged.governor.messages import (
    Budget,
    Choice,
    Device,
    Observation,
    Pinned,
    Sensed,
    Tick,
    Unvetoed,
    Variant,
    VariantLost,
    Vetoed,
    Waiting,
    Workload,
)

FP16 = Variant("fp16", 0.78, (10.0, 19.0, 28.0, 37.0), (1.0,), (8.0,))
MIXED = Variant("mixed", 0.775, (7.0, 13.0, 19.0, 25.0), (1.0,), (6.0,))
INT8 = Variant("int8", 0.77, (4.0, 7.0, 10.0, 13.0), (1.0,), (4.0,))
VARIANTS = (FP16, MIXED, INT8)
BUDGET = Budget(deadline_ms=200.0, deadline_quantile=0.99, min_accuracy=0.0, power_w=4.8)


def started(*observations: Observation, budget: Budget = BUDGET) -> Governor:
    """A device where energy is limited, so that the cheap variant runs."""
    governor = Governor(VARIANTS, budget, 0, Device(idle_w=(3.0,)))
    governor.state.latency.runs, governor.state.latency.ran_s = [9] * 3, [0.9] * 3
    return reported(governor, Workload(3, 60.0), Sensed(power_w=3.5), Tick(), *observations)


def reported(governor: Governor, *observations: Observation) -> Governor:
    for observation in observations:
        governor.observe(observation, NS_PER_S)
    return governor


def choice(governor: Governor, *cameras: str) -> Choice:
    return governor.choose(Waiting(len(cameras), 3.0, cameras=cameras), NS_PER_S)


def test_a_veto_on_all_cameras_is_a_new_decision_and_its_end_is_too() -> None:
    governor = started()
    assert choice(governor, "gate").variant == "int8"
    reported(governor, Vetoed("int8", "it sees nothing"))
    assert governor.decision.variant != "int8"
    assert explain.barred(governor.state, 2) == "it is vetoed: it sees nothing"
    assert choice(governor, "gate").variant in ("fp16", "mixed")
    reported(governor, Unvetoed("int8", "it sees again"))
    assert choice(governor, "gate").variant == "int8"


def test_a_veto_of_one_camera_leaves_the_variant_to_the_others() -> None:
    governor = started()
    before = governor.decision
    reported(governor, Vetoed("int8", "it sees nothing", "gate"))
    assert governor.decision is before
    assert choice(governor, "yard").variant == "int8" and choice(governor, "gate").variant in ("fp16", "mixed")


def test_a_batch_takes_no_frame_that_its_variant_may_not_run() -> None:
    governor = started(Vetoed("int8", "blind", "gate"))
    for cameras in (("gate", "yard", "dock"), ("yard", "gate", "dock"), ("yard", "dock", "gate")):
        found = choice(governor, *cameras)
        assert found.variant is not None
        assert found.variant != "int8" or "gate" not in cameras[: found.frames]


def test_the_end_of_a_veto_ends_that_veto_alone() -> None:
    vetoes = Vetoed("int8", "blind", "gate"), Vetoed("int8", "blind", "yard"), Vetoed("mixed", "x", "gate")
    governor = started(*vetoes)
    assert choice(governor, "gate").variant == "fp16"
    reported(governor, Unvetoed("int8", "it sees", "gate"), Vetoed("nobody", "blind", "gate"))
    assert choice(governor, "gate").variant == "int8"
    assert choice(governor, "yard").variant in ("fp16", "mixed")


def test_without_a_choice_the_decisions_variant_gives_way_on_that_camera() -> None:
    governor = started(budget=replace(BUDGET, deadline_ms=7.0, power_w=None))
    assert governor.decision.variant == "int8"
    reported(governor, Vetoed("int8", "blind", "gate"))
    assert governor.variant_for("yard") == "int8" and governor.variant_for("gate") == "fp16"


def test_a_pinned_variant_that_is_vetoed_on_a_camera_stays_pinned_elsewhere() -> None:
    governor = started(Pinned("int8"), Vetoed("int8", "blind", "gate"))
    assert governor.decision.pinned and choice(governor, "yard").variant == "int8"
    assert choice(governor, "gate").variant == "fp16"  # no result at all would serve nobody
    assert not reported(governor, Vetoed("int8", "blind")).decision.pinned


def test_where_all_are_vetoed_the_most_accurate_that_works_runs() -> None:
    governor = started(*(Vetoed(v.name, "blind", "gate") for v in VARIANTS))
    assert choice(governor, "gate").variant == "fp16"
    reported(governor, VariantLost("fp16", "it broke"))
    assert choice(governor, "gate").variant == "mixed"


def test_a_variant_that_another_dominates_runs_only_where_that_one_may_not() -> None:
    worse = Variant("worse", 0.76, (5.0, 9.0), (1.0,), (4.5,))
    governor = Governor([*VARIANTS, worse], BUDGET, 0, Device(idle_w=(3.0,)))
    reported(governor, Workload(3, 60.0), Sensed(power_w=3.5), Tick())
    assert all(choice(governor, "gate").variant != "worse" for _ in range(5)), "not even to be explored"
    assert explain.dominated_by(governor.state, governor.state.tables.names.index("worse")) == "int8"
    reported(governor, *(Vetoed(v.name, "blind", "gate") for v in VARIANTS))
    assert choice(governor, "gate").variant == "worse"


CAMERAS = ("a", "b", "c")
SAID = st.tuples(st.booleans(), st.sampled_from(["fp16", "mixed", "int8"]), st.sampled_from([*CAMERAS, None]))


@settings(max_examples=60, deadline=None)
@given(st.lists(SAID, max_size=12), st.permutations(CAMERAS), st.integers(1, 3))
def test_no_vetoed_variant_runs_while_another_may(
    script: list[tuple[bool, str, str | None]], order: list[str], frames: int
) -> None:
    governor, vetoes = started(), set[tuple[str, str | None]]()
    for veto, variant, camera in script:
        reported(governor, Vetoed(variant, "w", camera) if veto else Unvetoed(variant, "w", camera))
        (vetoes.add if veto else vetoes.discard)((variant, camera))
    found = choice(governor, *order[:frames])
    assert found.variant is not None
    for camera in order[: found.frames]:
        free = [v.name for v in VARIANTS if (v.name, None) not in vetoes and (v.name, camera) not in vetoes]
        assert found.variant in (free or [v.name for v in VARIANTS])
        assert governor.variant_for(camera) in (free or [v.name for v in VARIANTS])
