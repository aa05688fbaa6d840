"""The parent's end of a worker: what it makes of what lies in the pipes between the two."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.interruption import FIRST_PAUSE
from dangad.pool.jobprobe import PATIENCE
from dangad.pool.link import STOP_GRACE
from dangad.pool.processes import FROM_WORKER
from dangad.pool.speech import REPORTS_A_SECOND, REPORTS_AT_ONCE
from dangad.pool.workeroutput import FLOOD_REST
from dangad.scheduler.record import JobState
from dangad.scheduler.supervisor import WATCH_INTERVAL
from dangad.scheduler.workerrecord import WorkerState
from dangad.wire import boxes, commands, workerboxes
from dangad.worker.jobtypes import job, job_types_of
from tests.fakes import make_job
from tests.hops import Hops
from tests.unit.wire.test_reserved_words import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.record import Job
    from tests.hops import HopClient, HopWorker

LARGE = 500_000
"""Bytes of a request that is larger than a pipe."""


class LinkCase(SynchronousTestCase):
    """A server in this process, with one worker and one client."""

    def setUp(self) -> None:
        """Have them."""
        self.hops = Hops(self, TYPES)
        self.hops.settle()
        self.client = self.hops.connect()

    @property
    def worker(self) -> HopWorker:
        """The worker that was started last."""
        return self.hops.workers[-1]

    def ask(self, tag: bytes, *pairs: tuple[bytes, bytes], size: int = 0) -> None:
        """Ask for a job, with so many bytes of data."""
        box = [(boxes.ASK, tag), (boxes.COMMAND, b"Relay"), (b"data", b"of " + tag), *pairs]
        box += [(b"more.%d" % n, bytes(50_000)) for n in range(size // 50_000)]
        self.client.send(box)

    def told(self, client: HopClient | None = None) -> dict[bytes, dict[bytes, bytes]]:
        """What the client was told since it was last asked, by tag, news aside."""
        answers = {}
        for box in (client or self.client).boxes():
            pairs = dict(box)
            if boxes.COMMAND not in pairs:
                answers[box[0][1]] = pairs
        return answers

    def assert_lost(self, why: str = "") -> None:
        """The client's only request ends because its worker was lost, for this."""
        self.hops.settle()
        ((tag, pairs),) = self.told().items()
        self.assertEqual((tag, pairs[boxes.ERROR_CODE]), (b"1", b"WORKER_LOST"))
        self.assertIn(why, pairs[boxes.ERROR_DESCRIPTION].decode())

    def take(self) -> tuple[int, bytes]:
        """Have the worker take its job out of the pipe: the job's id, and the box."""
        box = self.worker.pipe.next_job()
        assert box is not None
        return workerboxes.read_job(box)[0], box

    def ask_many(self, steps: int | None = None) -> None:
        """Ask for forty jobs, and have so many steps happen, or all."""
        for number in range(40):
            self.ask(b"%d" % number)
        for _ in range(steps or 0):
            self.hops.step()
        if steps is None:
            self.hops.settle()

    def watch(self, seconds: float) -> None:
        """Let the supervisor look at its workers for so long, and do nothing else."""
        for _ in range(int(seconds / WATCH_INTERVAL) + 1):
            self.hops.clock.advance(WATCH_INTERVAL)
            self.worker.tell()


class Timed(amp.Command):
    """Answers what it is told."""

    arguments = response = [(b"data", amp.String())]


@job(Timed, time_limit=5.0)
def _timed(data: bytes) -> dict[str, bytes]:
    return {"data": data}


