"""What the daemon says of itself: the state, the workload, and that it goes on while the loop is stuck."""

from __future__ import annotations

from pathlib import Path

from edged import clock
from edged.clock import NS_PER_S
from edged.config import CameraConfig, Limits, MotionConfig
from tests.support.bus import wait_for
from tests.support.loop import built, running
from tests.support.models import center_model

ONE = {"only": center_model()}
GATE = CameraConfig(name="gate", source="test://5?width=128&height=64&fps=50")


def test_the_workload_is_what_live_cameras_offered(tmp_path: Path) -> None:
    with built(tmp_path, ONE) as house, running(house, [GATE]):
        wait_for(lambda: house.calls.call(lambda: house.cameras.status("gate", 0)).results > 50)
        house.calls.call(lambda: house.reporter.workload(clock.mono_ns()))
        seen = house.calls.call(lambda: house.cameras.status("gate", 0)).results
        wait_for(lambda: house.calls.call(lambda: house.cameras.status("gate", 0)).results > seen + 50)
        load = house.calls.call(lambda: house.reporter.workload(clock.mono_ns()))
        assert load.cameras == 1
        assert 30 < load.frames_per_s < 70


def test_the_workload_names_what_motion_gates_left_out(tmp_path: Path) -> None:
    still = CameraConfig(name="yard", source="test://5?width=128&height=64&fps=50&run_s=0.1&pause_s=1000")
    with built(tmp_path, ONE, motion=MotionConfig(gate="on")) as house, running(house, [still]):

        def dropped() -> int:
            return house.calls.call(lambda: house.cameras.status("yard", 0)).drops.get("still", 0)

        wait_for(lambda: dropped() > 20)
        house.calls.call(lambda: house.reporter.workload(clock.mono_ns()))
        seen = dropped()
        wait_for(lambda: dropped() > seen + 20)
        ((camera, share),) = house.calls.call(lambda: house.reporter.workload(clock.mono_ns())).still
    assert camera == "yard" and 0.8 < share <= 1


def test_a_camera_in_tiles_is_as_many_cameras(tmp_path: Path) -> None:
    tiled = CameraConfig(name="gate", source=GATE.source, tiles="2x2")
    with built(tmp_path, ONE) as house, running(house, [tiled]):
        wait_for(lambda: house.calls.call(lambda: house.cameras.status("gate", 0)).captured > 20)
        assert house.calls.call(lambda: house.reporter.workload(clock.mono_ns())).cameras == 4


def test_the_state_holds_the_limits_the_variants_and_the_cameras(tmp_path: Path) -> None:
    with built(tmp_path, ONE, Limits(deadline_ms=70.0)) as house:
        house.engine_loop.configure([GATE])
        house.reporter.batch_done("only", 2, 6.0)
        for on_time in (True, False):
            house.reporter.published("only", on_time)
        house.reporter.publish(clock.mono_ns())
        state = house.reporter.state
        assert state is not None
        assert state.limits["deadline_ms"] == 70.0 and state.limits["power_w"] is None
        assert [(v.name, v.results, v.latency_p50_ms) for v in state.variants] == [("only", 2, 3.0)]
        assert [c.camera for c in state.cameras] == ["gate"]
        assert {b.name: b.limit for b in state.budgets}["deadline"] == 99.0
        assert state.decision == house.governor.message
        assert state.healthy


def test_a_stuck_loop_is_reported_by_the_housekeeping(tmp_path: Path) -> None:
    with built(tmp_path, ONE) as house:
        now_ns = clock.mono_ns()
        house.reporter.publish(now_ns)
        sent = house.publisher.last_seq("state")
        house.reporter.housekeep(now_ns + NS_PER_S)
        assert house.publisher.last_seq("state") == sent, "not yet"
        for tenths in range(40, 60):  # two seconds of calls, ten a second
            house.reporter.housekeep(now_ns + tenths * NS_PER_S // 10)
        assert house.publisher.last_seq("state") - sent in (2, 3), "once a second"
        assert house.reporter.state is not None and not house.reporter.state.healthy


def test_every_sample_is_published_once_and_a_stale_one_says_so(tmp_path: Path) -> None:
    with built(tmp_path, ONE) as house:
        now_ns = clock.mono_ns()
        for _ in range(3):
            house.reporter.housekeep(now_ns)
        assert house.publisher.last_seq("telemetry") == 1
        house.reporter.housekeep(now_ns + 60 * NS_PER_S)
        assert house.publisher.last_seq("telemetry") == 2
        house.reporter.publish(now_ns)
        reported = house.reporter.state.telemetry if house.reporter.state else None
        assert reported is not None and any("last reading 60 s ago" in why for why in reported.missing)
