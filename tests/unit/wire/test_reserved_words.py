"""What a client, a job or an operator writes is never read as a word of dangad's, at any hop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad.operators.control import ControlFactory
from dangad.pool.processes import FROM_WORKER
from dangad.wire import boxes, commands, workerboxes
from dangad.worker.jobtypes import JobType, job, job_types_of
from tests.fakeoperations import FakeOperations
from tests.hops import HopClient, Hops, pairs_of
from tests.unit.server.test_server import FakeClient, Line

if TYPE_CHECKING:
    from collections.abc import Sequence

PARENT_TO_WORKER = [workerboxes.RUN, workerboxes.STOP, workerboxes.PING]
WORKER_TO_PARENT = [
    workerboxes.DONE,
    workerboxes.FAILED,
    workerboxes.REPORT,
    workerboxes.PART,
    workerboxes.PONG,
]
FRAME = sorted(workerboxes.AMP_KEYS)
FULL = bytes(boxes.MAX_VALUE)
OPTIONS = [boxes.PRIORITY, boxes.DEADLINE, boxes.PROGRESS, boxes.CHUNKS, boxes.TRACEPARENT]
MEANT = {boxes.ASK, boxes.COMMAND, *OPTIONS}
"""What a client may say in a request, and is understood."""
WORDS = [*PARENT_TO_WORKER, *WORKER_TO_PARENT, *FRAME, *OPTIONS, b"_", b"__", b"_unknown", b"tag"]
VALUES = st.one_of(
    st.sampled_from(
        [
            *(b"", b"boom", b"1", b"0", b"2 1", b"1 1 1.000000", b"3 0 0 0 0", b"4 cancelled"),
            *(b"dangad.Hello", b"dangad.LastWords", b"dangad.Cancel", b"dangad.Chunk", b"Relay"),
            *(workerboxes.PING_BOX, boxes.END, boxes.END * 9),
        ]
    ),
    st.integers(0, 30).map(lambda number: b"%d" % number),
    st.integers(0, 30).map(lambda number: b"%d 1" % number),
    st.integers(0, 30).map(lambda number: b"%d 0 0 0 0" % number),
    st.binary(max_size=20),
)
PAIRS = st.lists(
    st.tuples(st.sampled_from(WORDS) | st.binary(min_size=1, max_size=6), VALUES), max_size=4
)


class Anything(amp.Argument):
    """An argument that lays what pairs it is given into the box, as classes of users' may."""

    def toBox(
        self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: object
    ) -> None:
        """See :meth:`amp.Argument.toBox`."""
        strings.update(objects.pop(name.decode()))

    def fromBox(
        self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: object
    ) -> None:
        """See :meth:`amp.Argument.fromBox`."""
        objects[name.decode()] = dict(strings)


class Refused(Exception):
    """Declared by the command."""


class Relay(amp.Command):
    """Answers what it is told to."""

    arguments = [(b"request", Anything())]
    response = [(b"answer", Anything())]
    errors = {Refused: b"REFUSED"}


_to_answer: list[Any] = []


@job(Relay)
def _relay(request: dict[bytes, bytes]) -> dict[str, Any]:
    answer = _to_answer.pop(0) if _to_answer else [(b"data", request.get(b"data", b""))]
    if isinstance(answer, Exception):
        raise answer
    return {"answer": answer}


