"""Debian's nats-server with JetStream in a directory of its own; it can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import nats
from nats.js import JetStreamContext

from tests.support.programs import LocalServer

T = TypeVar("T")


class NatsServer(LocalServer):
    """`with NatsServer(tmp_path) as server:`. Starts again with the same port and store."""

    def __init__(self, directory: Path, config: str = "", domain: str = "") -> None:
        super().__init__("nats-server", directory)
        named = f', domain: "{domain}"' if domain else ""
        self.config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{store_dir: "{directory}/store"{named}}}\n{config}\n'
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

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
