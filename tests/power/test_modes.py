"""Power modes through the real jtop service and through nvpmodel, on emulated boards."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest

from edged.bus.schema import Event
from edged.cli import main
from edged.client import Client
from edged.errors import EdgedError, UsageError
from edged.power import nvpmodel
from edged.power.modes import Mode, ModeControl
from tests.support.daemon import RunningDaemon, write_config
from tests.support.jetson_tree import JetsonTree
from tests.support.jtop_service import JtopService
from tests.support.models import center_model, write_bundle

installed = find_spec("jtop") is not None  # without importing it: that changes multiprocessing in this process
pytestmark = pytest.mark.skipif(not installed, reason="needs the extra: pip install 'edged[jetson]'")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JtopService]:
    it = JtopService(JetsonTree(tmp_path_factory.mktemp("nano")).root)
    it.start()
    yield it
    it.stop()


@pytest.fixture
def control(service: JtopService) -> ModeControl:
    return ModeControl(service.socket, path=str(service.root / "bin"))


def state(service: JtopService, name: str) -> str:
    return (service.root / "state" / name).read_text().strip()


def test_what_there_is(control: ModeControl) -> None:
    modes = control.read()
    assert modes.way == "jtop" and modes.current == "15W" and not modes.not_settable
    assert modes.modes == (
        Mode(0, "15W", False),
        Mode(1, "25W", False),
        Mode(2, "MAXN_SUPER", False),
        Mode(3, "7W", True),
    )
    assert modes.clocks == "inactive" and modes.fan == "cool" and {"cool", "quiet"} <= set(modes.fans)


def test_a_mode_is_set_and_read_back(control: ModeControl, service: JtopService) -> None:
    assert control.set(mode="25w").current == "25W"
    assert state(service, "nvpmodel") == "1"
    assert control.set(mode="25W").current == "25W"  # once more: nothing to do
    assert control.set(mode="15W").current == "15W"
    assert state(service, "nvpmodel") == "0"


def test_what_needs_a_reboot_is_refused_and_never_forced(control: ModeControl, service: JtopService) -> None:
    with pytest.raises(EdgedError) as refused:
        control.set(mode="7W")
    assert refused.value.message == "the power mode 7W needs a reboot, which edged never does"
    assert refused.value.hint.startswith("sudo nvpmodel -m 3 ")
    assert state(service, "nvpmodel") == "0" and not (service.root / "state/nvpmodel.rebooted").exists()


@pytest.mark.parametrize(
    ("name", "hint"), [("24W", "did you mean 25W?"), ("turbo", "name one of: 15W, 25W, MAXN_SUPER, 7W")]
)
def test_a_mode_that_is_not_there(control: ModeControl, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        control.set(mode=name)
    assert refused.value.hint == hint


@pytest.mark.slow
def test_clocks_are_switched_and_survive_a_change_of_mode(control: ModeControl) -> None:
    assert control.set(clocks=True).clocks == "running"
    assert control.set(mode="25W").clocks == "running"
    assert control.set(mode="15W", clocks=False).clocks == "inactive"


def test_the_fan_keeps_its_control(control: ModeControl, service: JtopService) -> None:
    assert control.set(fan="quiet").fan == "quiet"
    assert control.set(fan="cool").fan == "cool"
    for name in ("manual", "loud"):
        with pytest.raises(UsageError, match="there is no fan profile"):
            control.set(fan=name)
    assert state(service, "nvfancontrol.active") == "1"


@pytest.mark.slow
def test_a_mode_that_nvpmodel_refuses_only_when_asked(tmp_path: Path) -> None:
    """Thor's configuration does not say beforehand what jtop looks for."""
    tree = JetsonTree(tmp_path, "thor")
    service = JtopService(tree.root)
    service.start()
    try:
        control = ModeControl(service.socket, path=str(tree.bin))
        assert control.set(mode="MAXN").current == "MAXN"
        with pytest.raises(EdgedError, match="90W needs a reboot"):
            control.set(mode="90W")
        assert tree.read("state/nvpmodel") == "0" and not (tree.root / "state/nvpmodel.rebooted").exists()
    finally:
        service.stop()


@pytest.mark.slow
def test_modes_with_gaps_between_their_numbers_are_not_left_to_jtop(tmp_path: Path) -> None:
    tree = JetsonTree(tmp_path)
    listing = tree.root / "state/nvpmodel.verbose"
    listing.write_text(
        listing.read_text() + "NVPM VERB: POWER_MODEL: ID=8 NAME=FIELD\nNVPM VERB: TPC_POWER_GATING TPC_PG_MASK 240\n"
    )
    service = JtopService(tree.root)
    service.start()
    try:
        with pytest.raises(EdgedError, match="not numbered 0, 1, 2"):
            ModeControl(service.socket, path=str(tree.bin)).set(mode="FIELD")
        assert "-m" not in tree.read("state/nvpmodel.calls")
    finally:
        service.stop()


# --- through the daemon, as an operator does it -----------------------------------------------------------------------


