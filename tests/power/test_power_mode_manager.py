"""Power modes by profile: an operator's at once or not at all, a starting one's in its own time, never on the loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edged.cli import main
from edged.errors import EdgedError
from edged.power import power_mode_manager
from edged.power.modes import ModeControl
from edged.power.power_mode_manager import PowerModeManager, Wanted
from tests.support.bus import wait_for
from tests.support.daemon import RunningDaemon, write_config
from tests.support.helped import command_on
from tests.support.jetson_tree import JetsonTree
from tests.support.models import center_model, write_bundle

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="without jtop only root may set a mode")
SMALL = "test://3?width=128&height=64&fps=30"


@pytest.fixture
def tree(tmp_path: Path) -> JetsonTree:
    return JetsonTree(tmp_path / "board")


@pytest.fixture
def desk(tree: JetsonTree, tmp_path: Path) -> Iterator[tuple[PowerModeManager, list[str]]]:
    reported: list[str] = []
    it = PowerModeManager(ModeControl(tmp_path / "no.sock", str(tree.bin)), reported.append)
    yield it, reported
    it.close()


def test_a_starting_profiles_mode_is_set_in_its_own_time(
    desk: tuple[PowerModeManager, list[str]], tree: JetsonTree
) -> None:
    it, reported = desk
    it.soon("night", "25W")
    assert it.wanted == Wanted("night", "25W", None)
    wait_for(lambda: it.wanted == Wanted("night", "25W", ""), 20)
    assert tree.read("state/nvpmodel") == "1" and reported == ["power mode 25W, as profile night has it"]
    it.set("15W")
    assert it.wanted == Wanted("night", "25W", "an operator set 15W")
    it.taken("day", None)
    assert it.wanted is None and tree.read("state/nvpmodel") == "0"


def test_a_mode_that_the_device_profile_is_not_of_is_named(
    desk: tuple[PowerModeManager, list[str]], tree: JetsonTree
) -> None:
    it, reported = desk
    it.profiled = "15w"
    it.set("25W")
    it.set("15W")
    it.soon("night", "25W")
    wait_for(lambda: it.wanted == Wanted("night", "25W", ""), 20)
    note = "; the device profile is of 15w, so latency and power are learned again until a restart"
    assert [text.endswith(note) for text in reported] == [True, False, True]


def test_one_that_cannot_be_set_is_reported_and_tried_again(
    desk: tuple[PowerModeManager, list[str]], tree: JetsonTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power_mode_manager, "RETRY_S", (0.3, 0.3, 30.0))
    it, reported = desk
    it.soon("night", "7W")
    wait_for(lambda: reported, 20)
    assert reported == [
        "the power mode 7W of profile night is not in force: the power mode 7W needs a reboot, which edged never does; "
        "sudo nvpmodel -m 3   asks, and restarts the board at once"
    ]
    tree.write("state/nvpmodel", 3)  # somebody did
    wait_for(lambda: it.wanted == Wanted("night", "7W", ""), 20)
    assert len(reported) == 2


def test_the_last_word_counts_and_orders_wait_for_one_another(
    desk: tuple[PowerModeManager, list[str]], tree: JetsonTree
) -> None:
    it, reported = desk
    tree.make("state/nvpmodel.delay", 0.4)
    it.soon("a", "25W")
    wait_for(
        lambda: "-p" in tree.read("state/nvpmodel.calls") if (tree.root / "state/nvpmodel.calls").exists() else 0, 10
    )
    it.soon("b", "MAXN_SUPER")
    with pytest.raises(EdgedError, match="another change of the power mode is going on"):
        it.set("15W")
    wait_for(lambda: it.wanted == Wanted("b", "MAXN_SUPER", ""), 20)
    assert tree.read("state/nvpmodel") == "2" and reported == ["power mode MAXN_SUPER, as profile b has it"]


def test_it_ends_at_once(tree: JetsonTree, tmp_path: Path) -> None:
    it = PowerModeManager(ModeControl(tmp_path / "no.sock", str(tree.bin)), lambda text: None)
    it.soon("night", "7W")
    wait_for(lambda: it.wanted is not None and it.wanted.problem, 20)
    it.close()
    assert not any(thread.name == "power.mode" for thread in threading.enumerate())


# ---- through the daemon ----------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tree: JetsonTree, tmp_path: Path) -> Iterator[RunningDaemon]:
    bundle = write_bundle(tmp_path / "b", {"fine": center_model(-100.0), "fast": center_model(-90.0)})
    for name, text in {
        "day": 'mode = "25W"\n[limits]\npower_w = 20\n',
        "night": 'mode = "15W"\n[limits]\npower_w = 12\n',
        "dark": 'mode = "7W"\n[limits]\npower_w = 6\n',
        "typo": 'mode = "51W"\n',
        "vain": 'mode = "MAXN_SUPER"\n[limits]\nmin_accuracy = 1.0\n',
    }.items():
        (tmp_path / "profiles").mkdir(exist_ok=True)
        (tmp_path / "profiles" / f"{name}.toml").write_text(f'description = "{name} at the gate"\n{text}')
    extra = f'profile = "day"\n[power]\njtop_socket = "{tmp_path}/no.sock"\n'
    config = write_config(tmp_path, bundle, {"gate": SMALL}, extra)
    with RunningDaemon(config, tmp_path, command_on(tree, tmp_path / "none", config)) as running:
        yield running


def mode(daemon: RunningDaemon) -> Any:
    return daemon.state()["mode"]


def test_profiles_carry_their_mode_and_one_that_cannot_be_set_changes_nothing(
    daemon: RunningDaemon, tree: JetsonTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wait_for(lambda: mode(daemon) == {"mode": "25W", "problem": ""}, 20)
    assert tree.read("state/nvpmodel") == "1"
    assert main(["ctl", "profile", "night", "--endpoint", daemon.control]) == 0
    assert "power mode 15W" in capsys.readouterr().out
    assert tree.read("state/nvpmodel") == "0"
    wait_for(lambda: (daemon.state()["profile"], mode(daemon)) == ("night", {"mode": "15W", "problem": ""}))

    def unchanged() -> bool:
        state = daemon.state()
        in_force = state["profile"], state["limits"]["power_w"], state["limits"]["min_accuracy"]
        return in_force == ("night", 12.0, 0.0) and tree.read("state/nvpmodel") == "0"

    refusals = {
        "dark": "the power mode 7W needs a reboot, which edged never does",
        "typo": "there is no power mode '51W'",
        "vain": "min_accuracy = 1 cannot be held",
    }
    for name, says in refusals.items():
        refused = daemon.ask("profile", name=name)
        assert not refused["ok"] and says in refused["error"], refused
        assert unchanged()
    reply = daemon.ask("profile", name=None)
    assert reply["ok"] and tree.read("state/nvpmodel") == "0", "no profile leaves the mode as it is"
    wait_for(lambda: mode(daemon) is None)


def test_the_frames_go_on_while_a_mode_is_being_set(daemon: RunningDaemon, tree: JetsonTree) -> None:
    wait_for(lambda: mode(daemon) == {"mode": "25W", "problem": ""}, 20)
    tree.make("state/nvpmodel.delay", 1.0)  # each of four calls of the tool
    with daemon.client("result/gate") as client, ThreadPoolExecutor() as pool:
        messages = iter(client)
        assert next(messages)
        being_set = pool.submit(daemon.ask, "profile", name="night")
        for _ in range(4):
            assert next(messages)
        assert not being_set.done(), "no frames came until the mode was set"
        assert being_set.result()["ok"]