class OthersTests(SynchronousTestCase):
    """What Eve does delivers nothing to Ann, though answers for Ann lie in the worker's pipe."""

    def setUp(self) -> None:
        """Have the worker run a job of Eve's as far as is known, with others prefetched."""
        self.hops = Hops(self, TYPES | {each.name: each for each in job_types_of(_timed)})
        self.hops.settle()
        self.ann, self.eve = self.hops.connect(), self.hops.connect()
        for number in range(50):
            self.ask(self.ann, (b"Timed", b"Relay")[number % 2], b"practice %d" % number)
        self.hops.settle()
        self.ask(self.ann, b"Relay", b"first")
        self.ask(self.eve, b"Timed", b"runs")
        for number in range(8):
            self.ask(self.ann, b"Relay", b"%d" % number)
            self.ask(self.eve, b"Relay", b"%d" % number, (boxes.DEADLINE, b"3"))
        self.hops.step()
        self.ann.boxes()
        self.worker = self.hops.workers[0]
        self.assertEqual(self.known().command, b"Timed")
        self.assertGreater(self.hops.dispatcher.state.assignments.prefetched, 5)

    def ask(self, client: HopClient, command: bytes, tag: bytes, *pairs: Any) -> None:
        """Ask for a job, with its tag for data."""
        client.send([(boxes.ASK, tag), (boxes.COMMAND, command), (b"data", tag), *pairs])

    def known(self) -> Job:
        """The job that runs as far as is known."""
        found = self.hops.dispatcher.job_of(self.worker.link)
        assert found is not None
        return found

    def eves(self) -> list[Job]:
        """The jobs of Eve's that have not ended."""
        state = self.hops.dispatcher.state
        rows = state.assignments.jobs.values()
        everything = [*itertools.chain.from_iterable(rows), *state.queue]
        return [each for each in everything if each.client is self.eve.connection]

    def test_nothing_is_delivered(self) -> None:
        """An answer is delivered when it is read, and not because others cancel, stall or leave."""
        for name, deed in (
            ("cancel", lambda: list(map(self.hops.dispatcher.cancel, self.eves()))),
            ("deadline", lambda: self.hops.clock.advance(3.0)),
            ("time limit", lambda: self.hops.clock.advance(5.0)),
            ("hold", lambda: self.hops.dispatcher.hold(self.eve.connection)),
            ("disconnect", lambda: self.eve.connection.connectionLost(Failure(ConnectionDone()))),
        ):
            for written in (1, 4):
                with self.subTest(deed=name, answers=written):
                    self.setUp()
                    self.deliver_nothing(deed, written)
                    self.hops.close()

    def deliver_nothing(self, deed: Callable[[], object], written: int) -> None:
        """Have so many answers lie in the pipe, and see what the deed does about them."""
        for _ in range(written):
            self.worker.work()
        self.worker.take()  # it has begun the next
        ended = self.hops.dispatcher.counters.ended
        done = ended[JobState.DONE]
        deed()
        self.assertEqual(ended[JobState.DONE], done)
        self.assertEqual(self.ann.boxes(), [])
        self.hops.dispatcher.release(self.eve.connection)
        self.hops.settle()
        tags = sorted(box[1] for box, *_ in self.ann.boxes())
        self.assertEqual(tags, [b"%d" % number for number in range(8)])


class InterruptTests(LinkCase):
    def test_prefetched_and_begun(self) -> None:
        """A job is interrupted while it runs, though the answers before it are not read yet."""
        self.ask_many(20)
        running, following = (
            job for job in self.hops.dispatcher.state.assignments.jobs[self.worker.link][:2]
        )
        self.worker.work()  # the answer to the first is in the pipe
        self.assertEqual(self.take()[0], following.id)  # it has begun the second
        worker = self.worker
        self.hops.dispatcher.cancel(following)
        self.assertIn(commands.STOP_SIGNAL, worker.process.signals)
        self.assertIsNone(running.stopped_for)

    def test_end(self) -> None:
        """When the worker is gone nobody means to signal it again."""
        self.ask(b"1")
        worker = self.worker
        worker.take()
        (running,) = self.hops.dispatcher.state.assignments.running()
        self.hops.dispatcher.cancel(running)
        again = self.hops.clock.seconds() + FIRST_PAUSE
        (signal,) = (each for each in self.hops.clock.getDelayedCalls() if each.getTime() == again)
        worker.die()
        self.assertFalse(signal.active())


