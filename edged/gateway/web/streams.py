"""Values for many slow readers on one event loop: the newest replaces the last, so that nothing queues. And who may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from aiohttp import web

T = TypeVar("T")

SLOW_S: Final = 10.0
"""A reader that takes nothing for so long is cut off."""


class Newest(Generic[T]):
    """Put on the event loop, awaited by any number of readers."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.number = 0
        self._next: asyncio.Future[None] | None = None

    def put(self, value: T) -> None:
        self.value, self.number = value, self.number + 1
        if self._next is not None:
            self._next.set_result(None)
            self._next = None

    async def after(self, number: int, timeout_s: float) -> bool:
        """Wait for a value later than the one with that number. False when the time has passed without one."""
        if self.number <= number:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._next], timeout=timeout_s)
        return self.number > number


class Places:
    """How many readers of a kind there may be at once; others are refused with a sentence, and counted."""

    def __init__(self, most: int, what: str) -> None:
        self.most, self.what = most, what
        self.taken = self.refused = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        if self.taken >= self.most:
            self.refused += 1
            raise web.HTTPServiceUnavailable(
                text=f"{self.most} {self.what}, as many as may be: try again later\n", headers={"Retry-After": "5"}
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """ConnectionError for a reader that has left, or does not read and is cut off."""
    try:
        await asyncio.wait_for(response.write(data), SLOW_S)
    except asyncio.TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("cut off: it does not read") from None
