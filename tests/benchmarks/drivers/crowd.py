"""Many clients in one process: idle ones, slow ones, and a few that are active.

``python -m tests.benchmarks.drivers.crowd SOCKET``. An idle client has connected and asks for
nothing; a slow one sends a request byte by byte, and never the last. An active one asks for a job,
waits for the answer, and asks for the next: over one connection, or over a new one for each job.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import sys
import time
from typing import Any

from tests.benchmarks import boxes
from tests.benchmarks.drivers import WrongAnswer, serve

_READ = 2**18
_ANSWERING = 5.0
"""Seconds that the last answers may take."""
_CONNECTING = 2.0
"""Seconds that a server has for taking a connection."""

_DRIBBLE = boxes.request(0, b"Echo", b"slow", {})[:-1]


class Active:
    """A client that asks for the same job again and again.

    All mutable state: its socket, None while it is not connected; what has come of an answer; when
    it asked; the seconds that each answer took; the latest answer.
    """

    def __init__(self, request: bytes, reconnect: bool) -> None:
        self.latencies: list[float] = []
        self.answer = b""
        self._request = request
        self._reconnect = reconnect
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._asked = 0.0

    def ask(self, path: str, selector: selectors.BaseSelector) -> bool:
        """Send the request; return False if the server takes no connection."""
        self._asked = time.perf_counter()
        self._buffer.clear()
        if self._socket is None:
            self._socket = connect(path)
            if self._socket is None:
                return False
            selector.register(self._socket, selectors.EVENT_READ, self)
        with contextlib.suppress(BrokenPipeError):  # reading will tell why
            self._socket.sendall(self._request)
        return True

    def receive(self, selector: selectors.BaseSelector) -> bool:
        """Read what has come; return whether the answer is whole now."""
        assert self._socket is not None
        data = self._socket.recv(_READ)
        if not data:
            raise WrongAnswer("the server has closed an active client's connection")
        self._buffer += data
        if not boxes.end_of(self._buffer):
            return False
        self.latencies.append(time.perf_counter() - self._asked)
        answer = bytes(self._buffer)
        if answer != (self.answer or answer):
            raise WrongAnswer(f"{answer!r:.200} instead of {self.answer!r:.200}")
        self.answer = answer
        if self._reconnect:
            selector.unregister(self._socket)
            self.close()
        return True

    def close(self) -> None:
        """Leave."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


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
            client = connect(self._path)
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
        everyone = [Active(bytes.fromhex(request), reconnect) for _ in range(clients)]
        with selectors.DefaultSelector() as selector:
            self._drive(everyone, selector, seconds, most)
        for each in everyone:
            each.close()
        answers = {each.answer for each in everyone if each.answer}
        if len(answers) > 1:
            raise WrongAnswer(f"not all the same: {answers!r:.200}")
        return {
            "latencies": [latency for each in everyone for latency in each.latencies],
            "answer": "".join(answer.hex() for answer in answers),
            "starved": sum(1 for each in everyone if not each.latencies),
        }

    def _drive(
        self,
        everyone: list[Active],
        selector: selectors.BaseSelector,
        seconds: float,
        most: int,
    ) -> None:
        """Have each client ask, and ask again when it is answered; let the slow ones go on, too."""
        waiting = sum(each.ask(self._path, selector) for each in everyone)
        done = 0
        start = now = dribbled = time.perf_counter()
        while waiting and now < start + seconds + _ANSWERING:
            for key, _ in selector.select(0.1):
                each: Active = key.data
                if each.receive(selector):
                    done += 1
                    waiting -= 1
                    now = time.perf_counter()
                    if now < start + seconds and done + waiting < most:
                        waiting += each.ask(self._path, selector)
            now = time.perf_counter()
            if now > dribbled + 1:
                dribbled = now
                self._dribble()

    def _dribble(self) -> None:
        """Each slow client sends its next byte, if any is left but the last."""
        byte = _DRIBBLE[self._dribbled : self._dribbled + 1]
        self._dribbled += 1
        for client in self._slow if byte else ():
            with contextlib.suppress(OSError):  # full, or closed by the server
                client.send(byte, socket.MSG_DONTWAIT)


def connect(path: str) -> socket.socket | None:
    """A new connection; None if the server takes none for some time.

    On a UNIX socket, one that does not block is told at once that too many others wait.
    """
    deadline = time.monotonic() + _CONNECTING
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(_CONNECTING)
    while (error := client.connect_ex(path)) == errno.EAGAIN:
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
