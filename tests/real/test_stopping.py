"""Time limits, deadlines, cancels and retries, on real workers."""

import os
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.protocols import amp

import dangad
from dangad.limits import Limits
from dangad.scheduler import endings
from dangad.wire import boxes, commands
from tests.oddjobs import (
    Careful,
    Deadly,
    Endless,
    Flaky,
    Limited,
    Misreport,
    Odd,
    One,
    Parts,
)
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, alive, until


def ask(client: Any, command: Any, keys: dict[bytes, bytes], **arguments: Any) -> Deferred[Any]:
    """Call with reserved keys, over stock AMP."""
    box = command.makeArguments(arguments, client)
    box.update(keys)
    called: Deferred[Any] = client._sendBoxCommand(command.commandName, box)
    called.addCallback(command.parseResponse, client)

    def known(failure: Any) -> Any:
        failure.trap(amp.RemoteAmpError)
        kind = command.reverseErrors.get(failure.value.errorCode, amp.UnknownRemoteError)
        raise kind(failure.value.description)

    return called.addErrback(known)


class StoppingTests(RealServerCase):
    """A job that does not end by itself is ended."""

    limits = Limits(min_workers=1, max_workers=1, drain=1.0)

    def setUp(self) -> None:
        """Have a short grace."""
        self.patch(endings, "GRACE", 0.3)
        super().setUp()

    @async_test
    async def test_limits(self) -> None:
        """At its limit a job gets TIMED_OUT, its process is gone, and the next one runs."""
        client = await self.connect()
        for how, leaves in (
            ("busy", "time"),  # a loop in Python gets TimeLimitExceeded, and may clean up
            ("sleep", None),
            ("in C", None),  # and is killed after the grace, as are the next two
            ("swallow", None),
            ("block signals", None),
            ("child", "child"),
            ("asynchronous", "cancelled"),  # its Deferred is
        ):
            mark = os.path.join(self.folder, how)
            error = await self.assertFailure(
                client.callRemote(Limited, how=how, mark=mark), dangad.TimedOut
            )
            self.assertRegex(
                str(error),
                r"Limited ran for its time limit, \d\.\d s, after it had waited \d\.\d s",
            )
            with open(mark) as file:
                self.assertFalse(alive(int(file.read())), how)
            self.assertTrue((await client.callRemote(Odd, what="nothing"))["pid"])
            self.assertTrue(leaves is None or os.path.exists(f"{mark}.{leaves}"), how)
        with open(os.path.join(self.folder, "child.child")) as file:
            self.assertFalse(alive(int(file.read())))

    @async_test
    async def test_deadline(self) -> None:
        """A deadline ends a running job and a waiting one, and the latter never starts."""
        client = await self.connect()
        await client.callRemote(Odd, what="nothing")  # a worker that starts may take long
        marks = [os.path.join(self.folder, name) for name in ("first", "second")]
        asked = [
            ask(client, Endless, {boxes.DEADLINE: deadline}, how="busy", mark=mark)
            for mark, deadline in zip(marks, (b"0.8", b"0.2"), strict=True)
        ]
        outcomes = await DeferredList(asked, consumeErrors=True)
        texts = []
        for _, failure in outcomes:
            failure.trap(dangad.DeadlinePassed)
            texts.append(str(failure.value))
        self.assertIn("reached its deadline, 0.8 s", texts[0])
        self.assertIn("waited for its deadline, 0.2 s", texts[1])
        self.assertTrue(os.path.exists(f"{marks[0]}.time"))
        self.assertFalse(os.path.exists(marks[1]))

    @async_test
    async def test_cancel(self) -> None:
        """A cancel gives a running job JobCancelled, and a waiting one never starts."""
        client = await self.connect()
        marks = [os.path.join(self.folder, name) for name in ("first", "second")]
        running, waiting = [client.callRemote(Endless, how="busy", mark=mark) for mark in marks]
        await until(lambda: os.path.exists(marks[0]))
        failed = DeferredList([running, waiting], consumeErrors=True)
        await client.callRemote(commands.Cancel, tag=b"2")
        await client.callRemote(commands.Cancel, tag=b"1")
        await client.callRemote(commands.Cancel, tag=b"1")
        for _, failure in await failed:
            failure.trap(dangad.Cancelled)
        self.assertTrue(os.path.exists(f"{marks[0]}.cancelled"))
        self.assertFalse(os.path.exists(marks[1]))
        await client.callRemote(commands.Cancel, tag=b"1")
        await client.callRemote(Odd, what="nothing")

    @async_test
    async def test_max_running(self) -> None:
        """Of a type with max_running=1 one job runs at a time, and others overtake it."""
        client = await self.connect()
        self.service.supervisor.max_workers = 2
        marks = [os.path.join(self.folder, name) for name in ("first", "second")]
        go = os.path.join(self.folder, "go")
        asked = [client.callRemote(One, path=go, mark=mark) for mark in marks]
        await until(lambda: os.path.exists(marks[0]))
        for _ in range(20):
            await client.callRemote(Odd, what="nothing")
        self.assertFalse(os.path.exists(marks[1]))
        with open(go, "w"):
            pass
        await DeferredList(asked)
        self.assertTrue(os.path.exists(marks[1]))


