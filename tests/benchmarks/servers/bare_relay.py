"""Twisted's reactor moving bytes between a UNIX socket and the pipes of workers, and no more.

``python -m tests.benchmarks.servers.bare_relay SOCKET WORKERS SIZE``. It has one client. With a
SIZE, a request is so many bytes, and each idle worker is given one, as in dangad; what a worker
then writes is the answer, if it comes in one piece. With SIZE 0 there is one worker, and the bytes
flow.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from twisted.internet.protocol import Factory, ProcessProtocol, Protocol


class Relay:
    """Who has what.

    All mutable state: the client; the idle workers; the requests that wait; the beginning of one.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.client: Client | None = None
        self.idle: list[Worker] = []
        self._waiting: deque[bytes] = deque()
        self._buffer = b""

    def requested(self, data: bytes) -> None:
        """The client has sent something."""
        if not self._size:
            self.idle[0].transport.write(data)
            return
        self._buffer += data
        whole = len(self._buffer) // self._size * self._size
        for start in range(0, whole, self._size):
            self._waiting.append(self._buffer[start : start + self._size])
        self._buffer = self._buffer[whole:]
        while self._waiting and self.idle:
            self.idle.pop().transport.write(self._waiting.popleft())

    def answered(self, worker: Worker, data: bytes) -> None:
        """A worker has written something."""
        if self.client is not None:
            self.client.transport.write(data)
        if not self._size:
            return
        if self._waiting:
            worker.transport.write(self._waiting.popleft())
        else:
            self.idle.append(worker)


class Client(Protocol):
    """The client's socket."""

    transport: Any

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connectionMade(self) -> None:
        """Be the one who gets the answers."""
        self._relay.client = self

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        self._relay.requested(data)


class Worker(ProcessProtocol):
    """A worker's pipes."""

    transport: Any

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connectionMade(self) -> None:
        """Be idle."""
        self._relay.idle.append(self)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's
        """Pass it on."""
        self._relay.answered(self, data)


def main(path: str, workers: int, size: int) -> None:
    """Serve until the process is ended."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    relay = Relay(size)
    for _ in range(workers):
        reactor.spawnProcess(
            Worker(relay),
            sys.executable,
            [sys.executable, "-m", "tests.benchmarks.servers.lean_worker"],
            env=None,
            childFDs={0: "w", 1: "r", 2: 2},
        )
    factory = Factory.forProtocol(lambda: Client(relay))
    reactor.listenUNIX(path, factory)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
