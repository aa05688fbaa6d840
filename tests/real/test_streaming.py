"""A file larger than any box may be, streamed through a real server to dangad's client."""

import contextlib
import hashlib
import os
import time
from typing import Any

from twisted.internet.defer import CancelledError

import dangad
from dangad.client import Client
from dangad.client.streams import MAX_UNREAD
from dangad.examples import ReadFile, Sleep
from dangad.limits import Limits
from dangad.pool.launch import WorkerSettings
from tests.oddjobs import Odd, Parts
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, alive, reactor, until

SIZE = 2 * 10**8
FLAT = 32 * 2**20
"""Bytes by which memory may grow, whatever the size of the file."""
DIGEST = "d162f6594b643795442d4c7bba3a1711962b9e63717625d9f1f9696df315c86b"
"""The SHA-256 of so many zeros."""
FAST = 15.0
"""Seconds in which the file must have come."""


def peak(pid: int | str) -> int:
    """The most memory, in bytes, that the process has had."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = [line for line in file if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


class StreamingCase(RealServerCase):
    """A server of the examples and the odd jobs, which see the test's folder."""

    limits = Limits(min_workers=2, max_workers=2, drain=1.0)

    def start(self, settings: WorkerSettings) -> None:
        """Start the server."""
        environment = {**os.environ, "DANGAD_EXAMPLES_ROOT": self.folder}
        jobs = ("dangad.examples", "tests.oddjobs")
        super().start(WorkerSettings(jobs, settings.max_payload, environment=environment))

    async def client(self) -> Client:
        """A client of dangad's own."""
        made: Client = await dangad.connect(reactor, f"unix:{self.socket}")
        self.addCleanup(made.close)
        return made

    def sparse(self, name: str, size: int) -> None:
        """A file of zeros that takes no place on the disk."""
        with open(os.path.join(self.folder, name), "wb") as file:
            os.truncate(file.fileno(), size)

    def paused(self) -> bool:
        """Whether a worker waits because its client does not read."""
        return any(link._paused for link in self.service.pool.processes)


class ReadFileTests(StreamingCase):
    @async_test
    async def test_large_file(self) -> None:
        """All of it comes, soon, and neither server nor client nor worker holds much of it."""
        self.sparse("big", SIZE)
        client = await self.client()
        await client.run(Sleep, seconds=0.0)
        pids: list[int | str] = ["self", *self.pids()]
        for pid in pids:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")  # forget the peak so far
        before = [peak(pid) for pid in pids]
        digest = hashlib.sha256()
        reports: list[tuple[int, int]] = []
        begun = time.monotonic()
        stream = client.stream(
            ReadFile, path="big", progress=lambda done, total, _: reports.append((done, total))
        )
        size = 0
        async for chunk in stream:
            digest.update(chunk)
            size += len(chunk)
        answer = await stream.result()
        took = time.monotonic() - begun
        grown = [peak(pid) - at_first for pid, at_first in zip(pids, before, strict=True)]
        self.assertEqual(answer, {"data": b"", "size": SIZE})
        self.assertEqual(size, SIZE)
        self.assertEqual(digest.hexdigest(), DIGEST)
        self.assertEqual(reports[-1], (SIZE, SIZE))
        self.assertLess(max(grown), FLAT, dict(zip(pids, grown, strict=True)))
        self.assertLess(took, FAST)

    @async_test
    async def test_what_is_read(self) -> None:
        """A range comes as exactly its bytes; without chunks the bound of one answer holds."""
        data = os.urandom(1_000_003)
        with open(os.path.join(self.folder, "random"), "wb") as file:
            file.write(data)
        self.sparse("big", SIZE)
        client = await self.client()
        for path, offset, length, expected in (
            ("random", None, None, data),
            ("random", 17, 600_000, data[17:600_017]),
            ("random", 1_000_000, None, data[-3:]),
            ("random", 2_000_000, None, b""),
            ("big", SIZE - 5, 100, bytes(5)),
        ):
            stream = client.stream(ReadFile, path=path, offset=offset, length=length)
            self.assertEqual(b"".join([chunk async for chunk in stream]), expected)
            self.assertEqual((await stream.result())["data"], b"")
            plain = await client.run(ReadFile, path=path, offset=offset, length=length)
            self.assertEqual(plain["data"], expected)
        with self.assertRaises(dangad.examples.BadRange):
            await client.run(ReadFile, path="big")
        with self.assertRaises(dangad.examples.Missing):
            async for _ in client.stream(ReadFile, path="none"):
                self.fail("a chunk of nothing")

    @async_test
    async def test_slow_reader(self) -> None:
        """A slow reader makes the job wait, others go on, and afterwards it gets all."""
        self.sparse("big", 30 * 2**20)
        slow, other = await self.client(), await self.client()
        stream = slow.stream(ReadFile, path="big")
        first = await stream.__anext__()
        await until(self.paused)
        self.assertLess(stream._parts._size, 2 * MAX_UNREAD)
        for _ in range(20):
            self.assertTrue((await other.run(Odd, what="nothing"))["pid"])
        await until(self.paused)  # it may have been for a moment only, before all was full
        size = len(first)
        async for chunk in stream:
            size += len(chunk)
        self.assertEqual(size, 30 * 2**20)
        self.assertFalse(self.paused())
        self.assertEqual((await slow.run(ReadFile, path="big", length=1))["data"], b"\0")


