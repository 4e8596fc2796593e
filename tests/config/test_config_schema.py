"""The configuration's JSON Schema takes what edged takes and refuses what it refuses, in a real TOML tool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edged
from edged.config.json_schema import json_schema

TAPLO = shutil.which("taplo", path=str(Path(sys.executable).parent))
SHIPPED = Path(edged.__file__).with_name("edged.toml")
CAMERA = '[[camera]]\nname = "gate"\nsource = "test://1"\n'


def patterns(node: object) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in patterns(item)]
    if not isinstance(node, dict):
        return []
    own = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
    return own + [found for item in node.values() for found in patterns(item)]


def test_every_pattern_is_an_ecma_regular_expression() -> None:
    found = patterns(json_schema())
    assert found and all(re.compile(pattern) and not re.search(r"\\[AZz]|\(\?P", pattern) for pattern in found)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js, whose regular expressions are ECMA's")
def test_the_patterns_mean_the_same_in_ecma() -> None:
    texts = ["gate", "gate\n", "Gate 1", "", "camera.gate", "22:00", "24:00", "/run/x", "none", "a" * 33, "é"]
    found = patterns(json_schema())
    script = (
        "const [patterns, texts] = JSON.parse(process.argv[1]);"
        "console.log(JSON.stringify(patterns.map(one => texts.map(text => RegExp(one, 'u').test(text)))))"
    )
    done = subprocess.run(
        ["node", "-e", script, json.dumps([found, texts])], capture_output=True, text=True, timeout=100, check=True
    )
    own = [[re.search(re.sub(r"\$$", r"\\Z", pattern), text) is not None for text in texts] for pattern in found]
    assert json.loads(done.stdout) == own and any(map(any, own))


def test_toml_has_no_null() -> None:
    assert "null" not in json.dumps(json_schema())


@pytest.mark.skipif(TAPLO is None, reason="taplo is not installed for this platform")
@pytest.mark.parametrize(
    ("text", "ok"),
    [
        (SHIPPED.read_text(), True),
        ('bundle = "b"\n' + CAMERA, True),
        ('bundle = "b"\n[limits]\ndeadlin_ms = 40\n', False),
        ('bundle = "b"\n[limits]\ndeadline_ms = "fast"\n', False),
        ('bundle = "b"\n' + CAMERA.replace("gate", "Gate 1"), False),
        ('bundle = "b"\nprofile = "night"\n[power]\nprovider = "magic"\n', False),
        (CAMERA, False),
    ],
    ids=["shipped", "small", "unknown key", "wrong type", "wrong name", "wrong choice", "no bundle"],
)
def test_an_editors_tool_agrees(tmp_path: Path, text: str, ok: bool) -> None:
    assert TAPLO is not None
    (tmp_path / "schema.json").write_text(json.dumps(json_schema()))
    file = tmp_path / "edged.toml"
    file.write_text(text.replace("#:schema", "# schema"))
    done = subprocess.run(
        [TAPLO, "lint", "--no-auto-config", "--schema", f"file://{tmp_path}/schema.json", str(file)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode == 0) == ok, done.stderr
