"""The jtop provider against the real service on an emulated board, and against children that lie, hang or die."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import EdgedError
from edged.power import jtop as jtop_module
from edged.power.jetson import SysfsProvider
from edged.power.jtop import JtopLink, JtopProvider, Reading, SetRequest, Trouble, decoded
from edged.power.modes import ModeControl
from edged.power.telemetry import Sample
from tests.support.jetson_tree import JetsonTree
from tests.support.jtop_service import JtopService, namespaces_allowed

INTERVAL_S = 0.5
installed = pytest.mark.skipif(find_spec("jtop") is None, reason="needs the extra: pip install 'edged[jetson]'")


class Board:
    def __init__(self, root: Path) -> None:
        self.tree = JetsonTree(root)
        self.service = JtopService(root)
        self.provider = JtopProvider(self.service.socket, INTERVAL_S, SysfsProvider(root))

    def until(self, wanted: Callable[[Sample], object], limit_s: float = 20.0) -> Sample:
        """Read as the sampler does, until a sample is as wanted."""
        end_s = monotonic() + limit_s
        while True:
            sample = self.provider.read()
            if wanted(sample):
                return sample
            assert monotonic() < end_s, sample
            threading.Event().wait(0.1)

    def close(self) -> None:
        self.provider.close()
        self.service.stop()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    it = Board(tmp_path)
    yield it
    it.close()


def by(name: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.provider == name


# --- the real service -------------------------------------------------------------------------------------------------


@installed
def test_rails_and_heat_of_the_real_service_and_what_else_sysfs_has(board: Board) -> None:
    board.service.start()
    sample = board.until(by("jtop"))
    assert sample.power_w == pytest.approx(7.006, abs=0.001) and not sample.power_estimated
    assert sample.rails_w["VDD_SOC"] == pytest.approx(1.351, abs=0.001)
    assert sample.temperatures_c["tj"] == 48.093 and sample.temperatures_c["cv0"] is None
    assert sample.gpu_percent == 42.3 and sample.throttle_events["under_voltage"] == 0
    board.tree.write(board.tree.rail("VDD_IN"), 3000)
    assert board.until(lambda s: (s.power_w or 0) > 14).power_w == pytest.approx(14.928)


@installed
def test_a_rail_that_vanishes_is_no_smaller_total(board: Board) -> None:
    """Without VDD_IN the library's own total silently becomes the sum of the others."""
    board.service.start()
    board.until(by("jtop"))
    (board.tree.root / board.tree.rail("VDD_IN")).unlink()
    sample = board.until(lambda s: s.rails_w["VDD_IN"] is None)
    assert sample.provider == "jtop" and sample.power_w is None
    assert "no total power: Jetson Orin Nano has it on VDD_IN; VDD_IN is unknown" in sample.missing


@installed
def test_a_service_that_stops_and_starts_is_found_again(board: Board) -> None:
    board.service.start()
    board.until(by("jtop"))
    board.service.stop()
    sample = board.until(by("sysfs"))
    assert sample.power_w == pytest.approx(7.006, abs=0.001)
    assert any(why.startswith("jtop: ") and why.endswith("from sysfs instead") for why in sample.missing)
    board.service.start()
    board.until(by("jtop"))


@installed
@pytest.mark.slow
def test_a_service_that_freezes_gives_nothing_stale(board: Board) -> None:
    board.service.start()
    board.until(by("jtop"))
    board.service.signal(signal.SIGSTOP)
    board.until(by("sysfs"))
    board.tree.write(board.tree.rail("VDD_IN"), 3000)
    assert board.provider.read().power_w == pytest.approx(14.928)
    board.until(lambda s: any("nothing new" in why or "does not answer" in why for why in s.missing))
    board.service.signal(signal.SIGCONT)
    assert board.until(by("jtop"), 60).power_w == pytest.approx(14.928)


@installed
@pytest.mark.slow
def test_a_failing_nvpmodel_ends_the_services_sampler_and_not_ours(board: Board) -> None:
    """One failure ends the service for good, as its log in the field shows; systemd must start it again."""
    board.service.start()
    board.until(by("jtop"))
    fault = board.tree.make("state/nvpmodel.fail", 1)
    sample = board.until(by("sysfs"))
    assert sample.power_w == pytest.approx(7.006, abs=0.001)
    fault.unlink()
    board.service.stop()
    board.service.start()
    board.until(by("jtop"), 60)


@installed
@pytest.mark.slow
def test_the_packages_own_command_in_namespaces_of_its_own(tmp_path: Path) -> None:
    """What is redirected for the other tests hides nothing: here nothing is."""
    if not namespaces_allowed():
        pytest.skip("this machine lets nobody make namespaces and mount overlays")
    tree = JetsonTree(tmp_path)
    service = JtopService(tmp_path, plain=True)
    service.start()
    try:
        control = ModeControl(service.socket, path=str(tree.bin))
        assert control.read().current == "15W"
        assert control.set(mode="25W").current == "25W" and tree.read("state/nvpmodel") == "1"
        provider = JtopProvider(service.socket, INTERVAL_S, SysfsProvider(tmp_path))
        end_s = monotonic() + 20
        while (sample := provider.read()).provider != "jtop":
            assert monotonic() < end_s, sample
            threading.Event().wait(0.1)
        provider.close()
        assert sample.power_w == pytest.approx(7.006, abs=0.001) and sample.temperatures_c["tj"] == 48.093
    finally:
        service.stop()