def request(tag: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A request with more pairs than it needs, some of them before the usual ones."""
    usual = [(boxes.ASK, tag), (boxes.COMMAND, b"Relay"), (b"data", b"of " + tag)]
    half = len(pairs) // 2
    return [*pairs[:half], *usual, *pairs[half:]]


TYPES: dict[bytes, JobType] = {each.name: each for each in job_types_of(_relay)}


class HopsCase(SynchronousTestCase):
    """A server in this process, and one client."""

    def start(self) -> None:
        """Have one worker, one client, and a pace at which jobs are prefetched."""
        _to_answer.clear()
        self.hops = Hops(self, TYPES)
        self.addCleanup(self.hops.close)
        self.hops.settle()
        self.client = self.hops.connect()
        for number in range(20):
            self.ask(b"w%d" % number)
        self.hops.settle()
        self.assertEqual(len(self.client.boxes()), 20)
        (self.worker,) = self.hops.workers
        self.worker.seen.clear()

    def ask(self, tag: bytes, *pairs: tuple[bytes, bytes], client: HopClient | None = None) -> None:
        """Send a request."""
        (client or self.client).send(request(tag, pairs))

    def answers(self, client: HopClient | None = None) -> dict[bytes, list[tuple[bytes, bytes]]]:
        """What the client was answered, by tag; each answer is one that AMP cannot mistake."""
        answers: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for (first, tag), *rest in (client or self.client).boxes():
            frame = {key for key, _ in rest} & workerboxes.AMP_KEYS
            self.assertIn(first, (boxes.ANSWER, boxes.ERROR))
            self.assertEqual(frame, set() if first == boxes.ANSWER else workerboxes.ERROR_KEYS)
            self.assertNotIn(tag, answers)
            answers[tag] = rest
        return answers


class ClientTests(HopsCase):
    """A client's words."""

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(
            PAIRS.map(lambda pairs: [pair for pair in pairs if pair[0] not in MEANT]),
            min_size=2,
            max_size=12,
        ),
        st.sets(st.integers(0, 11)),
    )
    def test_data(self, requests: list[list[tuple[bytes, bytes]]], cancelled: set[int]) -> None:
        """What it writes into a request reaches the job as it is, and changes nothing on the way.

        That goes for jobs that run, that are prefetched, and that are reclaimed, because some were
        cancelled, or an urgent one came.
        """
        self.start()
        for number, pairs in enumerate(requests):
            self.ask(b"%d" % number, *pairs)
        self.hops.step()  # now some are prefetched
        for number in sorted(cancelled & set(range(len(requests)))):
            self.client.send(
                [
                    (boxes.ASK, b"c%d" % number),
                    (boxes.COMMAND, b"dangad.Cancel"),
                    (b"tag", b"%d" % number),
                ]
            )
        other = self.hops.connect()
        self.ask(b"urgent", (boxes.PRIORITY, b"high"), client=other)
        self.hops.settle()
        answers = self.answers()
        for number, pairs in enumerate(requests):
            answer = dict(answers.pop(b"%d" % number))
            data = dict(request(b"%d" % number, pairs))[b"data"]
            if number in cancelled and boxes.ERROR_CODE in answer:
                self.assertEqual(answer[boxes.ERROR_CODE], b"CANCELLED")
            else:
                self.assertEqual(answer, {b"data": data})
        self.assertEqual(
            set(answers), {b"c%d" % number for number in cancelled if number < len(requests)}
        )
        self.assertEqual(set(self.answers(other)), {b"urgent"})
        by_tag = {strings[boxes.ASK]: strings for strings in self.worker.seen}
        for number, pairs in enumerate(requests):
            if (seen := by_tag.get(b"%d" % number)) is not None:
                self.assertEqual(seen, dict(request(b"%d" % number, pairs)))
        self.assertEqual(self.hops.faults(), [])
        self.assertEqual(self.hops.dispatcher.running, 0)
        if not cancelled:  # one that runs when it is cancelled takes its worker with it
            self.assertFalse(self.worker.killed)
        self.hops.close()

    def test_one_that_runs(self) -> None:
        """A key that is the parent's word for a job, with a value that is none, ends no worker."""
        for word in WORDS:
            self.start()
            for number in range(12):
                self.ask(b"%d" % number, *([(word, b"boom")] if word not in MEANT else []))
            self.hops.step()  # now some are prefetched, and are reclaimed
            leaver = self.hops.connect()
            self.ask(b"1", (boxes.PRIORITY, b"high"), client=leaver)
            leaver.connection.connectionLost()
            self.hops.settle()
            self.assertEqual(len(self.answers()), 12)
            self.assertEqual(self.hops.faults(), [])
            self.hops.close()


