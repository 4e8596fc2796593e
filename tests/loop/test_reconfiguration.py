"""Reloads, profiles and requests beside one another: nobody takes back what another brought."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edged.bus import requests
from edged.bus.replies import (
    CameraInForce,
    LimitsReply,
    ProfileReply,
    ProfilesReply,
    ReloadReply,
    Reply,
    SnapshotReply,
    WhyReply,
)
from edged.bus.requests import CameraSettings, Modes, Pin, Reload, Set, SetMode, Snapshot, Why
from edged.config import load
from edged.errors import EdgedError, UsageError
from edged.loop import reconfiguration
from edged.loop.build import Loop
from edged.loop.limit_layers import LimitLayers
from edged.loop.profile_schedule import ProfileSchedule
from edged.loop.reconfiguration import Reconfiguration
from edged.loop.request_handler import RequestHandler
from edged.power.modes import ModeControl
from edged.power.power_mode_manager import PowerModeManager
from tests.support.bus import wait_for
from tests.support.loop import built, running
from tests.support.models import center_model
from tests.support.repeating import repeating

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}
CAMERA = '[[camera]]\nname = "gate"\nsource = "test://5?width=128&height=64&fps=30"\n'
ROUNDS = 40
NOON = datetime(2026, 3, 10, 12)


@dataclass
class Desk:
    """What a daemon's control thread has at hand, and the file behind it."""

    path: Path
    loop: Loop
    reconfiguration: Reconfiguration
    ask: RequestHandler

    def write(self, limits: str, cameras: str = CAMERA, top: str = "") -> None:
        bundle = self.path.parent / "bundle"
        self.path.write_text(f'bundle = "{bundle}"\n{top}\n[limits]\n{limits}\n{cameras}')

    def profile(self, name: str, limits: str) -> None:
        directory = self.path.parent / "profiles"
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.toml").write_text(f'description = "for a test"\n[limits]\n{limits}\n')


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    path = tmp_path / "e.toml"
    with built(tmp_path, MODELS) as loop, contextlib.ExitStack() as stack:
        modes = PowerModeManager(ModeControl(tmp_path / "no.sock", str(tmp_path)), lambda text: None)
        stack.callback(modes.close)
        made = Desk(path, loop, None, None)  # type: ignore[arg-type]
        made.write("deadline_ms = 900")
        config = load(path)
        made.reconfiguration = Reconfiguration(path, config, loop, modes, ProfileSchedule({}, NOON))
        made.ask = RequestHandler(loop, modes, made.reconfiguration, made.reconfiguration.reload)
        stack.enter_context(running(loop, config.camera))
        made.ask(Reload())
        yield made


def limits_after(reply: Reply) -> dict[str, float | None]:
    assert isinstance(reply, LimitsReply | ProfileReply)
    return {key: getattr(reply.limits, key) for key in reply.limits.__struct_fields__}


def test_a_set_beside_reloads_takes_none_of_them_back(desk: Desk) -> None:
    with repeating(lambda n: desk.ask(Set(min_accuracy=0.1 + 0.01 * (n % 7))), 0.0):
        for n in range(ROUNDS):
            desk.write(f"deadline_ms = {901 + n}")
            desk.reconfiguration.reload()
            assert limits_after(desk.ask(Set(min_accuracy=0.1)))["deadline_ms"] == 901 + n


def test_a_set_beside_profiles_takes_none_of_them_back(desk: Desk) -> None:
    for n in range(4):
        desk.profile(f"p{n}", f"deadline_ms = {500 + n}\npower_window_s = {20 + n}")
    with repeating(lambda n: desk.ask(Set(min_accuracy=0.1 + 0.01 * (n % 7))), 0.0):
        for n in range(ROUNDS):
            reply = desk.ask(requests.Profile(f"p{n % 4}"))
            assert limits_after(reply)["deadline_ms"] == 500 + n % 4
            found = limits_after(desk.ask(Set(temperature_c=80.0)))
            assert (found["deadline_ms"], found["power_window_s"]) == (500 + n % 4, 20 + n % 4)
    desk.ask(requests.Profile(None))
    assert desk.loop.limits.layers.in_force == load(desk.path).limits