@installed
def test_the_library_stays_out_of_this_process(board: Board) -> None:
    board.service.start()
    board.until(by("jtop"))
    assert not any(name == "jtop" or name.startswith("jtop.") for name in sys.modules)


@installed
def test_a_child_whose_parent_dies_ends(board: Board) -> None:
    board.service.start()
    script = (
        "import sys; from pathlib import Path; from edged.power.jtop import JtopLink\n"
        "link = JtopLink(Path(sys.argv[1]), 0.5); link.next(10); print(link._process.pid, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(board.service.socket)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent:
        child = Path("/proc", parent.stdout.readline().decode().strip())
        assert child.exists()
        parent.kill()
    end_s = monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2]:
        assert monotonic() < end_s
        threading.Event().wait(0.05)


# --- without a service ------------------------------------------------------------------------------------------------


@installed
def test_no_service_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with JtopLink(tmp_path / "no.sock", 0.5) as link, pytest.raises(EdgedError) as reported:
        link.next(20)
    assert reported.value.message == "jtop.service does not run"
    assert reported.value.hint == "sudo systemctl enable --now jtop"


def _child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let `script` stand for the child: it is given -m, the module, the socket and the interval."""
    program = tmp_path / "child"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def _reading(**more: object) -> str:
    values: dict[str, Any] = {"rails_w": {"VDD_IN": 5.0}, "temperatures_c": {"tj": 40.0}, **more}
    line = Reading(mono_ns=monotonic_ns(), **values)
    return msgspec.json.encode(line).decode()


def test_a_library_that_is_not_there(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = msgspec.json.encode(Trouble("jetson-stats cannot be imported: no", "install it")).decode()
    _child(tmp_path, monkeypatch, f"print({trouble!r}, flush=True)")
    sample = board.until(lambda s: any("cannot be imported" in why for why in s.missing))
    assert sample.provider == "sysfs" and sample.power_w == pytest.approx(7.006, abs=0.001)


def test_a_child_that_cannot_be_started(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    sample = board.until(lambda s: any("/nowhere/python" in why for why in s.missing))
    assert sample.provider == "sysfs" and sample.power_w == pytest.approx(7.006, abs=0.001)


def test_a_child_that_falls_silent_is_killed_and_started_again(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    _child(tmp_path, monkeypatch, f"open({str(starts)!r}, 'a').write('x'); time.sleep(60)")
    monkeypatch.setattr(jtop_module, "SILENT_S", 0.3)
    monkeypatch.setattr(jtop_module, "SILENT_INTERVALS", 0)
    monkeypatch.setattr(jtop_module, "RETRY_S", (0.1,))
    board.until(lambda s: any("was ended" in why for why in s.missing))
    board.until(lambda s: starts.exists() and len(starts.read_text()) >= 2)


def test_a_child_that_dies_again_and_again_is_started_ever_more_rarely(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    _child(tmp_path, monkeypatch, f"open({str(starts)!r}, 'a').write('x')")
    monkeypatch.setattr(jtop_module, "RETRY_S", (0.05, 0.1, 60.0))
    board.until(lambda s: starts.exists() and len(starts.read_text()) >= 3)
    end_s = monotonic() + 1
    while monotonic() < end_s:
        board.provider.read()
    assert len(starts.read_text()) == 3


def test_what_is_stale_when_it_comes_is_not_believed(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, f"print({_reading()!r}, flush=True); time.sleep(60)")
    assert board.until(by("jtop")).power_w == 5.0
    assert board.until(by("sysfs")).power_w == pytest.approx(7.006, abs=0.001)


def test_values_that_no_sensor_has_are_unknown(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = _reading(rails_w={"VDD_IN": 5.0, "VDD_SOC": 7e5}, temperatures_c={"tj": 40.0, "cv0": -256.0})
    _child(tmp_path, monkeypatch, f"print({line!r}, flush=True); time.sleep(60)")
    sample = board.until(by("jtop"))
    assert sample.rails_w["VDD_SOC"] is None and sample.temperatures_c["cv0"] is None and sample.temperature_c == 40.0
    assert "cv0 reads -256 C, which no working sensor does" in sample.missing


@pytest.mark.parametrize(
    "data", [b"hello", b"{}", b'{"type":"reading"}', b"\xff\xfe", b'{"type":"reading","mono_ns":1e99}', b"x" * 200_000]
)
def test_garbage_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    (tmp_path / "data").write_bytes(data + b"\n")
    _child(
        tmp_path, monkeypatch, f"sys.stdout.buffer.write(open({str(tmp_path / 'data')!r}, 'rb').read()); time.sleep(60)"
    )
    with JtopLink(tmp_path / "no.sock", 0.5) as link, pytest.raises(EdgedError, match="the jtop process sent"):
        link.next(10)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_line_is_a_reading_or_refused(line: bytes) -> None:
    with pytest.raises(EdgedError, match="the jtop process sent a line that is no reading"):
        decoded(line)


def test_orders_say_only_what_is_wanted() -> None:
    assert msgspec.json.encode(SetRequest(mode=0)) == b'{"mode":0}'
    assert msgspec.json.encode(SetRequest(clocks=False)) == b'{"clocks":false}'