class JobTests(HopsCase):
    """A job's words."""

    @settings(max_examples=25, deadline=None)
    @given(st.lists(PAIRS, min_size=1, max_size=6))
    def test_answers(self, answers: list[list[tuple[bytes, bytes]]]) -> None:
        """What it answers reaches its client as it is, but for reserved keys: BAD_RESPONSE."""
        self.start()
        _to_answer.extend(answers)
        for number in range(len(answers)):
            self.ask(b"%d" % number)
        self.hops.settle()
        told = self.answers()
        for number, pairs in enumerate(answers):
            got = dict(told[b"%d" % number])
            if any(key.startswith(b"_") for key, _ in pairs):
                self.assertEqual(got[boxes.ERROR_CODE], b"BAD_RESPONSE")
            else:
                self.assertEqual(got, dict(pairs))
        self.assertFalse(self.worker.killed)
        self.hops.close()

    def test_errors(self) -> None:
        """What it says in an error is no word of dangad's either."""
        self.start()
        _to_answer.extend(Refused(word.decode()) for word in WORDS)
        for word in WORDS:
            self.ask(word)
        self.hops.settle()
        told = self.answers()
        for word in WORDS:
            expected = [(boxes.ERROR_CODE, b"REFUSED"), (boxes.ERROR_DESCRIPTION, word)]
            self.assertEqual(told[word], expected)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.lists(st.tuples(st.sampled_from(WORDS), VALUES), min_size=1), min_size=1))
    def test_raw(self, rows: list[list[tuple[bytes, bytes]]]) -> None:
        """One that writes boxes to the parent itself confuses no client, and costs only its worker.

        Its own client is answered once, and another's jobs are answered as ever.
        """
        self.start()
        other = self.hops.connect()
        self.ask(b"mine")
        for number in range(5):
            self.ask(b"%d" % number, client=other)
        for box in rows:
            self.worker.write(boxes.pack(box))
        self.hops.settle()
        self.assertEqual(set(self.answers()), {b"mine"})
        theirs = self.answers(other)
        self.assertEqual(set(theirs), {b"%d" % number for number in range(5)})
        for tag, answer in theirs.items():
            self.assertEqual(answer, [(b"data", b"of " + tag)])
        self.assertEqual(self.hops.faults(), [])
        self.assertTrue(self.client.is_open)
        self.hops.close()

    def test_news(self) -> None:
        """What it writes as its progress, or a part of its result, is that, or garbage."""
        good = [(b"done", b"1"), (b"total", b"-2"), (b"message", "wörd".encode())]
        bad: list[list[tuple[bytes, bytes]]] = [
            [],
            good[:2],
            [*good, (b"tag", b"theirs")],
            [(b"tag", b"theirs"), *good],
            [*good, (boxes.ANSWER, b"theirs")],
            [*good, good[2]],
            [good[1], good[0], good[2]],
            [(b"done", b"much"), *good[1:]],
            [*good[:2], (b"message", b"\xff")],
        ]
        progress = (workerboxes.report_head, commands.Progress.commandName)
        part = (workerboxes.part_head, commands.Chunk.commandName)
        for (head, name), pairs, fine in (
            (progress, good, True),
            *((progress, pairs, False) for pairs in bad),
            (part, [(b"data", b"1")], True),
            (part, [(b"data", FULL), (b"data.1", FULL), (b"data.2", b"3")], True),
            (part, [(b"data", FULL), (b"data.1", b"2"), (b"data.2", b"3")], False),
            (part, [], False),
            (part, [(b"data", b"1"), (b"data.2", b"2")], False),
            (part, [(b"data", b"1"), (b"tag", b"theirs")], False),
            (part, [(b"data", b"1"), (boxes.COMMAND, b"theirs")], False),
        ):
            self.start()
            self.ask(b"mine", (boxes.PROGRESS, b"1"), (boxes.CHUNKS, b"1"))
            (running,) = self.hops.dispatcher.state.assignments.running()
            box = head(running.id) + boxes.pack(pairs)
            self.worker.connector.childDataReceived(FROM_WORKER, box)
            self.assertEqual(self.worker.killed, not fine, [key for key, _ in pairs])
            expected = [[(boxes.COMMAND, name), (b"tag", b"mine"), *pairs]]
            self.assertEqual(self.client.boxes(), expected if fine else [])
            self.hops.close()


class OperatorTests(SynchronousTestCase):
    """An operator's words."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(PAIRS, min_size=1, max_size=5))
    def test_data(self, requests: list[list[tuple[bytes, bytes]]]) -> None:
        """What an operator writes beside a request's own pairs means nothing."""
        operations = FakeOperations()
        line = Line()
        line.protocol = ControlFactory(Clock(), operations).buildProtocol(None)
        assert line.protocol is not None
        line.protocol.makeConnection(line)
        operator = FakeClient(line)
        meant = {boxes.ASK, boxes.COMMAND, b"min", b"max", b"force"}
        for number, pairs in enumerate(requests):
            more = [pair for pair in pairs if pair[0] not in meant]
            usual = [(boxes.ASK, b"%d" % number), (boxes.COMMAND, commands.Scale.commandName)]
            line.protocol.dataReceived(
                boxes.pack([*more, *usual, (b"min", b"1"), (b"max", b"2"), *more])
            )
        expected = [{boxes.ANSWER: b"%d" % number} for number in range(len(requests))]
        self.assertEqual(operator.answers(), expected)


class WalkTests(SynchronousTestCase):
    def test_pairs_of(self) -> None:
        """The test's own reader gives twins and all."""
        pairs = [(b"a", b"1"), (b"a", b""), (b"_", b"x" * 300)]
        self.assertEqual(pairs_of(boxes.pack(pairs)), pairs)
