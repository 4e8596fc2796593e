"""What is told is checked before it is believed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor import ingest, state
from edged.governor.messages import BatchDone, Sensed, Skipped, Waiting, Workload
from edged.governor.planner import replan
from edged.governor.state import Economy
from tests.support.desk import BUDGET, DEVICE, VARIANTS


def fresh() -> Economy:
    return state.fresh(VARIANTS, DEVICE, BUDGET, 2, 30.0)


@pytest.mark.parametrize(
    "done",
    [
        BatchDone("fp16", 1, math.nan, 1.0, 0),
        BatchDone("fp16", 1, -5.0, 1.0, 0),
        BatchDone("fp16", 0, 20.0, 1.0, 0),
        BatchDone("fp16", 65, 20.0, 1.0, 0),
        BatchDone("fp16", 1, 20.0, 1.0, 0, serial=0),
    ],
)
def test_a_batch_that_cannot_have_been_is_not_learnt(done: BatchDone) -> None:
    e = fresh()
    assert ingest.batch_done(e, done, 0, 1.0) is e


def test_confidences_go_to_their_cameras_or_to_one_scene_where_none_is_named() -> None:
    named = ingest.batch_done(
        fresh(), BatchDone("fp16", 2, 37.0, 1.0, 0, (0.9, 0.3), cameras=("yard", "gate")), 0, 1.0
    )  # fmt: skip
    assert set(named.scene.smooth) == {"yard", "gate"}
    unnamed = ingest.batch_done(fresh(), BatchDone("fp16", 2, 37.0, 1.0, 0, (0.9, math.nan)), 0, 1.0)
    assert set(unnamed.scene.smooth) == {""}
    assert ingest.batch_done(fresh(), BatchDone("fp16", 1, 20.0, 1.0, 0, (math.nan,)), 0, 1.0).scene.smooth == {}


def test_a_batch_counts_its_late_frames_its_joules_and_its_change() -> None:
    e = ingest.batch_done(fresh(), BatchDone("fp16", 2, 37.0, 1.0, 1, clock=1), 0, 1.0)
    assert (e.spending.processed, e.spending.late) == (2.0, 1.0)
    assert sum(there[0] for there in e.energy.pending_j) == pytest.approx(14.0 * 0.020 * 1.85)
    assert ingest.batch_done(e, BatchDone("int8", 1, 13.0, 1.0, 0), 1, 1.1).switching.left < e.switching.left


def test_an_escalated_run_is_no_second_frame() -> None:
    e = ingest.batch_done(fresh(), BatchDone("fp16", 1, 20.0, 1.0, 0, (0.9,), again=True), 0, 1.0)
    assert e.spending.processed == 0 and e.scene.smooth == {} and e.energy.pending_j[-1][0] > 0


def test_sensors_that_lie_are_silent() -> None:
    for said in (Sensed(math.nan, math.inf), Sensed(-1.0, -300.0), Sensed(1e9, 1e9, charge=2.0, clock=99)):
        e = ingest.sensed(fresh(), said, 1.0)
        assert not e.energy.metered and e.heat.junction_c is None and e.clock == 1


def test_frames_given_up_count_by_why() -> None:
    assert ingest.skipped(fresh(), Skipped(3, True)).spending.late == 3
    assert ingest.skipped(fresh(), Skipped(3, False)).spending.late == 0
    e = fresh()
    assert ingest.skipped(e, Skipped(-1, True)) is e and ingest.skipped(e, Skipped(10**9, True)) is e


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.builds(
        Waiting, st.integers(-3, 200), numbers, numbers, st.none() | numbers, st.lists(numbers, max_size=4).map(tuple),
        st.lists(st.text(max_size=2), max_size=4).map(tuple), st.sampled_from([None, "fp16", "nobody"]),
        st.none() | st.integers(-2, 9), st.booleans(),
    )
)  # fmt: skip
def test_whatever_waits_a_choice_is_made(waiting: Waiting) -> None:
    e = ingest.workload(fresh(), Workload(3, 60.0, 0, 2.0), 0.0)
    option, clock, value, skip_value = ingest.chosen(e, waiting, 1.0)
    assert option is None or 1 <= option.frames <= max(1, waiting.frames)
    assert 0 <= clock < 2 and math.isfinite(skip_value) and (option is None or math.isfinite(value))


def test_weights_are_relative_to_the_mean_of_all() -> None:
    e = ingest.workload(fresh(), Workload(1, 30.0, 0, 4.0), 0.0)
    plain = ingest.chosen(fresh(), Waiting(1, 1.0, 66.0), 1.0)
    assert ingest.chosen(e, Waiting(1, 1.0, 66.0, weights=(4.0,)), 1.0)[2] == pytest.approx(plain[2], abs=0.02)
    assert ingest.chosen(e, Waiting(1, 1.0, 66.0, weights=(8.0,)), 1.0)[2] > plain[2]


def test_frames_that_come_apart_are_planned_one_by_one_unless_batches_pay() -> None:
    assert ingest.workload(fresh(), Workload(4, 120.0, 0), 0.0).together == 4
    single = [replace(v, latency_ms=tuple(v.latency_ms[0] * k for k in (1, 2, 3, 4))) for v in VARIANTS]
    for variants, together in ((VARIANTS, 4), (single, 1)):
        e = state.fresh(tuple(variants), DEVICE, BUDGET, 1, 30.0)
        e = ingest.workload(e, Workload(4, 120.0, 0, apart=True), 0.0)
        assert e.together == together and e.period_s == pytest.approx(e.round_s * together / 4)
        assert math.isfinite(replan.replan(e, 0.5, 1, False).plan.gain)
