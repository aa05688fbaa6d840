"""The client's progress and streams: against a server of memory, whose boxes the test writes."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import dangad
from dangad.client import ClientFactory, Disconnected, NotSent
from dangad.client.streams import ENOUGH_READ, MAX_UNREAD
from dangad.wire import boxes, commands

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dangad.client import Client
    from dangad.client.streams import Stream


class Refused(Exception):
    """An error that Fetch declares."""


class Fetch(amp.Command):
    """Answer in parts."""

    arguments = [(b"path", amp.Unicode())]
    response = [(b"size", amp.Integer())]
    errors = {Refused: b"REFUSED"}


class Notify(amp.Command):
    """Want no answer."""

    requiresAnswer = False


class Sly(amp.Command):
    """Have arguments that are named like options."""

    arguments = [(b"progress", amp.Integer()), (b"priority", amp.Integer(optional=True))]


class StreamCase(SynchronousTestCase):
    """A client on a transport of memory."""

    client: Client

    def setUp(self) -> None:
        """Connect."""
        self.transport = StringTransport(lenient=True)
        self.connect()

    def connect(self, **options: Any) -> None:
        """A new client."""
        self.client = ClientFactory(**options).buildProtocol(None)
        self.client.makeConnection(self.transport)

    def sent(self) -> list[dict[bytes, bytes]]:
        """The boxes that the client has sent since this was last asked."""
        data = self.transport.value()
        self.transport.clear()
        return [dict(box) for box in amp.parseString(data)]

    def say(self, *answers: dict[bytes, bytes]) -> None:
        """Have the server send boxes."""
        self.client.dataReceived(b"".join(boxes.pack(box.items()) for box in answers))

    def chunk(self, data: bytes, tag: bytes = b"1") -> None:
        """Have the server send a chunk."""
        strings = commands.Chunk.makeArguments({"tag": tag, "data": data}, None)
        self.say({boxes.COMMAND: commands.Chunk.commandName, **strings})

    def progress(self, done: int, total: int, message: str, tag: bytes = b"1") -> None:
        """Have the server tell of progress."""
        arguments = {"tag": tag, "done": done, "total": total, "message": message}
        strings = commands.Progress.makeArguments(arguments, None)
        self.say({boxes.COMMAND: commands.Progress.commandName, **strings})

    def answer(self, size: int = 0, tag: bytes = b"1") -> None:
        """Have the server answer."""
        self.say({boxes.ANSWER: tag, b"size": b"%d" % size})

    def refuse(self, code: bytes, tag: bytes = b"1") -> None:
        """Have the server answer with an error."""
        self.say({boxes.ERROR: tag, boxes.ERROR_CODE: code, boxes.ERROR_DESCRIPTION: b"so it is"})

    def run_in(self, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """A coroutine, running."""
        return Deferred.fromCoroutine(coroutine)

    def cancelled(self) -> list[bytes]:
        """The tags of the requests that the client wants cancelled."""
        name = commands.Cancel.commandName
        return [box[b"tag"] for box in self.sent() if box[boxes.COMMAND] == name]


async def read_all(stream: Stream, into: list[bytes]) -> dict[str, Any]:
    """Read the stream to its end; the response."""
    async for chunk in stream:
        into.append(chunk)  # noqa: PERF401 - one by one, so that a test sees what has come
    return await stream.result()


class ProgressTests(StreamCase):
    def setUp(self) -> None:
        """Note progress."""
        super().setUp()
        self.told: list[tuple[int, int, str]] = []

    def note(self, done: int, total: int, message: str) -> None:
        """Be told."""
        self.told.append((done, total, message))

    def test_told(self) -> None:
        """The callback is called for its own request, in order; the others' is asked for none."""
        answer = self.client.run(Fetch, path="a", progress=self.note)
        other = self.client.run(Fetch, path="b")
        first, second = self.sent()
        self.assertEqual(first[boxes.PROGRESS], b"1")
        self.assertNotIn(boxes.PROGRESS, second)
        self.assertNotIn(boxes.CHUNKS, first)
        self.progress(1, 2, "ü")
        self.progress(7, 8, "other", tag=b"2")
        self.progress(2, 2, "")
        self.answer(5)
        self.assertEqual(self.told, [(1, 2, "ü"), (2, 2, "")])
        self.assertEqual(self.successResultOf(answer), {"size": 5})
        self.answer(6, tag=b"2")
        self.assertEqual(self.successResultOf(other), {"size": 6})

    def test_callbacks(self) -> None:
        """A callback may fail, which is logged, or cancel the request: the connection lives on."""
        answer = self.client.run(Fetch, path="a", progress=lambda *_: 1 / 0)
        self.progress(1, 2, "")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.answer(1)
        self.successResultOf(answer)
        other = self.client.run(Fetch, path="a", progress=lambda *_: other.cancel())
        self.progress(1, 2, "", tag=b"2")
        self.progress(2, 2, "", tag=b"2")
        self.failureResultOf(other, CancelledError)
        self.assertEqual(self.cancelled(), [b"2"])

    def test_after_the_end(self) -> None:
        """What comes for a request that was answered or cancelled is dropped."""
        answer = self.client.run(Fetch, path="a", progress=self.note)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.progress(1, 2, "")
        self.answer()
        self.progress(2, 2, "")
        self.chunk(b"x")
        self.assertEqual(self.told, [])
        self.assertFalse(self.transport.disconnecting)

    def test_unreadable(self) -> None:
        """News that cannot be read close the connection."""
        answer = self.client.run(Fetch, path="a", progress=self.note)
        self.say({boxes.COMMAND: commands.Progress.commandName, b"tag": b"1", b"done": b"x"})
        self.assertTrue(self.transport.disconnected)
        self.client.connectionLost(Failure(error.ConnectionAborted()))
        self.assertIn("cannot be read", str(self.failureResultOf(answer, Disconnected).value))

    def test_wrong_options(self) -> None:
        """A progress that cannot be called, or may be meant as an argument, is refused."""
        for answer in (
            self.client.run(Fetch, path="a", progress=5),  # type: ignore[arg-type]
            self.client.run(Sly, progress=5),  # type: ignore[arg-type]
            self.client.stream(Sly, {}, progress=5).result(),  # type: ignore[arg-type]
        ):
            self.failureResultOf(answer, dangad.BadArguments)
        self.client.run(Sly, {"progress": 5}, progress=self.note)
        self.client.stream(Sly, {"progress": 5})
        self.assertEqual([box[b"progress"] for box in self.sent() if b"tag" not in box], [b"5"] * 2)


