"""Decides whether a client is read: by its requests in flight, and by other reasons.

One :class:`FlowControl` for each :class:`~dangad.server.connection.ClientConnection`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime

    from dangad.server.memorybudget import MemoryBudget

MAX_INSTANT = 100
"""How many requests may be answered at once, because they are refused or for the server itself,
before the client has to rest. They are never in flight, so the limit of requests in flight does not
slow the client down."""
INSTANT_REST = 0.05
"""Seconds of a client's rest, in which it is not read."""

UNREAD = 1
"""A reason not to read a client: it does not read its answers."""
RESTING = 2
"""A reason not to read a client: it has sent many requests that were answered at once."""
IN_LINE = 4
"""A reason not to read a client: it has sent more requests than one turn of the reactor does."""
MEMORY = 8
"""A reason not to read a client: the server holds many bytes, and most of them for this client."""
CLOSING = 16
"""A reason not to read a client: its connection is being closed."""


class FlowControl:
    """Stops and starts the reading from one transport."""

    __slots__ = (
        "_budget",
        "_clock",
        "_holds",
        "_instant",
        "_is_stopped",
        "_max_bytes",
        "_max_requests",
        "_read_on",
        "_rest",
        "_transport",
        "bytes",
        "paused",
        "requests",
    )

    def __init__(
        self,
        clock: IReactorTime,
        transport: IPushProducer,
        budget: MemoryBudget,
        max_requests: int,
        max_bytes: int,
        read_on: Callable[[], object],
    ) -> None:
        """Begin with a transport that is being read.

        :param clock: the source of time.
        :param budget: counts the bytes of requests, too.
        :param max_requests: the number of unanswered requests with which the client is not read.
        :param max_bytes: the bytes of unanswered requests with which the client is not read.
        :param read_on: called when the client is read again; boxes may have come before.
        """
        self._clock = clock
        self._transport = transport
        self._budget = budget
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._read_on = read_on
        #: How many requests are unanswered.
        self.requests = 0
        #: The bytes of these requests.
        self.bytes = 0
        #: Whether the client is not read.
        self.paused = False
        #: The sum of the reasons for which it is not read.
        self._holds = 0
        #: Whether the transport is paused.
        self._is_stopped = False
        #: How many requests were answered at once since the client rested.
        self._instant = 0
        #: The call that ends its rest; None if it does not rest.
        self._rest: IDelayedCall | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is in flight, and there is no reason not to read."""
        return not self.requests and not self._holds

    def entered(self, size: int) -> None:
        """Count a request of so many bytes as in flight."""
        self.requests += 1
        self.bytes += size
        budget = self._budget
        budget.total += size
        if budget.total > budget.alert:
            budget.press()
        if self.requests >= self._max_requests or self.bytes >= self._max_bytes:
            self._set()

    def left(self, size: int) -> None:
        """Count a request of so many bytes as answered."""
        self.requests -= 1
        self.bytes -= size
        self._budget.total -= size
        if self.paused:
            self._set()

    def answered_at_once(self) -> None:
        """Count a request that was answered at once; after many of them the client has to rest."""
        self._instant += 1
        if self._instant == MAX_INSTANT:
            self._rest = self._clock.callLater(INSTANT_REST, self._end_rest)
            self.hold(RESTING)

    def hold(self, reason: int) -> None:
        """Do not read the client for `reason`, until :meth:`release`."""
        self._holds |= reason
        self._set()

    def release(self, reason: int) -> None:
        """End the `reason` not to read."""
        self._holds &= ~reason
        if self.paused:
            self._set()

    def take_turn(self) -> None:
        """Read received boxes on in this turn, after which the client may have to wait again.

        The transport is resumed only when all boxes are read: pausing and resuming it in each turn
        would cost more than the turn itself.
        """
        self._holds &= ~IN_LINE
        self.paused = self._must_pause()
        if not self.paused:
            self._read_on()
        self._tell_transport()

    def clear(self) -> None:
        """Forget all requests: the connection is lost."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._budget.total -= self.bytes
        self.bytes = self.requests = 0
        self._holds |= CLOSING
        self.paused = True

    def _end_rest(self) -> None:
        self._rest = None
        self._instant = 0
        self.release(RESTING)

    def _set(self) -> None:
        """Read or stop reading, as the limits demand."""
        pause = self._must_pause()
        if pause == self.paused:
            return
        self.paused = pause
        self._tell_transport()
        if not pause:
            self._read_on()

    def _must_pause(self) -> bool:
        return bool(
            self._holds or self.requests >= self._max_requests or self.bytes >= self._max_bytes
        )

    def _tell_transport(self) -> None:
        if self.paused and not self._is_stopped:
            self._is_stopped = True
            self._transport.pauseProducing()
        elif self._is_stopped and not self.paused:
            self._is_stopped = False
            self._transport.resumeProducing()
