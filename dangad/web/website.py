"""The HTTP server behind ``--web``: its connections, and the bounds of what they may send.

:mod:`dangad.service` opens the endpoint and closes the site. What is served is in :mod:`.routes`.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from dangad.host.quietlog import QuietLog
from dangad.server.refusal import RefusedConnection
from dangad.web.history import History
from dangad.web.live import Live
from dangad.web.routes import Root

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from dangad.operators.interfaces import IOperations
    from dangad.web.settings import WebSettings

log = Logger()

MAX_CONNECTIONS = 120
"""Connections at a time: more than twice the open pages, since a browser opens several."""
IDLE_TIME = 30.0
"""Seconds after which a connection without a request is closed."""
MAX_BODY = 64 * 1024
"""Bytes of the largest body of a request; forms are much smaller."""


class BoundedRequest(Request):
    """A request whose body is kept in memory, and is small."""

    channel: Visitor
    content: Any

    def gotLength(self, length: int | None) -> None:
        """Prepare for the body. Twisted would write a large one to the disk."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; close the connection if it is too much."""
        if self.content.tell() + len(data) > MAX_BODY:
            self.channel.transport.abortConnection()
            return
        self.content.write(data)


class Visitor(HTTPChannel):
    """A connection of a browser, or of a program that watches the server."""

    site: WebSite
    transport: Any

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        super().connectionLost(reason)
        self.site.visitor_lost(self)


class RefusedVisitor(RefusedConnection):
    """A connection of a user who may not see the page: it is told so in HTTP."""

    def dataReceived(self, data: bytes) -> None:
        """Refuse whatever is asked for."""
        text = f"{self._error}\n".encode()
        self.transport.write(
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)
        )
        self.transport.loseConnection()


class WebSite(Site):
    """Serves the page to up to `MAX_CONNECTIONS` connections."""

    noisy = False
    protocol: Any = Visitor  # HTTP/1.1 alone
    requestFactory = BoundedRequest
    refused = RefusedVisitor
    most_connections = MAX_CONNECTIONS

    def __init__(self, reactor: Any, operations: IOperations, settings: WebSettings) -> None:
        """Begin with no connections.

        :param reactor: the source of time.
        :param operations: tells everything that is shown, and does what is asked.
        :param settings: the operator's choices.
        """
        self.history = History(reactor, operations)
        self.live = Live(reactor, operations.turn)
        super().__init__(
            Root(operations, self.history, self.live, settings),
            timeout=IDLE_TIME,
            reactor=reactor,
        )
        self._quiet = QuietLog(reactor, log)
        #: The open connections.
        self._visitors: set[Visitor] = set()
        #: Fires when the last connection is closed; None before `close`.
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of a new connection; None to close the connection at once."""
        if len(self._visitors) >= MAX_CONNECTIONS:
            self._quiet.warn(
                "connections",
                None,
                "{count} connections to the page are open; closing one more",
                count=MAX_CONNECTIONS,
            )
            return None
        visitor: Any = super().buildProtocol(addr)
        self._visitors.add(visitor)
        return visitor

    def visitor_lost(self, visitor: Visitor) -> None:
        """Note that a connection is closed."""
        self._visitors.discard(visitor)
        self._check_closed()

    def startFactory(self) -> None:
        """Begin to sample the server; requests are not logged."""
        self.history.start()

    def stopFactory(self) -> None:
        """Stop sampling."""
        self.history.stop()

    def log(self, request: Any) -> None:
        """Log no requests: a page that is open asks every second."""

    def close(self) -> Deferred[None]:
        """Close all connections now; fires when all are closed."""
        closed = self._closed = Deferred()
        self._quiet.flush()
        for visitor in list(self._visitors):
            visitor.transport.abortConnection()
        self._check_closed()
        return closed

    def _check_closed(self) -> None:
        if self._closed is not None and not self._visitors:
            closed, self._closed = self._closed, None
            closed.callback(None)
