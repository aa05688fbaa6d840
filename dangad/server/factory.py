"""The front door for clients: how many may connect, and what all connections share.

It makes a :class:`~dangad.server.connection.ClientConnection` for each client, where a job's way
begins and ends, and tells :mod:`dangad.server.acceptgate` of each connection that comes or goes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from dangad.errors import QueueFull
from dangad.host.quietlog import QuietLog
from dangad.host.turns import Turns, do_in_turns
from dangad.server.boxwatch import BoxWatch
from dangad.server.connection import ClientConnection
from dangad.server.memorybudget import DEFAULT_LIMIT, MemoryBudget
from dangad.server.owncommands import Catalogue
from dangad.server.refusal import RefusedConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
    from twisted.internet.protocol import Protocol

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.server.acceptgate import AcceptGate
    from dangad.server.holdings import Holdings

log = Logger()

MAX_REFUSALS = 100
"""Connections over the limit that get an error at a time; more are closed without an answer."""
IDLE_TIME = 30.0
"""Seconds after which a connection without work may be closed to make room for a new one."""
IDLE_LOOK = 1.0
"""Seconds between two searches for idle connections, while there is no room."""
CLOSED_AT_ONCE = 50
"""The most connections that are closed in one turn of the reactor."""


class ClientFactory(Factory):
    """Makes a :class:`ClientConnection` for each client, up to a limit."""

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        gate: AcceptGate,
        *,
        max_payload: int,
        max_in_flight: int,
        max_connections: int,
        max_buffered: int = DEFAULT_LIMIT,
    ) -> None:
        """Begin with no connections.

        :param clock: the source of time.
        :param dispatcher: gets the jobs.
        :param gate: is told of every connection, and stops the ports if necessary.
        :param max_payload: bytes of the largest request.
        :param max_in_flight: unanswered requests with which a connection is not read.
        :param max_connections: the most connections; a further one is refused.
        :param max_buffered: the most bytes that are held for all of them.
        """
        self.dispatcher = dispatcher
        self.max_payload = max_payload
        self.max_in_flight = max_in_flight
        self.max_connections = max_connections
        self.clock = clock
        self.quiet = QuietLog(clock, log)
        self.turns = Turns(clock)
        self.budget = MemoryBudget(clock, max_buffered, max_payload, self._holdings)
        self.box_watch = BoxWatch(clock)
        self.catalogue = Catalogue()
        self._gate = gate
        gate.make_room = self.make_room
        #: The connections that are open.
        self._connections: set[ClientConnection] = set()
        #: The ones among them that are being closed to make room for others.
        self._leaving: set[ClientConnection] = set()
        #: The connections that were idle at the last search, the longest idle first.
        self._idle: deque[tuple[ClientConnection, float]] = deque()
        #: When the last search was.
        self._searched_at = -IDLE_LOOK
        #: The connections over the limit that wait for their error.
        self._refusals: set[RefusedConnection] = set()
        #: Fires when the last connection is closed; None before the server stops.
        self._closed: Deferred[None] | None = None
        #: The call that cuts off the remaining clients; None if none is due.
        self._close_alarm: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """The protocol of a new connection; None to close the connection at once."""
        if self.connections < self.max_connections or self.make_room():
            connection = ClientConnection(self)
            self._connections.add(connection)
            self._gate.entered()
            return connection
        if len(self._refusals) < MAX_REFUSALS:
            error = QueueFull(
                f"the server has {self.max_connections} connections, which is "
                "--max-connections; try again later"
            )
            refusal = RefusedConnection(self.clock, error, self._refusal_ended)
            self._refusals.add(refusal)
            self._gate.entered()
            return refusal
        return None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections) - len(self._leaving)

    def all_open(self) -> list[ClientConnection]:
        """The connections of all clients."""
        return list(self._connections)

    def make_room(self) -> bool:
        """Close the connection that has been idle for longest; False if none is idle."""
        now = self.clock.seconds()
        if not self._idle and now >= self._searched_at + IDLE_LOOK:
            self._searched_at = now
            idle = [(each, each.idle_since) for each in self._connections - self._leaving]
            long = [(each, since) for each, since in idle if since is not None]
            long = [(each, since) for each, since in long if since + IDLE_TIME <= now]
            self._idle.extend(sorted(long, key=lambda one: one[1]))
        while self._idle:
            connection, since = self._idle.popleft()
            if connection.idle_since != since:
                continue  # it has had work since, or is gone
            self._leaving.add(connection)
            self.quiet.info(
                "idle",
                None,
                "{peer} has had nothing to do for {seconds:.0f} s, and makes room for a new one",
                peer=f"client {connection.name}",
                seconds=now - since,
            )
            connection.close()
            return True
        return False

    def connection_lost(self, connection: ClientConnection) -> None:
        """Note that `connection` is closed."""
        self._connections.discard(connection)
        self._leaving.discard(connection)
        self._gate.left()
        self._check_closed()

    def _refusal_ended(self, refusal: RefusedConnection) -> None:
        self._refusals.discard(refusal)
        self._gate.left()
        self._check_closed()

    def close(self, seconds: float) -> Deferred[None]:
        """Close each connection when everything written to it is sent.

        Clients that have not read it after `seconds` are cut off. Fires when all are closed.
        """
        closed = self._closed = Deferred()
        self._close_alarm = self.clock.callLater(seconds, self.abort)
        self.budget.stop()
        for refusal in list(self._refusals):
            refusal.transport.abortConnection()
        do_in_turns(self.clock, list(self._connections), self._close, CLOSED_AT_ONCE)
        self._check_closed()
        return closed

    def abort(self) -> None:
        """Close all connections now, without sending the rest."""
        do_in_turns(self.clock, list(self._connections), self._abort, CLOSED_AT_ONCE)

    def _close(self, connection: ClientConnection) -> None:
        if connection in self._connections:
            connection.close()

    def _abort(self, connection: ClientConnection) -> None:
        if connection in self._connections:
            connection.abort()

    def _holdings(self) -> Iterator[Holdings]:
        return (connection.holdings for connection in self._connections)

    def _check_closed(self) -> None:
        if self._closed is None or self._connections or self._refusals:
            return
        closed, self._closed = self._closed, None
        if self._close_alarm is not None and self._close_alarm.active():
            self._close_alarm.cancel()
        closed.callback(None)
