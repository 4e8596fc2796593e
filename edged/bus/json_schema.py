"""The messages' types in, their JSON Schema out; `python -m edged.bus.json_schema` prints `messages.schema.json`."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from edged.bus import schema
from edged.bus.schema import MESSAGE_TYPES, SCHEMA_VERSION, TOPICS


def json_schema() -> dict[str, Any]:
    """The JSON Schema of every message, by the name of its type.

    The sender leaves out nothing but what may be unset, so every other field is required, whatever its default here.
    """
    parts: list[type[Struct]] = [
        schema.Latency, schema.Mask, schema.Detection, schema.ClassMap, schema.ClassScore, schema.RingRef, schema.Gate,
        schema.Alternative, schema.Escalation,
        schema.Number, schema.VariantState, schema.BudgetState, schema.Agreement, schema.InputDrift, schema.Guard,
        schema.ClockControl, schema.ProfileMode, schema.Recording, schema.ScheduleState, schema.Battery, schema.Stream,
        schema.Memory,
    ]  # fmt: skip
    kinds = {kind.__name__: kind for kind in [*MESSAGE_TYPES.values(), *parts]}
    _, components = msgspec.json.schema_components(MESSAGE_TYPES.values(), ref_template="#/$defs/{name}")
    for name, definition in components.items():
        fields = msgspec.structs.fields(kinds[name])
        definition["required"] = [field.name for field in fields if field.default is not UNSET]
        if "description" in definition:  # docstrings keep their indentation before Python 3.13
            definition["description"] = " ".join(definition["description"].split())
        for found in definition["properties"].values():
            found.pop("default", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edged messages",
        "description": f"Schema version {SCHEMA_VERSION}. MessagePack maps on the wire, in these shapes.",
        "topics": {
            topic.prefix + ("<camera>" if topic.per_camera else ""): {
                "message": {"$ref": f"#/$defs/{MESSAGE_TYPES[name].__name__}"},
                "when": topic.rate,
                "retained": topic.retained,
            }
            for name, topic in TOPICS.items()
        },
        "$defs": components,
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
