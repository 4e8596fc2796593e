"""[nats], [webhook] and [mqtt]: each refusal one sentence with the file and the key, and never with a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config import Config, load
from edged.config.text import effective_toml
from edged.errors import UsageError

BASE = 'bundle = "demo"\n[[camera]]\nname = "gate"\nsource = "test://7"\n'


def loaded(directory: Path, lines: str) -> Config:
    file = directory / "e.toml"
    file.write_text(BASE + lines)
    return load(file)


def test_by_default_nothing_is_sent(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    assert config.mqtt.server is config.nats.server is config.webhook.server is None


@pytest.mark.parametrize(
    "table, url, expected",
    [
        ("nats", "nats://hub", ("hub", 4222, False, None)),
        ("nats", "tls://me%40x@hub:443", ("hub", 443, True, "me@x")),
        ("webhook", "https://a.example/b?c=d", ("a.example", 443, True, None)),
        ("mqtt", "mqtt://home@[::1]", ("::1", 1883, False, "home")),
        ("mqtt", "mqtts://10.0.0.2", ("10.0.0.2", 8883, True, None)),
    ],
)
def test_servers(tmp_path: Path, table: str, url: str, expected: tuple[str, int, bool, str | None]) -> None:
    server = getattr(loaded(tmp_path, f'[{table}]\nurl = "{url}"'), table).server
    assert (server.host, server.port, server.tls, server.user) == expected


def test_files_count_from_the_configuration_and_the_text_round_trips(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[nats]\nurl = "tls://h"\nca = "ca.pem"\nwhat = ["result", "event"]\nsubject = "a.b"')
    assert config.nats.ca == str(tmp_path / "ca.pem") and config.nats.root == "a.b"
    again = tmp_path / "again.toml"
    again.write_text(effective_toml(config))
    assert load(again).nats == config.nats


@pytest.mark.parametrize(
    "table, lines, key",
    [
        ("nats", 'url = "http://hub"', "nats.url"),
        ("nats", 'url = "nats://"', "nats.url"),
        ("nats", 'url = "nats://hub:70000"', "nats.url"),
        ("nats", 'url = "nats://hub/x y"\nsubject = "a..b"', "nats.subject"),
        ("nats", 'subject = "edged.>"', "nats.subject"),
        ("nats", 'stream = "A.B"', "nats.stream"),
        ("nats", "what = []", "nats.what"),
        ("nats", 'what = ["results"]', "nats.what"),
        ("nats", "spool_mb = 0", "nats.spool_mb"),
        ("webhook", 'url = "example.org/hook"', "webhook.url"),
        ("mqtt", 'url = "mqtt://me:s3cret@host"', "mqtt.url"),
        ("mqtt", 'url = "tcp://me:s3cret@host"', "mqtt.url"),
        ("mqtt", 'node = "a/b"', "mqtt.node"),
        ("mqtt", "interval_s = 0", "mqtt.interval_s"),
        ("mqtt", "snapshots = 1", "mqtt.snapshots"),
    ],
)
def test_what_is_refused(tmp_path: Path, table: str, lines: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, f"[{table}]\n{lines}")
    text = f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith(str(tmp_path / "e.toml")) and key in text
    assert "s3cret" not in text
