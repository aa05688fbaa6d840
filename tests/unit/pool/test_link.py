"""The parent's end of a worker: what it makes of what lies in the pipes between the two."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.error import ConnectionDone
from twisted.logger import formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.interruption import FIRST_PAUSE
from dangad.pool.jobprobe import PATIENCE
from dangad.pool.link import STOP_GRACE
from dangad.pool.processes import FROM_WORKER
from dangad.pool.speech import REPORTS_A_SECOND, REPORTS_AT_ONCE
from dangad.pool.workeroutput import FLOOD_REST, STACK_TIME
from dangad.scheduler.record import JobState
from dangad.scheduler.supervisor import WATCH_INTERVAL
from dangad.wire import boxes, commands, workerboxes
from dangad.worker.jobtypes import job, job_types_of
from tests.fakes import make_job
from tests.hops import Hops
from tests.unit.telling import TellingTestCase
from tests.unit.wire.test_reserved_words import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.record import Job
    from tests.hops import HopClient, HopWorker
    from tests.unit.telling import Deeds

LARGE = 500_000
"""Bytes of a request that is larger than a pipe."""


class LinkCase(TellingTestCase):
    """A server in this process, with one client, and one worker at a time: ``w1``, ``w2``, ..."""

    deeds: ClassVar[Deeds] = {
        "settle": lambda case: case.hops.settle(),
        "step": lambda case: case.hops.step(),
        "wait": lambda case, seconds: case.hops.clock.advance(float(seconds)),
        "no_scratch": lambda case: case.hops.scratch.close(),  # so that nothing can be reclaimed
        "works": lambda _, worker: worker.work(),
        "tells": lambda _, worker: worker.tell(),
        "pongs": lambda _, worker: worker.take(),
        "performs": lambda case, worker: worker.perform(case.taken),
        "dies": lambda _, worker: worker.die(),
        "exits": lambda _, worker: worker.die(None),
        "is_robbed": lambda _, worker, *size: worker.rob(*map(int, size)),
        "prints": lambda _, worker, lines: worker.connector.childDataReceived(
            2, b"\n" * int(lines)
        ),
        # What the parent does with it.
        "pause": lambda case, name: case.find(name).link.pause(),
        "stop": lambda case, name: case.find(name).link.stop(),
        "cancel": lambda case: case.hops.dispatcher.cancel(case.running()),
    }
    facts: ClassVar[Deeds] = {
        "heard": lambda case: case.heard(),
        "news": lambda case: len(case.client.boxes()),
        "killed": lambda case: [
            f"w{n}" for n, worker in enumerate(case.hops.workers, 1) if worker.killed
        ],
        "workers": lambda case: len(case.hops.workers),  # ever
        "is": lambda _, worker: worker.link.state.name.lower(),
        "performed": lambda _, worker: worker.link.performed,
        "saw": lambda _, worker: len(worker.seen),
        "is_heard": lambda _, worker: "yes" if worker.process.pipes[FROM_WORKER].reads else "no",
        "may_print": lambda _, worker: "yes" if worker.process.pipes[2].reads else "no",
        "exits_logged": lambda case: [
            event["log_level"].name
            for event in case.hops.events
            if event.get("how") == "exited (status 0)"
        ],
    }

    def begin_anew(self) -> None:
        """Have them."""
        self.hops = Hops(self, TYPES)
        self.hops.settle()
        self.client = self.hops.connect()
        #: The box of the job that a worker has taken last.
        self.taken = b""

    def see_all_is_over(self) -> None:
        """End it."""
        self.hops.close()

    def find(self, name: str) -> HopWorker:
        """The worker of this name."""
        return self.hops.workers[int(name.removeprefix("w")) - 1]

    @property
    def worker(self) -> HopWorker:
        """The worker that was started last."""
        return self.hops.workers[-1]

    def running(self) -> Job:
        """The only job that runs."""
        (job,) = self.hops.dispatcher.state.assignments.running()
        return job

    def ask(self, name: str, word: str) -> None:
        """Ask for a job: its tag, perhaps "progress" or "chunks", and how many bytes of data."""
        tag, *rest = word.encode().split(b"/")
        box = [(boxes.ASK, tag), (boxes.COMMAND, b"Relay"), (b"data", b"of " + tag)]
        for about in rest:
            if about.isdigit():
                box += [(b"more.%d" % n, bytes(50_000)) for n in range(int(about) // 50_000)]
            else:
                box.append((b"_" + about, b"1"))
        self.client.send(box)

    def heard(self) -> list[str]:
        """The answers that the client was told since it was last asked: ``2/!CODE`` is an error."""
        heard = []
        for tag, pairs in self.told().items():
            self.assertIn(pairs.get(b"data", b"of " + tag), (b"of " + tag, b""))
            code = pairs.get(boxes.ERROR_CODE)
            heard.append((tag + (b"/!" + code if code else b"")).decode())
        return heard

    def told(self) -> dict[bytes, dict[bytes, bytes]]:
        """What the client was told since it was last asked, by tag, news aside."""
        told = [(box[0][1], dict(box)) for box in self.client.boxes()]
        return {tag: pairs for tag, pairs in told if boxes.COMMAND not in pairs}

    def see_lost(self, tag: str, why: str = "") -> None:
        """The client's only request ends because its worker was lost, for this."""
        self.hops.settle()
        ((told, pairs),) = self.told().items()
        self.assertEqual((told.decode(), pairs[boxes.ERROR_CODE]), (tag, b"WORKER_LOST"))
        self.assertIn(why, pairs[boxes.ERROR_DESCRIPTION].decode())

    def see_alarms_in(self, seconds: str, count: str) -> None:
        """So many alarms are set for then."""
        then = self.hops.clock.seconds() + float(seconds)
        alarms = [each for each in self.hops.clock.getDelayedCalls() if each.getTime() == then]
        self.assertEqual(len(alarms), int(count))

    def see_logged(self, text: str) -> None:
        """Once in the log there is this."""
        texts = [formatEvent(event) for event in self.hops.events]
        self.assertEqual(len([each for each in texts if text in each]), 1, texts)

    def do_takes(self, worker: HopWorker) -> int:
        """The worker takes its job out of the pipe; the job's id."""
        box = worker.pipe.next_job()
        assert box is not None
        self.taken = box
        return workerboxes.read_job(box)[0]

    def do_answers(self, worker: HopWorker, how: str = "") -> None:
        """The worker answers the job that it has taken, perhaps twice, or another, or is spoilt."""
        marks = workerboxes.NOT_REUSABLE if how == "spoilt" else 0
        job_id = workerboxes.read_job(self.taken)[0] + (how == "another")
        answer = workerboxes.answer_head(job_id, False, b"0 0 0", marks) + boxes.END
        worker.write(answer * (1 + (how == "twice")))
        worker.tell()

    def do_reports(self, worker: HopWorker, after: str = "0") -> None:
        """The worker tells the progress of its job after a while, if it lives."""
        self.hops.clock.advance(float(after))
        if not worker.killed:
            pairs = [(b"done", b"1"), (b"total", b"2"), (b"message", b"")]
            worker.write(workerboxes.report_head(self.running().id) + boxes.pack(pairs))
            worker.tell()

    def do_watch(self, seconds: str) -> None:
        """The supervisor looks at its workers for so long, and does nothing else."""
        for _ in range(int(float(seconds) / WATCH_INTERVAL) + 1):
            self.hops.clock.advance(WATCH_INTERVAL)
            self.worker.tell()

    def do_is_robbed_of_all(self, worker: HopWorker) -> None:
        """Something reads all that is written to the worker."""
        with contextlib.suppress(BlockingIOError):
            while worker.rob():
                worker.process.write_on()


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


