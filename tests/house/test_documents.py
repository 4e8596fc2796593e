"""The documents are right: every link leads somewhere, every command is one, every example works."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import edged.cli
import edged_calibration.cli
from edged.bus import replies
from edged.bus.requests import OPERATIONS
from edged.config import Config, load
from edged.toml_file import read_toml
from scripts.benches.__main__ import NAMES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README_BYTES = 8 * 1024
PARSERS = {"edged": edged.cli.parser, "edged-calibrate": edged_calibration.cli.parser}
SYSTEM = {
    "cat", "cd", "curl", "dpkg", "export", "git", "journalctl", "nano", "pip", "pre-commit", "ps", "python", "python3",
    "systemctl", "systemd-analyze", "usermod",
}  # fmt: skip
PYTHON_MODULE = re.compile(r"python3? -m (edged[\w.]*|tests[\w.]*|calibration[\w.]*)")
REPLIES = (
    ("snapshot", replies.SnapshotReply), ("set", replies.LimitsReply), ("pin", replies.PinReply),
    ("trigger", replies.TriggerReply), ("profile", replies.ProfileReply), ("profile", replies.ProfilesReply),
    ("why", replies.WhyReply), ("reload", replies.ReloadReply), ("modes", replies.ModesReply),
    ("set_mode", replies.ModesReply),
)  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """The contents of a page's fenced blocks in one of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(block: str) -> Iterator[list[str]]:
    """Each command of a shell block as words, without `sudo`; what a here-document holds is left out."""
    ends_with = None
    for line in block.replace("\\\n", " ").splitlines():
        if ends_with is not None:
            ends_with = None if line == ends_with else ends_with
            continue
        here = re.search(r"<<'?(\w+)'?", line)
        ends_with = here[1] if here else None
        for command in re.split(r"[;&|]+ ", re.sub(r"(^|\s)#.*", "", line)):
            words = shlex.split(re.sub(r" > \S+", "", command))
            while words and (words[0] == "sudo" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
                words = words[1:]
            if words[:1] == ["-u"]:  # sudo -u USER
                words = words[2:]
            if words:
                yield words


SHELL = [(page, block) for page in PAGES for block in blocks(page, "sh")]


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_shows_the_demo() -> None:
    readme = ROOT / "README.md"
    assert readme.stat().st_size <= README_BYTES
    picture = ROOT / "docs/pictures/demo.png"
    assert f"]({name(picture)})" in readme.read_text() and picture.stat().st_size < 200_000


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{name(page)}: {target}"
        assert not anchor or anchor in anchors(there), f"{name(page)}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=name)
def test_every_page_is_in_the_site_and_in_the_readme_or_the_index(page: Path) -> None:
    assert f" {page.name}\n" in (ROOT / "mkdocs.yml").read_text()
    assert page.name == "index.md" or f"({page.name})" in (ROOT / "docs/index.md").read_text()


@pytest.mark.parametrize(("page", "block"), SHELL, ids=[f"{name(page)}:{n}" for n, (page, _) in enumerate(SHELL)])
def test_every_command_is_one(page: Path, block: str) -> None:
    for words in commands(block):
        program = words[0].rsplit("/bin/", 1)[-1]
        if program in PARSERS:
            assert_parses(program, words[1:])
        elif program.startswith(("scripts/", ".ci/")):
            script = ROOT / program
            assert script.stat().st_mode & 0o100, f"{program} is not executable"
            for option in [word for word in words[1:] if word.startswith("--")]:
                assert option in script.read_text() or program == "scripts/bench", " ".join(words)
        else:
            assert program in SYSTEM, f"{name(page)}: {' '.join(words)}"
        module = PYTHON_MODULE.search(" ".join(words))
        if module:
            path = ROOT / re.sub(r"^edged_calibration", "calibration", module[1]).replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module[0]


def assert_parses(program: str, arguments: list[str]) -> None:
    """A command line in a document is one that the program accepts; `--help` and `--version` end it with 0."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        PARSERS[program]().parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page: Path) -> None:
    known = {program: _subcommands(program) for program in PARSERS}
    for program, command in re.findall(r"`(?:sudo )?(edged|edged-calibrate) ([a-z]+)[ `]", prose(page)):
        assert command in known[program], f"{name(page)}: {program} {command}"


def _subcommands(program: str) -> set[str]:
    (action,) = [action for action in PARSERS[program]()._actions if action.dest == "command"]
    assert action.choices is not None
    return set(action.choices)


def test_every_command_of_the_program_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for program in PARSERS:
        for command in _subcommands(program):
            assert re.search(rf"{program} {command}\b|`{command}`", text), f"{program} {command}"


def test_every_benchmark_and_every_script_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for bench in NAMES:
        assert f"`{bench}`" in (ROOT / "docs/benchmarks.md").read_text(), bench
    for script in (ROOT / "scripts").iterdir():
        if script.is_file() and not script.suffix:
            assert f"scripts/{script.name}" in text, script.name


def test_the_configuration_page_has_every_key() -> None:
    (block, *_) = blocks(ROOT / "docs/configuration.md", "toml")
    documented = set(re.findall(r"^(?:# )?(\w+)(?:\.\w+)* = ", block, re.MULTILINE))
    sections = re.findall(r"^\[+(\w+)\]+", block, re.MULTILINE)
    keys = {field.encode_name: field for field in msgspec.structs.fields(Config)}
    for key, field in keys.items():
        if key not in documented:
            assert key in sections, f"docs/configuration.md lacks {key}"
            for inner in _fields(field.type) if key != "schedule" else ():
                assert inner in documented, f"docs/configuration.md lacks {key}.{inner}"


def _fields(kind: object) -> list[str]:
    """The keys of a table, or of an array of tables."""
    (inner,) = getattr(kind, "__args__", (kind,))[:1]
    assert isinstance(inner, type) and issubclass(inner, msgspec.Struct)
    return [field.encode_name for field in msgspec.structs.fields(inner)]


def test_the_examples_of_configurations_are_valid(tmp_path: Path) -> None:
    examples = [block for page in PAGES for block in blocks(page, "toml") if "[[camera]]" in block]
    examples += re.findall(r"> my.toml <<'END'\n(.*?)^END$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 2
    for number, text in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        (tmp_path / "profiles").mkdir(exist_ok=True)
        if "bundle" in read_toml(file):
            load(file)


def test_cheap_commands_run(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for module, *arguments in (
        ("edged", "--version"),
        ("edged", "simulate", "--list"),
        ("edged", "check", "-c", str(tmp_path / "my.toml"), "--print-effective"),
        ("edged_calibration.cli", "--help"),
    ):
        (tmp_path / "my.toml").write_text('bundle = "demo"\n[[camera]]\nname = "gate"\nsource = "test://7?fps=15"\n')
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_the_replies_to_requests_are_documented() -> None:
    rows = [row.split("|")[1:4] for row in (ROOT / "docs/client.md").read_text().splitlines() if row.startswith("| `")]
    documented = [(op.strip(" `"), *sorted(set(re.findall("`([a-z_]+)`", keys.split(":")[0])))) for op, _, keys in rows]
    expected = [(op, *sorted(set(reply.__struct_fields__) - {"ok"})) for op, reply in REPLIES]
    assert documented == expected and {op for op, _ in REPLIES} == set(OPERATIONS)


def test_what_was_renamed_is_where_the_changelog_says() -> None:
    renamed = re.findall(r"^\| `[\w.]+` \| `(edged[\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert renamed
    for module in renamed:
        path = ROOT / re.sub(r"^edged_calibration", "calibration", module).replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), module


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no checkout")
def test_no_document_names_a_file_that_is_not_there() -> None:
    known = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split())
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for path in re.findall(r"`((?:edged|calibration|tests|scripts|systemd|docs)/[\w./-]+\.\w+)`", prose(page)):
            assert path in known or (ROOT / path).exists(), f"{name(page)}: {path}"
