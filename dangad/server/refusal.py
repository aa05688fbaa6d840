"""A connection that is one too many: its first request is answered by an error.

Made by :mod:`dangad.server.factory` when the server has as many connections as it may.
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
"""Seconds that a connection over the limit has for a first request, to be told so."""


@implementer(IFileDescriptorReceiver)
class RefusedConnection(Protocol):
    """Answers the first request that wants an answer with an error, and closes."""

    transport: ITCPTransport

    def __init__(
        self, clock: IReactorTime, error: DangadError, ended: Callable[[RefusedConnection], None]
    ) -> None:
        """Wait for a connection.

        :param clock: where the time comes from.
        :param error: what to answer.
        :param ended: called when the connection is closed.
        """
        self._clock = clock
        self._error = error
        self._ended = ended
        #: The end of its patience.
        self._alarm: IDelayedCall | None = None
        #: What has come; it keeps nothing but tags.
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
        """Cut off who passes a descriptor."""
        dispose(descriptor)
        self.transport.abortConnection()
