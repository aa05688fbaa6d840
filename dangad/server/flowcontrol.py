"""Whether a client is read: the requests that it has in flight, and what else is in its way.

One :class:`FlowControl` for each :class:`~dangad.server.connection.ClientConnection`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime

    from dangad.server.memorybudget import MemoryBudget

MAX_INSTANT = 100
"""Requests that are answered at once, being refused or for the server itself, before the client is
made to rest: they are not in flight, and would not slow it otherwise."""
INSTANT_REST = 0.05
"""Seconds for which it is not read then."""

UNREAD = 1
"""It does not read its answers."""
RESTING = 2
"""It has sent many requests that were answered at once."""
IN_LINE = 4
"""It has sent more than is done for it in one turn of the reactor."""
MEMORY = 8
"""The server holds much for its clients, and for this one most."""
CLOSING = 16
"""It is not to be read any more."""


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

        :param clock: where the time comes from.
        :param budget: the bytes of requests are counted there as well.
        :param max_requests: unanswered requests with which it is not read.
        :param max_bytes: the size of them with which it is not.
        :param read_on: called when it is read again: something may have come before.
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
        #: The sum of the reasons, as above, for which it is not.
        self._holds = 0
        #: Whether the transport knows of that.
        self._is_stopped = False
        #: How many requests were answered at once since the client rested.
        self._instant = 0
        #: The end of its rest.
        self._rest: IDelayedCall | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight, and nothing is in the way."""
        return not self.requests and not self._holds

    def entered(self, size: int) -> None:
        """A request of so many bytes is in flight."""
        self.requests += 1
        self.bytes += size
        budget = self._budget
        budget.total += size
        if budget.total > budget.alert:
            budget.press()
        if self.requests >= self._max_requests or self.bytes >= self._max_bytes:
            self._set()

    def left(self, size: int) -> None:
        """It is answered."""
        self.requests -= 1
        self.bytes -= size
        self._budget.total -= size
        if self.paused:
            self._set()

    def answered_at_once(self) -> None:
        """A request was answered that has never been in flight; of many the client has to rest."""
        self._instant += 1
        if self._instant == MAX_INSTANT:
            self._rest = self._clock.callLater(INSTANT_REST, self._end_rest)
            self.hold(RESTING)

    def hold(self, reason: int) -> None:
        """Do not read the client for `reason`, until :meth:`release`."""
        self._holds |= reason
        self._set()

    def release(self, reason: int) -> None:
        """Have that be no reason any more."""
        self._holds &= ~reason
        if self.paused:
            self._set()

    def take_turn(self) -> None:
        """Read on what has come, for this turn: the client is out of the line, or in it again.

        The transport is started only if all has been read. To stop and start it for each turn
        would cost more than the turn.
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
        """Read, or do not, as the limits say."""
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
