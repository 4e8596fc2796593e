"""A subscriber that lasts: it starts without the daemon, finds it later, and keeps its counts over reconnects.

Runs on the one thread that uses the Subscription.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edged.bus.client import Client
from edged.bus.curve import CurveClient
from edged.bus.schema import Message, Result
from edged.paths import find_results_endpoint


class Subscription:
    """`with Subscription(None, None, ["state"]) as subscription: subscription.receive(1.0)`"""

    def __init__(self, endpoint: str | None, curve: CurveClient | None, topics: Iterable[str]) -> None:
        """`endpoint` None: this user's daemon, else the system service, whichever runs."""
        self._given, self._curve, self._topics = endpoint, curve, tuple(topics)
        self._before: Counter[str] = Counter()
        self._restarts_before = 0
        self._heard = False
        self._client = self._open()

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None when `timeout_s` passes without one."""
        message = self._client.receive(timeout_s)
        if message is None and self._given is None and find_results_endpoint() != self._client.endpoint:
            self._before, self._restarts_before = self.lost, self.restarts + self._heard  # another daemon has started
            self._heard = False
            self._client.close()
            self._client = self._open()
        self._heard = self._heard or message is not None
        return message

    def frame(self, result: Result) -> NDArray[np.uint8] | None:
        """The pixels that a result was made from, as `Client.frame` gives them."""
        return self._client.frame(result)

    @property
    def endpoint(self) -> str:
        return self._client.endpoint

    @property
    def refused(self) -> bool:
        """Whether the daemon refuses this client's key."""
        return self._client.refused

    @property
    def lost(self) -> Counter[str]:
        """Messages that did not arrive here, by cause: `gap` (this process was too slow), `invalid` (not decodable)."""
        return self._before + Counter(gap=self._client.gaps.total(), invalid=self._client.garbage)

    @property
    def restarts(self) -> int:
        """How often the daemon has restarted."""
        return self._restarts_before + self._client.restarts

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def _open(self) -> Client:
        return Client(self._given or find_results_endpoint(), self._topics, curve=self._curve)
