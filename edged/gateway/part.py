"""What the gateway is made of: parts, each one way out (a page, a file, a broker), all fed by one subscription."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edged.bus.schema import Message
from edged.gateway.subscription import Subscription

if TYPE_CHECKING:
    from prometheus_client import Metric


class Part:
    """One way out. It starts when it is entered, with an EdgedError if it cannot, and stops when it is left.

    `take` and `turn` are called on the gateway's one thread and never block: what needs a network runs on a thread of
    the part's own, behind a bounded queue. A library is imported in the part's own module, and that module only if the
    configuration asks for it.
    """

    topics: Sequence[str] = ()
    """prefixes of what it needs; it may get more"""

    def take(self, message: Message, subscription: Subscription) -> None:
        """A message of the daemon."""

    def turn(self) -> None:
        """Called after each message, and once a second without any."""

    def families(self) -> Iterable[Metric]:
        """Its own counts, losses by cause among them, for the metrics. Any thread."""
        return ()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop, within a second or two."""
