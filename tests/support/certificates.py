"""A certificate of 127.0.0.1 that vouches for itself, by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import program


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """(the certificate, its key), PEM."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = directory / "server.crt", directory / "server.key"
    command = [
        program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
        "-out", str(certificate), "-keyout", str(key),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return certificate, key