def test_an_operator_sets_a_mode_through_the_daemon(
    service: JtopService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "b", {"only": center_model(-100.0)})
    power = f'[power]\njtop_socket = "{service.socket}"'
    config = write_config(tmp_path, bundle, {"gate": "test://3?width=128&height=64&fps=30"}, power)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))

    def edged(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return (code, *capsys.readouterr())

    with RunningDaemon(config, tmp_path), Client(f"ipc://{tmp_path}/results.ipc", ["event"], timeout_s=10.0) as events:
        code, out, _ = edged("ctl", "modes")
        assert code == 0 and out.splitlines() == [
            "power mode     15W",
            "jetson_clocks  inactive",
            "fan            cool",
            "",
            "> 0  15W",
            "  1  25W",
            "  2  MAXN_SUPER",
            "  3  7W               needs a reboot",
            "",
            "fan profiles: cool, quiet",
            "",
            "set through jtop",
        ]
        code, out, _ = edged("ctl", "mode", "25W")
        assert code == 0 and out.startswith("power mode     25W\n") and state(service, "nvpmodel") == "1"
        event = next(message for message in events if isinstance(message, Event))
        assert event.kind == "power_mode" and event.text.startswith("power mode 25W, ")
        code, _, err = edged("ctl", "mode", "7W")
        assert code == 1 and "edged: the power mode 7W needs a reboot, which edged never does\n" in err
        assert edged("ctl", "mode", "15W", "--json")[0] == 0
        assert edged("ctl", "mode")[0] == 2
        assert edged("ctl", "mode", "15W", "--fan", "quiet")[0] == 2
    assert state(service, "nvpmodel") == "0"


def test_whoever_waits_for_a_mode_gives_up_when_the_daemon_stops(tmp_path: Path) -> None:
    silent = socket.socket(socket.AF_UNIX)  # takes connections and says nothing, as a service does that hangs
    silent.bind(str(tmp_path / "jtop.sock"))
    silent.listen()
    control = ModeControl(tmp_path / "jtop.sock", path="/nowhere")
    reported: list[str] = []

    def ask() -> None:
        try:
            control.set(mode="15W")
        except EdgedError as error:
            reported.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    peer, _ = silent.accept()
    begin = monotonic()
    control.close()
    thread.join(10)
    assert (
        monotonic() - begin < 3
        and reported
        and reported[0].startswith("no power modes: there is no nvpmodel here, and ")
    )
    with pytest.raises(EdgedError, match="edged is stopping"):
        control.read()
    peer.close()
    silent.close()


# --- without jtop: NVIDIA's tool --------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> tuple[JetsonTree, ModeControl]:
    tree = JetsonTree(tmp_path, "agx_orin")
    return tree, ModeControl(tmp_path / "no.sock", path=str(tree.bin))


def test_anybody_may_ask_and_only_root_may_set(
    bare: tuple[JetsonTree, ModeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, control = bare
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    modes = control.read()
    assert modes.way == "nvpmodel" and modes.current == "MODE_30W" and modes.clocks is None
    assert [(m.name, m.needs_reboot) for m in modes.modes] == [
        ("MAXN", True),
        ("MODE_15W", True),
        ("MODE_30W", False),
        ("MODE_50W", True),
    ]
    assert modes.not_settable == "only root may set it, and jtop cannot: jtop.service does not run"
    with pytest.raises(EdgedError) as refused:
        control.set(mode="MAXN")
    assert refused.value.hint == "sudo systemctl enable --now jtop"
    assert "-m" not in tree.read("state/nvpmodel.calls")


def test_root_sets_it_with_the_tool_but_never_through_a_reboot(
    bare: tuple[JetsonTree, ModeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, control = bare
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tree.write("state/nvpmodel", 0)
    assert control.set(mode="mode_50w").current == "MODE_50W"
    assert tree.read("state/nvpmodel") == "3"
    with pytest.raises(EdgedError, match="MODE_15W needs a reboot"):
        control.set(mode="MODE_15W")
    with pytest.raises(EdgedError, match="set through jtop"):
        control.set(clocks=True)
    assert tree.read("state/nvpmodel") == "3" and not (tree.root / "state/nvpmodel.rebooted").exists()


def test_a_tool_that_fails_or_hangs(bare: tuple[JetsonTree, ModeControl], monkeypatch: pytest.MonkeyPatch) -> None:
    tree, control = bare
    tree.make("state/nvpmodel.fail", 1)
    with pytest.raises(EdgedError, match="failed with exit code 255: NVPM ERROR: Error opening") as refused:
        control.read()
    assert refused.value.hint
    (tree.root / "state/nvpmodel.fail").unlink()
    tree.make("state/nvpmodel.delay", 30)
    monkeypatch.setattr(nvpmodel, "TIMEOUT_S", 0.2)
    with pytest.raises(EdgedError, match="does not end"):
        control.read()


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    control = ModeControl(tmp_path / "no.sock", path=str(tmp_path))
    with pytest.raises(EdgedError) as refused:
        control.read()
    assert refused.value.message == "no power modes: there is no nvpmodel here, and jtop.service does not run"