class LeavingTests(StreamingCase):
    async def busy(self, client: Client) -> tuple[Any, int]:
        """A stream that waits for its reader, and the process of its job."""
        self.sparse("big", SIZE)
        stream = client.stream(ReadFile, path="big")
        await stream.__anext__()
        await until(self.paused)
        (pid,) = [link.pid for link in self.service.pool.processes if link._paused]
        return stream, pid

    async def check_gone(self, client: Client, pid: int) -> None:
        """The job has ended, and the client can go on."""
        await until(lambda: not alive(pid))
        self.assertTrue((await client.run(Odd, what="nothing"))["pid"])
        await until(lambda: self.service.dispatcher.running == 0)

    @async_test
    async def test_cancel(self) -> None:
        """A stream that is left in the middle, with its job waiting, has the job cancelled."""
        client = await self.client()
        stream, pid = await self.busy(client)
        stream.cancel()
        with self.assertRaises(CancelledError):
            await stream.__anext__()
        await self.check_gone(client, pid)

    @async_test
    async def test_drop(self) -> None:
        """So does one that is only forgotten."""
        client = await self.client()
        stream, pid = await self.busy(client)
        del stream
        await self.check_gone(client, pid)

    @async_test
    async def test_close(self) -> None:
        """Closing the client ends the job, and the stream."""
        client, other = await self.client(), await self.client()
        stream, pid = await self.busy(client)
        await client.close()
        with self.assertRaises(dangad.Disconnected):
            async for _ in stream:
                pass
        await self.check_gone(other, pid)

    @async_test
    async def test_deadline(self) -> None:
        """A deadline ends a stream whose reader is too slow, after what had come."""
        self.sparse("big", SIZE)
        client = await self.client()
        await client.describe()  # a worker is ready
        stream = client.stream(ReadFile, path="big", deadline=0.5)
        await stream.__anext__()
        await until(lambda: self.service.dispatcher.running == 0)
        with self.assertRaises(dangad.DeadlinePassed):
            async for _ in stream:
                pass

    @async_test
    async def test_many_that_nobody_reads(self) -> None:
        """However many streams are not read, a job of somebody else need not wait for them all."""
        other = await self.client()
        await other.run(Sleep, seconds=0.0)
        readers = [await self.client() for _ in range(12)]
        streams = [reader.stream(Parts, count=10**6, size=100_000) for reader in readers]
        links = self.service.pool.processes
        await until(lambda: len(links) == 2 and all(link._paused for link in links))
        self.assertEqual(self.service.dispatcher.waiting, 10)
        await other.run(Sleep, seconds=0.0)
        self.assertGreaterEqual(self.service.dispatcher.waiting, 8)
        for stream in streams:
            stream.cancel()
        await until(lambda: self.service.dispatcher.running == 0)


class GeneratorTests(StreamingCase):
    @async_test
    async def test_generator(self) -> None:
        """What a job function yields is streamed, and what it returns is the result."""
        client = await self.client()
        told: list[int] = []
        stream = client.stream(
            Parts, count=300, size=1000, progress=lambda done, *_: told.append(done)
        )
        chunks = [chunk async for chunk in stream]
        self.assertEqual(chunks, [bytes([number % 256]) * 1000 for number in range(300)])
        self.assertEqual(await stream.result(), {"sent": 300})
        self.assertEqual((told, told[-1]), (sorted(told), 300))

    @async_test
    async def test_plain_client(self) -> None:
        """Who does not ask for chunks gets the result alone."""
        client = await self.client()
        self.assertEqual(await client.run(Parts, count=3, size=10), {"sent": 3})
        told: list[int] = []
        answer = await client.run(
            Parts, count=3, size=10, progress=lambda done, *_: told.append(done)
        )
        self.assertEqual((answer, told[-1]), ({"sent": 3}, 3))

    @async_test
    async def test_no_chunks(self) -> None:
        """A job that sends none has a stream of none, and a result."""
        client = await self.client()
        stream = client.stream(Odd, what="nothing")
        self.assertEqual([chunk async for chunk in stream], [])
        self.assertTrue((await stream.result())["pid"])
