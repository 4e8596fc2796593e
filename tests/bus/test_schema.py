"""The message types, their topics and the generated JSON Schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import edged.bus.schema as schema
from tests.support import messages

FILE = Path(schema.__file__).with_name("messages.schema.json")
ALL = [
    messages.result(),
    messages.status(),
    messages.track(),
    messages.decision(),
    messages.event(),
    messages.telemetry(),
    messages.state(),
]


def test_the_schema_file_is_current() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "edged.bus.json_schema"], capture_output=True, text=True, check=True
    )
    assert FILE.read_text() == printed.stdout, "run: python -m edged.bus.json_schema > edged/bus/messages.schema.json"


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_every_message_has_all_keys_its_schema_requires_and_no_other(message: schema.Message) -> None:
    definition = json.loads(FILE.read_text())["$defs"][type(message).__name__]
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    assert set(definition["required"]) <= set(sent) <= set(definition["properties"])
    assert {"v", "seq", "t_publish"} <= set(definition["required"])


def test_the_table_of_topics_is_the_documented_one() -> None:
    documented = json.loads(FILE.read_text())["topics"]
    assert list(documented) == [
        "result/<camera>",
        "status/<camera>",
        "decision",
        "track/<camera>",
        "event",
        "telemetry",
        "state",
    ]
    retained = [topic for topic, entry in documented.items() if entry["retained"]]
    assert retained == ["status/<camera>", "decision", "telemetry", "state"]


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_topic_and_type_lead_to_each_other(message: schema.Message) -> None:
    assert schema.MESSAGE_TYPES[schema.topic_of(message).partition("/")[0]] is type(message)


def test_detections_or_classes_are_left_out_not_null() -> None:
    sent = msgspec.to_builtins(messages.result())
    assert "detections" in sent and "classes" not in sent
    nothing_seen = msgspec.to_builtins(messages.result(objects=0))
    assert nothing_seen["detections"] == []


def test_a_field_of_a_newer_edged_is_passed_over() -> None:
    newer = {**msgspec.to_builtins(messages.event()), "colour": "red"}
    assert msgspec.convert(newer, schema.Event) == messages.event()