class GivenTests(LinkCase):
    """What a worker was given, and has of it."""

    def test_performed(self) -> None:
        """Each job that it has begun counts, prefetched or not."""
        self.ask_many()
        self.assertEqual(len(self.told()), 40)
        self.assertEqual(self.worker.link.performed, 40)

    def answer(self, job_id: int, marks: int = 0) -> None:
        """Have the worker answer a job of this id."""
        self.worker.write(workerboxes.answer_head(job_id, False, b"0 0 0", marks) + boxes.END)
        self.worker.tell()

    def test_not_reusable(self) -> None:
        """A worker that says so with its answer is given no other job."""
        self.ask(b"1")
        self.ask(b"2")
        spoilt, (job_id, _) = self.worker, self.take()
        self.answer(job_id, workerboxes.NOT_REUSABLE)
        self.assertEqual(set(self.told()), {b"1"})
        self.assertIs(spoilt.link.state, WorkerState.STOPPING)
        spoilt.die(None)
        self.hops.settle()
        self.assertEqual((set(self.told()), spoilt.seen), ({b"2"}, []))

    def test_not_given(self) -> None:
        """An answer to another job than it was given is garbage; none after that counts."""
        self.ask(b"1")
        job_id, _ = self.take()
        self.answer(job_id + 1)
        self.assertTrue(self.worker.killed)
        self.answer(job_id)
        self.assertEqual(self.told(), {})
        self.assert_lost("an answer to job")

    def test_full(self) -> None:
        """What its full pipe does not take it was not given, nor is it waited for."""
        self.ask(b"1")
        link = self.worker.link
        given, job = 0, make_job(None, "Relay", box=bytes(4000))
        job.id += 10**6  # the server numbers its jobs, too
        while link.give(job):
            given, job = given + 1, make_job(None, "Relay", box=bytes(4000))
            job.id += 10**6
        self.assertGreater(given, 0)
        self.assertEqual(len(link.reclaim()), given)
        self.assertFalse(link.has_read())
        self.worker.take()
        self.assertTrue(link.has_read())

    def test_paused_at_the_end(self) -> None:
        """A worker that was paused is heard again when its job has ended all the same."""
        self.ask(b"1")
        _, box = self.take()
        self.worker.link.pause()
        output = self.worker.process.pipes[FROM_WORKER]
        self.assertFalse(output.reads)
        self.worker.perform(box)
        self.worker.tell()  # as if it had been read before
        self.assertTrue(output.reads)
        self.assertEqual(self.told()[b"1"][b"data"], b"of 1")


class RobbedTests(LinkCase):
    """Something else than the worker reads its pipe, as a fork of an earlier job may."""

    def test_job(self) -> None:
        """A job that the worker never had ends as lost in seconds, and the next is answered."""
        self.ask(b"1")
        robbed = self.worker
        self.worker.rob()
        self.watch(2)
        robbed.work()
        self.watch(1)
        self.assertTrue(robbed.killed)
        self.assert_lost("did not have a job that something else had read from its pipe")
        self.ask(b"2")
        self.hops.settle()
        self.assertEqual(self.told()[b"2"][b"data"], b"of 2")

    def test_all(self) -> None:
        """So it is if the question whether the worker has it is read, too."""
        self.ask(b"1")
        robbed = self.worker
        self.worker.rob()
        self.watch(2)
        self.assertEqual(self.worker.rob(), workerboxes.PING_BOX)
        self.watch(PATIENCE)
        self.assertTrue(robbed.killed)
        self.assert_lost()

    def test_large(self) -> None:
        """So it is with a request that is larger than the pipe."""
        self.ask(b"1", size=LARGE)
        robbed = self.worker
        writer = robbed.process.pipes[3]
        while self.robbed_some():
            writer.doWrite()
        self.watch(2)
        robbed.work()
        self.watch(1)
        self.assertTrue(robbed.killed)

    def robbed_some(self) -> bool:
        """Whether there was something to be read."""
        try:
            return bool(self.worker.rob())
        except BlockingIOError:
            return False

    def test_some_prefetched(self) -> None:
        """So it is with prefetched jobs, of which each is answered or lost, once."""
        self.ask_many(20)
        self.assertGreater(self.hops.dispatcher.state.assignments.prefetched, 1)
        robbed = self.worker
        for _ in range(2):
            self.worker.rob()
        self.hops.settle()
        self.assertTrue(robbed.dead)
        told = self.told()
        self.assertEqual(set(told), {b"%d" % number for number in range(40)})
        lost = [pairs for pairs in told.values() if boxes.ERROR_CODE in pairs]
        self.assertLessEqual(len(lost), 3)
        for pairs in lost:
            self.assertIn(b"something else had read", pairs[boxes.ERROR_DESCRIPTION])

    def test_honest(self) -> None:
        """A worker that is busy for long, with something prefetched or not, is left alone."""
        self.ask(b"1")
        job_id, _ = self.take()
        self.watch(1000)
        self.assertFalse(self.worker.killed)
        head = workerboxes.answer_head(job_id, False, b"0 0 0", 0)
        self.worker.write(head + boxes.END)
        self.hops.settle()
        self.assertEqual(self.told(), {b"1": {boxes.ANSWER: b"1"}})
        self.ask(b"2")
        self.hops.settle()
        self.assertEqual(set(self.told()), {b"2"})
        self.assertEqual(len(self.hops.workers), 1)