class StreamTests(StreamCase):
    def setUp(self) -> None:
        """Begin with no chunk."""
        super().setUp()
        self.read: list[bytes] = []

    def test_chunks_and_result(self) -> None:
        """Chunks come in order, of any size, and then the response."""
        done = self.run_in(read_all(self.client.stream(Fetch, path="a"), self.read))
        (request,) = self.sent()
        self.assertEqual(request[boxes.CHUNKS], b"1")
        self.assertNotIn(boxes.PROGRESS, request)
        for data in (b"a" * 200_000, b"", b"b"):
            self.chunk(data)
        self.assertEqual(self.read, [b"a" * 200_000, b"", b"b"])
        self.assertNoResult(done)
        self.answer(3)
        self.assertEqual(self.successResultOf(done), {"size": 3})

    def test_read_late(self) -> None:
        """What comes before anybody reads is kept, the end included, which is told again."""
        for end, kind in (
            (lambda: self.answer(2), None),
            (lambda: self.refuse(b"REFUSED"), Refused),
            (lambda: self.refuse(b"TIMED_OUT"), dangad.TimedOut),
            (lambda: self.say({boxes.ANSWER: b"1"}), dangad.BadResponse),
            (lambda: self.client.connectionLost(Failure(error.ConnectionLost())), Disconnected),
        ):
            with self.subTest(kind=kind):
                self.connect()
                read: list[bytes] = []
                stream = self.client.stream(Fetch, path="a")
                self.chunk(b"a")
                self.chunk(b"b")
                end()
                for chunks in (read, []):
                    done = self.run_in(read_all(stream, chunks))
                    if kind is None:
                        self.assertEqual(self.successResultOf(done), {"size": 2})
                    else:
                        self.failureResultOf(done, kind)
                self.assertEqual(read, [b"a", b"b"])
        late = self.client.stream(Fetch, path="a")
        self.failureResultOf(self.run_in(read_all(late, [])), NotSent)

    def test_options(self) -> None:
        """Priority, deadline and progress are those of an ordinary call."""
        told: list[Any] = []
        stream = self.client.stream(
            Fetch, path="a", priority="low", deadline=2, progress=lambda *news: told.append(news)
        )
        (request,) = self.sent()
        options = (boxes.PRIORITY, boxes.DEADLINE, boxes.PROGRESS, boxes.CHUNKS)
        self.assertEqual([request[key] for key in options], [b"low", b"2.000000", b"1", b"1"])
        self.progress(1, 2, "x")
        self.assertEqual(told, [(1, 2, "x")])
        stream.cancel()

    def test_two_streams(self) -> None:
        """Each stream gets its own chunks."""
        other: list[bytes] = []
        first = self.run_in(read_all(self.client.stream(Fetch, path="a"), self.read))
        second = self.run_in(read_all(self.client.stream(Fetch, path="b"), other))
        for tag in (b"2", b"1", b"2"):
            self.chunk(b"for " + tag, tag)
        self.answer(tag=b"2")
        self.answer(tag=b"1")
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual((self.read, other), ([b"for 1"], [b"for 2", b"for 2"]))

    def test_result_alone(self) -> None:
        """Who asks for the result reads no more: chunks are dropped, and nothing is held up."""
        done = self.client.stream(Fetch, path="a").result()
        for _ in range(3):
            self.chunk(bytes(MAX_UNREAD))
        self.assertEqual(self.transport.producerState, "producing")
        gc.collect()
        self.assertEqual([box for box in self.sent() if b"tag" in box], [])
        self.answer(9)
        self.assertEqual(self.successResultOf(done), {"size": 9})

    def test_what_cannot_be_streamed(self) -> None:
        """Wrong arguments, and a command without answer, are told by the iterator."""
        for stream in (self.client.stream(Fetch), self.client.stream(Notify)):
            self.failureResultOf(self.run_in(read_all(stream, [])), dangad.BadArguments)
        self.assertEqual(self.sent(), [])

    def test_chunk_too_large(self) -> None:
        """A chunk larger than the client takes ends the stream, and cancels the job."""
        self.connect(max_payload=1000)
        stream = self.client.stream(Fetch, path="a")
        plain = self.client.run(Fetch, path="b")
        self.sent()
        self.chunk(b"a")
        self.chunk(bytes(3000))
        self.chunk(b"b")
        failure = self.failureResultOf(self.run_in(read_all(stream, self.read)), dangad.TooLarge)
        self.assertIn("max_payload", str(failure.value))
        self.assertEqual(self.read, [b"a"])
        self.assertEqual(self.cancelled(), [b"1"])
        self.answer(tag=b"2")
        self.successResultOf(plain)

    def test_one_reader(self) -> None:
        """A second reader at the same time is a mistake, and is told so."""
        stream = self.client.stream(Fetch, path="a")
        first = self.run_in(read_all(stream, self.read))
        self.failureResultOf(self.run_in(read_all(stream, [])), RuntimeError)
        self.answer()
        self.successResultOf(first)


