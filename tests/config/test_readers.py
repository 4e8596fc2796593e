"""Whatever a file holds, each reader takes it or refuses it in a sentence: nothing else may come out of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edged
from edged import config, profiles
from edged.bus.curve import certificate, client_keys
from edged.bus.requests import parse_request
from edged.commands import replay, simulate
from edged.commands.credential import Store
from edged.config.text import effective_toml
from edged.crash_guard import FILE, Starts
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import Conditions, load_profile, profile_path
from edged.errors import EdgedError
from edged.frames.source import with_password
from edged.gateway.spool import Item, Spool
from edged.power.energy_store import FILE as ENERGY_FILE
from edged.power.energy_store import EnergyStore
from edged.replay import log, record
from edged.simulate import scenario_file
from edged.uri import parse, redact
from edged_calibration.recipe.schema import load_recipe

DEMO = Path(edged.__file__).parent / "bundles" / "demo"
CONFIGURATION = (Path(edged.__file__).parent / "edged.toml").read_bytes()
PROFILE = b"""description = "x"
mode = "15W"
lift = ["power_w"]
[limits]
deadline_ms = 30
"""
RECIPE = next((Path(__file__).parents[2] / "calibration" / "recipes").glob("*.toml")).read_bytes()
SCENARIO = (simulate.SHIPPED / "hot-noon.toml").read_bytes()
ENERGY_USED = b"""{"passed_s": 1.0, "length_s": 10.0, "spent_j": 5.0, "metered_s": 1.0, "boot_id": "x", "mono_s": 1.0,
"wall_s": 1.0, "synchronised": true}"""
CAMERA = config.CameraConfig("a", "rtsp://user@host/", password_credential="file.toml")
KEY = b"""metadata
curve
    public-key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
"""


def read_configuration(path: Path) -> None:
    effective_toml(config.load(path)).encode()


def read_drop_in(path: Path) -> None:
    main = path.with_name("main.toml")
    main.write_text("bundle = 'x'\n[[camera]]\nname = 'a'\nsource = 'test://7'\n")
    (path.parent / "main.d").mkdir(exist_ok=True)
    (path.parent / "main.d" / "a.toml").write_bytes(path.read_bytes())
    effective_toml(config.load(main)).encode()


def read_profile(path: Path) -> None:
    directory = path.parent / "profiles"
    directory.mkdir(exist_ok=True)
    (directory / "odd.toml").write_bytes(path.read_bytes())
    assert {name for name, _ in profiles.find_all(path)} >= {"odd"}
    profiles.find("odd", path).apply(config.Limits())


def read_manifest(path: Path) -> None:
    (path.parent / "manifest.json").write_bytes(path.read_bytes())
    load_bundle(path.parent)


def read_device_profile(path: Path) -> None:
    here = Conditions("x", "cpu")
    profile_path(path.parent, here).write_bytes(path.read_bytes())
    load_profile(path.parent, here, {"a": "0" * 64})


def read_crash_count(path: Path) -> None:
    (path.parent / FILE).write_bytes(path.read_bytes())
    assert Starts(path.parent).crashes >= 0


def read_energy_used(path: Path) -> None:
    (path.parent / ENERGY_FILE).unlink(missing_ok=True)
    path.rename(path.parent / ENERGY_FILE)
    EnergyStore(path.parent).load()


def read_password(path: Path) -> None:
    with_password(parse("rtsp://user@host/"), CAMERA, path.parent)


def read_scenario(path: Path) -> None:
    scenario_file.scenario(*simulate._read(str(path), "orin-nano"))


def read_spool(path: Path) -> None:
    path.with_name("file.toml-wal").unlink(missing_ok=True)
    spool = Spool(path, 1 << 20)
    spool.append([Item("event", "1", b"x")])
    spool.close()


def read_log_as_a_command(path: Path) -> None:
    replay._files(path)


def read_log(path: Path) -> None:
    with path.open("rb") as file:
        head = log.header(file, "log")
        for _ in log.read(file, head):
            pass


def read_key_directory(path: Path) -> None:
    (path.parent / "odd.key").write_bytes(path.read_bytes())
    client_keys(path.parent)


READERS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "configuration": (read_configuration, CONFIGURATION),
    "drop-in": (read_drop_in, CONFIGURATION),
    "power profile": (read_profile, PROFILE),
    "recipe": (load_recipe, RECIPE),
    "manifest": (read_manifest, (DEMO / "manifest.json").read_bytes()),
    "device profile": (read_device_profile, b'{"version": 1, "device": "x", "runs": []}'),
    "crash count": (read_crash_count, b"2\n"),
    "key": (certificate, KEY),
    "energy used": (read_energy_used, ENERGY_USED),
    "password": (read_password, b"secret\n"),
    "scenario": (read_scenario, SCENARIO),
    "spool": (read_spool, b"SQLite format 3\0"),
    "log of a command": (read_log_as_a_command, log.MAGIC),
    "directory of keys": (read_key_directory, KEY),
}

READ_IN_PLACE = ("configuration", "recipe", "key", "energy used", "password", "scenario", "spool", "log of a command")

nested = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
hostile = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """A file that was right, with a few pieces cut out, doubled or replaced."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.integers(0, 20))
        piece = draw(
            st.sampled_from([b"", b"[", b"{", b"[[", b"= ", b".", b'"', b"nan", b"1e999", b"\0", b"\xff", b"5e-324"])
            | st.binary(max_size=6)
            | st.just(bytes(content[at : at + size]) * 2)
        )
        content[at : at + size] = piece
    return bytes(content)


