"""Writing to a socket soon, instead of when the reactor finds that it can be written to.

Used by :mod:`dangad.server` for answers. Twisted keeps what is written until the reactor's next
round, and has epoll tell when the socket takes it: two more system calls and a good part of a
job's whole cost in the parent. But a socket on which nothing waits mostly takes an answer whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import tcp

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class PromptWriter:
    """Writes to one transport: at once, or when all that the reactor had to do now is done.

    The order of bytes, the transport's buffer and its producer's pauses are as always: only
    what a plain TCP or UNIX socket takes while that buffer is empty does not go through it.

    All mutable state: `_kept`, what is to be written together, and `_flushing`, the call that
    will do that.
    """

    def __init__(self, clock: IReactorTime, transport: Any) -> None:
        self._clock = clock
        self._transport = transport
        self._is_plain = isinstance(transport, tcp.Connection) and not transport.TLS
        self._kept: list[bytes] = []
        self._flushing: IDelayedCall | None = None

    def write(self, data: bytes, more: bool = False) -> None:
        """Write `data`; if `more` is likely to follow at once, together with that."""
        if not self._is_plain:
            self._transport.write(data)
        elif more:
            self._kept.append(data)
            if self._flushing is None:
                self._flushing = self._clock.callLater(0, self._flush)
        elif self._kept:
            self._kept.append(data)
            self.flush()
        else:
            self._send(data)

    def flush(self) -> None:
        """Write what was kept."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def close(self) -> None:
        """Forget what was kept: the connection is lost."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    def _flush(self) -> None:
        self._flushing = None
        kept, self._kept = self._kept, []
        self._send(b"".join(kept))

    def _send(self, data: bytes) -> None:
        transport = self._transport
        # Twisted has no public word for what it has not sent.
        if transport._tempDataLen or transport.dataBuffer:  # noqa: SLF001
            transport.write(data)
            return
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0  # it is full, or broken, which the reactor will find out
        if sent < len(data):
            transport.write(data[sent:])