class LongJobTests(LinkCase):
    """A worker whose job takes longer than it is left unasked."""

    def test_goes_on(self) -> None:
        """It answers the job and then the question, at one stroke, and is given the next job."""
        self.ask(b"1")
        worker, (_, box) = self.worker, self.take()
        self.watch(3)
        worker.perform(box)
        worker.take()  # the question
        worker.tell()
        self.ask(b"2")
        worker.work()
        worker.tell()
        answers = self.told()
        self.assertEqual([answers[tag][b"data"] for tag in (b"1", b"2")], [b"of 1", b"of 2"])
        self.assertEqual(self.hops.workers, [worker])


class UnreadTests(LinkCase):
    """A worker dies that has not read its job."""

    def test_returned(self) -> None:
        """Another gets the job, of whatever size, and its client notices nothing."""
        for number, size in enumerate((0, 50_000, LARGE)):
            self.ask(b"%d" % number, size=size)
            self.worker.die()
            self.hops.settle()
            writer = self.worker.process.pipes[3]
            while self.hops.dispatcher.running:
                writer.doWrite()
                self.hops.step()
            self.assertEqual(self.told()[b"%d" % number][b"data"], b"of %d" % number)
        self.assertEqual(len(self.hops.workers), 4)

    def test_given_to_the_dead(self) -> None:
        """One that is given a job when its last answer is read, and is gone, has not run it.

        Nor has it where nothing can be taken out of its pipe.
        """
        for can_reclaim in (True, False):
            if not can_reclaim:
                self.hops.scratch.close()
                self.worker.die()
                self.hops.settle()
            self.ask(b"1")
            self.ask(b"2")
            self.worker.perform(self.take()[1])
            self.worker.die()
            self.hops.settle()
            answers = self.told()
            self.assertEqual([answers[tag][b"data"] for tag in (b"1", b"2")], [b"of 1", b"of 2"])

    def test_read_in_part(self) -> None:
        """One that has read a part of it has begun it, as far as anybody can know."""
        self.ask(b"1", size=LARGE)
        self.worker.rob(100)
        self.worker.die()
        self.assert_lost()


class NewsTests(LinkCase):
    """What a worker tells of its job."""

    def report(self) -> None:
        """Have the worker tell the progress of its job."""
        (job,) = self.hops.dispatcher.state.assignments.running()
        pairs = [(b"done", b"1"), (b"total", b"2"), (b"message", b"")]
        self.worker.write(workerboxes.report_head(job.id) + boxes.pack(pairs))
        self.worker.tell()

    def test_not_asked_for(self) -> None:
        """News that nobody has asked for is garbage: no worker of dangad's sends any."""
        self.ask(b"1")
        self.worker.pipe.next_job()
        self.report()
        self.assert_lost("wrote garbage to its pipe (news that nobody has asked for)")

    def test_flood(self) -> None:
        """More progress than ``progress()`` sends ends the worker, and reaches no client."""
        self.ask(b"1", (boxes.PROGRESS, b"1"))
        self.worker.pipe.next_job()
        for _ in range(2 * REPORTS_AT_ONCE):
            if not self.worker.killed:
                self.report()
        self.assertTrue(self.worker.killed)
        self.assertEqual(len(self.client.boxes()), REPORTS_AT_ONCE)

    def test_long(self) -> None:
        """As much as it sends never does, however long the job runs."""
        self.ask(b"1", (boxes.PROGRESS, b"1"))
        self.worker.pipe.next_job()
        for _ in range(3 * REPORTS_AT_ONCE):
            self.hops.clock.advance(2 / REPORTS_A_SECOND)
            self.report()
        self.assertFalse(self.worker.killed)


