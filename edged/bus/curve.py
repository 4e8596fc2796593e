"""Keys for `tcp://`: the daemon's own and its clients' in, sockets that let nobody else in. Thread "curve" of its own.

ZeroMQ asks the handler of its ZAP protocol (RFC 27) about every client that presents a public key. The handler here
answers from the *.key files of one directory, which can be read again at any time: a key that is gone is refused from
then on, and who is connected with it is cut off.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from edged import clock
from edged.bus_config import BusConfig
from edged.errors import UsageError, encodable
from edged.worker import Worker

Socket = zmq.Socket[bytes]

ZAP: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = "edged"
POLL_MS: Final = 100
STOP_TIMEOUT_S: Final = 5.0
MAX_KEY_FILE_BYTES: Final = 64 * 1024
LOG_EVERY_NS: Final = 10 * clock.NS_PER_S
"""A client that is refused tries again ten times a second."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """The clients that are let in: public key -> name; and what is wrong with the files that hold none, a sentence
    each."""

    names: dict[bytes, str]
    problems: list[str]


def client_keys(directory: Path) -> Keys:
    """What the *.key files of a directory hold. UsageError if it cannot be read."""
    names: dict[bytes, str] = {}
    problems: list[str] = []
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix == ".key")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"bus.curve_clients names {directory}, which is not a readable directory: {reason}",
            "create it; `edged key new NAME` puts a client's public key into it",
        ) from error
    for path in found:
        try:
            public, secret = certificate(path)
        except UsageError as error:
            problems.append(f"{error.message}: it is passed over")
            continue
        if secret is not None:
            problems.append(f"{encodable(str(path))} holds a secret key as well: keep only the public one here")
        names[public] = encodable(path.stem)
    return Keys(names, problems)


class CurveServer:
    """Lets only clients in whose public key is in a directory. One for the whole context: ZAP knows one handler."""

    def __init__(self, context: zmq.Context[Socket], secret_key: Path, clients: Path) -> None:
        """UsageError if the daemon's key or the directory cannot be used."""
        self._public, self._secret = _both_keys(secret_key)
        self._clients = clients
        self.keys = client_keys(clients)
        for problem in self.keys.problems:
            log.warning("%s", problem)
        self._cut_off: list[Callable[[], None]] = []
        self._refused = 0
        self._logged_ns = -LOG_EVERY_NS
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP)
        self.worker = Worker("curve", self._turn)
        self.worker.start()

    def secure(self, socket: Socket, cut_off: Callable[[], None]) -> None:
        """Have a socket let only these clients in. `cut_off` ends all its connections; who may, comes back."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret
        socket.zap_domain = ZAP_DOMAIN.encode()
        self._cut_off.append(cut_off)

    def reload(self) -> list[str]:
        """Read the directory again; what changed, in words. UsageError, and nothing changed, if it cannot be read."""
        before, after = self.keys.names, client_keys(self._clients)
        self.keys = after
        gone = [name for key, name in before.items() if key not in after.names]
        changes = [f"client key {name}: added" for key, name in after.names.items() if key not in before]
        changes += [f"client key {name}: removed" for name in gone]
        if gone:
            for cut_off in self._cut_off:
                cut_off()
        for problem in after.problems:
            log.warning("%s", problem)
        return changes + after.problems

    def close(self) -> None:
        """After the sockets that it secures."""
        if self.worker.stop(STOP_TIMEOUT_S):
            self._socket.close(linger=0)

    def _turn(self) -> None:
        if self._socket.poll(POLL_MS):
            self._socket.send_multipart(self._answer(self._socket.recv_multipart()))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """RFC 27: version, id, domain, address, routing id, mechanism, key -> version, id, status, text, user, -."""
        request_id = request[1] if len(request) > 1 else b""
        name = None
        if len(request) == 7 and request[5] == b"CURVE":
            name = self.keys.names.get(z85.encode(request[6]))
        if name is not None:
            return [b"1.0", request_id, b"200", b"OK", name.encode("ascii", "replace"), b""]
        self._report_refusal(request)
        return [b"1.0", request_id, b"400", b"this key is not among the clients' keys", b"", b""]

    def _report_refusal(self, request: list[bytes]) -> None:
        self._refused += 1
        now_ns = clock.mono_ns()
        if now_ns - self._logged_ns >= LOG_EVERY_NS:
            self._logged_ns = now_ns
            address = request[3].decode("ascii", "replace") if len(request) > 3 else "an unknown address"
            key = z85.encode(request[6]).decode() if len(request) == 7 and len(request[6]) == 32 else "none"
            text = "a client at %s was refused: its public key %s is not in %s (%d refusals so far)"
            log.warning(text, address, key, self._clients, self._refused)


def curve_server(context: zmq.Context[Socket], bus: BusConfig) -> CurveServer | None:
    """The CURVE keys of the configuration at work, or None where it names none. Close it after the sockets."""
    if bus.curve_secret_key is None or bus.curve_clients is None:
        return None
    return CurveServer(context, Path(bus.curve_secret_key), Path(bus.curve_clients))


def check_keys(bus: BusConfig) -> list[str]:
    """What is wrong with single files of clients' keys. EdgedError if the daemon could not start with these keys."""
    if bus.curve_secret_key is None or bus.curve_clients is None:
        return []
    _both_keys(Path(bus.curve_secret_key))
    return client_keys(Path(bus.curve_clients)).problems


@dataclass(frozen=True)
class CurveClient:
    """What a client needs on `tcp://`: its own NAME.key_secret and the daemon's public NAME.key."""

    secret_key: Path
    server_key: Path

    def secure(self, socket: Socket) -> None:
        public, secret = _both_keys(self.secret_key)
        server, _ = certificate(self.server_key)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, server


@contextlib.contextmanager
def refusals(socket: Socket) -> Iterator[Callable[[], bool]]:
    """For a client's socket: whether the daemon has refused its key so far."""
    events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    try:
        yield lambda: bool(events.poll(0))
    finally:
        socket.disable_monitor()
        events.close(linger=0)


def certificate(path: Path) -> tuple[bytes, bytes | None]:
    """The public and, where it holds one, the secret key of a file, as Z85 text. UsageError for what is no key."""
    hint = "make one with `edged key new NAME`"
    try:
        if not path.is_file() or path.stat().st_size > MAX_KEY_FILE_BYTES:
            raise ValueError("it is not a small file")
        public, secret = load_certificate(path)
        for key in (public, secret):
            if key is not None and len(z85.decode(key)) != 32:
                raise ValueError("the key in it is damaged")
    except OSError as error:
        raise UsageError(f"cannot read the CURVE key {path}: {error.strerror}", hint) from error
    except Exception as error:  # pyzmq's readers raise many types for a damaged file
        raise UsageError(f"cannot read the CURVE key {path}: {error}", hint) from error
    return public, secret


def new_key_pair() -> tuple[bytes, bytes]:
    """A public and a secret key, as Z85 text."""
    return zmq.curve_keypair()


def key_file(public: bytes, secret: bytes | None = None) -> str:
    """The content of a file that `certificate` and ZeroMQ's own tools read."""
    lines = ["# A CURVE key for edged's sockets on the network.", "metadata", "curve"]
    lines.append(f'    public-key = "{public.decode()}"')
    if secret is not None:
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join(lines) + "\n"


def _both_keys(path: Path) -> tuple[bytes, bytes]:
    public, secret = certificate(path)
    if secret is None:
        raise UsageError(f"{path} holds no secret key", "give the file that ends in .key_secret")
    return public, secret