class LeavingTests(StreamCase):
    """A stream that nobody reads any more has its job cancelled."""

    def test_break(self) -> None:
        """A loop that is left ends the job."""

        async def client_code(client: Client) -> None:
            async for chunk in client.stream(Fetch, path="a"):
                self.read = chunk
                break
            await later

        later: Deferred[None] = Deferred()
        done = self.run_in(client_code(self.client))
        self.sent()
        self.chunk(b"a")
        self.assertNoResult(done)
        self.assertEqual(self.cancelled(), [b"1"])
        later.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.read, b"a")
        self.chunk(b"b")
        self.refuse(b"CANCELLED")
        self.assertFalse(self.transport.disconnecting)

    def test_leaving(self) -> None:
        """So does an exception, the end of `async with`, and cancelling who reads or waits."""
        kept: list[Stream] = []

        async def raising(stream: Stream) -> None:
            async with stream:
                async for _ in stream:
                    raise ZeroDivisionError

        async def leaving(stream: Stream) -> None:
            kept.append(stream)
            async with stream:
                async for _ in stream:
                    break

        async def waiting(stream: Stream) -> None:
            await stream.result()

        async def reading(stream: Stream) -> None:
            await read_all(stream, [])

        for reader, kind in (
            (raising, ZeroDivisionError),
            (leaving, None),
            (waiting, CancelledError),
            (reading, CancelledError),
        ):
            with self.subTest(reader=reader):
                self.connect()
                done = self.run_in(reader(self.client.stream(Fetch, path="a")))
                self.sent()
                self.chunk(b"a")
                done.cancel()
                if kind is None:
                    self.successResultOf(done)
                    self.failureResultOf(kept[0].result(), CancelledError)
                else:
                    self.failureResultOf(done, kind)
                self.assertEqual(self.cancelled(), [b"1"])

    def test_never_read(self) -> None:
        """A stream that is thrown away unread is cancelled; one that has ended is not."""
        self.client.stream(Fetch, path="a")
        self.assertEqual(self.cancelled(), [b"1"])
        stream = self.client.stream(Fetch, path="b")
        self.answer(tag=b"2")
        del stream
        self.assertEqual(self.cancelled(), [])

    def test_dropped_in_another_thread(self) -> None:
        """One that the garbage collector finds in another thread is cancelled in the reactor's."""
        from twisted.internet import reactor

        calls: list[Callable[[], None]] = []
        self.patch(reactor, "callFromThread", calls.append)
        streams = [self.client.stream(Fetch, path="a")]
        thread = threading.Thread(target=streams.clear)
        thread.start()
        thread.join()
        self.assertEqual(self.cancelled(), [])
        (call,) = calls
        call()
        self.assertEqual(self.cancelled(), [b"1"])