class CrumbsTests(LinkCase):
    """A job that writes large boxes of tiny pairs, to which the parent would listen for seconds."""

    crumbs = ((b"x", b""),) * boxes.MAX_VALUE

    def test_killed(self) -> None:
        """Its worker has written garbage, whatever it says that it is."""
        for head, pairs in (
            (workerboxes.report_head, self.crumbs),
            (workerboxes.part_head, [(b"data", b""), *self.crumbs]),
            (self.error_head, [*boxes.error_pairs(b"MINE", "text"), *self.crumbs]),
            (self.last_words, self.crumbs),
        ):
            self.setUp()
            self.ask(b"1", (boxes.PROGRESS, b"1"), (boxes.CHUNKS, b"1"))
            (job,) = self.hops.dispatcher.state.assignments.running()
            box = head(job.id) + boxes.pack(pairs)
            self.worker.connector.childDataReceived(FROM_WORKER, box)
            self.assertTrue(self.worker.killed, head)
            self.hops.close()

    @staticmethod
    def error_head(job_id: int) -> bytes:
        """What begins an error."""
        return workerboxes.answer_head(job_id, True, b"0 0 0", 0)

    @staticmethod
    def last_words(_job_id: int) -> bytes:
        """What begins the last words of a worker."""
        return boxes.pair(boxes.COMMAND, commands.LastWords.commandName)


class FloodTests(LinkCase):
    """A worker that prints more than is logged."""

    def test_rests(self) -> None:
        """Its output is read with rests from then on, so that it waits, and not the server."""
        self.ask(b"1")
        output = self.worker.process.pipes[2]
        self.worker.connector.childDataReceived(2, b"a line\n")
        self.assertTrue(output.reads)
        for _ in range(2):
            self.worker.connector.childDataReceived(2, b"\n" * 10_000)
            self.assertFalse(output.reads)
            self.hops.clock.advance(FLOOD_REST)
            self.assertTrue(output.reads)

    def test_end(self) -> None:
        """If it dies meanwhile, nothing is left on the clock."""
        self.ask(b"1")
        self.worker.connector.childDataReceived(2, b"\n" * 10_000)
        rests = self.hops.clock.seconds() + FLOOD_REST
        (rest,) = (each for each in self.hops.clock.getDelayedCalls() if each.getTime() == rests)
        self.worker.die()
        self.assertFalse(rest.active())


class LeavingTests(LinkCase):
    """A worker that is told to exit."""

    def test_has_time(self) -> None:
        """It has all the time that it is promised, and then is killed, which the log says."""
        self.worker.link.stop()
        self.assertNotIn(3, self.worker.process.pipes)
        self.hops.clock.advance(STOP_GRACE - 0.1)
        self.assertFalse(self.worker.killed)
        self.hops.clock.advance(0.1)
        self.assertTrue(self.worker.killed)
        self.worker.die()
        (text,) = [
            event["log_format"].format(**event)
            for event in self.hops.events
            if event.get("how", "").startswith("had not")
        ]
        self.assertIn("had not exited after 5 s and was killed", text)

    def test_exits(self) -> None:
        """If it exits by itself nothing is said of any kill."""
        self.worker.link.stop()
        self.hops.clock.advance(STOP_GRACE - 0.1)
        self.worker.die(None)
        self.hops.clock.advance(10)
        self.assertFalse(self.worker.killed)

    def test_loses_a_job(self) -> None:
        """An exit with status 0 is a warning in the log if it loses a job, and otherwise none."""
        for asks, level in ((False, LogLevel.info), (True, LogLevel.warn)):
            if asks:
                self.ask(b"1")
            self.worker.die(None)
            told = [event for event in self.hops.events if event.get("how") == "exited (status 0)"]
            self.assertEqual(told[-1]["log_level"], level)
            self.hops.settle()