GIVEN = {
    "each job that a worker has begun counts, prefetched or not": """
        c: j1-40, settle, heard j1-40, w1 performed 40
    """,
    "a worker that says so with its answer is given no other job": """
        c: 1 2, w1 takes, w1 answers spoilt, heard 1, w1 is stopping, w1 exits, settle, heard 2
        w1 saw 0
    """,
    "an answer to another job than it was given is garbage; none after that counts": """
        c: 1, w1 takes, w1 answers another, killed w1, w1 answers, heard
        lost 1 "an answer to job"
    """,
    "so is a second answer, though it comes with the first; the next job runs elsewhere": """
        c: 1 2, w1 takes, w1 answers twice, killed w1, settle, heard 1 2, w1 saw 0
    """,
    "a worker that was paused is heard again when its job has ended all the same": """
        c: 1, w1 takes, pause w1, w1 is_heard no, w1 performs, w1 tells, w1 is_heard yes, heard 1
    """,
    "when a worker is gone nobody means to signal it again": f"""
        c: 1, w1 takes, cancel, alarms_in {FIRST_PAUSE} 1, w1 dies, alarms_in {FIRST_PAUSE} 0
    """,
}
ROBBED = {
    # Something else than the worker reads its pipe, as a fork of an earlier job may.
    "a job that the worker never had ends as lost in seconds, and the next is answered": """
        c: 1, w1 is_robbed, watch 2, w1 pongs, watch 1, killed w1
        lost 1 "did not have a job that something else had read from its pipe"
        c: 2, settle, heard 2
    """,
    "so it is if the question whether the worker has it is read, too": f"""
        c: 1, w1 is_robbed, watch 2, w1 is_robbed, watch {PATIENCE}, killed w1, lost 1
    """,
    "so it is with a request that is larger than the pipe": f"""
        c: 1/{LARGE}, w1 is_robbed_of_all, watch 2, w1 pongs, watch 1, killed w1
    """,
    "a worker that is busy for long is left alone": """
        c: 1, w1 takes, watch 1000, killed, w1 answers, settle, heard 1, c: 2, settle, heard 2
        workers 1
    """,
    "one that answers a long job and then the question, at one stroke, gets the next job": """
        c: 1, w1 takes, watch 3, w1 performs, w1 pongs, w1 tells, c: 2, w1 works, w1 tells
        heard 1 2, workers 1
    """,
}
UNREAD = {
    "of a worker that dies before it has read its job, another gets that, of whatever size": f"""
        c: 1, w1 dies, settle, heard 1, c: 2/50000, w2 dies, settle, heard 2
        c: 3/{LARGE}, w3 dies, settle, heard 3, workers 4
    """,
    "one that is given a job when its last answer is read, and is gone, has not run it": """
        c: 1 2, w1 takes, w1 performs, w1 dies, settle, heard 1 2
    """,
    "nor has it where nothing can be taken out of its pipe": """
        no_scratch, w1 dies, settle, c: 1 2, w2 takes, w2 performs, w2 dies, settle, heard 1 2
    """,
    "one that has read a part of it has begun it, as far as anybody can know": f"""
        c: 1/{LARGE}, w1 is_robbed 100, w1 dies, lost 1
    """,
}
NEWS = {
    "news that nobody has asked for is garbage: no worker of dangad's sends any": """
        c: 1, w1 takes, w1 reports
        lost 1 "wrote garbage to its pipe (news that nobody has asked for)"
    """,
    "more progress than progress() sends ends the worker, and reaches no client": f"""
        c: 1/progress, w1 takes, {2 * REPORTS_AT_ONCE}x w1 reports, killed w1
        news {REPORTS_AT_ONCE}
    """,
    "as much as it sends never does, however long the job runs": f"""
        c: 1/progress, w1 takes, {3 * REPORTS_AT_ONCE}x w1 reports {2 / REPORTS_A_SECOND}, killed
    """,
}
PRINTING = {
    "a worker that prints more than is logged is read with rests, so that only it waits": f"""
        c: 1, w1 prints 1, w1 may_print yes, w1 prints 10000, w1 may_print no, wait {FLOOD_REST}
        w1 may_print yes, w1 prints 10000, w1 may_print no, wait {FLOOD_REST}, w1 may_print yes
    """,
    "if it dies meanwhile, nothing is left on the clock": f"""
        c: 1, w1 prints 10000, alarms_in {FLOOD_REST} 1, w1 dies, alarms_in {FLOOD_REST} 0
    """,
}
LEAVING = {
    "a worker that is told to exit has the time that it is promised, and is killed then": f"""
        stop w1, wait {STOP_GRACE - 0.1}, killed, wait 0.1
        w1 prints 3, wait {STACK_TIME}, killed w1, w1 dies
        logged "had not exited after 5 s and was killed"
    """,
    "if it exits by itself nothing is said of any kill": f"""
        stop w1, wait {STOP_GRACE - 0.1}, w1 exits, wait 10, killed
    """,
    "an exit with status 0 is a warning in the log if it loses a job, and otherwise none": """
        w1 exits, exits_logged info, settle, c: 1, w2 exits, exits_logged info warn
    """,
}


