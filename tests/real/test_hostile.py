"""Clients that lie, flood and stall, against a real server; a well-behaved one looks on."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from dangad.wire import boxes
from tests.real.test_passeddescriptors import lingering, pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parent.parent.parent
MIB = 2**20

PATIENCE = 30.0
"""Seconds after which something that should have happened is taken for hung."""
MAX_PAYLOAD = 8 * MIB
ROOM = 60 * MIB
"""What the server may grow by in a test that sends it many times as much."""


def until(condition: Callable[[], object], what: str) -> None:
    """Look often whether the condition is true, and give up in the end."""
    for _ in range(int(PATIENCE / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


class Server:
    """``twistd dangad`` on a UNIX socket and a TCP port of its own."""

    def __init__(self, *options: str) -> None:
        """Start it, with these options besides, and wait until it performs jobs."""
        self._folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._folder.name, "socket")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = Path(self._folder.name, "log")
        command = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile="]
        command += ["dangad", *options]
        command += [f"--listen=unix:{self.path}:backlog=500"]
        command += [f"--listen=tcp:{self.port}:interface=127.0.0.1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self._folder.name,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: self.performs(self.unix), "the start of the server")
            until(lambda: self.performs(self.tcp), "its service over TCP")
        except BaseException:
            print(self.log.read_text())
            self.stop()
            raise

    def performs(self, connect: Callable[[], socket.socket]) -> bool:
        """Whether the server performs jobs for a client that connects so."""
        if self.process.poll() is not None:
            raise AssertionError("the server has exited")
        try:
            with Client(connect()) as client:
                return client.echo(b"up?") == b"up?"
        except (OSError, AssertionError):
            return False

    def unix(self) -> socket.socket:
        """A new connection to its UNIX socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection

    def tcp(self) -> socket.socket:
        """A new connection to its TCP port."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def memory(self) -> int:
        """The bytes that it has in memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> None:
        """Stop it, and remove what it left."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            self._folder.cleanup()


class Client:
    """A well-behaved client: one request, one answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._reader = boxes.BoxReader(2**30, boxes.REQUEST_KEYS)
        self._tags = itertools.count()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def echo(self, data: bytes) -> bytes:
        """What the server answers."""
        tag = b"%d" % next(self._tags)
        self.connection.sendall(echo(tag, data))
        answer = self.next_answer()
        if answer.pop(b"_answer", None) != tag:
            raise AssertionError(f"{answer} is no answer to {tag!r}")
        return answer[b"data"]

    def next_answer(self) -> dict[bytes, bytes]:
        """The next answer; empty if the server has closed the connection."""
        while (box := self._reader.next()) is None:
            data = self.connection.recv(2**18)
            if not data:
                return {}
            self._reader.feed(data)
        assert box.raw is not None
        return boxes.unpack(bytes(box.raw))


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
            with Client(self._connection) as client:
                while not self.leave.is_set():
                    data = b"%d" % self.calls * (self.calls % 1000)
                    if client.echo(data) != data:
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