def test_two_clients_that_set_different_limits_both_keep_theirs(desk: Desk) -> None:
    with repeating(lambda n: desk.ask(Set(power_window_s=10.0 + n % 9)), 0.0):
        for n in range(ROUNDS * 5):
            assert limits_after(desk.ask(Set(deadline_ms=300.0 + n)))["deadline_ms"] == 300.0 + n
    found = desk.loop.limits.layers.in_force
    assert found.deadline_ms == 300.0 + ROUNDS * 5 - 1 and found.power_window_s >= 10.0


def test_reloads_and_profiles_beside_each_other_leave_a_whole(desk: Desk) -> None:
    desk.profile("night", "power_window_s = 33")
    with repeating(lambda n: desk.ask(requests.Profile("night" if n % 2 else None)), 0.0):
        for n in range(ROUNDS):
            desk.write(f"deadline_ms = {901 + n}")
            desk.reconfiguration.reload()
            assert desk.loop.limits.layers.in_force.deadline_ms == 901 + n
    layers = desk.loop.limits.layers
    assert layers.configured == load(desk.path).limits
    assert layers.in_force.power_window_s == (10.0 if layers.profile is None else 33.0)


def test_a_reload_clears_what_was_set_and_says_so(desk: Desk) -> None:
    desk.ask(Set(deadline_ms=111.0, power_w=9.0))
    reply = desk.ask(Reload())
    assert isinstance(reply, ReloadReply) and reply.needs_restart == []
    assert reply.changes == ["limits: deadline_ms 111.0 -> 900.0", "limits: power_w 9.0 -> (not set)"]


def test_cameras_for_which_the_engines_have_no_batches_on_a_gpu_need_a_restart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = CAMERA + CAMERA.replace("gate", "door")
    desk.write("deadline_ms = 900", two)
    assert desk.reconfiguration.reload().needs_restart == []
    monkeypatch.setattr(desk.loop.pool, "device", "cuda")
    monkeypatch.setattr(desk.loop.pool, "max_batch", 1)
    assert desk.reconfiguration.reload().needs_restart == ["engine: batches of up to 2 frames, of 2 cameras"]
    desk.write("deadline_ms = 900")
    assert desk.reconfiguration.reload().needs_restart == []


def test_settings_of_a_camera_hold_until_the_next_reload(desk: Desk) -> None:
    reply = desk.ask(Set(deadline_ms=800.0, cameras={"gate": CameraSettings(fps=5.0, weight=2.0)}))
    assert isinstance(reply, LimitsReply) and reply.limits.deadline_ms == 800.0
    assert reply.cameras == {"gate": CameraInForce(5.0, 2.0)}
    reply = desk.ask(Set(cameras={"gate": CameraSettings(weight=3.0)}))
    assert isinstance(reply, LimitsReply) and reply.cameras == {"gate": CameraInForce(5.0, 3.0)}
    wait_for(lambda: desk.loop.calls.call(lambda: desk.loop.cameras.status("gate", 0)).drops.get("rate", 0) > 5)
    taken = desk.ask(Reload())
    assert isinstance(taken, ReloadReply)
    assert "camera gate: fps 5.0 -> (not set)" in taken.changes and "camera gate: weight 3.0 -> 1.0" in taken.changes


def test_a_set_that_is_refused_changes_neither_limits_nor_cameras(desk: Desk) -> None:
    config, layers = desk.reconfiguration.config, desk.loop.limits.layers
    with pytest.raises(EdgedError, match="there is no camera 'yard'"):
        desk.ask(Set(deadline_ms=800.0, cameras={"yard": CameraSettings(fps=5.0)}))
    with pytest.raises(UsageError, match="accuracy"):
        desk.ask(Set(min_accuracy=0.99, cameras={"gate": CameraSettings(fps=5.0)}))
    assert desk.reconfiguration.config is config and desk.loop.limits.layers is layers


