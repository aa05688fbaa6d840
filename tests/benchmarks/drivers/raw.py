"""A lean client for whatever speaks AMP on a UNIX socket: blocking, its boxes made beforehand.

``python -m tests.benchmarks.drivers.raw SOCKET``. Since all boxes of a run are of one length, an
answer is checked by comparing it with the bytes that it should be.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import time
from typing import Any

from tests.benchmarks import boxes
from tests.benchmarks.drivers import WrongAnswer, check, payload, serve

COMMANDS = {"echo": b"Echo", "spin": b"Spin", "nap": b"Nap"}

_READ = 2**18
_PATIENCE = 60.0
"""Seconds without a byte after which the server is taken for hung."""


class RawClient:
    """One connection.

    All mutable state: the number of the next job; what is held, see `hold`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = self._connect()
        self._next = 0
        self._held: Any = None

    def serial(
        self, jobs: int, work: str = "echo", amount: int = 0, size: int = 32
    ) -> dict[str, Any]:
        """One job after the other: the seconds that each took."""
        latencies = []
        for request, answer in self._make(jobs, work, amount, size):
            start = time.perf_counter()
            self._socket.sendall(request)
            got = self._receive(len(answer))
            latencies.append(time.perf_counter() - start)
            check(got, answer)
        return {"latencies": latencies}

    def windowed(
        self, jobs: int, window: int, work: str = "echo", amount: int = 0, size: int = 32
    ) -> dict[str, Any]:
        """So many jobs in flight at any time: the seconds that all took, and each.

        Answers may come in any order.
        """
        made = self._make(jobs, work, amount, size)
        length = len(made[0][1])
        requests = [request for request, _ in made]
        number_of = {answer: number for number, (_, answer) in enumerate(made)}
        began = [0.0] * jobs
        latencies = []
        buffer = b""
        sent = min(window, jobs)
        start = time.perf_counter()
        began[:sent] = [start] * sent
        self._socket.sendall(b"".join(requests[:sent]))
        while number_of:
            buffer += self._read()
            now = time.perf_counter()
            whole = len(buffer) // length
            for position in range(0, whole * length, length):
                number = number_of.pop(buffer[position : position + length], None)
                if number is None:
                    raise WrongAnswer(repr(buffer[position : position + length]))
                latencies.append(now - began[number])
            buffer = buffer[whole * length :]
            more = min(sent + whole, jobs)
            if more > sent:
                self._socket.sendall(b"".join(requests[sent:more]))
                began[sent:more] = [now] * (more - sent)
                sent = more
        return {"seconds": time.perf_counter() - start, "latencies": latencies}

    def hold(self, workers: int, path: str, queued: int, size: int = 32) -> None:
        """Keep so many workers busy, and queue so many jobs behind; return when all wait.

        The ``Ping`` at the end is answered when the server has read all that came before it.
        """
        lock = open(path, "w")  # noqa: SIM115 - closed by `release`
        fcntl.flock(lock, fcntl.LOCK_EX)
        holders = self._make(workers, "hold", 0, size, {b"path": path.encode()})
        made = self._make(queued, "echo", 0, size)
        ping = self._ping()
        self._socket.sendall(b"".join(request for request, _ in holders))
        self._socket.sendall(b"".join(request for request, _ in made))
        self._socket.sendall(boxes.pair(b"_ask", b"ping") + ping)
        self._receive_ping()
        self._held = (lock, {answer for _, answer in holders + made}, len(made[0][1]))

    def release(self) -> float:
        """Let them go, and wait for all answers: the seconds that this took."""
        lock, answers, length = self._held
        self._held = None
        buffer = b""
        start = time.perf_counter()
        lock.close()
        while answers:
            buffer += self._read()
            whole = len(buffer) // length * length
            for position in range(0, whole, length):
                answers.remove(buffer[position : position + length])
            buffer = buffer[whole:]
        return time.perf_counter() - start

    def _ping(self) -> bytes:
        return boxes.pair(b"_command", b"dangad.Ping") + boxes.END

    def _receive_ping(self) -> None:
        expected = boxes.pair(b"_answer", b"ping")
        box = self._read()
        while not boxes.end_of(box):
            box += self._read()
        check(box[: len(expected)], expected)

    def _make(
        self, jobs: int, work: str, amount: int, size: int, others: dict[bytes, bytes] | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Requests, and the answers that they should have."""
        if others is None:
            others = {b"microseconds": b"%d" % amount} if amount else {}
        command = COMMANDS.get(work, work.title().encode())
        first = self._next
        self._next += jobs
        made = []
        for number in range(first, first + jobs):
            data = payload(number, size)
            made.append((boxes.request(number, command, data, others), boxes.answer(number, data)))
        return made

    def _connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(_PATIENCE)
        connected.connect(self._path)
        return connected

    def _read(self) -> bytes:
        data = self._socket.recv(_READ)
        if not data:
            raise WrongAnswer("the server has closed the connection")
        return data

    def _receive(self, length: int) -> bytes:
        """Exactly so many bytes."""
        data = self._read()
        if len(data) == length:
            return data
        parts, held = [data], len(data)
        while held < length:
            parts.append(data := self._read())
            held += len(data)
        return b"".join(parts)


if __name__ == "__main__":
    client = RawClient(sys.argv[1])
    serve(
        {
            "serial": client.serial,
            "windowed": client.windowed,
            "hold": client.hold,
            "release": client.release,
        }
    )
