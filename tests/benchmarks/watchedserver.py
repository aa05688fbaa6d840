"""A server whose reactor's turns are measured, and clients that ask for much of it.

Used by :mod:`tests.benchmarks.stalls`; the server is :mod:`tests.benchmarks.servers.watched`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.benchmarks import boxes
from tests.benchmarks.contenders import SOCKET
from tests.benchmarks.processes import PATIENCE, Broken, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SPARE_FILES = 500
"""Descriptors that a process needs for all else."""
PIECE = 2**18
"""Bytes that a client sends at a time."""
CONTROL = "dangad.control"
TURNS = "turns"
STATUS = b"dangad.control.Status"
DRAIN = b"dangad.control.Drain"
JOBS = b"dangad.control.Jobs"
CANCEL = b"dangad.control.Cancel"
PAUSE = b"dangad.control.Pause"
RESUME = b"dangad.control.Resume"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything there is."""

    jobs: int
    connections: int
    workers: int
    each: int
    """Requests of each of many clients."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the reactor, in seconds."""

    wall: float
    cpu: float
    waited: float
    """For a core, which something else had."""
    collected: float
    """Of Python's garbage collector, on a core."""

    @property
    def own(self) -> float:
        """How long it would have taken with a core to itself: what it computed, and waited for."""
        return max(self.wall - self.waited, self.cpu)


class Watched:
    """A server whose turns are measured, on a stage of its own."""

    def __init__(self, stage: Stage, sizes: Sizes, workers: int, most: int, *options: str) -> None:
        """Start it, and wait until its first workers are ready.

        :param options: more of ``twistd dangad``.
        """
        self.stage = stage
        self.sizes = sizes
        self._clients = contextlib.ExitStack()
        room = str(4 * sizes.jobs)
        self.path = stage.path(SOCKET)
        self.pid = stage.start_python(
            *("-m", "tests.benchmarks.servers.watched", stage.path(TURNS)),
            *("--nodaemon", "--pidfile=", "dangad"),
            *("--listen", f"unix:{self.path}:mode=600"),
            *("--jobs", "dangad.examples", "--jobs", "tests.benchmarks.jobs"),
            *("--min-workers", str(workers), "--max-workers", str(most)),
            *("--max-queued", room, "--max-in-flight", room, "--drain", "1"),
            *("--relief-after", "0"),  # who holds all workers is to hold them
            *("--max-connections", str(sizes.connections + SPARE_FILES), *options),
        )
        stage.wait_for(lambda: self._ready(workers), "dangad")

    def _ready(self, workers: int) -> bool:
        if not os.path.exists(self.stage.path(CONTROL)):
            return False
        with contextlib.suppress(OSError):
            return bool(self.status()["workers"]["idle"] >= workers)
        return False

    def connect(self) -> Client:
        """A new client, whose connection is closed at the latest with `close`."""
        return self._clients.enter_context(Client(self.path))

    def close(self) -> None:
        """Close the connections; the server is the stage's to end."""
        self._clients.close()

    def operator(self, order: bytes, /, **arguments: bytes) -> Client:
        """An operator who has asked for this."""
        operator = Client(self.stage.path(CONTROL))
        pairs = {b"_ask": b"1", b"_command": order}
        pairs |= {name.encode(): value for name, value in arguments.items()}
        operator.send([b"".join(boxes.pair(*each) for each in pairs.items())])
        return operator

    def status(self) -> dict[str, Any]:
        """What an operator is told."""
        with self.operator(STATUS) as operator:
            box = operator.receive_box()
        start = box.index(b'{"version"')  # the length before it may have any bytes
        document: dict[str, Any] = json.loads(box[start : box.rindex(b"}") + 1])
        return document

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the status is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition(self.status()):
            if time.monotonic() > deadline:
                raise Broken(f"the server has not settled: {self.status()}")
            time.sleep(0.05)

    def fill(self, jobs: int, deadline_at: float | None = None) -> Client:
        """Hold all workers, and have a client whose jobs wait."""
        workers = self.status()["workers"]["idle"]
        nap = {b"microseconds": b"%d" % int(2 * PATIENCE * 1e6)}
        holder = self.connect()
        holder.send(boxes.request(n, b"Nap", b"", nap)[:-2] for n in range(workers))
        self.wait_until(lambda status: status["jobs"]["running"] >= workers)
        client = self.connect()
        for number in range(jobs):
            others = {}
            if deadline_at is not None:
                others[b"_deadline"] = b"%.3f" % (deadline_at - time.monotonic())
            client.keep(boxes.request(number, b"Echo", b"", others))
        client.flush()
        self.wait_until(lambda status: status["jobs"]["waiting"] >= jobs)
        return client

    def mark(self) -> None:
        """Begin to measure."""
        self.turns()

    def turns(self) -> list[Turn]:
        """The turns since the last mark."""
        path = self.stage.path(TURNS)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.kill(self.pid, signal.SIGUSR2)
        return _read_turns(path)

    def last_turns(self) -> list[Turn]:
        """The turns since the last mark of a server that ends."""
        return _read_turns(self.stage.path(f"{TURNS}.last"))


class Client:
    """A connection whose answers are read by a thread of its own, and counted or thrown away."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._kept: list[bytes] = []
        self.received = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep(self, box: bytes) -> None:
        """Send a box together with others."""
        self._kept.append(box)

    def flush(self) -> None:
        """Send what was kept."""
        self._send_all(b"".join(self._kept))
        self._kept.clear()

    def send(self, pairs: Iterable[bytes]) -> None:
        """Send boxes, given without their ends."""
        self._send_all(b"".join(each + boxes.END for each in pairs))

    def _send_all(self, data: bytes) -> None:
        """Send piece by piece: the time limit is one of each."""
        for start in range(0, len(data), PIECE):
            self._socket.sendall(data[start : start + PIECE])

    def receive_box(self) -> bytes:
        """The next box, which must be all that is sent."""
        data = b""
        while not boxes.end_of(data):
            more = self._socket.recv(2**16)
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def read_on(self) -> threading.Thread:
        """Read in a thread until the connection is closed: the server need not wait for it."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        return thread

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(2**18):
                self.received += len(data)

    def wait_for_bytes(self, size: int) -> None:
        """Wait until so many bytes of answers have come.

        :raises Broken: no more come.
        """
        before, deadline = 0, 0.0
        while self.received < size:
            if self.received > before or not deadline:
                before, deadline = self.received, time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                raise Broken(f"{self.received} of {size} bytes of answers have come")
            time.sleep(0.01)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _read_turns(path: str) -> list[Turn]:
    """The turns in that file, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise Broken("the server does not tell its turns")
        time.sleep(0.05)
    with open(path) as file:
        return [Turn(*each) for each in json.load(file)]
