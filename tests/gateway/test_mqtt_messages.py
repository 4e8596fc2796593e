"""What a broker and Home Assistant get: unknown is null, rates, problems in words, entities that fit the topics."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edged.bus.schema import ClassScore, State
from edged.errors import EdgedError
from edged.gateway.home_assistant import NO_PROFILE, discovery
from edged.gateway.mqtt_commands import MAX_PAYLOAD, MAX_WAITING, Command, Commands, parse
from edged.gateway.mqtt_messages import Objects, camera_state, matters, node_state, problems
from tests.support import messages


def state(uptime_s: float = 1.0, results: int = 8, **changes: object) -> State:
    cameras = [msgspec.structs.replace(messages.status(), results=results)]
    return msgspec.structs.replace(messages.state(), **{"uptime_s": uptime_s, "cameras": cameras, **changes})


def test_a_node_in_good_order() -> None:
    assert node_state(state(11.0, 158), state(1.0, 8)) == {
        "version": "0.1.0",
        "profile": None,
        "variant": "fp32",
        "pinned": False,
        "results_per_s": 15.0,
        "power_w": None,
        "power_estimated": False,
        "energy_kwh": 0.000343,
        "temperature_c": 41.0,
        "throttled": False,
        "problems": [],
    }


def test_rates_are_unknown_at_first_and_over_a_restart() -> None:
    assert node_state(state(), None)["results_per_s"] is None
    assert node_state(state(1.0, 8), state(100.0, 1500))["results_per_s"] is None
    (camera,) = state().cameras
    assert camera_state(camera, state(2.0), state(1.0, cameras=[]))["results_per_s"] is None
    assert camera_state(camera, state(2.0), state(1.0, 3))["results_per_s"] == 5.0


def test_without_telemetry_and_decision_all_is_null() -> None:
    node = node_state(state(telemetry=None, decision=None), None)
    unknown = ("variant", "pinned", "power_w", "power_estimated", "energy_kwh", "temperature_c", "throttled")
    assert all(node[key] is None for key in unknown)


def test_problems_are_sentences_and_matter() -> None:
    camera = msgspec.structs.replace(messages.status(), state="backoff", reason="connection refused")
    decision = msgspec.structs.replace(messages.decision(), yielded=["frame_rate"], unheld=["8 W cannot be held"])
    sample = msgspec.structs.replace(messages.telemetry(), throttled=True)
    bad = state(healthy=False, cameras=[camera], decision=decision, telemetry=sample)
    assert problems(bad) == [
        "a stage of the daemon makes no progress",
        "camera gate: backoff, connection refused",
        "the device throttles",
        "the limit on frame rate has given way",
        "8 W cannot be held",
    ]
    assert matters(bad) != matters(state()) and matters(state(9.0)) == matters(state(1.0, 99))


def test_objects_are_the_most_seen_since_the_last_report() -> None:
    objects = Objects()
    for count in (2, 3, 1):
        objects.add(messages.result(objects=count))
    objects.add(messages.result("yard", objects=0))
    assert objects.report() == {"gate": {"gear": 3}, "yard": {}}
    objects.add(messages.result(objects=3))
    assert objects.report() == {}
    assert objects.report() == {"gate": {"gear": 0}}, "gone, with its label"
    objects.forget()
    assert objects.report() == {"gate": {}, "yard": {}}


def test_of_a_classifier_the_best_class_counts() -> None:
    objects = Objects()
    classes = [ClassScore("cat", 1, 0.9), ClassScore("dog", 2, 0.1)]
    objects.add(msgspec.structs.replace(messages.result(), detections=msgspec.UNSET, classes=classes))
    assert objects.report() == {"gate": {"cat": 1}}


@pytest.mark.parametrize("commands", [False, True])
def test_home_assistant_gets_entities_of_topics_that_exist(commands: bool) -> None:
    found = discovery("edged/n1", state(profile="night"), ["solar"], commands, snapshots=True)
    parts: dict[str, dict[str, Any]] = found["components"]
    assert {part["unique_id"] for part in parts.values()} == {f"edged_n1_{key}" for key in parts}
    assert found["availability_topic"] == "edged/n1/available" and found["state_topic"] == "edged/n1/state"
    assert parts["energy"]["device_class"] == "energy" and parts["energy"]["unit_of_measurement"] == "kWh"
    assert parts["gate_snapshot"]["topic"] == "edged/n1/camera/gate/snapshot"
    assert parts["gate_objects"]["state_topic"] == "edged/n1/camera/gate/objects"
    node, camera = node_state(state(), None), camera_state(state().cameras[0], state(), None)
    for part in parts.values():
        keys = node if part.get("state_topic", found["state_topic"]) == found["state_topic"] else camera
        key = part.get("value_template", "").partition("value_json.")[2].split(" ")[0]
        assert not key or key in keys or key == "values()", part
    assert parts["profile"]["platform"] == ("select" if commands else "sensor")
    assert parts["profile"].get("options") == ([NO_PROFILE, "solar", "night"] if commands else None)


def test_estimated_power_is_marked() -> None:
    sample = msgspec.structs.replace(messages.telemetry(), power_estimated=True)
    parts = discovery("edged/n1", state(telemetry=sample), [], False, False)["components"]
    assert parts["power"]["name"] == "Power (estimated)" and "gate_snapshot" not in parts


@pytest.mark.parametrize(
    "name, payload, expected",
    [
        ("profile", b"night\n", ("profile", {"name": "night"})),
        ("profile", b"none", ("profile", {"name": None})),
        ("pin", b"fp16", ("pin", {"variant": "fp16"})),
        ("trigger", b"gate", ("trigger", {"camera": "gate"})),
        ("limit", b'{"power_w": 8, "energy_wh": null}', ("set", {"power_w": 8.0, "energy_wh": None})),
    ],
)
def test_commands(name: str, payload: bytes, expected: tuple[str, dict[str, Any]]) -> None:
    assert parse(name, payload) == expected


@pytest.mark.parametrize(
    "name, payload",
    [
        ("pin", b""),
        ("pin", b"\xff"),
        ("pin", b"x" * (MAX_PAYLOAD + 1)),
        ("limit", b"8"),
        ("limit", b"{}"),
        ("limit", b'{"op": 1}'),
        ("limit", b'{"power_w": "8"}'),
        ("limit", b"[" * 4000),
        ("set_mode", b"15W"),
    ],
)
def test_what_is_no_command(name: str, payload: bytes) -> None:
    with pytest.raises(EdgedError) as caught:
        parse(name, payload)
    assert caught.value.hint


def test_commands_beyond_the_queue_are_answered_at_once() -> None:
    commands, answers = Commands(None), list[dict[str, Any]]()
    for _ in range(MAX_WAITING + 2):
        commands.put(Command("pin", b"none", answers.append))
    assert len(answers) == 2 and answers[0]["error"] == "too many commands wait"
