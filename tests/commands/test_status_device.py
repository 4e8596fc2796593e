"""What `edged status` says of the device: its battery, and a rail of which there is no total."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edged.bus.schema import Battery, Telemetry
from edged.commands.status import device


def sample(**values: Any) -> Telemetry:
    unknown: dict[str, Any] = {
        field.name: None for field in msgspec.structs.fields(Telemetry) if field.default is msgspec.NODEFAULT
    }
    known: dict[str, Any] = {
        "provider": "test",
        "power_estimated": False,
        "rails_w": {},
        "temperatures_c": {},
        "throttle_events": {},
    }
    return Telemetry(**unknown | known | {"energy_gap_s": 0.0, "missing": []} | values)


@pytest.mark.parametrize(
    ("discharge_w", "line"),
    [
        (8.24, "battery 40 % of 50.00 Wh, discharging at 8.2 W"),
        (-3.0, "battery 40 % of 50.00 Wh, charging at 3.0 W"),
        (0.0, "battery 40 % of 50.00 Wh, not in use"),
        (None, "battery 40 % of 50.00 Wh, draw unknown"),
    ],
)
def test_the_battery(discharge_w: float | None, line: str) -> None:
    assert line in device(sample(power_w=8.2, battery=Battery(72_000.0, 180_000.0, discharge_w)))


def test_a_rail_alone_is_shown_where_the_whole_is_not_known() -> None:
    assert "rails: gpu 70.0 W" in device(sample(rails_w={"gpu": 70.0}))
    assert not [line for line in device(sample(rails_w={"gpu": 70.0}, power_w=70.0)) if line.startswith("rails")]