class PaceTests(StreamCase):
    """A slow reader keeps the connection from being read, and no other does."""

    SIZE = MAX_UNREAD // 4

    def setUp(self) -> None:
        """Have so many chunks come that no more may."""
        super().setUp()
        self.stream = self.client.stream(Fetch, path="a")
        for _ in range(3):
            self.chunk(bytes(self.SIZE))
        self.assertEqual(self.transport.producerState, "producing")
        self.chunk(bytes(self.SIZE))
        self.assertEqual(self.transport.producerState, "paused")

    def take(self) -> bytes:
        """The next chunk."""
        chunk: bytes = self.successResultOf(self.run_in(self.stream.__anext__()))
        return chunk

    def test_pause_and_resume(self) -> None:
        """It is read again when enough was read; its end comes through, after the chunks."""
        for state in ("paused", "paused", "producing"):
            self.assertEqual(self.transport.producerState, "paused")
            self.take()
            self.assertEqual(self.transport.producerState, state)
        self.assertLess(self.SIZE, ENOUGH_READ)
        self.client.connectionLost(Failure(error.ConnectionLost()))
        self.take()
        self.failureResultOf(self.run_in(self.stream.__anext__()), Disconnected)

    def test_what_was_read_already(self) -> None:
        """What had come with the last bytes is not lost."""
        self.chunk(b"more")
        self.answer(7)
        self.assertEqual(self.transport.producerState, "producing")
        read: list[bytes] = []
        done = self.run_in(read_all(self.stream, read))
        self.assertEqual(self.successResultOf(done), {"size": 7})
        self.assertEqual(list(map(len, read)), [self.SIZE] * 4 + [4])

    def test_two_full(self) -> None:
        """Of two slow readers the slower one counts."""
        other = self.client.stream(Fetch, path="b")
        self.chunk(bytes(MAX_UNREAD), tag=b"2")
        self.stream.cancel()
        self.assertEqual(self.transport.producerState, "paused")
        other.cancel()
        self.assertEqual(self.transport.producerState, "producing")
        self.chunk(bytes(MAX_UNREAD * 2))  # who has left lets the connection be read
        self.assertEqual(self.transport.producerState, "producing")

    def test_very_small_chunks(self) -> None:
        """Very many chunks of nothing count, too."""
        self.stream.cancel()
        stream = self.client.stream(Fetch, path="b")
        for _ in range(MAX_UNREAD // 100):
            self.chunk(b"", tag=b"2")
        self.assertEqual(self.transport.producerState, "paused")
        stream.cancel()
