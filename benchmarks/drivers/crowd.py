"""Many clients in one process: idle ones, slow ones, and a few that are active.

``python -m benchmarks.drivers.crowd SOCKET``. An idle client has connected and asks for nothing; a
slow one sends a request byte by byte, and never the last. An active one asks for a job, waits for
the answer, and asks for the next: over one connection, or over a new one for each job.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import boxes
from benchmarks.drivers import WrongAnswer, serve

_READ = 2**18
_ANSWERING = 5.0
"""Seconds that the last answers may take."""
_CONNECTING = 2.0
"""Seconds that a server has for taking a connection."""

_DRIBBLE = boxes.request(0, b"Echo", b"slow", {})[:-1]


@dataclass(slots=True)
class Active:
    """A client that is active.

    All mutable state: its socket, None if it could not connect; what has come of an answer; when it
    asked; how often it was answered.
    """

    socket: socket.socket | None
    buffer: bytearray = field(default_factory=bytearray)
    asked: float = 0.0
    answers: int = 0


class Crowd:
    """All the clients.

    All mutable state: the sockets of those that are idle or slow, and how many bytes each of the
    latter has sent.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[socket.socket] = []
        self._slow: list[socket.socket] = []
        self._dribbled = 0

    def gather(self, idle: int, slow: int = 0) -> dict[str, int]:
        """Connect so many clients: how many could, and how many could not.

        After the first that cannot, the others do not try.
        """
        connected = 0
        for number in range(idle + slow):
            client = self._connect()
            if client is None:
                break
            connected += 1
            # The slow are spread evenly among the idle.
            is_slow = number * slow // (idle + slow) != (number + 1) * slow // (idle + slow)
            (self._slow if is_slow else self._idle).append(client)
        self._dribble()
        return {"connected": connected, "refused": idle + slow - connected}

    def active(
        self,
        clients: int,
        seconds: float,
        most: int,
        request: str,
        reconnect: bool = False,
    ) -> dict[str, Any]:
        """Have so many clients be active: the seconds that each job took, and the first answer.

        After so many seconds, or jobs, they ask no more, and wait a while for the answers that are
        due. Clients that were never answered are counted.

        :param request: the box of the job in hexadecimal; all answers to it have to be the same.
        :param reconnect: whether to open a connection for each job, which then counts as a part.
        """
        box = bytes.fromhex(request)
        everyone = [Active(None) for _ in range(clients)]
        latencies: list[float] = []
        first: bytes | None = None
        waiting = 0
        start = now = dribbled = time.perf_counter()
        with selectors.DefaultSelector() as selector:
            for each in everyone:
                waiting += self._ask(each, box, selector)
            while waiting and now < start + seconds + _ANSWERING:
                for key, _ in selector.select(0.1):
                    each = key.data
                    answer = self._receive(each)
                    if answer is None:
                        continue
                    now = time.perf_counter()
                    waiting -= 1
                    latencies.append(now - each.asked)
                    each.answers += 1
                    first = first or answer
                    if answer != first:
                        raise WrongAnswer(f"{answer!r:.200} instead of {first!r:.200}")
                    if reconnect:
                        self._leave(each, selector)
                    if now < start + seconds and len(latencies) + waiting < most:
                        waiting += self._ask(each, box, selector)
                now = time.perf_counter()
                if now > dribbled + 1:
                    dribbled = now
                    self._dribble()
        for each in everyone:
            if each.socket is not None:
                each.socket.close()
        return {
            "latencies": latencies,
            "answer": (first or b"").hex(),
            "starved": sum(1 for each in everyone if not each.answers),
        }

    def _ask(self, each: Active, box: bytes, selector: selectors.BaseSelector) -> bool:
        """Send the next request; return False if the client cannot connect, and gives up."""
        each.asked = time.perf_counter()
        each.buffer.clear()
        if each.socket is None:
            each.socket = self._connect()
            if each.socket is None:
                return False
            selector.register(each.socket, selectors.EVENT_READ, each)
        with contextlib.suppress(BrokenPipeError):  # the socket becomes readable: see _receive
            each.socket.sendall(box)
        return True

    def _receive(self, each: Active) -> bytes | None:
        """The answer, if it has come whole."""
        assert each.socket is not None
        data = each.socket.recv(_READ)
        if not data:
            raise WrongAnswer("the server has closed an active client's connection")
        each.buffer += data
        return bytes(each.buffer) if boxes.end_of(each.buffer) else None

    def _leave(self, each: Active, selector: selectors.BaseSelector) -> None:
        assert each.socket is not None
        selector.unregister(each.socket)
        each.socket.close()
        each.socket = None

    def _dribble(self) -> None:
        """Each slow client sends its next byte, if any is left but the last."""
        byte = _DRIBBLE[self._dribbled : self._dribbled + 1]
        self._dribbled += 1
        for client in self._slow if byte else ():
            with contextlib.suppress(OSError):  # full, or closed by the server
                client.send(byte, socket.MSG_DONTWAIT)

    def _connect(self) -> socket.socket | None:
        """A new connection; None if the server takes none for some time.

        On a UNIX socket, one that does not block is told at once that too many others wait.
        """
        deadline = time.monotonic() + _CONNECTING
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(_CONNECTING)
        while (error := client.connect_ex(self._path)) == errno.EAGAIN:
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
        if error:
            client.close()
            return None
        return client


if __name__ == "__main__":
    crowd = Crowd(sys.argv[1])
    serve({"gather": crowd.gather, "active": crowd.active})