class StoryTests(LinkCase):
    """What is told in stories."""

    def test_stories(self) -> None:
        """They are true."""
        self.tell(GIVEN, ROBBED, UNREAD, NEWS, PRINTING, LEAVING)


class GivenTests(LinkCase):
    """What a worker was given, and has of it."""

    def test_interrupted(self) -> None:
        """A job is interrupted while it runs, though the answers before it are not read yet."""
        self.play("c: j1-40, 20x step")
        worker = self.worker
        running, following = self.hops.dispatcher.state.assignments.jobs[worker.link][:2]
        worker.work()  # the answer to the first is in the pipe
        self.assertEqual(self.do_takes(worker), following.id)  # it has begun the second
        self.hops.dispatcher.cancel(following)
        self.assertIn(commands.STOP_SIGNAL, worker.process.signals)
        self.assertIsNone(running.stopped_for)

    def test_full(self) -> None:
        """What its full pipe does not take it was not given, nor is it waited for."""
        self.play("c: 1")
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

    def test_robbed_of_some(self) -> None:
        """Of prefetched jobs that something else has read each is answered or lost, once."""
        self.play("c: j1-40, 20x step")
        self.assertGreater(self.hops.dispatcher.state.assignments.prefetched, 1)
        self.play("2x w1 is_robbed, settle")
        self.assertTrue(self.find("w1").dead)
        told = self.told()
        self.assertEqual(set(told), {b"j%d" % number for number in range(1, 41)})
        lost = [pairs for pairs in told.values() if boxes.ERROR_CODE in pairs]
        self.assertLessEqual(len(lost), 3)
        for pairs in lost:
            self.assertIn(b"something else had read", pairs[boxes.ERROR_DESCRIPTION])


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
            self.begin_anew()
            self.play("c: 1/progress/chunks")
            box = head(self.running().id) + boxes.pack(pairs)
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
