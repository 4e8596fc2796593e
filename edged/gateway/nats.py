"""Messages to a stream of NATS JetStream, each exactly once, kept on disk until the stream has them.

A message's id goes with it, and the server drops a second copy that comes within its window. For longer outages, each
new connection first asks the stream which of the messages in doubt it holds: those were sent, and their acknowledgement
was lost. nats-py's own reconnect is off, since it sends what is buffered without asking. On a thread of its own with an
event loop: nats-py has no other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Final, NoReturn

import msgspec
import nats
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import Header, StreamConfig
from nats.js.errors import APIError, NotFoundError

from edged import clock
from edged.config.forward import NATS_CREDENTIAL, NatsConfig
from edged.config.server_url import Server
from edged.credentials import find_credential
from edged.gateway.forward import Forwarder, reason_of, tls_context
from edged.gateway.spool import Spooled

TURN_S: Final = 0.2
WINDOW: Final = 256
"""Messages on their way at one time."""
ACK_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5
PING_S: Final = 10
STREAM_AGE_S: Final = 7 * 24 * 3600
"""How long a stream that is made here keeps its messages."""
TOO_LARGE: Final = 10_054
"""JetStream's error for a message above the stream's limit: it would be refused each time."""
NO_STREAM: Final = b'{"error": {"description": "no stream listens to the subject"}}'
_CREDS: Final = "-----BEGIN NATS USER JWT-----"


class _LostError(Exception):
    """The connection, or an acknowledgement, is gone; the text says how."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """A stream's: the one that has the message, or why none has it."""

    stream: str = ""
    error: _Error | None = None


