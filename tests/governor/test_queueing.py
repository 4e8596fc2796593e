"""How old frames are when their batch starts."""

from __future__ import annotations

import math

import pytest

from edged.governor.estimators.queueing import LEAST_SAMPLES, Lead


def test_a_short_lead_is_not_believed() -> None:
    lead = Lead()
    for _ in range(LEAST_SAMPLES - 1):
        lead = lead.add(500.0, 1, 10.0)
    assert lead.quantile_ms(0.99) is None
    for _ in range(8):
        lead = lead.add(500.0, 1, 10.0)
    assert lead.quantile_ms(0.99) == pytest.approx(500, rel=0.11)


def test_it_is_that_of_a_frame_that_did_not_wait_for_other_cameras() -> None:
    lead = Lead()
    for _ in range(100):
        for waited in (0, 10, 20, 30):
            lead = lead.add(5.0 + waited, 4, 10.0)
    assert lead.quantile_ms(0.9) == pytest.approx(5.0, rel=0.12)


def test_waits_are_told_in_services_and_begin_afresh_with_other_cameras() -> None:
    lead = Lead()
    assert lead.waiting(0.5) is None
    for _ in range(100):
        for waited in (0, 10, 20, 30):
            lead = lead.add(5.0 + waited, 4, 10.0)
    found = [lead.waiting(q) for q in (0.2, 0.4, 0.7, 0.9)]
    assert found == [pytest.approx(services, abs=0.11) for services in (0.0, 1.0, 2.0, 3.0)]
    assert lead.afresh().waiting(0.5) is None and lead.afresh().quantile_ms(0.9) == lead.quantile_ms(0.9)


def test_nonsense_is_no_lead() -> None:
    lead = Lead().add(math.nan, 1, 10.0).add(-1.0, 1, 10.0).add(math.inf, 1, 10.0)
    assert lead == Lead()
