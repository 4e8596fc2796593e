"""The configuration: what is read, and what every error says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import edged
from edged.config import (
    Config,
    EngineConfig,
    Limits,
    PowerConfig,
    default_path,
    load,
)
from edged.config.bus import BusConfig
from edged.config.text import diff, effective_toml
from edged.errors import UsageError

GOOD = """
bundle = "demo"
[limits]
deadline_ms = 40
power_w = 7.5
[[camera]]
name = "gate"
source = "rtsp://user:s3cret@10.0.0.5/stream1"
fps = 15
"""
CAMERA = '[[camera]]\nname = "gate"\nsource = "test://7"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "edged.toml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as refused:
        load(path)
    assert refused.value.hint
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_a_file_becomes_a_config_with_defaults(file: Path) -> None:
    config = load(file)
    assert config.limits == Limits(deadline_ms=40.0, power_w=7.5)
    assert config.limits.deadline_quantile == 0.99 and config.limits.energy_wh is None
    assert [camera.name for camera in config.camera] == ["gate"]
    assert config.bundle == str(file.parent / "demo")  # relative to the file, wherever edged is started


def test_a_relative_video_counts_from_the_file_and_no_other_source_is_touched(file: Path) -> None:
    sources = ["videos/a.mp4", "/v/a.mp4", "test://7", "user@host/x", "rtsp:/host/x"]
    tables = [f'[[camera]]\nname = "c{n}"\nsource = "{source}"\n' for n, source in enumerate(sources)]
    file.write_text('bundle = "demo"\n' + "".join(tables))
    assert [camera.source for camera in load(file).camera] == [str(file.parent / "videos/a.mp4"), *sources[1:]]


def test_drop_ins_are_merged_in_the_order_of_their_names(file: Path) -> None:
    drop_ins = file.with_name("edged.d")
    drop_ins.mkdir()
    (drop_ins / "20-late.toml").write_text("[limits]\ndeadline_ms = 20\n[bus]\nresults = 'ipc:///run/x.ipc'")
    (drop_ins / "10-early.toml").write_text(
        "[limits]\ndeadline_ms = 10\n[[camera]]\nname = 'yard'\nsource = 'test://7'"
    )
    (drop_ins / "ignored.conf").write_text("nonsense")
    config = load(file)
    assert (config.limits.deadline_ms, config.limits.power_w) == (20.0, 7.5)
    assert [camera.name for camera in config.camera] == ["gate", "yard"]
    assert config.bus.results == "ipc:///run/x.ipc"


def test_an_error_names_the_drop_in_it_comes_from(file: Path) -> None:
    drop_ins = file.with_name("edged.d")
    drop_ins.mkdir()
    bad = drop_ins / "10-bad.toml"
    bad.write_text("[limits]\npower_w = -3")
    with pytest.raises(UsageError, match=rf"^{bad}: limits.power_w is -3, expected watts, from 0.001 to 1000"):
        load(file)
    bad.write_text("[[camera]]\nname = 'gate'\nsource = 'test://7'")
    with pytest.raises(UsageError, match=rf"^{bad}: camera.2.name is 'gate', which is there also in {file}"):
        load(file)
    bad.write_text("[[camera]]\nname = 'yard'\nsource = 'test://7'\nfsp = 3")
    with pytest.raises(UsageError, match=rf"^{bad}: camera.2.fsp is not a known key \(did you mean fps\?\)"):
        load(file)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["bundle is missing"]),
        (CAMERA, ["bundle is missing"]),
        ("bundle = 'x'", ["there is no camera", "[[camera]]"]),
        ("bundle = 3\n" + CAMERA, ["bundle is 3", "the path of a bundle"]),
        ("bundle = 'x'\nlimits = 3\n" + CAMERA, ["limits is 3", "a table with the keys deadline_ms"]),
        ("bundle = 'x'\n[limits]\ndeadline_ms = 0\n" + CAMERA, ["limits.deadline_ms is 0", "from 0.1 to 60000"]),
        ("bundle = 'x'\n[limits]\ndeadline_ms = 'fast'\n" + CAMERA, ["limits.deadline_ms is 'fast'", "milliseconds"]),
        ("bundle = 'x'\n[limits]\ndeadline_ms = true\n" + CAMERA, ["limits.deadline_ms is True", "milliseconds"]),
        ("bundle = 'x'\n[limits]\npower_w = nan\n" + CAMERA, ["limits.power_w must be a finite number"]),
        ("bundle = 'x'\n[limits]\nenergy_wh = inf\n" + CAMERA, ["limits.energy_wh must be a finite number"]),
        ("bundle = 'x'\n[limits]\ndeadline = 3\n" + CAMERA, ["limits.deadline is not", "did you mean deadline_ms?"]),
        ("bundle = 'x'\n[limit]\ndeadline_ms = 3\n" + CAMERA, ["limit is not", "did you mean limits?"]),
        ("bundle = 'x'\n[engine]\ndevice = 'tpu'\n" + CAMERA, ["engine.device is 'tpu'", '"cpu", "cuda"']),
        (
            "bundle = 'x'\n[schedule]\n'25:00' = 'night'\n" + CAMERA,
            ["schedule has the key '25:00'", "from 00:00 to 23:59"],
        ),
        (
            "bundle = 'x'\n[schedule]\n'22:00' = 3\n" + CAMERA,
            ['schedule."22:00" is', "the name of a power profile"],
        ),
        ("bundle = 'x'\nschedule = 3\n" + CAMERA, ["schedule is 3, expected"]),
        ("bundle = 'x'\n[camera]\nname = 'a'", ["camera must be a list of tables", "[[camera]]"]),
        ("bundle = 'x'\ncamera = [1]", ["camera must be a list of tables"]),
        (
            "bundle = 'x'\n[[camera]]\nname = 'Front Gate'\nsource = 'test://7'",
            ["camera.1.name is 'Front Gate'", "1 to 32"],
        ),
        ("bundle = 'x'\n[[camera]]\nname = 'gate\\n'\nsource = 'test://7'", ["camera.1.name", "1 to 32"]),
        ("bundle = 'x'\n[[camera]]\nname = 'gate'", ["camera.1.source is missing", "a URI in quotes"]),
        ("bundle = 'x'\n" + CAMERA + CAMERA, ["camera.2.name is 'gate', which is there twice"]),
        ("bundle = \n", ["not valid TOML", "line 1, column 10"]),
        ("a = " + "[" * 5000, ["not"]),
        (b"bundle = 'x'\n# \xff", ["not UTF-8", "line 2"]),
        ("x = " + "9" * 5000, ["TOML"]),
        ("bundle = 'x'\n[limits]\ndeadline_ms = " + "9" * 400 + "\n" + CAMERA, ["limits.deadline_ms", "to 60000"]),
        ("bundle = 'x'\n[limits]\ndeadline_ms = 5e-324\n" + CAMERA, ["limits.deadline_ms is 5e-324", "from 0.1"]),
        ('bundle = "x\\u0000"\n' + CAMERA, ["bundle holds a NUL"]),
        (b"\xef\xbb\xbfbundle = 'x'", ["byte order mark", "without BOM"]),
        ("bundle = 'x'".encode("utf-16"), ["byte order mark"]),
        ("bundle = 'x'\n\0", ["NUL byte (line 2)"]),
        (".".join("a" * 500) + " = 1", ["more than 16 parts (line 1)"]),
        (" . ".join(['"a"'] * 500) + " = 1", ["more than 16 parts"]),
        ("[" + ".".join("a" * 500) + "]", ["more than 16 parts"]),
        ("x = " + "{a = " * 100 + "1" + "}" * 100, ["nested more than"]),
        ("x = " + "[" * 5000, ["TOML"]),
        ("#" * (1 << 20) + "x", ["larger than"]),
        ("bundle = 'x'\n[bus]\nresults = 'results'\n" + CAMERA, ["bus.results is 'results'", "ipc:///absolute/path"]),
        (
            "bundle = 'x'\n[bus]\nresults = 'tcp://0.0.0.0:5555'\n" + CAMERA,
            ["bus.results opens the network", "bus.curve_secret_key and bus.curve_clients", "edged key new"],
        ),
    ],
)
def test_what_is_wrong_is_reported_in_one_sentence(file: Path, text: str | bytes, parts: list[str]) -> None:
    message = refusal(file, text)
    assert message.startswith(str(file))
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_no_message_holds_a_password(file: Path) -> None:
    table = "bundle = 'x'\n[[camera]]\n"
    assert "s3cret" not in refusal(file, table + "name = 'rtsp://u:s3cret@host'\nsource = 'test://7'")
    assert "s3cret" not in refusal(file, table + "name = 'a'\nsource = ['rtsp://u:s3cret@host']")
    assert "s3cret" not in refusal(file, table + "name = 'a'\nsource = 'rtsp://u:s3cret@host/" + "x" * 2000 + "'")


def test_what_cannot_be_read_is_reported(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        load(Path("a\0b"))
    with pytest.raises(UsageError, match="cannot be read"):
        load(file / "below.toml")


def test_the_environment_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_CONFIG", str(file))
    assert default_path() == file
    assert default_path("/nowhere/edged.toml") == Path("/nowhere/edged.toml")
    monkeypatch.delenv("EDGED_CONFIG")
    assert default_path() == Path("/etc/edged/edged.toml")


def test_the_shipped_file_is_valid_and_every_key_in_it_is_explained(tmp_path: Path) -> None:
    shipped = Path(edged.__file__).with_name("edged.toml")
    assert load(shipped).camera
    text = shipped.read_text()
    for table in (Limits, PowerConfig, BusConfig, EngineConfig):
        for field in msgspec.structs.fields(table):
            assert f"{field.name} = " in text, f"{field.name} is not in the shipped configuration"
    # With every commented example put in force it is still valid.
    lines = [line[1:] if line[:1] == "#" and line[1:2] not in ("", " ", ":") else line for line in text.splitlines()]
    everything = tmp_path / "edged.toml"
    everything.write_text("\n".join(lines))
    assert load(everything).limits.power_w


def test_the_effective_configuration_loads_again_and_shows_no_password(file: Path, tmp_path: Path) -> None:
    config = load(file)
    text = effective_toml(config)
    assert "s3cret" not in text and "10.0.0.5" in text and "# energy_wh is not set" in text
    again = tmp_path / "again.toml"
    again.write_text(text)
    hidden = [msgspec.structs.replace(config.camera[0], source=load(again).camera[0].source)]
    assert load(again) == msgspec.structs.replace(config, camera=hidden)


def test_a_reload_tells_what_changes_and_what_needs_a_restart(file: Path, tmp_path: Path) -> None:
    old = load(file)
    other = tmp_path / "other.toml"
    other.write_text(
        GOOD.replace("s3cret", "n3w").replace("40", "30").replace('"demo"', '"better"')
        + "[[camera]]\nname = 'yard'\nsource = 'http://u:pw@h/'\n[engine]\nthreads = 2"
    )
    changes, restart = diff(old, load(other))
    assert changes == [
        "limits: deadline_ms 40.0 -> 30.0",
        "camera gate: source has other credentials",
        "camera yard: added, http://***@h/",
    ]
    assert restart == [f'bundle: "{tmp_path}/demo" -> "{tmp_path}/better"', "engine: threads 1 -> 2"]
    assert "camera yard: removed" in diff(load(other), old)[0]
    assert diff(old, old) == ([], [])


scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("ipc:///x"), st.just("tcp://x:1")
)
keys = st.sampled_from(["bundle", "limits", "power", "bus", "engine", "camera", "name", "source", "fps"]) | st.text(
    "abc_é \"'\\\n", max_size=8
)
tables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000) + '"'
    return str(value)


hostile = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@hostile
@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda text: GOOD.encode() + text.encode("utf-8", "replace"))
)
@example(b"bundle = 'x'\nlimits = 1979-05-27T07:32:00Z\n" + CAMERA.encode())
@example(b"bundle = 1979-99-27\n")
def test_any_bytes_give_a_config_or_a_usage_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(raw)
    try:
        assert isinstance(load(path), Config)
    except UsageError as error:
        assert error.hint and error.message.startswith(str(path))


@hostile
@given(st.dictionaries(keys, tables, max_size=6))
def test_any_toml_gives_a_config_or_a_usage_error(tmp_path: Path, data: dict[str, object]) -> None:
    path = tmp_path / "any.toml"
    path.write_text("".join(f"{toml(key)} = {toml(value)}\n" for key, value in data.items()))
    try:
        assert isinstance(load(path), Config)
    except UsageError as error:
        assert error.hint and error.message.startswith(str(path))


def test_results_and_control_are_two_sockets(tmp_path: Path) -> None:
    text = '[bus]\nresults = "ipc:///run/x.ipc"\ncontrol = "ipc:///run/x.ipc"\n'
    path = tmp_path / "edged.toml"
    path.write_text(f'bundle = "b"\n{text}[[camera]]\nname = "gate"\nsource = "test://1"\n')
    with pytest.raises(UsageError, match=r"bus\.control is 'ipc:///run/x\.ipc', the same as bus\.results"):
        load(path)