class HostileTest(SynchronousTestCase):
    server: Server
    neighbour: Neighbour

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server and its good client, and have both warm."""
        options = ["--min-workers=2", "--max-workers=2", f"--max-payload={MAX_PAYLOAD}"]
        cls.server = Server(*options)
        cls.neighbour = Neighbour(cls.server.unix())
        cls.neighbour.start()
        until(lambda: cls.neighbour.calls > 100, "the first calls")

    @classmethod
    def tearDownClass(cls) -> None:
        """Stop both."""
        cls.neighbour.leave.set()
        cls.neighbour.join(PATIENCE)
        cls.server.stop()

    def setUp(self) -> None:
        """Note what the server holds."""
        self.memory = self.server.memory()
        self.descriptors = self.server.descriptors()
        self.calls = self.neighbour.calls
        self.worst = 0

    def tearDown(self) -> None:
        """The good client was served all the time, and the server holds no more than before."""
        self.assertIsNone(self.neighbour.trouble)
        self.assertGreater(self.neighbour.calls, self.calls)
        before = self.neighbour.calls
        until(lambda: self.neighbour.calls > before or self.neighbour.trouble, "another call")
        self.assertIsNone(self.neighbour.trouble)
        until(lambda: self.server.descriptors() <= self.descriptors, "the closing of descriptors")
        self.assertLess(self.server.memory() - self.memory, ROOM)

    def look(self) -> None:
        """The server has not grown by more than it may, and serves a new client."""
        self.assertLess(self.server.memory() - self.memory, ROOM)
        with Client(self.server.tcp()) as client:
            self.assertEqual(client.echo(b"still there?"), b"still there?")

    @contextlib.contextmanager
    def connections(self, number: int) -> Iterator[list[socket.socket]]:
        """So many connections, UNIX and TCP in turn, closed at the end."""
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(self.server.tcp() if n % 2 else self.server.unix())
                for n in range(number)
            ]

    def test_random_bytes(self) -> None:
        """Random bytes get at most errors, and mostly a closed connection."""
        chance = random.Random(1)
        for n in range(150):
            with self.server.tcp() as connection:
                start = b"" if n % 2 else b"\0%c" % chance.randrange(1, 9)
                pour(connection, [start + chance.randbytes(chance.randrange(1, 3000))])
        self.look()

    def test_damaged_requests(self) -> None:
        """Requests with a byte changed, left out or put in trouble nobody else."""
        chance = random.Random(2)
        for _ in range(150):
            stream = bytearray(b"".join(echo(b"%d" % n, bytes(n)) for n in range(20)))
            for _ in range(3):
                place = chance.randrange(len(stream))
                stream[place : place + chance.randrange(2)] = chance.randbytes(chance.randrange(2))
            with self.server.unix() as connection:
                pour(connection, [bytes(stream)])
        self.look()

    def test_other_protocols(self) -> None:
        """HTTP, TLS and zeros close the connection at once, long before their end."""
        for stream in (
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            bytes(9),
        ):
            for connection in (self.server.tcp(), self.server.unix()):
                with connection:
                    sent = pour(connection, itertools.repeat(stream * 1000), at_most=64 * MIB)
                    wait_for_close(connection)
                    self.assertLess(sent, 64 * MIB)
        self.look()
        self.assertIn("the peer does not speak AMP; closing", self.server.log.read_text())

    def test_an_endless_box(self) -> None:
        """Boxes of a quarter of a gigabyte, in full values, are thrown away as they come."""
        block = boxes.pair(b"data", bytes(65535)) * 16
        with self.connections(2) as connections:
            for connection in connections:
                client = Client(connection)
                connection.sendall(echo(b"1")[:-2])
                pour(connection, itertools.repeat(block), at_most=256 * MIB)
                self.look()
                connection.sendall(boxes.END + echo(b"2", b"small"))
                answer = client.next_answer()
                self.assertEqual((answer[b"_error"], answer[b"_error_code"]), (b"1", b"TOO_LARGE"))
                self.assertEqual(client.next_answer(), {b"_answer": b"2", b"data": b"small"})

    def test_endless_keys(self) -> None:
        """Boxes of small keys without end, reserved ones among them, take no memory."""
        blocks = (
            b"".join(boxes.pair(b"_%d" % (n * 1000 + m), b"") for m in range(1000))
            for n in itertools.count()
        )
        tags = itertools.repeat(b"".join(boxes.pair(b"_ask", b"%d" % n) for n in range(1000)))
        with self.connections(2) as (one, other):
            pour(one, blocks, at_most=10 * MIB)
            self.look()
            pour(other, tags, at_most=10 * MIB)
            self.look()

    def test_many_half_boxes(self) -> None:
        """Boxes that never end, on 300 connections at once, as slow clients would send them."""
        with self.connections(300) as connections:
            for n, connection in enumerate(connections):
                request = echo(b"1", bytes(50_000))
                connection.sendall(request[: n * len(request) // 300])
            self.look()
            for n, connection in enumerate(connections):
                connection.sendall(echo(b"1", bytes(50_000))[n * 50_000 // 300 :][:100])
            self.look()

    def test_one_byte_at_a_time(self) -> None:
        """Requests that come byte by byte are requests like any others."""
        with self.server.tcp() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(connection)
            for tag in (b"1", b"2"):
                for byte in echo(tag, b"slow" * 100):
                    connection.sendall(bytes([byte]))
                self.assertEqual(client.next_answer(), {b"_answer": tag, b"data": b"slow" * 100})

    def test_many_connections(self) -> None:
        """300 connections that come and go, politely or not, with and without a request."""
        for n in range(300):
            with self.server.tcp() if n % 2 else self.server.unix() as connection:
                if n % 3 == 0:
                    connection.sendall(boxes.pack([(b"_ask", b"1"), (b"_command", b"dangad.Ping")]))
                if n % 5 == 0:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.look()

    def flood(self, request: Callable[[bytes], bytes], at_once: int = 1000) -> None:
        """Send requests without reading until the server stops reading; then read all answers."""
        with self.server.unix() as connection:
            connection.settimeout(0.5)
            asked, rest = 0, b""
            while not rest:
                tags = range(asked, asked + at_once)
                rest = self.send_what_is_taken(
                    connection, b"".join(request(b"%d" % n) for n in tags)
                )
                asked += at_once
                self.assertLess(asked, 10**6, "the server did not stop reading")
            self.look()
            connection.settimeout(PATIENCE)
            sender = threading.Thread(target=pour, args=(connection, [rest]), daemon=True)
            sender.start()
            client = Client(connection)
            answered = set()
            for _ in range(asked):
                answer = client.next_answer()
                answered.add(answer.get(b"_answer") or answer[b"_error"])
            sender.join(PATIENCE)
            self.assertEqual(answered, {b"%d" % n for n in range(asked)})

    def send_what_is_taken(self, connection: socket.socket, data: bytes) -> bytes:
        """Send until the server does not take more for a while; what is left of the data."""
        view = memoryview(data)
        with contextlib.suppress(TimeoutError):
            while view:
                view = view[connection.send(view) :]
        return bytes(view)

    def test_a_flood_of_jobs_whose_answers_are_not_read(self) -> None:
        """The server stops reading, holds little, and answers everything in the end."""
        self.flood(lambda tag: echo(tag, bytes(5000)))

    def test_a_flood_of_large_jobs_whose_answers_are_not_read(self) -> None:
        """So it is with requests of half the size that a payload may have."""
        parts = [(b"data.%d" % n, bytes(65535)) for n in range(1, 4 * MIB // 65535)]
        large = boxes.pack([(b"data", bytes(65535)), *parts])
        self.flood(lambda tag: echo(tag)[: -2 - len(boxes.pair(b"data", b""))] + large, at_once=4)

    def test_a_flood_of_errors_that_are_not_read(self) -> None:
        """So it is with requests that never become jobs."""
        self.flood(lambda tag: boxes.pack([(b"_ask", tag), (b"_command", b"Nope")]))

    def test_a_flood_of_pings_that_are_not_read(self) -> None:
        """So it is with the server's own commands."""
        self.flood(lambda tag: boxes.pack([(b"_ask", tag), (b"_command", b"dangad.Ping")]))

    def test_descriptors_sent_along(self) -> None:
        """A descriptor whose close blocks, sent to clients' or operators' sockets, stops nobody.

        The kernel refuses it, or the server cuts its sender off.
        """
        control = os.path.join(os.path.dirname(self.server.path), "dangad.control")
        for path in (self.server.path, control):
            with socket.socket(socket.AF_UNIX) as connection, lingering() as (slow, _):
                connection.settimeout(PATIENCE)
                connection.connect(path)
                with contextlib.suppress(PermissionError):
                    pass_on(connection, slow)
                    slow.close()  # not the last reference, so this does not linger
                    wait_for_close(connection)
                self.look()
