"""Jobs that operators call by hand."""

from __future__ import annotations

import json
from typing import Any

from twisted.protocols import amp

from dangad.errors import BadArguments, NotFound, QueueFull
from dangad.operators.handcalls import (
    MOST_KEPT,
    MOST_PART,
    MOST_PARTS,
    MOST_READ,
    MOST_SHOWN,
    MOST_UNDER_WAY,
    HandCalls,
)
from dangad.wire import boxes
from dangad.wire.catalogue import NO_POLICY, describe_command, write_catalogue
from dangad.wire.values import Blob, Large, Priority
from dangad.wire.words import WrongWord
from tests.unit.scheduler.dispatching import DispatcherTestCase


class Count(amp.Command):
    """Count to a number."""

    commandName = b"Echo"
    arguments = [(b"to", amp.Integer()), (b"note", amp.Unicode(optional=True))]
    response = [(b"sum", amp.Integer()), (b"text", Large(amp.Unicode())), (b"raw", Blob())]


ENTRY = describe_command(Count, NO_POLICY, "Count.")
CATALOGUE = write_catalogue([ENTRY])
ANSWER = {b"sum": b"6", b"text": "<b>\x1b\u2028".encode(), b"raw": b"\xff"}


class HandCallsTests(DispatcherTestCase):
    def setUp(self) -> None:
        """A dispatcher, and an operator who calls by hand."""
        super().setUp()
        self.calls = HandCalls(self.dispatcher)

    def begin(self, **options: Any) -> int:
        """A call under way."""
        return self.calls.begin(ENTRY, {"to": ["3"]}, **options)

    def seen(self, job_id: int) -> dict[str, Any]:
        """What has come of a call."""
        document = self.calls.document(job_id)
        assert document is not None
        json.dumps(document)
        return document

    def test_answer(self) -> None:
        """The answer is shown as JSON, whatever is in it."""
        worker = self.ready()
        job_id = self.begin(priority="high", deadline=9.0)
        [job] = self.dispatcher.state.assignments.running()
        strings = boxes.unpack(bytes(worker.boxes[-1]))
        self.assertEqual((strings[b"to"], strings[boxes.PRIORITY]), (b"3", b"high"))
        self.assertEqual((job.deadline, job.wants_progress, job.wants_chunks), (9.0, True, False))
        self.assertTrue(self.seen(job_id)["under_way"])
        self.answer(worker, body=boxes.pack(ANSWER.items()))
        seen = self.seen(job_id)
        self.assertEqual(
            json.loads(seen["answer"]),
            {"sum": 6, "text": "<b>\x1b\u2028", "raw": {"base64": "/w=="}},
        )
        self.assertEqual((seen["error"], seen["under_way"]), (None, False))

    def test_news(self) -> None:
        """Progress and parts are shown while the job runs; of many parts, the last."""
        worker = self.ready()
        job_id = self.begin(chunks=True)
        events = self.dispatcher.answers
        progress = {b"done": b"1", b"total": b"3", b"message": b"one\x1b"}
        events.job_reported(worker, boxes.pack(progress.items()), False)
        for number in range(MOST_PARTS + 5):
            data = {b"data": b"%d " % number * MOST_PART}
            events.job_reported(worker, boxes.pack(data.items()), True)
        seen = self.seen(job_id)
        self.assertEqual(seen["progress"], {"done": 1, "total": 3, "message": "one\\x1b"})
        self.assertEqual((seen["part_count"], len(seen["parts"])), (MOST_PARTS + 5, MOST_PARTS))
        self.assertTrue(seen["parts"][-1].startswith("24 24 "))
        self.assertLess(max(map(len, seen["parts"])), MOST_PART + 10)
        self.answer(worker)

    def test_ends(self) -> None:
        """A job that fails, is lost or cannot be read shows why."""
        worker = self.ready()
        failed = self.begin()
        error = {boxes.ERROR_CODE: b"BAD_MONTH", boxes.ERROR_DESCRIPTION: b"no month 13"}
        self.answer(worker, failed=True, body=boxes.pack(error.items()))
        unreadable = self.begin()
        self.answer(worker, body=boxes.pack({b"sum": b"six"}.items()))
        large = self.begin()
        self.answer(worker, body=bytes(MOST_READ + 1))
        long = self.begin()
        body = boxes.pack({**ANSWER, b"text": b"x" * 60_000, b"raw": b"y" * 60_000}.items())
        self.answer(worker, body=body)
        lost = self.begin()
        self.die(worker)
        self.assertEqual(self.seen(failed)["error"], "BAD_MONTH: no month 13")
        self.assertIn("'sum' in the answer to Echo is not", self.seen(unreadable)["error"])
        self.assertIn("too large to be shown", self.seen(large)["answer"])
        self.assertEqual(len(self.seen(long)["answer"]), MOST_SHOWN + len("..."))
        self.assertIn("WORKER_LOST: ", self.seen(lost)["error"])

    def test_refused(self) -> None:
        """What is wrong with a call is said before there is a job."""
        with self.assertRaises(WrongWord):
            self.calls.begin(ENTRY, {"to": ["three"]})
        with self.assertRaises(WrongWord):
            self.calls.begin(ENTRY, {})
        for options in ({"priority": "urgent"}, {"deadline": float("nan")}, {"deadline": -1.0}):
            with self.assertRaises(BadArguments):
                self.begin(**options)
        self.assertEqual((self.dispatcher.waiting, self.calls.documents()), (0, []))

    def test_typed(self) -> None:
        """What was typed is told again, unless it is too long."""
        self.ready()
        seen = self.seen(self.begin(priority="low", deadline=9.5, chunks=True))
        self.assertEqual(seen["words"], {"to": ["3"]})
        self.assertEqual((seen["priority"], seen["deadline"], seen["chunks"]), ("low", 9.5, True))
        self.assertIsNone(seen["again"])
        long = {"to": ["+03"], "note": ["x" * (MOST_SHOWN - 1)]}
        self.assertIsNone(self.seen(self.calls.begin(ENTRY, long))["words"])

    def test_repeat(self) -> None:
        """What another client's job was asked to do is called by hand, with the same options."""
        worker = self.ready(CATALOGUE)
        self.submit(self.client("x"))
        other = self.submit(self.client("y"), "Echo", Priority.HIGH, deadline=60.0)
        other.wants_chunks = True
        job_id = self.successResultOf(self.calls.repeat(other))
        seen = self.seen(job_id)
        self.assertEqual((seen["again"], seen["words"]), (other.id, None))
        self.assertEqual((seen["priority"], seen["deadline"], seen["chunks"]), ("high", 60.0, True))
        copy = next(each for each in self.dispatcher.jobs_waiting() if each.id == job_id)
        self.assertEqual((bytes(copy.box), copy.command), (bytes(other.box), other.command))
        for _ in range(3):
            self.answer(worker, body=boxes.pack(ANSWER.items()))
        self.assertIn('"sum": 6', self.seen(job_id)["answer"])
        self.failureResultOf(self.calls.repeat(other), NotFound)

    def test_bounds(self) -> None:
        """Only so many are under way, and so many are remembered, the latest first."""
        worker = self.ready()
        waiting = [self.begin() for _ in range(MOST_UNDER_WAY)]
        with self.assertRaises(QueueFull):
            self.begin()
        for _ in waiting:
            self.answer(worker)
        ended = [self.begin() for _ in range(MOST_UNDER_WAY)]
        for _ in range(MOST_KEPT):
            self.answer(worker)
            ended.append(self.begin())
        kept = self.calls.documents()
        self.assertEqual(len(kept), MOST_KEPT)
        self.assertEqual(kept[0]["job"], ended[-1])
        self.assertIsNone(self.calls.document(waiting[0]))
        while self.dispatcher.running:
            self.answer(worker)

    def test_raises(self) -> None:
        """If the server fails to read an answer, the page says so, and other calls go on."""
        worker = self.ready()
        job_id = self.begin()
        [client] = [job.client for job in self.dispatcher.state.assignments.running()]
        self.patch(client, "deliver", self.raise_memory_error)
        self.answer(worker)
        self.assertIn("the server failed", self.seen(job_id)["error"])
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        another = self.begin()
        self.answer(worker, body=boxes.pack(ANSWER.items()))
        self.assertIn('"sum": 6', self.seen(another)["answer"])

    def raise_memory_error(self, *_: object) -> None:
        """Raise as if there was no memory."""
        raise MemoryError
