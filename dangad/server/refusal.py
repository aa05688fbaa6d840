"""A connection that is refused: its first request is answered with an error.

Made by :mod:`dangad.server.factory` for a connection over the limit, and by
:mod:`dangad.server.access` for a user who may not connect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from dangad.server.passeddescriptors import dispose
from dangad.wire import boxes

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
    from twisted.python.failure import Failure

    from dangad.errors import DangadError

REFUSAL_TIME = 5.0
"""Seconds that a refused connection has to send its first request."""


@implementer(IFileDescriptorReceiver)
class RefusedConnection(Protocol):
    """Answers the first request that wants an answer with an error, and closes."""

    transport: ITCPTransport

    def __init__(
        self, clock: IReactorTime, error: DangadError, ended: Callable[[RefusedConnection], None]
    ) -> None:
        """Wait for a connection.

        :param clock: the source of time.
        :param error: the error to answer with.
        :param ended: called when the connection is closed.
        """
        self._clock = clock
        self._error = error
        self._ended = ended
        #: The call that closes the connection if no request comes.
        self._alarm: IDelayedCall | None = None
        #: Reads requests, and keeps only their tags.
        self._reader = boxes.BoxReader(0, boxes.REQUEST_KEYS)

    def connectionMade(self) -> None:
        """Wait for the first request, for a short time."""
        self._alarm = self._clock.callLater(REFUSAL_TIME, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        """Refuse the first request that wants an answer."""
        self._reader.feed(data)
        try:
            while (box := self._reader.next()) is not None:
                tag = box.keys.get(boxes.ASK)
                if tag is not None:
                    pairs = boxes.error_pairs(self._error.code, str(self._error))
                    self.transport.write(boxes.pair(boxes.ERROR, tag) + boxes.pack(pairs))
                    self.transport.loseConnection()
                    return
        except boxes.Garbage:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Make room for another refusal."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._ended(self)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close the connection of a client that passes a descriptor."""
        dispose(descriptor)
        self.transport.abortConnection()
