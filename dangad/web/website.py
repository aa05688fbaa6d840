"""The HTTP server behind ``--web``: its connections, and the bounds of what they may send.

:mod:`dangad.service` opens the endpoint and closes the site. What is served is in :mod:`.routes`.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.web.http import HTTPChannel, parse_qs
from twisted.web.server import Request, Site

from dangad.host.quietlog import QuietLog
from dangad.server.refusal import RefusedConnection
from dangad.web.history import History
from dangad.web.live import Live
from dangad.web.replies import SEND_TIME
from dangad.web.routes import Root
from dangad.web.scrapes import Scrapes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from dangad.operators.interfaces import IOperations
    from dangad.web.settings import WebSettings

log = Logger()

MAX_CONNECTIONS = 120
"""Connections at a time: more than twice the open pages, since a browser opens several."""
IDLE_TIME = 30.0
"""Seconds after which a connection without a request is closed."""
REQUEST_TIME = 10.0
"""Seconds from the first byte of a request to its last one; the connection is closed then."""
MAX_BODY = 64 * 1024
"""Bytes of the largest body of a request; forms are much smaller."""

_TOO_LARGE = b"The body of the request is too large.\n"
_REFUSAL = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_TOO_LARGE), _TOO_LARGE)
)


class BoundedRequest(Request):
    """A request whose body is kept in memory, is small, and is not parsed here."""

    channel: Visitor
    content: Any
    #: Whether the body is too large; the answer says so already.
    _too_large = False
    #: The length that the head tells; 0 if it tells none.
    _told_length = 0

    def gotLength(self, length: int | None) -> None:
        """Prepare for the body. Twisted would write a large one to the disk."""
        self.content = BytesIO()
        self._told_length = length or 0

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; if it is too much, say so and drop it.

        A browser that still sends would not see the answer if the connection were closed at once.
        """
        if self._too_large:
            return
        if max(self.content.tell() + len(data), self._told_length) > MAX_BODY:
            self._too_large = True
            self.channel.transport.write(_REFUSAL)
            return
        self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer the request.

        Twisted would parse forms first, whoever sent them, and nested ones take it seconds. Orders
        parse their own, once it is clear where they come from.
        """
        if self._too_large:
            self.channel.transport.loseConnection()
            return
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args: dict[bytes, list[bytes]] = parse_qs(query, keep_blank_values=True)
        self.process()


class Visitor(HTTPChannel):
    """A connection of a browser, or of a program that watches the server."""

    site: WebSite
    transport: Any
    callLater: Any

    def __init__(self) -> None:
        """Begin without a request."""
        super().__init__()
        #: Whether it reads so slowly that nothing more can be written for now.
        self.is_full = False
        #: Since when it has waited for its client, to ask or to read; None while it does not.
        self.waits_since: float | None = None
        #: Whether a request is being answered.
        self._answering = False
        #: Closes the connection if the request, or the reading of the last answer, takes too long.
        self._limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait for a request."""
        self.wait()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; the first ones of a request begin its time."""
        self._begin()
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the head, maybe of a request that was sent before the last answer."""
        self._begin()
        super().lineReceived(line)

    def allContentReceived(self) -> None:
        """Answer a request that has arrived."""
        self._end()
        self.waits_since = None
        self._answering = True
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """Wait for the next request, which may be there already."""
        self.wait()
        self._answering = False
        super().requestDone(request)
        if not self.persistent and self._limit is None:
            self._limit = self.callLater(SEND_TIME, self._give_up)

    def pauseProducing(self) -> None:
        """Note that the connection takes no more for now."""
        self.is_full = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Write again."""
        self.is_full = False
        super().resumeProducing()

    def wait(self) -> None:
        """Note that nothing happens now unless the client does something."""
        self.waits_since = self.site.now()

    def make_room(self) -> None:
        """Close the connection at once."""
        self.waits_since = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self._end()
        super().connectionLost(reason)
        self.site.visitor_lost(self)

    def _begin(self) -> None:
        if self._limit is None and not self._answering:
            self._limit = self.callLater(REQUEST_TIME, self._give_up)

    def _end(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self._limit = None
        self.make_room()


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
        self._quiet = QuietLog(reactor, log)
        self.live = Live(reactor, operations.turn, self._quiet)
        scrapes = Scrapes(reactor, operations)
        super().__init__(
            Root(operations, self.history, self.live, scrapes, settings, self._quiet),
            timeout=IDLE_TIME,
            reactor=reactor,
        )
        self._clock = reactor
        #: The open connections.
        self._visitors: set[Visitor] = set()
        #: Fires when the last connection is closed; None before `close`.
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of a new connection; None to close the connection at once.

        When too many are open, the one that has waited longest for its client makes room.
        """
        if len(self._visitors) >= MAX_CONNECTIONS:
            self._quiet.warn(
                "connections",
                None,
                "{count} connections to the page are open; one must go before another comes",
                count=MAX_CONNECTIONS,
            )
            waiting = [each for each in self._visitors if each.waits_since is not None]
            if not waiting:
                return None
            min(waiting, key=lambda each: each.waits_since or 0.0).make_room()
        visitor: Any = super().buildProtocol(addr)
        self._visitors.add(visitor)
        return visitor

    def now(self) -> float:
        """The time of the clock."""
        seconds: float = self._clock.seconds()
        return seconds

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
