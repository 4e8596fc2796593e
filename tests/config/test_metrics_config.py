"""[metrics]: only addresses of this machine, each refusal one sentence with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config import load
from edged.config.metrics import MetricsConfig
from edged.errors import UsageError

BASE = 'bundle = "demo"\n[[camera]]\nname = "gate"\nsource = "test://7"\n[metrics]\n'


def loaded(directory: Path, lines: str) -> MetricsConfig:
    file = directory / "e.toml"
    file.write_text(BASE + lines)
    return load(file).metrics


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ("", ("127.0.0.1", 9108)),
        ('listen = "127.0.0.1:1"', ("127.0.0.1", 1)),
        ('listen = "localhost:9000"', ("127.0.0.1", 9000)),
        ('listen = "127.3.2.1:65535"', ("127.3.2.1", 65535)),
        ('listen = "[::1]:9108"', ("::1", 9108)),
        ('textfile = "/x/edged.prom"', None),
        ('textfile = "/x/edged.prom"\nlisten = "[::1]:9108"', ("::1", 9108)),
    ],
)
def test_where_it_listens(tmp_path: Path, lines: str, address: tuple[str, int] | None) -> None:
    assert loaded(tmp_path, lines).address == address


def test_a_relative_file_counts_from_the_configuration(tmp_path: Path) -> None:
    assert loaded(tmp_path, 'textfile = "edged.prom"').textfile == str(tmp_path / "edged.prom")


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:9108",
        "[::]:9108",
        "10.0.0.5:9108",
        "[2001:db8::1]:9108",
        "127.0.0.1",
        "127.0.0.1:0",
        ":9108",
        "127.0.0.1:65536",
        "example.org:9108",
        "[127.0.0.1:9108",
        "",
        "127.0.0.1:9108\\n",
        "http://127.0.0.1:9108",
    ],
)
def test_every_other_address_is_refused_with_a_sentence(tmp_path: Path, listen: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, f'listen = "{listen}"')
    assert str(tmp_path / "e.toml") in caught.value.message and "metrics.listen" in caught.value.message
    assert caught.value.hint


def test_an_address_on_the_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="other machines can reach") as caught:
        loaded(tmp_path, 'listen = "0.0.0.0:9108"')
    assert "127.0.0.1:9108" in caught.value.hint and "proxy" in caught.value.hint


def test_node_exporter_reads_prom_files_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"metrics\.textfile .*\.prom"):
        loaded(tmp_path, 'textfile = "edged.txt"')
