"""Debian's nats-server with JetStream in a directory of its own; it can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import nats
from nats.js import JetStreamContext

from tests.support.bus import free_port, wait_for
from tests.support.programs import program

T = TypeVar("T")


class NatsServer:
    """`with NatsServer(tmp_path) as server:`. Starts again with the same port and store."""

    def __init__(self, directory: Path, config: str = "", domain: str = "") -> None:
        self._program = program("nats-server", "nats-server")
        self.port, self.directory = free_port(), directory
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "nats.conf"
        named = f', domain: "{domain}"' if domain else ""
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{store_dir: "{directory}/store"{named}}}\n{config}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = (self.directory / "nats.log").open("ab")
        self._process = subprocess.Popen([self._program, "-c", str(self._config)], stdout=log, stderr=log)
        log.close()
        wait_for(self._listens, 20)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait(60)

    def ask(self, question: Callable[[JetStreamContext], Awaitable[T]], **options: Any) -> T:
        """The answer of the server as a client of its own gets it."""

        async def run() -> T:
            client = await nats.connect(self.url, **options)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(run())

    def messages(self, stream: str = "EDGED", **options: Any) -> int:
        async def count(context: JetStreamContext) -> int:
            try:
                return (await context.stream_info(stream)).state.messages
            except nats.js.errors.NotFoundError:
                return 0

        return self.ask(count, **options)

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