def test_the_schedule_brings_its_profiles_and_a_hand_wins_until_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.clock.local_time", lambda: NOON)
    desk.profile("day", "power_w = 12")
    desk.profile("late", "power_w = 6")

    def layers() -> LimitLayers:
        return desk.loop.limits.layers

    desk.write("deadline_ms = 900", top='[schedule]\n"08:00" = "day"\n"22:00" = "late"')
    assert "limits: power_w (not set) -> 12.0" in desk.reconfiguration.reload().changes
    assert layers().profile_name == "day"
    desk.ask(requests.Profile("night"))
    desk.reconfiguration.reload()
    desk.reconfiguration.follow_schedule(NOON + timedelta(hours=9, minutes=59))
    assert layers().profile_name == "night", "by hand"
    desk.reconfiguration.follow_schedule(NOON + timedelta(hours=10))
    assert (layers().profile_name, layers().in_force.power_w) == ("late", 6)
    desk.profile("day", "min_accuracy = 0.99")
    desk.reconfiguration.follow_schedule(NOON + timedelta(hours=20))
    assert layers().profile_name == "late", "no variant holds the limits of the other"
    state = desk.reconfiguration._schedule.report()
    assert state is not None and state.profile == "day" and state.problem is not None and "accuracy" in state.problem
    desk.write("deadline_ms = 900", top='[schedule]\n"08:00" = "dya"')
    with pytest.raises(UsageError, match=r'schedule\."08:00": there is no profile'):
        desk.reconfiguration.reload()


def test_the_schedule_waits_for_a_change_by_hand(desk: Desk) -> None:
    desk.reconfiguration._schedule.replace({"13:00": "night"}, NOON)
    with desk.reconfiguration._alone():
        desk.reconfiguration.follow_schedule(NOON + timedelta(hours=2))
        assert desk.loop.limits.layers.profile_name is None
    desk.reconfiguration.follow_schedule(NOON + timedelta(hours=2))
    assert desk.loop.limits.layers.profile_name == "night"


def test_a_reload_keeps_the_profile_in_force_and_reads_it_again(desk: Desk) -> None:
    desk.profile("night", "power_w = 9")
    desk.ask(requests.Profile("night"))
    desk.profile("night", "power_w = 8")
    reply = desk.ask(Reload())
    assert isinstance(reply, ReloadReply) and reply.changes == ["limits: power_w 9.0 -> 8.0"]
    desk.write("deadline_ms = 900", top='profile = "eco"')
    desk.profile("eco", "power_w = 7")
    desk.ask(Reload())
    assert desk.loop.limits.layers.profile_name == "eco" and desk.loop.limits.layers.in_force.power_w == 7


@pytest.mark.parametrize(
    ("limits", "cameras"),
    [
        ("min_accuracy = 0.99", CAMERA),
        ("deadline_ms = 10", CAMERA + CAMERA.replace("gate", "yard").replace("test://", "gopher://")),
        ("deadline_ms = -1", CAMERA),
    ],
    ids=["a limit no variant holds", "a source of no kind", "a wrong value"],
)
def test_a_reload_that_is_refused_changes_nothing(desk: Desk, limits: str, cameras: str) -> None:
    desk.ask(Set(power_w=9.0))
    before = desk.loop.limits.layers
    desk.write(limits, cameras)
    with pytest.raises(UsageError):
        desk.ask(Reload())
    assert desk.loop.limits.layers is before
    assert desk.loop.calls.call(desk.loop.cameras.names) == ["gate"]


def test_a_reload_waits_for_a_profile_that_sets_its_mode(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconfiguration, "WAIT_S", 0.05)
    with desk.reconfiguration._alone():
        assert desk.reconfiguration.busy
        with pytest.raises(EdgedError, match="another reload or profile"):
            desk.reconfiguration.reload()
    assert not desk.reconfiguration.busy
    desk.reconfiguration.reload()


def test_each_request_has_its_reply(desk: Desk) -> None:
    wait_for(lambda: desk.loop.reporter.state is not None)
    snapshot, why = desk.ask(Snapshot()), desk.ask(Why(1))
    assert isinstance(snapshot, SnapshotReply) and snapshot.state is not None
    assert isinstance(why, WhyReply) and len(why.decisions) == 1
    assert desk.ask(Pin("fast")).ok and desk.loop.governor.decision.pinned
    with pytest.raises(UsageError, match="none-such"):
        desk.ask(Pin("none-such"))
    listed = desk.ask(requests.Profile())
    assert isinstance(listed, ProfilesReply) and listed.profile is None
    assert {"balanced", "night"} <= {one.name for one in listed.profiles}
    for request in (Modes(), SetMode(mode="15W")):
        with pytest.raises(EdgedError):
            desk.ask(request)
    assert desk.loop.heartbeats.check(0).healthy
