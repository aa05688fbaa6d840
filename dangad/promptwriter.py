"""Writing to a socket at once, instead of in the reactor's next round.

Used by :mod:`dangad.server` for answers. Twisted keeps what is written until the reactor finds
the socket writable: one more round, two more system calls and a good part of a job's whole cost
in the parent. A socket on which nothing waits mostly takes an answer whole at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import tcp

if TYPE_CHECKING:
    from collections.abc import Callable


def prompt_writer(transport: Any) -> Callable[[bytes], None]:
    """What writes to `transport`: at once where that can be, else as it does itself.

    The order of bytes, the transport's buffer and its producer's pauses are as always: only
    what a plain TCP or UNIX socket takes while the buffer is empty does not go through it.
    """
    if not isinstance(transport, tcp.Connection) or transport.TLS:
        write: Callable[[bytes], None] = transport.write
        return write
    send = transport.socket.send

    def write_now(data: bytes) -> None:
        # Twisted has no public word for what it has not sent.
        if transport._tempDataLen or transport.dataBuffer:  # noqa: SLF001
            transport.write(data)
            return
        try:
            sent = send(data)
        except OSError:
            sent = 0  # it is full, or broken, which the reactor will find out
        if sent < len(data):
            transport.write(data[sent:])

    return write_now