def read(reader: Callable[[Path], object], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(EdgedError):
        reader(path)


@pytest.mark.parametrize("name", READERS)
@hostile
@given(data=st.data())
def test_a_damaged_file_is_taken_or_refused_in_a_sentence(tmp_path: Path, name: str, data: st.DataObject) -> None:
    reader, original = READERS[name]
    content = data.draw(st.binary(max_size=200) | mutated(original))
    read(reader, tmp_path / "file.toml", content)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("depth", [50, 500, 100_000])
@pytest.mark.parametrize("shape", ["a.", "[", "{a=", '{"a":', '[{"a":', "[a.", '"a".', "a = {a."])
def test_nesting_of_any_depth_ends_no_reader(tmp_path: Path, name: str, depth: int, shape: str) -> None:
    reader, _ = READERS[name]
    for content in (shape * depth, shape * depth + "a = 1", "x = " + shape * depth):
        read(reader, tmp_path / "file.toml", content.encode())


@pytest.mark.parametrize("name", ["manifest", "device profile"])
@hostile
@given(data=st.data())
def test_values_of_any_kind_in_place_of_any_value(tmp_path: Path, name: str, data: st.DataObject) -> None:
    reader, original = READERS[name]
    tree = json.loads(original)
    at: Any = tree
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not (isinstance(at[key], dict | list) and at[key]) or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(nested.filter(lambda value: not isinstance(value, bytes)))
    with contextlib.suppress(TypeError):  # bytes within are no JSON
        read(reader, tmp_path / "file", json.dumps(tree).encode())


@hostile
@given(records=st.lists(nested, max_size=4), head=nested)
def test_a_log_with_right_checksums_and_wrong_records(tmp_path: Path, records: list[Any], head: Any) -> None:
    header = record.Header(record.VERSION, record.SHAPE, "0", "0", "m", "b", 0.0, 0, 1, False)
    packer = log.Packer()
    content = packer.begin(header)
    packer._records = records
    read(read_log, tmp_path / "file", content + packer.frame())
    read(read_log, tmp_path / "file", log.MAGIC + log._frame(packer._encoder.encode(head)))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("odd", ["a pipe", "a directory", "a link to itself", "no permission"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str, odd: str) -> None:
    reader, original = READERS[name]
    path = tmp_path / "file.toml"
    match odd:
        case "a pipe":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case "a link to itself":
            path.symlink_to(path)
        case _:
            path.write_bytes(original)
            path.chmod(0)
    if name in READ_IN_PLACE:  # the others copy the file to their own place first
        with contextlib.suppress(EdgedError):
            reader(path)


@pytest.mark.parametrize("odd", [b"caf\xe9", b"\xff\xfe", b"a\nb", b"[1m", "\u202e".encode(), b" ", b"x" * 200])
def test_file_names_of_any_bytes(tmp_path: Path, odd: bytes) -> None:
    for directory in ("profiles", "e.d", "clients", "credentials"):
        (tmp_path / directory).mkdir()
        for ending in (b"", b".toml", b".key"):
            path = os.fsencode(tmp_path / directory) + b"/" + odd + ending
            Path(os.fsdecode(path)).write_bytes(b"[limits]\ndeadlin_ms = 3\n")
    main = tmp_path / "e.toml"
    main.write_text("bundle = 'x'\n[[camera]]\nname = 'a'\nsource = 'test://7'\n")
    with pytest.raises(EdgedError) as caught:
        config.load(main)
    str(caught.value).encode()
    for name, _ in profiles.find_all(main):
        name.encode()
    for problem in client_keys(tmp_path / "clients").problems:
        problem.encode()
    assert all(name.isascii() for name in Store(tmp_path / "credentials", tmp_path / "drop-in").names())
    odd_directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd_directory.mkdir()
    main = main.rename(odd_directory / "main.toml")
    effective_toml(config.load(main)).encode()


@hostile
@given(source=st.text(max_size=60) | st.from_regex(r"(rtsp|http|test|v4l2|csi|file)://[^\n]{0,40}", fullmatch=True))
def test_a_camera_source_of_any_text(source: str) -> None:
    redact(source)
    with contextlib.suppress(EdgedError):
        parse(source)


@hostile
@given(payload=st.binary(max_size=100) | nested.map(log.Packer()._encoder.encode))
def test_a_request_of_any_bytes(payload: bytes) -> None:
    with contextlib.suppress(EdgedError):
        parse_request(payload)
