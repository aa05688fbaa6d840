"""The document about the connected clients.

A part of :class:`dangad.operators.view.Operations`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dangad.operators.filters import check_page, read_sort
from dangad.operators.parts import PART, First
from dangad.wire.controlwords import CLIENT_ORDERS

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.operators.parts import Parts
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.interfaces import IClient
    from dangad.server.connection import ClientConnection
    from dangad.server.factory import ClientFactory

    Document = dict[str, Any]

AT_ONCE = PART // 4
"""The most clients that are looked at in one part: an entry costs more than a job."""


class ClientViews:
    """What operators see of clients."""

    def __init__(
        self, clock: IReactorTime, dispatcher: Dispatcher, clients: ClientFactory, parts: Parts
    ) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._clients = clients
        self._parts = parts

    def clients(self, sort: str, limit: int) -> Deferred[Document]:
        """See :meth:`IOperations.clients`."""
        order = read_sort(sort, CLIENT_ORDERS)
        check_page(limit)
        return self._parts.do(self._list(*order, limit))

    def _list(self, sort: str, descending: bool, limit: int) -> Generator[None, None, Document]:
        first: First[Document] = First(limit, descending)
        connections = self._clients.all_open()
        running = Counter(job.client for job in self._dispatcher.jobs_running())
        total = 0
        yield
        for start in range(0, len(connections), AT_ONCE):
            now = self._clock.seconds()
            for connection in connections[start : start + AT_ONCE]:
                if connection.is_open:
                    total += 1
                    entry = _entry(connection, running, now)
                    first.add(_key(entry[sort]), total, entry)
            yield
        return {"total": total, "clients": first.items()}


def _entry(connection: ClientConnection, running: Counter[IClient | None], now: float) -> Document:
    """The entry of a client.

    :param running: how many jobs of each client run.
    """
    peer, runs, idle_since = connection.peer, running[connection], connection.idle_since
    return {
        "client": connection.name,
        "peer": None if peer is None else f"user {peer}" if isinstance(peer, int) else str(peer),
        "since": now - connection.connected_at,
        "idle": None if idle_since is None else now - idle_since,
        "waiting": max(0, len(connection.jobs) - runs),
        "running": runs,
        "held": connection.is_held,
        "bytes": connection.holdings.held,
    }


def _key(value: Any) -> tuple[bool, Any]:
    """A value of an entry, to be compared: nothing is less than anything."""
    return (False, 0) if value is None else (True, value)
