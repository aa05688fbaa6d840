"""Clients that lie, flood and stall, against a real server; a well-behaved one looks on."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dangad.wire import boxes
from tests.blockingpeer import BlockingPeer, code_of
from tests.twistdserver import PATIENCE, TwistdServer, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MIB = 2**20

MAX_PAYLOAD = 8 * MIB
ROOM = 60 * MIB
"""What the server may grow by in a test that sends it many times as much."""


class Server(TwistdServer):
    """``twistd dangad`` on a UNIX socket and a TCP port of its own."""

    def __init__(self, *options: str) -> None:
        """Start it, with these options besides, and wait until it performs jobs."""
        self._temporary = tempfile.TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        tcp = f"--listen=tcp:{self.port}:interface=127.0.0.1"
        super().__init__(self._temporary.name, *options, tcp)

    def performs(self, connect: Callable[[], socket.socket]) -> bool:
        """Whether the server performs jobs for a client that connects so."""
        if self.process.poll() is not None:
            raise AssertionError("the server has exited")
        try:
            with BlockingPeer(connect()) as peer:
                return peer.call(b"Echo", data=b"up?")[b"data"] == b"up?"
        except (OSError, EOFError, KeyError):
            return False

    def unix(self) -> socket.socket:
        """A new connection to its UNIX socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection

    def tcp(self) -> socket.socket:
        """A new connection to its TCP port."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def stop(self) -> None:
        """Stop it, and remove what it left."""
        super().stop()
        self._temporary.cleanup()

    def memory(self) -> int:
        """The bytes that it has in memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Neighbour(threading.Thread):
    """Calls Echo without end and compares each answer.

    :ivar calls: how many were right so far.
    :ivar trouble: what went wrong, None while nothing has.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.calls = 0
        self.trouble: Exception | None = None
        self.leave = threading.Event()
        self._connection = connection

    def run(self) -> None:
        """Call until told to leave."""
        try:
            with BlockingPeer(self._connection) as peer:
                while not self.leave.is_set():
                    data = b"%d" % self.calls * (self.calls % 1000)
                    if peer.call(b"Echo", data=data)[b"data"] != data:
                        raise AssertionError("this answer is another's")
                    self.calls += 1
        except Exception as trouble:  # noqa: BLE001 - told by the test that looks
            self.trouble = trouble


def echo(tag: bytes, data: bytes = b"") -> bytes:
    """A request."""
    return boxes.pack([(b"_ask", tag), (b"_command", b"Echo"), (b"data", data)])


def pour(connection: socket.socket, data: Iterable[bytes], at_most: int = 2**40) -> int:
    """Send until the data ends, so much is sent, or the server does not take it; bytes sent."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        for piece in data:
            connection.sendall(piece)
            sent += len(piece)
            if sent >= at_most:
                break
    return sent


def wait_for_close(connection: socket.socket) -> None:
    """Read until the server has closed the connection."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(2**16):
            pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for all of them."""
    running = Server("--min-workers=2", "--max-workers=2", f"--max-payload={MAX_PAYLOAD}")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def neighbour(server: Server) -> Iterator[Neighbour]:
    """The good client, when both are warm."""
    calls = Neighbour(server.unix())
    calls.start()
    wait_for(lambda: calls.calls > 100)
    yield calls
    calls.leave.set()
    calls.join(PATIENCE)


@pytest.fixture
def look(server: Server, neighbour: Neighbour) -> Iterator[Callable[[], None]]:
    """Looks whether the server has grown by no more than it may, and serves a new client.

    At the end, the good client was served all the time, and no descriptor is left.
    """
    memory, descriptors, calls = server.memory(), server.descriptors(), neighbour.calls

    def look() -> None:
        assert server.memory() - memory < ROOM
        with BlockingPeer(server.tcp()) as peer:
            assert peer.call(b"Echo", data=b"still there?")[b"data"] == b"still there?"

    yield look
    assert neighbour.calls > calls
    before = neighbour.calls
    wait_for(lambda: neighbour.calls > before or neighbour.trouble)
    assert neighbour.trouble is None
    wait_for(lambda: server.descriptors() <= descriptors)
    look()


def test_other_protocols(server: Server, look: Callable[[], None]) -> None:
    """HTTP, TLS and zeros close the connection at once, long before their end."""
    for stream in (
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(9),
    ):
        for connection in (server.tcp(), server.unix()):
            with connection:
                sent = pour(connection, itertools.repeat(stream * 1000), at_most=64 * MIB)
                wait_for_close(connection)
                assert sent < 64 * MIB
    assert "the peer does not speak AMP, but what looks like HTTP; closing" in server.log()


def test_an_endless_box(server: Server, look: Callable[[], None]) -> None:
    """Boxes of a quarter of a gigabyte, in full values, are thrown away as they come."""
    block = boxes.pair(b"data", bytes(65535)) * 16
    for connection in (server.unix(), server.tcp()):
        with BlockingPeer(connection) as peer:
            connection.sendall(echo(b"1")[:-2])
            pour(connection, itertools.repeat(block), at_most=256 * MIB)
            look()
            connection.sendall(boxes.END + echo(b"2", b"small"))
            assert code_of(peer.answer(b"1")) == "TOO_LARGE"
            assert peer.answer(b"2") == {b"_answer": b"2", b"data": b"small"}


def test_endless_keys(server: Server, look: Callable[[], None]) -> None:
    """Boxes of small keys without end, reserved ones among them, take no memory."""
    blocks = (
        b"".join(boxes.pair(b"_%d" % (n * 1000 + m), b"") for m in range(1000))
        for n in itertools.count()
    )
    tags = itertools.repeat(b"".join(boxes.pair(b"_ask", b"%d" % n) for n in range(1000)))
    with server.unix() as one, server.tcp() as other:
        for connection, data in ((one, blocks), (other, tags)):
            pour(connection, data, at_most=10 * MIB)
            look()


def large_request(tag: bytes) -> bytes:
    """One of half the size that a payload may have."""
    parts = [(b"data.%d" % n, bytes(65535)) for n in range(1, 4 * MIB // 65535)]
    large = boxes.pack([(b"data", bytes(65535)), *parts])
    return echo(tag)[: -2 - len(boxes.pair(b"data", b""))] + large


@pytest.mark.parametrize(
    ("request_of", "at_once"),
    [
        (lambda tag: echo(tag, bytes(5000)), 1000),
        (large_request, 4),
    ],
    ids=("jobs", "large jobs"),
)
def test_a_flood_that_is_not_read(
    server: Server, look: Callable[[], None], request_of: Callable[[bytes], bytes], at_once: int
) -> None:
    """The server stops reading, holds little, and answers everything in the end."""
    with server.unix() as connection:
        connection.settimeout(0.5)
        asked, rest = 0, b""
        while not rest:
            tags = range(asked, asked + at_once)
            rest = send_what_is_taken(connection, b"".join(request_of(b"%d" % n) for n in tags))
            asked += at_once
            assert asked < 10**6, "the server did not stop reading"
        look()
        connection.settimeout(PATIENCE)
        sender = threading.Thread(target=pour, args=(connection, [rest]), daemon=True)
        sender.start()
        peer = BlockingPeer(connection)
        for number in range(asked):
            peer.answer(b"%d" % number)
        sender.join(PATIENCE)


def send_what_is_taken(connection: socket.socket, data: bytes) -> bytes:
    """Send until the server does not take more for a while; what is left of the data."""
    view = memoryview(data)
    with contextlib.suppress(TimeoutError):
        while view:
            view = view[connection.send(view) :]
    return bytes(view)
