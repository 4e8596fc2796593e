"""The one state object: a snapshot is the state, budgets come and go, what may run is derived from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edged.governor.governor import Governor
from edged.governor.messages import BudgetChanged, Pinned, ShadowDone, Vetoed, Workload
from edged.governor.state import State
from edged.replay.codec import codec
from tests.support.governor_script import BUDGET, VARIANTS, GovernorScript


def frozen(state: State) -> object:
    return codec(State).freeze(state)


def test_a_snapshot_does_not_change_and_resumes_to_the_same_choices() -> None:
    script = GovernorScript()
    script.run(10)
    snapshot = script.governor.snapshot()
    before = frozen(snapshot)
    chosen = script.run(5)
    assert frozen(snapshot) == before
    again = GovernorScript()
    again.governor, again.t_s, again.last = Governor.resumed(snapshot), 10.0, None
    other = GovernorScript()
    other.governor, other.t_s, other.last = Governor.resumed(snapshot), 10.0, None
    assert again.run(5) == other.run(5) and len(chosen) == 150


def test_a_recorded_state_comes_back_exactly() -> None:
    script = GovernorScript()
    script.run(5)
    script.tell(Vetoed("int8", "blind", "gate"), Pinned("fp16"))
    kept = codec(State)
    assert kept.freeze(kept.thaw(kept.freeze(script.state))) == kept.freeze(script.state)


def test_a_limit_may_come_and_go_while_running() -> None:
    script = GovernorScript(replace(BUDGET, power_w=None, temperature_c=None))
    script.run(5)
    assert script.state.caps is None
    script.tell(BudgetChanged(BUDGET))
    script.run(30, watts=7.6)
    assert script.decision.price_per_j > 0
    script.tell(BudgetChanged(replace(BUDGET, power_w=None, temperature_c=None)))
    assert set(script.run(20)[-200:]) == {"fp16"}
    assert script.decision.price_per_j == 0


def test_a_shadow_run_is_paid_for_and_serves_nobody() -> None:
    script = GovernorScript()
    before_j = sum(map(sum, script.state.power.pending_j))
    script.tell(*[ShadowDone("fp16", 1)] * 20)
    spent_j = sum(map(sum, script.state.power.pending_j)) - before_j
    assert spent_j == pytest.approx(20 * 14.0 * 0.020, rel=0.01)  # 14 W above idle for 20 ms, twenty times
    assert script.state.feedback.frames == 0 and script.state.activity[-1].ran == [0, 0, 0]
    script.tell(ShadowDone("nobody", 1), ShadowDone("fp16", 0))
    assert sum(map(sum, script.state.power.pending_j)) - before_j == pytest.approx(spent_j)


def test_a_round_is_of_as_many_frames_as_usually_wait_together() -> None:
    batched = GovernorScript().at(0, Workload(4, 120.0))
    assert batched.state.frames_per_round == 1
    for _ in range(400):
        batched.choose(frames=4)
    assert batched.state.frames_per_round == 2, "as far as batches were measured"
    assert batched.state.period_s == pytest.approx(batched.state.round_s / 2)
    single = GovernorScript(variants=[replace(v, latency_ms=v.latency_ms[:1]) for v in VARIANTS]).at(
        0, Workload(4, 120.0)
    )
    for _ in range(400):
        single.choose(frames=4)
    assert single.state.frames_per_round == 1, "where no batch pays"