class RetryTests(RealServerCase):
    """A job whose worker died is tried again if its type says so."""

    limits = Limits(min_workers=1, max_workers=1, quarantine_after=3, quarantine_time=60)

    @async_test
    async def test_retried(self) -> None:
        """The attempts are counted, each in a worker of its own, and the last one answers."""
        client = await self.connect()
        marks = os.path.join(self.folder, "mark")
        answer = await client.callRemote(Flaky, marks=marks, deaths=2)
        self.assertEqual(answer, {"attempt": 3})
        pids = set()
        for attempt in (1, 2, 3):
            with open(f"{marks}.{attempt}") as file:
                pids.add(file.read())
        self.assertEqual(len(pids), 3)

    @async_test
    async def test_quarantine(self) -> None:
        """A command that keeps killing workers is refused for a while; others are not."""
        client = await self.connect()
        for _ in range(3):
            await self.assertFailure(client.callRemote(Deadly), dangad.WorkerLost)
        error = await self.assertFailure(client.callRemote(Deadly), dangad.NoWorkers)
        self.assertIn("Deadly has killed too many workers in a row", str(error))
        self.assertTrue((await client.callRemote(Odd, what="nothing"))["pid"])


class Listener(amp.AMP):
    """A stock client that notes progress and chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: list[tuple[bytes, int, int, str]] = []
        self.chunks: list[bytes] = []

    @commands.Progress.responder
    def progressed(self, tag: bytes, done: int, total: int, message: str) -> dict[str, Any]:
        """Note it."""
        self.progress.append((tag, done, total, message))
        return {}

    @commands.Chunk.responder
    def chunk_came(self, tag: bytes, data: bytes) -> dict[str, Any]:
        """Note it."""
        self.chunks.append(data)
        return {}


class StreamTests(RealServerCase):
    """Progress and partial results reach who asked for them."""

    protocol = Listener

    @async_test
    async def test_progress(self) -> None:
        """Reports are few, in order, and the last is the job's last."""
        client = await self.connect()
        answer = await ask(client, Parts, {boxes.PROGRESS: b"1"}, count=20_000, size=1)
        self.assertEqual(answer, {"sent": 20_000})
        self.assertEqual(client.progress[0][1:], (1, 20_000, "chunk 0"))
        self.assertEqual(client.progress[-1][1:], (20_000, 20_000, "chunk 19999"))
        self.assertEqual(client.progress, sorted(client.progress, key=lambda report: report[1]))
        self.assertLess(len(client.progress), 500)
        self.assertEqual(client.chunks, [])

    @async_test
    async def test_chunks(self) -> None:
        """Chunks come in order, before the answer, of any size."""
        client = await self.connect()
        answer = await ask(client, Parts, {boxes.CHUNKS: b"1"}, count=5, size=200_000)
        self.assertEqual(answer, {"sent": 5})
        self.assertEqual(client.chunks, [bytes([n]) * 200_000 for n in range(5)])
        self.assertEqual(client.progress, [])

    @async_test
    async def test_stopped_while_sending(self) -> None:
        """A job that waits for a slow reader when it is cancelled may clean up."""
        client, other = await self.connect(), await self.connect()
        mark = os.path.join(self.folder, "mark")
        client.transport.pauseProducing()
        ask(client, Careful, {boxes.CHUNKS: b"1"}, mark=mark).addErrback(lambda _: None)
        await until(lambda: any(link._paused for link in self.service.pool.processes))
        client.transport.abortConnection()
        await until(lambda: os.path.exists(mark))
        with open(mark) as file:
            self.assertEqual(file.read(), "JobCancelled")
        self.assertTrue((await other.callRemote(Odd, what="nothing"))["pid"])

    @async_test
    async def test_slow_reader(self) -> None:
        """A client that does not read slows its job, and nothing piles up in the server."""
        client, other = await self.connect(), await self.connect()
        client.transport.pauseProducing()
        asked = ask(client, Parts, {boxes.CHUNKS: b"1"}, count=300, size=100_000)
        await until(lambda: any(link._paused for link in self.service.pool.processes))
        self.assertTrue((await other.callRemote(Odd, what="nothing"))["pid"])
        [connection] = [each for each in self.service.clients._connections if each._congested]
        transport: Any = connection.transport
        held = len(transport.dataBuffer) + transport._tempDataLen
        self.assertLess(held, 2_000_000)
        client.transport.resumeProducing()
        self.assertEqual(await asked, {"sent": 300})
        self.assertEqual(len(client.chunks), 300)


class MisreportTests(RealServerCase):
    """What cannot be sent is the job's error, and costs no worker."""

    protocol = Listener
    limits = Limits(min_workers=1, max_workers=1, max_payload=200_000)

    @async_test
    async def test_misreports(self) -> None:
        """A message that is no UTF-8 is mended; wrong types and sizes are errors."""
        client = await self.connect()
        keys = {boxes.PROGRESS: b"1", boxes.CHUNKS: b"1"}
        pid = (await ask(client, Misreport, keys, how="surrogate"))["pid"]
        for how, kind, text in (
            ("number", dangad.JobFailed, "TypeError"),
            ("large", dangad.TooLarge, "a chunk of 300000 bytes"),
            ("text", dangad.JobFailed, "TypeError: a chunk is bytes, not str"),
        ):
            error = await self.assertFailure(ask(client, Misreport, keys, how=how), kind)
            self.assertIn(text, str(error))
        self.assertEqual((await ask(client, Misreport, {}, how="surrogate"))["pid"], pid)