class Nats(Forwarder):
    def __init__(self, config: NatsConfig, server: Server) -> None:
        """EdgedError if the spool, the credential or the certificates cannot be used."""
        self._config, self._server = config, server
        self._secret = find_credential(NATS_CREDENTIAL)
        self._tls = tls_context(config.ca) if server.tls else None
        self._error = ""  # the last one that the client reported
        self._on_way: dict[int, int] = {}  # number -> when it was sent
        self._answers: dict[int, bytes] = {}
        self._answered: asyncio.Event
        self._rejected: set[int] = set()  # sent, and surely not in the stream
        logging.getLogger("nats").setLevel(logging.CRITICAL)  # its reasons come from here, once each
        super().__init__("nats", server, config.what, config.spool_mb)

    def work(self) -> None:
        asyncio.run(self._turn())

    async def _turn(self) -> None:
        """One connection, and the pause after its end."""
        connection = asyncio.create_task(self._connection())
        while not connection.done() and not self.stopping.is_set():
            self.store()
            await asyncio.wait([connection], timeout=TURN_S)
        connection.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connection

    async def _connection(self) -> None:
        client = Client()
        try:
            await asyncio.wait_for(self._connect(client), 2 * CONNECT_TIMEOUT_S)
            stream = client.jetstream(timeout=ACK_TIMEOUT_S)
            await self._find_stream(stream)
            await self._settle(stream)
            self.link.up()
            await self._pump(client)
        except (OSError, asyncio.TimeoutError, nats.errors.Error, APIError, _LostError) as error:
            pause_s = self.link.down(self._error or _words(error))
        except (ValueError, KeyError, TypeError) as error:  # what a server sends is not trusted
            pause_s = self.link.down(f"it sends what is no answer of JetStream ({type(error).__name__})")
        finally:
            self._on_way.clear()
            self._answers.clear()
            await _close(client)
        await asyncio.sleep(pause_s)

    async def _connect(self, client: Client) -> None:
        self._error, self._answered = "", asyncio.Event()
        jwt = self._secret is not None and self._secret.startswith(_CREDS)
        await client.connect(
            f"{'tls' if self._server.tls else 'nats'}://{self._server}",
            name="edged", error_cb=self._note_error, connect_timeout=CONNECT_TIMEOUT_S, ping_interval=PING_S,
            allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0, tls=self._tls,
            user=self._server.user,
            password=None if jwt or not self._server.user else self._secret,
            token=None if jwt or self._server.user else self._secret,
            user_credentials=RawCredentials(self._secret) if jwt else None,
        )  # fmt: skip
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._note_answer)

    async def _find_stream(self, stream: JetStreamContext) -> None:
        """Make the stream if there is none."""
        try:
            await stream.stream_info(self._config.stream)
        except NotFoundError:
            await stream.add_stream(
                StreamConfig(name=self._config.stream, subjects=[f"{self._config.root}.>"], max_age=STREAM_AGE_S)
            )

    async def _settle(self, stream: JetStreamContext) -> None:
        """Forget the messages that the stream has already. In doubt are the oldest, as many as can be on their way; of
        each topic they were sent in order, so the stream has all up to the last that it names."""
        in_doubt = [one for one in self.spool.first(WINDOW) if one.number not in self._rejected]
        for topic in {one.item.topic for one in in_doubt}:
            try:
                last = await stream.get_last_msg(self._config.stream, self._subject(topic))
            except NotFoundError:
                continue
            name = (last.headers or {}).get(Header.MSG_ID)
            of_topic = [one for one in in_doubt if one.item.topic == topic]
            at = next((at for at, one in enumerate(of_topic, 1) if one.item.id == name), 0)
            self.spool.remove([one.number for one in of_topic[:at]])
            self.sent += at
        self._rejected.clear()

    async def _pump(self, client: Client) -> NoReturn:
        last = 0
        while True:
            batch = self.spool.first(WINDOW - len(self._on_way), last)
            if batch:
                last = batch[-1].number
                await asyncio.wait_for(self._send(client, batch), ACK_TIMEOUT_S)
            if self._on_way:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._answered.wait(), TURN_S)
            else:
                await asyncio.sleep(TURN_S)
            self._take_answers()
            overdue_ns = clock.mono_ns() - int(ACK_TIMEOUT_S * clock.NS_PER_S)
            if client.is_closed or next(iter(self._on_way.values()), overdue_ns) < overdue_ns:
                raise _LostError(self._error or "the connection is lost")

    async def _send(self, client: Client, batch: list[Spooled]) -> None:
        self._answered.clear()
        for number, item in batch:
            if len(item.payload) > client.max_payload:
                self._answers[number] = f'{{"error": {{"err_code": {TOO_LARGE}}}}}'.encode()
                continue
            self._on_way[number] = clock.mono_ns()
            # No Nats-Expected-Stream: it is kept with the message, and a stream that sources from this one refuses it.
            headers = {Header.MSG_ID.value: item.id}
            await client.publish(self._subject(item.topic), item.payload, f"{self._inbox}.{number}", headers)

    async def _note_answer(self, message: Msg) -> None:
        number = int(message.subject.rpartition(".")[2])
        self._answers[number] = message.data or NO_STREAM
        if len(self._answers) >= len(self._on_way):
            self._answered.set()

    def _take_answers(self) -> None:
        """Forget what the stream has. _LostError if it refuses a message that it may take another time."""
        done, problem = [], ""
        for number, data in self._answers.items():
            self._on_way.pop(number, None)
            answer = msgspec.json.decode(data, type=_Answer)
            if answer.error is None and answer.stream != self._config.stream:
                problem = f"the stream {answer.stream} takes them"
                continue
            if answer.error is None:
                self.sent += 1
            elif answer.error.err_code == TOO_LARGE:
                self.refused += 1
            else:
                self._rejected.add(number)
                problem = answer.error.description
                continue
            done.append(number)
        self._answers.clear()
        if done:
            self.spool.remove(done)
        if problem:
            raise _LostError(f"the stream {self._config.stream} takes no message: {problem}")

    def _subject(self, topic: str) -> str:
        words = (re.sub(r"[^A-Za-z0-9_-]", "_", word) for word in topic.split("/"))
        return ".".join([self._config.root, *words])

    async def _note_error(self, error: Exception) -> None:
        self._error = _words(error)


def _words(error: Exception) -> str:
    """What went wrong, for a person."""
    if "authorization" in str(error).lower():  # an error of its own in some states of the client, and not in others
        return f"user or password is wrong: sudo edged credential set {NATS_CREDENTIAL}"
    if isinstance(error, asyncio.TimeoutError):  # TimeoutError from Python 3.11 on
        return "it gives no answer"
    return reason_of(error).removeprefix("nats: ")


async def _close(client: Client) -> None:
    """Whatever state it is in; a server that hangs is not waited for."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), 2)
