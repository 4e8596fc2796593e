"""What the economy says of whole variants, its limits and its numbers."""

from __future__ import annotations

import math

from edged.governor import summary
from edged.governor.messages import Battery, Budget
from tests.support.desk import Desk

ALL = Budget(60.0, 0.99, 0.0, 7.5, 10.0, 1.0, 24.0, 85.0, Battery(10.0, 3600.0))


def test_a_better_variant_costs_more_and_the_tightest_budget_is_named() -> None:
    desk = Desk()
    desk.run(5)
    watts = summary.powers(desk.state.economy, 30.0)
    joules = [w.energy_j for w in watts]
    assert all(j is not None for j in joules) and joules[0] == max(joules, key=lambda j: j or 0.0)
    assert {w.limit for w in watts} == {"power"} and watts[0].allowed_w < 7.5 * 1.36


def test_nothing_is_said_of_watts_where_nothing_is_known() -> None:
    desk = Desk(device=None)
    assert summary.powers(desk.state.economy, 30.0)[0] == (None, None, math.inf, "none")
    assert len(summary.unheld(Desk(ALL, device=None).state.economy)) == 4


def test_every_limit_that_can_be_held_is_none_to_complain_of() -> None:
    desk = Desk(ALL)
    assert [s.split(" ")[0] for s in summary.unheld(desk.state.economy)] == ["temperature_c", "the"]
    desk.run(2)
    assert len(summary.unheld(desk.state.economy)) == 1  # no gauge has told the charge


def test_numbers_have_units_errors_and_ages_and_are_finite() -> None:
    desk = Desk()
    desk.run(5)
    told = {n.name: n for n in summary.numbers(desk.state.economy, desk.t_s)}
    assert all(math.isfinite(n.value) for n in told.values())
    assert told["mean power over the window"].unit == "W" and told["junction"].unit == "C"
    factor = told["energy of fp16 against its profile"]
    assert factor.error is not None and factor.error > 0 and not factor.assumed
    assert told["drawn without frames"].age_s is not None
