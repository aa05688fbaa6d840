from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import NoWorkers, QueueFull, ShuttingDown
from dangad.scheduler.chores import PART
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.endings import GRACE, KILL_AGAIN
from dangad.scheduler.record import END_STATES, Death, Job, JobState
from dangad.scheduler.retries import FIRST_RETRY, LONGEST_RETRY
from dangad.scheduler.state import LOGGED_ENDS
from dangad.wire import boxes
from dangad.wire.values import Priority
from tests.fakes import (
    FakeClient,
    FakeSupervisor,
    FakeWorker,
    catalogue,
    make_job,
)
from tests.unit.scheduler.whole import assert_whole

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

ECHO = catalogue("Echo")
MAX_QUEUED = 20


class DispatcherTestCase(SynchronousTestCase):
    """A dispatcher with a clock, clients, and a supervisor that sends nobody by itself."""

    def setUp(self) -> None:
        """Make the dispatcher and whom it talks to."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.dispatcher = Dispatcher(self.clock, MAX_QUEUED)
        self.supervisor = FakeSupervisor()
        self.dispatcher.supervised_by(self.supervisor)
        self.ann, self.bob = self.connect("ann"), self.connect("bob")

    def connect(self, name: str) -> FakeClient:
        """A client; whenever it is told of an outcome, the dispatcher's state is whole."""
        client = FakeClient(name)
        client.watch = lambda _: assert_whole(self.dispatcher)
        return client

    def tearDown(self) -> None:
        """See that the dispatcher's state is whole, and no alarm is left for what has ended."""
        assert_whole(self.dispatcher)
        if not self.dispatcher.waiting + self.dispatcher.running:
            self.dispatcher.state.quiet.flush()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def serve(self, **options: Any) -> None:
        """Have another dispatcher, with these options."""
        self.dispatcher = Dispatcher(self.clock, MAX_QUEUED, **options)
        self.dispatcher.supervised_by(self.supervisor)

    def submit(
        self,
        client: FakeClient,
        command: str = "Echo",
        priority: Priority = Priority.NORMAL,
        **options: Any,
    ) -> Job:
        """A job of `client`, submitted."""
        job = make_job(client, command, priority, **options)
        self.dispatcher.submit(job)
        return job

    def ready(self, performs: str = ECHO) -> FakeWorker:
        """A worker that has just said Hello."""
        worker = FakeWorker()
        worker.say_hello()
        self.dispatcher.worker_ready(worker, performs)
        return worker

    def answer(self, worker: FakeWorker, failed: bool = False, body: bytes = b"\0\0") -> Job:
        """Have `worker` answer its job, which is returned."""
        job = worker.finish()
        self.dispatcher.answers.job_finished(worker, failed, body, b"250000 2000")
        return job

    def die(self, worker: FakeWorker, how: str = "was killed by SIGKILL") -> None:
        """Have `worker` be gone."""
        worker.die()
        self.dispatcher.worker_gone(worker, Death(worker.killed or how))

    def report(self, worker: FakeWorker, parts: bool = False) -> None:
        """Have `worker` tell news of its job."""
        self.dispatcher.answers.job_reported(worker, b"news", parts)

    def cancel_all(self, jobs: list[Job]) -> None:
        """Cancel these jobs."""
        for job in jobs:
            self.dispatcher.cancel(job)

    def ended(self) -> dict[str, int]:
        """How many jobs came to which end, without those to which none came."""
        ended = self.dispatcher.counters.ended.items()
        return {state.value: count for state, count in ended if count}

    def leave(self, client: FakeClient) -> None:
        """Have `client` disconnect; if it is told anything afterwards, it raises."""
        client.gone = True
        self.dispatcher.client_gone(client)


class StartTests(DispatcherTestCase):
    def test_at_once_on_an_idle_worker(self) -> None:
        """A job starts at once if a worker is idle."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.assertIs(worker.job, job)
        self.assertIs(job.worker, worker)
        self.assertEqual((job.state, job.attempt), (JobState.RUNNING, 1))
        self.assertEqual((job.accepted_at, job.started_at), (1000.0, 1000.0))
        self.assertEqual((self.dispatcher.running, self.dispatcher.idle), (1, 0))
        self.assertEqual(self.supervisor.demands, [])

    def test_waits_for_a_worker(self) -> None:
        """Without an idle worker a job waits, workers are asked for, and the next gets it."""
        job = self.submit(self.ann)
        self.assertEqual((job.state, self.dispatcher.waiting), (JobState.QUEUED, 1))
        self.assertEqual(self.supervisor.demands, [1])
        self.clock.advance(2.5)
        self.assertIs(self.ready().job, job)
        self.assertEqual((job.accepted_at, job.started_at), (1000.0, 1002.5))

    def test_one_job_for_each_worker(self) -> None:
        """As many jobs run at once as there are workers, each on one of its own."""
        workers = [self.ready(), self.ready(), self.ready()]
        jobs = [self.submit(self.ann) for _ in range(5)]
        self.assertEqual({worker.job for worker in workers}, set(jobs[:3]))
        self.assertEqual((self.dispatcher.running, self.dispatcher.waiting), (3, 2))

    def test_most_recently_used_worker_first(self) -> None:
        """Of several idle workers, the one that was idle for the shortest time gets the job."""
        first, second, third = self.ready(), self.ready(), self.ready()
        self.submit(self.ann)
        self.submit(self.ann)
        self.assertEqual([bool(w.job) for w in (first, second, third)], [False, True, True])
        self.answer(third)
        self.answer(second)
        job = self.submit(self.ann)
        self.assertIs(second.job, job)

    def test_next_job_before_the_answer_is_told(self) -> None:
        """A worker that answers has its next job before the answer goes out: it never pauses."""
        worker = self.ready()
        self.submit(self.ann)
        second = self.submit(self.bob)
        seen: list[Any] = []
        self.ann.when_told = lambda _: seen.append(worker.job)
        self.answer(worker)
        self.assertEqual(seen, [second])

    def test_order_is_the_queues(self) -> None:
        """Waiting jobs start by priority, and in turns between clients."""
        worker = self.ready()
        self.submit(self.ann)
        low = self.submit(self.ann, priority=Priority.LOW)
        mine = [self.submit(self.ann) for _ in range(2)]
        theirs = self.submit(self.bob)
        high = self.submit(self.bob, priority=Priority.HIGH)
        for _ in range(6):
            self.answer(worker)
        self.assertEqual(worker.given[1:], [high, mine[0], theirs, mine[1], low])

    def test_no_client(self) -> None:
        """A job that nobody will be told about is a mistake."""
        with self.assertRaises(AssertionError):
            self.dispatcher.submit(make_job(None))

    def test_works_without_a_supervisor(self) -> None:
        """A dispatcher that has no supervisor lets jobs wait for whoever comes."""
        dispatcher = Dispatcher(self.clock, 5)
        dispatcher.submit(make_job(self.ann))
        self.assertEqual(dispatcher.waiting, 1)


class AnswerTests(DispatcherTestCase):
    def test_answer(self) -> None:
        """A worker's answer reaches the client of the job, byte for byte, and nobody else."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.answer(worker, body=b"\0\1kvalue\0\0")
        self.assertEqual(self.ann.answers, [(job, False, b"\0\1kvalue\0\0")])
        self.assertEqual(self.bob.answers, [])
        self.assertEqual((job.state, job.worker, job.client), (JobState.DONE, None, None))
        self.assertEqual(self.ended(), {"done": 1})
        self.assertEqual(self.dispatcher.idle, 1)

    def test_error_answer(self) -> None:
        """An error from the job is an answer like any other, and counts as failed."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.answer(worker, failed=True)
        self.assertEqual(self.ann.answers, [(job, True, b"\0\0")])
        self.assertEqual(self.ended(), {"failed": 1})

    def test_log_of_jobs(self) -> None:
        """With log_jobs each end is logged with the job's id, its wait and its runtime."""
        self.dispatcher.counters.log_jobs = True
        job = self.submit(self.ann)
        self.clock.advance(2)
        worker = self.ready()
        self.clock.advance(3)
        with capturedLogs() as events:
            self.answer(worker)
        text = f"job {job.id} Echo done worker={worker.pid} wait=2.000000 runtime=3.000000"
        text += " cpu=0.250000 peak_memory=2048000"
        self.assertEqual([formatEvent(event) for event in events], [text])

    def test_log_of_what_went_wrong(self) -> None:
        """With log_jobs the line of a job that ends without a result has its code and its text."""
        self.dispatcher.counters.log_jobs = True
        worker = self.ready()
        with capturedLogs() as events:
            self.submit(self.ann)
            error = boxes.error_pairs(b"NO_SUCH_WORD", "no\x1bsuch word " + 1000 * "x")
            self.answer(worker, failed=True, body=boxes.pack(error))
            self.submit(self.ann)
            self.die(worker)
        declared, lost = [formatEvent(event) for event in events]
        self.assertRegex(
            declared, r"Echo failed .* NO_SUCH_WORD: no\\x1bsuch word x{200,290}\.\.\.$"
        )
        self.assertRegex(
            lost, r"Echo lost .* WORKER_LOST: worker \d+ was killed by SIGKILL 0.0 s into"
        )

    def test_recent(self) -> None:
        """Of a job that has ended it is known who asked for it, and what went wrong."""
        worker = self.ready()
        for failed in (False, True):
            self.submit(self.ann)
            error = boxes.pack(boxes.error_pairs(b"BAD_RESPONSE", "no word"))
            self.answer(worker, failed, error if failed else b"\0\0")
        self.submit(self.bob)
        self.submit(self.bob)
        self.leave(self.bob)
        self.die(worker)
        ended = [(job.asker, job.ended_for) for job in self.dispatcher.counters.recent]
        self.assertEqual(ended[:2], [("ann", None), ("ann", ("BAD_RESPONSE", "no word"))])
        self.assertEqual([asker for asker, _ in ended[2:]], ["bob", "bob"])
        self.assertEqual({reason[0] for _, reason in ended[2:] if reason}, {"CANCELLED"})

    def test_log_of_very_many_failures(self) -> None:
        """Of very many jobs of one client that end badly a few are logged, and the rest counted."""
        worker = self.ready()
        with capturedLogs() as events:
            for _ in range(50 * LOGGED_ENDS):
                self.submit(self.ann)
                self.submit(self.bob, deadline=1e-9)
                self.clock.advance(0.001)
                self.answer(worker)
            self.submit(self.ann)
            self.die(worker)
            self.clock.advance(11)
        texts = [formatEvent(event) for event in events]
        self.assertEqual(len([text for text in texts if "timed out" in text]), LOGGED_ENDS + 1)
        self.assertIn(f"(and {49 * LOGGED_ENDS - 1} more of this kind", texts[-1])
        self.assertEqual(len([text for text in texts if "lost" in text]), 1)

    def test_log_of_failures_only(self) -> None:
        """Without log_jobs an answer is not logged, and a job that is lost is."""
        worker = self.ready()
        self.submit(self.ann)
        with capturedLogs() as events:
            self.answer(worker)
            self.assertEqual(events, [])
            job = self.submit(self.ann)
            self.die(worker)
        self.assertEqual([event["job"] for event in events], [job.id])

    def test_submit_from_deliver(self) -> None:
        """A client may submit its next job while it is told of the last one's answer."""
        worker = self.ready()
        self.submit(self.ann)
        waiting = self.submit(self.bob)
        more: list[Job] = []
        self.ann.when_told = lambda _: more.append(self.submit(self.ann))
        self.answer(worker)
        self.assertIs(worker.job, waiting)
        self.answer(worker)
        self.assertIs(worker.job, more[0])

    def test_submit_from_deliver_onto_the_idle_worker(self) -> None:
        """The worker whose answer is being told may get the job that is submitted meanwhile."""
        worker = self.ready()
        self.submit(self.ann)
        self.ann.when_told = lambda _: len(self.ann.answers) < 3 and self.submit(self.ann)
        for _ in range(3):
            self.answer(worker)
        self.assertEqual(len(worker.given), 3)


class RefusalTests(DispatcherTestCase):
    def refused(self, job: Job, text: str) -> None:
        """See that `job`, and no other, was turned away with this text."""
        self.assertEqual(self.ann.failure_of(job), text)
        self.assertEqual(self.dispatcher.counters.refused, 1)

    def test_queue_full(self) -> None:
        """A job that finds as many waiting as may is refused at once; those that wait stay."""
        for _ in range(MAX_QUEUED):
            self.submit(self.bob)
        self.refused(
            self.submit(self.ann), "QUEUE_FULL: 20 jobs wait already, which is --max-queued"
        )
        self.assertEqual(self.dispatcher.waiting, MAX_QUEUED)
        self.ready()
        self.submit(self.ann)
        self.assertEqual(len(self.ann.failures), 1)

    def test_queue_full_of_held_jobs(self) -> None:
        """The jobs of clients that do not read keep no idle worker from the others."""
        worker = self.ready()
        self.dispatcher.hold(self.bob)
        for _ in range(MAX_QUEUED):
            self.submit(self.bob)
        job = self.submit(self.ann)
        self.assertIs(worker.job, job)
        self.refused(
            self.submit(self.ann), "QUEUE_FULL: 20 jobs wait already, which is --max-queued"
        )

    def test_queue_full_for_a_held_client(self) -> None:
        """A client that does not read is refused when the queue is full, idle worker or not."""
        self.ready()
        self.dispatcher.hold(self.ann)
        for _ in range(MAX_QUEUED):
            self.submit(self.ann)
        self.assertIn("QUEUE_FULL", self.ann.failure_of(self.submit(self.ann)))

    def test_queue_full_of_jobs_that_stand_back(self) -> None:
        """Jobs that leave an idle worker to others wait, and no more of them may than of any."""
        self.dispatcher.admission.max_queued = 2
        self.ready()
        worker = self.ready()
        self.submit(self.ann)
        self.die(worker)  # Ann has cost it
        self.submit(self.bob)
        (busy,) = self.dispatcher.state.assignments.jobs
        assert isinstance(busy, FakeWorker)
        self.answer(busy)  # Bob may come again at once
        jobs = [self.submit(self.ann) for _ in range(3)]
        self.assertEqual((self.dispatcher.idle, self.dispatcher.waiting), (1, 2))
        self.assertIn("QUEUE_FULL", self.ann.failure_of(jobs[2]))

    def test_no_waiting_at_all(self) -> None:
        """With room for none to wait, a job runs if a worker is idle and else is refused."""
        self.dispatcher.admission.max_queued = 0
        worker = self.ready()
        self.assertIs(self.submit(self.ann), worker.job)
        self.assertIn("QUEUE_FULL", self.ann.failure_of(self.submit(self.ann)))

    def test_unhandled(self) -> None:
        """A command that no worker performs is refused with AMP's own error."""
        self.ready()
        job = self.submit(self.ann, "Nope")
        self.refused(job, "UNHANDLED: no worker performs Nope")
        self.assertEqual(self.dispatcher.idle, 1)

    def test_unhandled_after_all_workers_died(self) -> None:
        """What the workers perform stays known while there is none."""
        self.die(self.ready())
        self.refused(self.submit(self.ann, "Nope"), "UNHANDLED: no worker performs Nope")
        self.submit(self.ann)
        self.assertEqual(self.dispatcher.waiting, 1)

    def test_unhandled_before_the_first_hello(self) -> None:
        """Before any worker has told what it performs a job waits, and is refused if it must."""
        known, unknown = self.submit(self.ann), self.submit(self.ann, "Nope")
        self.assertEqual(self.ann.failures, [])
        worker = self.ready()
        self.assertIs(worker.job, known)
        self.assertEqual(self.ann.failure_of(unknown), "UNHANDLED: no worker performs Nope")
        self.assertEqual(self.ended(), {"failed": 1})

    def test_client_cancels_while_unknown_commands_are_refused(self) -> None:
        """A client that cancels one job when told of another's end is told of each once."""
        jobs = [self.submit(self.ann, "Nope") for _ in range(3)]
        self.ann.when_told = lambda _: self.cancel_all(jobs)
        self.ready()
        self.assertEqual({job for job, _ in self.ann.failures}, set(jobs))
        self.assertEqual(len(self.ann.failures), 3)
        self.assertEqual(sum(self.ended().values()), 3)

    def test_new_catalogue(self) -> None:
        """While workers perform different commands, each job goes to one that performs its own."""
        first = self.ready(catalogue("Echo", "Old"))
        running = self.submit(self.ann)
        old = self.submit(self.ann, "Old")
        second = self.ready(catalogue("Echo", "New"))
        self.assertIsNone(second.job)
        self.assertIs(self.submit(self.ann, "New"), second.job)
        new = self.submit(self.ann, "New")
        self.assertIs(self.answer(first), running)
        self.assertIs(first.job, old)
        self.answer(first)
        self.assertIsNone(first.job)
        self.answer(second)
        self.assertIs(second.job, new)

    def test_old_catalogue_ends(self) -> None:
        """With the last worker that performs a command go the jobs that wait for it."""
        first = self.ready(catalogue("Echo", "Old"))
        self.submit(self.ann)
        old = self.submit(self.ann, "Old")
        self.ready(catalogue("Echo", "New"))
        self.assertFalse(self.ann.failures)
        self.die(first)
        self.assertEqual(self.ann.failure_of(old), "UNHANDLED: no worker performs Old")
        self.refused(self.submit(self.ann, "Old"), "UNHANDLED: no worker performs Old")

    def test_limits_of_what_some_perform(self) -> None:
        """A limit holds for a command that some workers perform, too."""
        few = catalogue("Echo", Few={"max_running": 1})
        workers = [self.ready(ECHO), self.ready(few), self.ready(few)]
        jobs = [self.submit(self.ann, "Few") for _ in range(2)]
        self.assertIs(workers[2].job, jobs[0])
        self.assertIsNone(workers[1].job)
        self.answer(workers[2])
        self.assertEqual(jobs[1].attempt, 1)

    def test_no_workers(self) -> None:
        """When no worker can be had, what waits and what comes is refused, with the reason."""
        waiting = self.submit(self.ann)
        self.dispatcher.no_workers("worker 4711 exited (status 1)")
        text = "NO_WORKERS: no worker can be started: worker 4711 exited (status 1)"
        self.assertEqual(self.ann.failure_of(waiting), text)
        self.refused(self.submit(self.ann), text)
        self.assertEqual(self.dispatcher.waiting, 0)

    def test_no_workers_is_over_with_the_first_that_is_ready(self) -> None:
        """As soon as a worker is there, jobs are accepted again."""
        self.dispatcher.no_workers("no memory")
        worker = self.ready()
        self.assertIs(self.submit(self.ann), worker.job)

    def test_submit_from_a_refusal(self) -> None:
        """A client may try again while it is told of a refusal."""
        self.submit(self.ann)
        self.ann.when_told = lambda _: len(self.ann.failures) < 5 and self.submit(self.ann)
        self.dispatcher.no_workers("no memory")
        self.assertEqual(len(self.ann.failures), 5)
        self.assertEqual(self.dispatcher.waiting, 0)

    def test_cancel_while_no_workers_is_told(self) -> None:
        """A job that is cancelled while another is refused for want of workers ends once."""
        jobs = [self.submit(self.ann) for _ in range(3)]
        self.ann.when_told = lambda _: self.cancel_all(jobs)
        self.dispatcher.no_workers("no memory")
        self.assertEqual(len(self.ann.failures), 3)
        self.assertEqual(self.ended(), {"failed": 3})

    def test_shutting_down(self) -> None:
        """A server that drains takes no new job, whatever it has to do it with."""
        self.ready()
        self.dispatcher.drain(10)
        self.refused(
            self.submit(self.ann),
            "SHUTTING_DOWN: the server is stopping and takes no new jobs",
        )


class DeathTests(DispatcherTestCase):
    def test_busy(self) -> None:
        """A worker that dies in the middle of a job costs that job, and says how and when."""
        worker, other = self.ready(), self.ready()
        other_job, job = self.submit(self.bob), self.submit(self.ann)
        self.clock.advance(0.84)
        self.die(worker, "was killed by SIGSEGV")
        self.assertEqual(
            self.ann.failure_of(job),
            f"WORKER_LOST: worker {worker.pid} was killed by SIGSEGV 0.8 s into Echo",
        )
        self.assertEqual((job.state, job.worker), (JobState.LOST, None))
        self.assertIs(other.job, other_job)
        self.assertEqual(self.ended(), {"lost": 1})

    def test_idle(self) -> None:
        """A worker that dies idle costs no job, and gets none any more."""
        self.die(self.ready())
        self.submit(self.ann)
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.idle), (1, 0))

    def test_never_started_worker(self) -> None:
        """The death of a worker that never was ready concerns no job."""
        self.dispatcher.worker_gone(FakeWorker(), Death("exited (status 1)"))

    def test_submit_from_fail(self) -> None:
        """A client may submit the job again while it is told of its loss."""
        worker = self.ready()
        self.submit(self.ann)
        again: list[Job] = []
        self.ann.when_told = lambda _: again.append(self.submit(self.ann))
        self.die(worker)
        self.assertEqual(self.supervisor.demands, [1])
        self.assertIs(self.ready().job, again[0])


ENDINGS: dict[str, dict[str, str]] = {
    "waits": {
        "nothing": "done",
        "cancel": "CANCELLED: Echo was cancelled while it waited; it never ran",
        "cancel twice": "CANCELLED: Echo was cancelled while it waited; it never ran",
        "leave": "",
        "deadline": "DEADLINE_PASSED: Echo waited for its deadline, 5 s",
        "drain": "done",
        "give up": "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s",
        "no workers": "NO_WORKERS: no worker can be started: bad luck",
        "other code": "UNHANDLED: no worker performs Echo",
        "hold and give up": "SHUTTING_DOWN: the server stopped",
    },
    "runs": {
        "nothing": "done",
        "cancel": "CANCELLED: Echo was cancelled 1.0 s into its run",
        "cancel twice": "CANCELLED: Echo was cancelled 1.0 s into its run",
        "leave": "",
        "deadline": "DEADLINE_PASSED: Echo reached its deadline, 5 s, after 5.0 s of its run",
        "drain": "done",
        "give up": "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s",
        "no workers": "done",
        "other code": "WORKER_LOST: worker PID was killed by SIGKILL 1.0 s into Echo",
        "death": "done",
        "two deaths": "WORKER_LOST: worker PID was killed by SIGKILL 0.0 s into Echo",
        "hold and give up": "SHUTTING_DOWN: the server stopped",
    },
    "rests": {
        "nothing": "done",
        "cancel": "CANCELLED: Echo was cancelled while it waited; it had run once",
        "cancel twice": "CANCELLED: Echo was cancelled while it waited; it had run once",
        "leave": "",
        "deadline": "DEADLINE_PASSED: Echo waited for its deadline, 5 s; it had run once",
        "drain": "done",
        "give up": "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s",
        "no workers": "WORKER_LOST: worker PID was killed by SIGKILL 0.0 s into Echo; it is not "
        "tried again: no worker can be started: bad luck",
        "other code": "UNHANDLED: no worker performs Echo",
        "death": "WORKER_LOST: worker PID was killed by SIGKILL 0.0 s into Echo",
    },
    "stops": {
        "nothing": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "cancel": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "leave": "",
        "deadline": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "give up": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "no workers": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "other code": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "death": "CANCELLED: Echo was cancelled 0.0 s into its run",
    },
    "out of time": {
        "nothing": "TIMED_OUT: Echo ran for its time limit, 4.0 s, after it had waited 0.0 s",
        "cancel": "TIMED_OUT: Echo ran for its time limit, 4.0 s, after it had waited 0.0 s",
        "deadline": "TIMED_OUT: Echo ran for its time limit, 4.0 s",
        "death": "TIMED_OUT: Echo ran for its time limit, 4.0 s",
        "leave": "",
    },
}
"""What the client of a job is told, by where its job is, and what happens then."""


class EndTests(DispatcherTestCase):
    """A job of Ann's, wherever it may be, and something happens."""

    performs = catalogue(Echo={"retries": 1})

    def bring_to(self, situation: str, deadline: float | None) -> Job:
        """A job in this situation."""
        if situation != "waits":
            limited = catalogue(Echo={"retries": 1, "time_limit": 4.0})
            self.worker = self.ready(limited if situation == "out of time" else self.performs)
        job = self.submit(self.ann, deadline=deadline)
        if situation == "rests":
            self.pid = self.worker.pid
            self.die(self.worker)
        elif situation == "stops":
            self.dispatcher.cancel(job)
        elif situation == "out of time":
            self.clock.advance(4)
        return job

    def let(self, happen: str, job: Job) -> None:
        """Have it happen."""
        if "cancel" in happen:
            self.clock.advance(job.state is JobState.RUNNING and job.stopped_for is None)
            for _ in range(1 + ("twice" in happen)):
                self.dispatcher.cancel(job)
        elif happen == "deadline":
            self.clock.advance(5 - (self.clock.seconds() - job.accepted_at))
        elif happen == "other code":
            self.ready(catalogue("Other"))
            self.clock.advance(1)
            if job.worker is not None:
                self.die(self.worker)
        elif "death" in happen:
            for _ in range(1 + ("two" in happen)):
                self.begin(job)
                self.pid = self.worker.pid
                self.die(self.worker)
        elif happen in ("drain", "give up", "hold and give up"):
            if "hold" in happen:
                self.dispatcher.hold(self.ann)
            self.drained = self.dispatcher.drain(60 if happen == "drain" else 2.5)
            self.clock.advance(0 if happen == "drain" else 2.5)
        else:
            simple = {"leave": self.leave_ann, "no workers": self.have_no_workers}
            simple.get(happen, list)()

    def leave_ann(self) -> None:
        """Ann goes."""
        self.leave(self.ann)

    def have_no_workers(self) -> None:
        """No worker can be had."""
        self.dispatcher.no_workers("bad luck")

    def begin(self, job: Job) -> None:
        """Have a worker for the job, if it has none."""
        if job.worker is None:
            self.worker = self.ready(self.performs)
            self.clock.advance(LONGEST_RETRY if job.rest_alarm else 0)

    def end(self, job: Job) -> None:
        """Have workers do what they are told, until the job has ended."""
        for _ in range(4):
            if job.state in END_STATES:
                return
            self.begin(job)
            worker = self.worker
            if not (worker.interrupts or worker.killed):
                self.answer(worker)
                continue
            self.assertEqual(self.ann.failures, [])
            if worker.killed is None:
                self.assertIn(worker.interrupts, ([b"cancelled"], [b"time"]))
                self.clock.advance(GRACE)
            self.assertRegex(worker.killed or "", "^was killed: ")
            self.die(worker)

    def test_every_end(self) -> None:
        """A job ends for the first reason that there is, which its client is told once."""
        for situation, row in ENDINGS.items():
            for happens, told in row.items():
                self.serve()
                self.ann, self.pid = self.connect("ann"), 0
                job = self.bring_to(situation, 5.0 if happens == "deadline" else None)
                self.pid = self.pid or (self.worker.pid if situation != "waits" else 0)
                self.let(happens, job)
                self.end(job)
                where = f"{situation}, {happens}"
                if told == "done":
                    self.assertEqual(self.ann.answers, [(job, False, b"\0\0")], where)
                elif told:
                    text = told.replace("PID", str(self.pid))
                    self.assertEqual(self.ann.failure_of(job)[: len(text)], text, where)
                self.assertEqual(len(self.ann.told), bool(told), where)
                self.assertIn(job.state, END_STATES, where)
                self.assertEqual(sum(self.ended().values()), 1, where)
                if self.dispatcher.draining:
                    self.assertIsNone(self.successResultOf(self.drained))
                self.tearDown()


class CancelTests(DispatcherTestCase):
    def test_ended(self) -> None:
        """Cancelling a job that has ended does nothing, even to the next job of its worker."""
        worker = self.ready()
        first, second = self.submit(self.ann), self.submit(self.bob)
        self.answer(worker)
        self.dispatcher.cancel(first)
        self.assertEqual((worker.killed, worker.interrupts), (None, []))
        self.assertIs(worker.job, second)

    def test_cancel_from_deliver(self) -> None:
        """A client may cancel its other jobs while it is told of an answer."""
        worker = self.ready()
        self.submit(self.ann)
        second, third = self.submit(self.ann), self.submit(self.ann)
        self.ann.when_told = lambda _: self.cancel_all([second, third])
        self.answer(worker)
        self.assertEqual((worker.job, worker.interrupts), (second, [b"cancelled"]))
        self.assertIn("never ran", self.ann.failure_of(third))

    def test_never_submitted(self) -> None:
        """Cancelling a job that was refused does nothing."""
        self.dispatcher.drain(1)
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.assertEqual(len(self.ann.failures), 1)


class DisconnectTests(DispatcherTestCase):
    def test_waiting_jobs_never_run(self) -> None:
        """The waiting jobs of a client that disconnects are gone, and only its."""
        worker = self.ready()
        self.submit(self.bob)
        self.submit(self.ann)
        theirs = self.submit(self.bob)
        self.submit(self.ann, priority=Priority.LOW)
        self.leave(self.ann)
        self.answer(worker)
        self.assertIs(worker.job, theirs)
        self.assertEqual(self.ended(), {"done": 1, "cancelled": 2})

    def test_running_job_may_finish(self) -> None:
        """With on_disconnect="finish" the running job goes on, and its answer is dropped."""
        worker = self.ready(catalogue(Echo={"on_disconnect": "finish"}))
        self.submit(self.ann)
        self.leave(self.ann)
        self.assertEqual((worker.killed, worker.interrupts), (None, []))
        self.answer(worker)
        self.assertEqual(self.ended(), {"done": 1})

    def test_waiting_job_that_may_finish_never_starts(self) -> None:
        """With on_disconnect="finish" a job that only waits is gone all the same."""
        worker = self.ready(catalogue(Echo={"on_disconnect": "finish"}))
        self.submit(self.bob)
        self.submit(self.ann)
        self.leave(self.ann)
        self.answer(worker)
        self.assertIsNone(worker.job)

    def test_unknown_client(self) -> None:
        """A client that never submitted anything may go, too, and twice."""
        self.leave(self.ann)
        self.leave(self.ann)

    def test_on_hold(self) -> None:
        """A client that goes while on hold leaves nothing behind."""
        self.ready()
        self.dispatcher.hold(self.ann)
        self.submit(self.ann)
        self.leave(self.ann)
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.idle), (0, 1))

    def test_gone_while_others_are_told(self) -> None:
        """A client that goes while another is told of a loss is told nothing any more."""
        self.submit(self.bob)
        self.submit(self.ann)
        self.bob.when_told = lambda _: self.leave(self.ann)
        self.dispatcher.no_workers("no memory")
        self.assertEqual(self.ended(), {"failed": 2})


class HoldTests(DispatcherTestCase):
    def test_hold(self) -> None:
        """While a client is on hold none of its jobs starts, idle workers or not."""
        worker, other = self.ready(), self.ready()
        self.dispatcher.hold(self.ann)
        self.submit(self.ann)
        theirs = self.submit(self.bob)
        self.assertIs(other.job, theirs)
        self.assertIsNone(worker.job)

    def test_release(self) -> None:
        """When a client is released its jobs start at once, as far as workers are idle."""
        self.dispatcher.hold(self.ann)
        workers = [self.ready(), self.ready()]
        jobs = [self.submit(self.ann) for _ in range(3)]
        self.dispatcher.release(self.ann)
        self.assertEqual([worker.job for worker in reversed(workers)], jobs[:2])
        self.assertEqual(self.dispatcher.waiting, 1)
        self.assertEqual(self.supervisor.demands[-1], 1)

    def test_running_job_goes_on(self) -> None:
        """Being put on hold does not touch a job that runs, nor its answer."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.dispatcher.hold(self.ann)
        self.answer(worker)
        self.assertEqual(self.ann.answers, [(job, False, b"\0\0")])

    def test_hold_from_deliver(self) -> None:
        """A client that is put on hold while it takes an answer gets no further start."""
        worker = self.ready()
        for _ in range(3):
            self.submit(self.ann)
        self.ann.when_told = lambda _: self.dispatcher.hold(self.ann)
        self.answer(worker)
        self.answer(worker)
        self.assertIsNone(worker.job)
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.idle), (1, 1))


class DrainTests(DispatcherTestCase):
    def test_nothing_to_do(self) -> None:
        """Draining a server without jobs is done at once, and leaves no timer."""
        self.ready()
        self.assertIsNone(self.successResultOf(self.dispatcher.drain(10)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ends_after_the_last_answer_is_told(self) -> None:
        """When the drain ends, the last answer is with its client."""
        worker = self.ready()
        self.submit(self.ann)
        told = self.dispatcher.drain(10).addCallback(lambda _: len(self.ann.answers))
        self.answer(worker)
        self.assertEqual(self.successResultOf(told), 1)

    def test_gives_up_on_what_only_waits(self) -> None:
        """When the drain ends by giving up, every waiting job's client has been told."""
        jobs = [self.submit(self.ann) for _ in range(3)]
        told = self.dispatcher.drain(1).addCallback(lambda _: len(self.ann.failures))
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(told), len(jobs))

    def test_no_workers_while_draining(self) -> None:
        """If no worker can be had the drain ends when all that waited have been told."""
        jobs = [self.submit(self.ann) for _ in range(3)]
        told = self.dispatcher.drain(60).addCallback(lambda _: len(self.ann.failures))
        self.dispatcher.no_workers("no memory")
        self.assertEqual(self.successResultOf(told), len(jobs))

    def test_last_client_goes_while_draining(self) -> None:
        """If the last client goes the drain ends, with the books balanced."""
        for _ in range(3):
            self.submit(self.ann)
        ended = self.dispatcher.drain(60).addCallback(lambda _: self.ended())
        self.dispatcher.client_gone(self.ann)
        self.assertEqual(self.successResultOf(ended), {"cancelled": 3})

    def test_death_while_draining(self) -> None:
        """A death while draining costs its job; those that wait go to the replacement."""
        worker = self.ready()
        self.submit(self.ann)
        waiting = self.submit(self.ann)
        drained = self.dispatcher.drain(10)
        self.die(worker)
        replacement = self.ready()
        self.assertIs(replacement.job, waiting)
        self.answer(replacement)
        self.successResultOf(drained)

    def test_twice(self) -> None:
        """A second drain brings a new limit, and both end when the last job has."""
        worker = self.ready()
        self.submit(self.ann)
        first = self.dispatcher.drain(60)
        second = self.dispatcher.drain(1)
        self.clock.advance(1)
        self.assertIsNotNone(worker.killed)
        self.die(worker)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.dispatcher.drain(1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_second_drain_may_give_longer(self) -> None:
        """A second drain with a later limit takes the place of the first."""
        worker = self.ready()
        self.submit(self.ann)
        self.dispatcher.drain(1)
        self.dispatcher.drain(100)
        self.clock.advance(50)
        self.assertIsNone(worker.killed)
        self.answer(worker)

    def test_cancelled_wait(self) -> None:
        """Whoever no longer waits for the end of the drain does not disturb it."""
        worker = self.ready()
        self.submit(self.ann)
        drained = self.dispatcher.drain(60)
        drained.cancel()
        self.failureResultOf(drained)
        other = self.dispatcher.drain(60)
        self.answer(worker)
        self.successResultOf(other)


class DescribeTests(DispatcherTestCase):
    def test_at_once(self) -> None:
        """The catalogue is what the workers said, word for word."""
        self.ready()
        self.assertEqual(self.successResultOf(self.dispatcher.describe()), ECHO)

    def test_before_the_first_worker(self) -> None:
        """Whoever asks before a worker is there is told when one is, and one is asked for."""
        waiting = [self.dispatcher.describe(), self.dispatcher.describe()]
        self.assertEqual(self.supervisor.demands, [1, 1])
        self.assertNoResult(waiting[0])
        self.ready()
        self.assertEqual([self.successResultOf(asked) for asked in waiting], [ECHO, ECHO])

    def test_without_workers(self) -> None:
        """If no worker can be had, whoever asks is told so."""
        waiting = self.dispatcher.describe()
        self.dispatcher.no_workers("no memory")
        for asked in (waiting, self.dispatcher.describe()):
            failure = self.failureResultOf(asked, NoWorkers)
            self.assertIn("no memory", str(failure.value))

    def test_known_although_no_workers(self) -> None:
        """What the workers last said can be asked for when they are gone."""
        self.die(self.ready())
        self.dispatcher.no_workers("no memory")
        self.assertEqual(self.successResultOf(self.dispatcher.describe()), ECHO)

    def test_bounded(self) -> None:
        """No more may wait for the catalogue than may wait for a worker, besides the server."""
        waiting = [self.dispatcher.describe() for _ in range(MAX_QUEUED)]
        self.failureResultOf(self.dispatcher.describe(), QueueFull)
        waiting.append(self.dispatcher.describe(by_server=True))
        self.ready()
        for asked in waiting:
            self.successResultOf(asked)

    def test_shutting_down(self) -> None:
        """If the server stops before a worker was there, whoever asks is told so."""
        waiting = self.dispatcher.describe()
        self.dispatcher.drain(1)
        self.failureResultOf(waiting, ShuttingDown)
        self.failureResultOf(self.dispatcher.describe(), ShuttingDown)

    def test_cancelled_question(self) -> None:
        """Whoever no longer wants to know does not disturb the others."""
        first, second = self.dispatcher.describe(), self.dispatcher.describe()
        first.cancel()
        self.failureResultOf(first)
        self.ready()
        self.assertEqual(self.successResultOf(second), ECHO)

    def test_asked_again_while_told(self) -> None:
        """Whoever is told may ask again at once."""
        again: list[Deferred[str]] = []
        self.dispatcher.describe().addCallback(lambda _: again.append(self.dispatcher.describe()))
        self.ready()
        self.assertEqual(self.successResultOf(again[0]), ECHO)


class DeadlineTests(DispatcherTestCase):
    def test_zero(self) -> None:
        """A deadline of 0 is one that nothing can meet, idle worker or not."""
        worker = self.ready()
        job = self.submit(self.ann, deadline=0)
        self.assertEqual(
            self.ann.failure_of(job), "DEADLINE_PASSED: Echo came with a deadline of 0 s"
        )
        self.assertIsNone(worker.job)
        self.assertEqual(self.dispatcher.counters.refused, 1)

    def test_met(self) -> None:
        """A deadline that was met is forgotten."""
        worker = self.ready()
        self.submit(self.ann, deadline=5)
        self.clock.advance(4.9)
        self.answer(worker)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_starts_after_it(self) -> None:
        """A job does not start after its deadline even if the reactor is late with the alarm."""
        worker = self.ready()
        self.submit(self.bob)
        late = self.submit(self.ann, deadline=5)
        others = [self.submit(self.bob) for _ in range(2)]
        self.clock.rightNow += 5
        self.answer(worker)
        self.assertIn("DEADLINE_PASSED", self.ann.failure_of(late))
        self.assertIs(worker.job, others[0])
        self.clock.advance(0)
        self.assertEqual(len(self.ann.failures), 1)

    def test_told_to_the_job(self) -> None:
        """A job is told the seconds that it has: what is left of its deadline, or its limit."""
        limited = catalogue(Echo={"time_limit": 4.0})
        for deadline, wait, left in ((None, 3, 4), (5, 3, 2), (50, 3, 4)):
            job = self.submit(self.ann, deadline=deadline)
            self.clock.advance(wait)
            worker = self.ready(limited)
            self.assertEqual(job.seconds, left)
            self.answer(worker)
            self.dispatcher.dismiss_idle(self.clock.seconds())

    def test_resubmitted_from_its_end(self) -> None:
        """A client may submit again while it is told of a deadline."""
        self.submit(self.ann, deadline=1)
        self.ann.when_told = lambda _: (
            len(self.ann.failures) < 3 and self.submit(self.ann, deadline=1)
        )
        for _ in range(4):
            self.clock.advance(1)
        self.assertEqual(len(self.ann.failures), 3)

    def test_client_gone(self) -> None:
        """Deadlines of a client that has gone are gone with it."""
        worker = self.ready()
        self.submit(self.ann, deadline=5)
        self.submit(self.ann, deadline=5)
        self.leave(self.ann)
        self.die(worker)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimeLimitTests(DispatcherTestCase):
    limited = catalogue("Free", Echo={"time_limit": 10.0})

    def test_answers_within_the_grace(self) -> None:
        """What an interrupted job answers is not delivered: its worker goes, and then it ends."""
        worker = self.ready(self.limited)
        job = self.submit(self.ann)
        self.clock.advance(10)
        self.answer(worker)
        self.assertIn("was stopped: Echo ran for its time limit", worker.killed or "")
        self.assertEqual((self.ann.failures, self.dispatcher.idle), ([], 0))
        self.die(worker)
        self.assertIn("TIMED_OUT", self.ann.failure_of(job))
        self.assertEqual(self.ann.answers, [])

    def test_slow_death(self) -> None:
        """A worker that takes its time to die after a kill is nobody's for that time."""
        worker = self.ready(self.limited)
        self.submit(self.ann)
        waiting = self.submit(self.ann)
        self.clock.advance(10)
        self.clock.advance(GRACE)
        self.clock.advance(100)
        self.assertEqual((self.dispatcher.running, self.ann.failures), (1, []))
        self.die(worker)
        self.assertIs(self.ready(self.limited).job, waiting)
        self.cancel_all([waiting])

    def test_the_earlier_wins(self) -> None:
        """Of a time limit and a deadline, the one that comes first counts, and only it."""
        for deadline, code in ((7, "DEADLINE_PASSED"), (12, "TIMED_OUT"), (10.5, "TIMED_OUT")):
            worker = self.ready(self.limited)
            job = self.submit(self.ann, deadline=deadline)
            self.clock.advance(min(deadline, 10))
            self.assertEqual(worker.interrupts, [b"time"])
            self.clock.advance(1)
            self.clock.advance(1)
            self.die(worker)
            self.assertIn(code, self.ann.failure_of(job))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_both_at_once(self) -> None:
        """A time limit and a deadline at the same moment stop the job once."""
        worker = self.ready(self.limited)
        self.submit(self.ann, deadline=10)
        self.clock.advance(10)
        self.assertEqual(worker.interrupts, [b"time"])
        self.die(worker)
        self.assertEqual(len(self.ann.failures), 1)

    def test_met(self) -> None:
        """A limit that was met is forgotten, and does not hit the worker's next job."""
        worker = self.ready(self.limited)
        self.submit(self.ann)
        self.clock.advance(9)
        free = self.submit(self.ann, "Free")
        self.answer(worker)
        self.clock.advance(100)
        self.assertEqual((worker.job, worker.interrupts), (free, []))

    def test_each_attempt_has_its_own(self) -> None:
        """The time limit begins anew with each attempt."""
        policy = catalogue(Echo={"time_limit": 10.0, "retries": 1})
        worker = self.ready(policy)
        self.submit(self.ann)
        self.clock.advance(9)
        self.die(worker)
        worker = self.ready(policy)
        self.clock.advance(LONGEST_RETRY)
        self.assertEqual(len(worker.given), 1)
        self.clock.advance(9)
        self.assertEqual(worker.interrupts, [])
        self.clock.advance(1)
        self.assertEqual(worker.interrupts, [b"time"])
        self.die(worker)


class StopTests(DispatcherTestCase):
    def test_crossing_answer(self) -> None:
        """The answer that crosses with a cancel is dropped: cancelled is told, once, at the end."""
        worker = self.ready()
        job, waiting = self.submit(self.ann), self.submit(self.bob)
        self.dispatcher.cancel(job)
        self.answer(worker)
        self.assertEqual((worker.job, self.ann.failures, self.dispatcher.running), (None, [], 1))
        self.dispatcher.cancel(job)
        self.die(worker)
        self.assertIn("CANCELLED", self.ann.failure_of(job))
        self.assertEqual(self.ann.answers, [])
        self.assertIs(self.ready().job, waiting)

    def test_worker_that_was_paused(self) -> None:
        """A worker whose writing is held back goes on when it is stopped, so that it can end."""
        worker = self.ready()
        job = self.submit(self.ann, wants_chunks=True)
        self.dispatcher.hold(self.ann)
        self.assertTrue(worker.paused)
        self.dispatcher.cancel(job)
        self.assertFalse(worker.paused)
        self.dispatcher.hold(self.ann)
        self.assertFalse(worker.paused)
        self.answer(worker)
        self.die(worker)


class RetryTests(DispatcherTestCase):
    retried = catalogue("Once", Echo={"retries": 2})

    def test_again(self) -> None:
        """A job whose type allows it runs again with the same request, after its worker's death."""
        job = self.submit(self.ann, box=b"\0\1a\0\1b\0\0")
        workers = []
        for attempt in (1, 2, 3):
            workers.append(self.ready(self.retried))
            self.clock.advance(LONGEST_RETRY)
            self.assertEqual((workers[-1].job, job.attempt), (job, attempt))
            if attempt < 3:
                self.die(workers[-1])
                self.assertEqual((job.state, job.worker), (JobState.QUEUED, None))
                self.assertEqual((self.dispatcher.waiting, self.dispatcher.running), (1, 0))
        self.answer(workers[-1])
        self.assertEqual([worker.boxes for worker in workers], [[b"\0\1a\0\1b\0\0"]] * 3)
        self.assertEqual(job.box, b"")
        self.assertEqual(self.ended(), {"done": 1})
        self.assertEqual(len(self.ann.answers), 1)

    def test_keeps_no_request(self) -> None:
        """The request of a job that might have run again is let go when it is answered."""
        worker = self.ready(self.retried)
        self.submit(self.ann, box=b"\0\1a\0\1b\0\0")
        self.answer(worker)
        self.assertEqual([job.box for job in self.dispatcher.counters.recent], [b""])

    def test_only_declared(self) -> None:
        """A job of a type without retries runs once, whatever becomes of it."""
        worker = self.ready(self.retried)
        job = self.submit(self.ann, "Once")
        self.assertEqual(job.box, b"")
        self.die(worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_only_after_a_death(self) -> None:
        """An error that the job answers is its answer."""
        worker = self.ready(self.retried)
        self.submit(self.ann)
        self.answer(worker, failed=True)
        self.assertEqual(self.ended(), {"failed": 1})

    def test_at_the_tail(self) -> None:
        """A job that is tried again waits behind its client's other jobs."""
        worker = self.ready(self.retried)
        jobs = [self.submit(self.ann) for _ in range(3)]
        self.die(worker)
        self.clock.advance(LONGEST_RETRY)
        worker = self.ready(self.retried)
        for _ in range(3):
            self.answer(worker)
        self.assertEqual(worker.given, [jobs[1], jobs[2], jobs[0]])

    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**32))
    def test_delays(self, seed: int) -> None:
        """Each rest is twice the last, up to the longest, times between a half and one and a half.

        However often it is: no number of attempts is too many for the arithmetic.
        """
        clock = Clock()
        dispatcher = Dispatcher(clock, quarantine_after=0, chance=random.Random(seed))
        many = catalogue(Echo={"retries": 10**6})
        job = make_job(self.ann)
        dispatcher.submit(job)
        for attempt in range(1, 12):
            worker = FakeWorker()
            worker.say_hello()
            dispatcher.worker_ready(worker, many)
            worker.die()
            dispatcher.worker_gone(worker, Death("died"))
            (alarm,) = clock.getDelayedCalls()
            base = min(LONGEST_RETRY, FIRST_RETRY * 2 ** (attempt - 1))
            delay = alarm.getTime() - clock.seconds()
            self.assertTrue(0.5 * base - 1e-6 <= delay <= 1.5 * base + 1e-6, (attempt, delay))
            clock.advance(delay)
        job.attempt = 5000
        worker = FakeWorker()
        worker.say_hello()
        dispatcher.worker_ready(worker, many)
        worker.die()
        dispatcher.worker_gone(worker, Death("died"))
        dispatcher.cancel(job)

    def test_client_gone(self) -> None:
        """Nobody's job is not tried again, resting or running."""
        worker = self.ready(catalogue(Echo={"retries": 5, "on_disconnect": "finish"}))
        other = self.ready(catalogue(Echo={"retries": 5, "on_disconnect": "finish"}))
        third = self.ready(catalogue(Echo={"retries": 5, "on_disconnect": "finish"}))
        for _ in range(3):
            self.submit(self.ann)
        self.die(worker)
        self.die(other)
        self.assertEqual(self.dispatcher.waiting, 2)
        self.leave(self.ann)
        self.assertEqual(self.dispatcher.waiting, 0)
        self.die(third)
        self.assertEqual(self.ended(), {"cancelled": 2, "lost": 1})

    def test_other_clients_rest_on(self) -> None:
        """A client that goes takes only its own resting jobs with it."""
        workers = [self.ready(self.retried) for _ in range(3)]
        self.submit(self.ann)
        theirs = self.submit(self.bob)
        self.submit(self.ann)
        for worker in workers:
            self.die(worker)
        self.leave(self.ann)
        worker = self.ready(self.retried)
        self.clock.advance(LONGEST_RETRY)
        self.assertIs(worker.job, theirs)
        self.answer(worker)

    def test_on_hold(self) -> None:
        """A job of a client on hold rests, and then waits for the release."""
        worker = self.ready(self.retried)
        job = self.submit(self.ann)
        self.dispatcher.hold(self.ann)
        self.die(worker)
        worker = self.ready(self.retried)
        self.clock.advance(LONGEST_RETRY)
        self.assertIsNone(worker.job)
        self.dispatcher.release(self.ann)
        self.assertIs(worker.job, job)
        self.answer(worker)

    def test_resting_jobs_count(self) -> None:
        """Jobs that rest are among those that wait, for every bound."""
        self.dispatcher.admission.max_queued = 1
        worker = self.ready(self.retried)
        job = self.submit(self.ann, box=bytes(100))
        self.die(worker)
        self.assertIn("QUEUE_FULL", self.bob.failure_of(self.submit(self.bob)))
        self.dispatcher.admission.max_queued = 2
        self.dispatcher.admission.max_queued_bytes = 150
        self.assertIn("have 100 bytes", self.bob.failure_of(self.submit(self.bob, box=bytes(51))))
        self.submit(self.bob, box=bytes(50))
        self.cancel_all([job])

    def test_quarantine(self) -> None:
        """A job whose command comes into quarantine while it rests is lost, and so is told."""
        self.serve(quarantine_after=1)
        worker = self.ready(self.retried)
        job = self.submit(self.ann)
        self.die(worker)
        self.ready(self.retried)
        self.clock.advance(LONGEST_RETRY)
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_more_retries_after_a_reload(self) -> None:
        """A job whose request was dropped is not tried again, whatever new code would allow."""
        worker = self.ready(catalogue("Echo"))
        job = self.submit(self.ann)
        self.ready(self.retried)
        self.die(worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_fewer_retries_after_a_reload(self) -> None:
        """New code that allows fewer attempts is obeyed by the jobs that run already."""
        worker = self.ready(self.retried)
        job = self.submit(self.ann)
        self.ready(catalogue("Echo"))
        self.die(worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_not_after_a_part(self) -> None:
        """A job that has sent a part of its result is not tried again: it would come twice."""
        worker = self.ready(self.retried)
        job = self.submit(self.ann, wants_chunks=True)
        self.report(worker, parts=True)
        self.die(worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))

    def test_after_progress(self) -> None:
        """A job that has told how far it is may be tried again."""
        worker = self.ready(self.retried)
        job = self.submit(self.ann)
        self.report(worker)
        self.die(worker)
        self.assertEqual(job.state, JobState.QUEUED)
        self.dispatcher.cancel(job)


class BrokenTests(DispatcherTestCase):
    """The rules themselves raise in the middle of an event, as when memory runs out."""

    def setUp(self) -> None:
        """Have clients who do not look whether the state is whole: it is not."""
        super().setUp()
        self.ann.watch = self.bob.watch = None

    def tearDown(self) -> None:
        """The counters may be wrong from then on, but nothing else."""

    def break_once(self, whom: object, name: str) -> None:
        """Have a method raise when it is next called, and work again after that."""

        def raise_it(*_: object, **__: object) -> None:
            patch.restore()
            raise MemoryError

        patch = self.patch(whom, name, raise_it)

    def assert_ends(self, job: Job) -> None:
        """The job has ended, its client knows why, and the log has it once; the next one runs."""
        self.assertIn(
            f"JOB_FAILED: the server failed while it dealt with job {job.id} Echo",
            self.ann.failure_of(job),
        )
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        worker = self.ready()
        following = self.submit(self.ann)
        self.assertIs(worker.job, following)
        self.answer(worker)
        self.assertEqual(self.ended(), {"failed": 1, "done": 1})

    def test_queue(self) -> None:
        """A job that could not be queued ends."""
        self.break_once(self.dispatcher.state.queue, "push")
        self.assert_ends(self.submit(self.ann))

    def test_start(self) -> None:
        """A job that could not be started ends, when the worker that may have it is gone."""
        worker = self.ready()
        self.break_once(self.dispatcher.state.queue, "started")
        job = self.submit(self.ann)
        self.assertEqual(self.ann.failures, [])
        self.assertIsNotNone(worker.killed)
        self.die(worker)
        self.assert_ends(job)

    def test_turn(self) -> None:
        """So does a job that could not be started when its turn came."""
        job = self.submit(self.ann)
        self.break_once(self.dispatcher.admission, "obstacle")
        worker = self.ready()
        self.dispatcher.dismiss(worker)
        self.assert_ends(job)

    def test_answer(self) -> None:
        """An answer is told, though its worker could be given nothing after it."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.break_once(self.dispatcher.state.queue, "ended")
        self.answer(worker)
        self.assertEqual(self.ann.answers, [(job, False, b"\0\0")])
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.assertIsNotNone(worker.killed)

    def test_death(self) -> None:
        """A job whose loss could not be dealt with ends none the less."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.break_once(self.dispatcher.state.quarantine, "worker_lost")
        self.die(worker)
        self.assert_ends(job)

    def test_kill(self) -> None:
        """A worker that could not be killed is given nothing any more, and is killed again."""
        worker = self.ready()
        self.submit(self.ann, wants_chunks=True)
        following = self.submit(self.bob)
        for name in ("pause", "kill"):
            self.break_once(worker, name)
        self.dispatcher.hold(self.ann)
        self.answer(worker)
        self.assertEqual((worker.job, following.state), (None, JobState.QUEUED))
        self.assertEqual(self.supervisor.released, [worker])
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 2)
        self.clock.advance(KILL_AGAIN)
        self.assertIsNotNone(worker.killed)


class QuarantineTests(DispatcherTestCase):
    performs = catalogue("Echo", "Bad")

    def lose(self, times: int, command: str = "Bad") -> None:
        """Have so many workers die of this command."""
        for _ in range(times):
            worker = self.ready(self.performs)
            self.submit(self.bob, command)
            self.assertIsNotNone(worker.job)
            self.die(worker)

    def test_pardon(self) -> None:
        """A quarantine that is lifted is over at once; what is in none cannot be pardoned."""
        self.serve(quarantine_after=1)
        self.assertFalse(self.dispatcher.pardon(b"Echo"))
        self.submit(self.ann)
        self.die(self.ready())
        self.clock.advance(10)
        self.assertEqual(self.dispatcher.kept_away(), {b"Echo": 20.0})
        self.assertTrue(self.dispatcher.pardon(b"Echo"))
        self.assertEqual(self.dispatcher.kept_away(), {})
        worker = self.ready()
        job = self.submit(self.ann)
        self.assertIs(worker.job, job)

    def test_threshold(self) -> None:
        """The command that kills the fifth worker in a row is refused for a while; others run."""
        self.lose(4)
        ok = self.ready(self.performs)
        self.submit(self.bob, "Bad")
        self.die(ok)
        self.assertEqual(self.dispatcher.counters.refused, 0)
        job = self.submit(self.ann, "Bad")
        self.assertEqual(
            self.ann.failure_of(job),
            "NO_WORKERS: Bad has killed too many workers in a row, and is refused for another 30 s",
        )
        worker = self.ready(self.performs)
        self.assertIs(self.submit(self.ann).worker, worker)

    def test_is_over(self) -> None:
        """When the quarantine is over the command is tried again, and one loss sends it back."""
        self.lose(5)
        self.clock.advance(29.5)
        self.assertIn("for another 1 s", self.ann.failure_of(self.submit(self.ann, "Bad")))
        self.clock.advance(0.5)
        self.lose(1)
        self.assertIn("for another 30 s", self.ann.failure_of(self.submit(self.ann, "Bad")))

    def test_success(self) -> None:
        """A worker that survives the command clears its name."""
        self.lose(4)
        worker = self.ready(self.performs)
        self.submit(self.ann, "Bad")
        self.answer(worker, failed=True)
        self.dispatcher.dismiss_idle(self.clock.seconds())
        self.lose(4)
        self.assertEqual(self.dispatcher.counters.refused, 0)

    def test_success_lifts_it(self) -> None:
        """A job that was running when its command came into quarantine, and succeeds, ends it."""
        survivor = self.ready(self.performs)
        self.submit(self.ann, "Bad")
        self.lose(5)
        self.answer(survivor)
        self.assertIs(self.submit(self.ann, "Bad"), survivor.job)

    def test_off(self) -> None:
        """With a threshold of 0 nothing is ever refused for its losses."""
        self.serve(quarantine_after=0)
        self.lose(50)
        self.assertEqual(self.dispatcher.counters.refused, 0)

    def test_stopped_jobs_do_not_count(self) -> None:
        """Workers that were killed to stop a job are no losses."""
        for _ in range(10):
            worker = self.ready(self.performs)
            self.dispatcher.cancel(self.submit(self.ann, "Bad"))
            self.die(worker)
        self.assertIs(self.submit(self.ann, "Bad"), self.ready(self.performs).job)

    def test_waiting_jobs_end_when_their_turn_comes(self) -> None:
        """Waiting jobs of a quarantined command are ended, and cost no workers; others run."""
        bad = [self.submit(self.ann, "Bad") for _ in range(8)]
        good = self.submit(self.ann)
        for _ in range(5):
            self.die(self.ready(self.performs))
        worker = self.ready(self.performs)
        self.assertIs(worker.job, good)
        self.answer(worker)
        self.assertEqual(len(self.ann.failures), len(bad))
        texts = [self.ann.failure_of(job) for job in bad]
        self.assertEqual(
            [text.split(":")[0] for text in texts], ["WORKER_LOST"] * 5 + ["NO_WORKERS"] * 3
        )

    def many_waiting(self, good: int) -> list[Job]:
        """Fill the queue with more quarantined jobs than end at once, and good ones behind."""
        self.ann.watch = None  # a worker is idle then, and goes on in the next turn
        self.dispatcher.admission.max_queued = 1000
        waiting = [self.submit(self.ann, "Bad") for _ in range(3 * PART)]
        for _ in range(5):
            self.die(self.ready(self.performs))
        return waiting + [self.submit(self.ann) for _ in range(good)]

    def test_ends_in_batches(self) -> None:
        """However many of its jobs wait, only so many end in one turn of the reactor."""
        jobs = self.many_waiting(good=1)
        worker = self.ready(self.performs)
        before = -1
        while worker.job is None:
            self.assertLessEqual(len(self.ann.failures), before + PART + 6)
            before = len(self.ann.failures)
            self.clock.advance(0)
        self.assertIs(worker.job, jobs[-1])
        self.assertEqual(len(self.ann.failures), 3 * PART)

    def test_nobody_jumps_the_queue_between_batches(self) -> None:
        """A job that comes while a worker waits for the next batch waits for its turn, too."""
        jobs = self.many_waiting(good=2)
        worker = self.ready(self.performs)
        late = self.submit(self.ann)
        self.assertIsNone(worker.job)
        for _ in range(5):
            self.clock.advance(0)
        for _ in range(2):
            self.answer(worker)
        self.assertEqual(worker.given, [*jobs[-2:], late])

    def test_submit_from_the_end_of_a_batch(self) -> None:
        """A client may submit more while it is told that its job is refused for its command."""
        self.many_waiting(good=0)
        left = [PART]

        def submit_another(job: Job) -> None:
            left[0] -= 1
            if left[0] > 0:
                self.submit(self.ann)

        self.ann.when_told = submit_another
        worker = self.ready(self.performs)
        for _ in range(5):
            self.clock.advance(0)
        while worker.job is not None:
            self.answer(worker)
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.idle), (0, 1))

    def test_many_clients_submit_from_the_end_of_a_batch(self) -> None:
        """However many clients react to the end of their jobs at once, the stack stays flat."""
        clients = [FakeClient(str(number)) for number in range(500)]
        self.dispatcher.admission.max_queued = 10_000
        for client in clients:
            self.submit(client, "Bad")
        for _ in range(5):
            self.die(self.ready(self.performs))
        for client in clients:
            client.when_told = lambda job, client=client: self.submit(client)
        worker = self.ready(self.performs)
        for _ in range(6):
            self.clock.advance(0)
        self.assertIsNotNone(worker.job)
        self.assertEqual(self.dispatcher.waiting, 494)


class MaxRunningTests(DispatcherTestCase):
    two = catalogue("Echo", Few={"max_running": 2})

    def running(self) -> int:
        """How many jobs of the limited type run."""
        return sum(job.command == b"Few" for job in self.dispatcher.state.assignments.running())

    def test_limit(self) -> None:
        """No more jobs of a type run than may; the next starts when one has ended."""
        workers = [self.ready(self.two) for _ in range(4)]
        jobs = [self.submit(self.ann, "Few") for _ in range(4)]
        self.assertEqual([job.state.value for job in jobs], ["running"] * 2 + ["queued"] * 2)
        self.assertEqual((self.dispatcher.idle, self.dispatcher.waiting), (2, 2))
        self.answer(workers[3])
        self.assertEqual(jobs[2].state, JobState.RUNNING)
        self.assertEqual(self.running(), 2)

    def test_others_overtake(self) -> None:
        """While a type's jobs are kept back all others go on, of the same client, too."""
        workers = [self.ready(self.two) for _ in range(3)]
        few = [self.submit(self.ann, "Few") for _ in range(5)]
        other = self.submit(self.ann)
        self.assertEqual(other.state, JobState.RUNNING)
        self.assertEqual(self.submit(self.bob).state, JobState.QUEUED)
        self.answer(workers[0])
        self.assertEqual((self.running(), self.dispatcher.waiting), (2, 3))
        self.cancel_all(few[2:])

    def test_ends_of_every_kind_make_room(self) -> None:
        """A death, a cancel and a time limit make room for the next of the type."""
        policy = catalogue("Echo", Few={"max_running": 1, "time_limit": 1.0})
        jobs = [self.submit(self.ann, "Few") for _ in range(4)]
        spare = self.ready(policy)
        for end in (self.die, lambda w: self.dispatcher.cancel(w.job), lambda w: None):
            busy, other = spare, self.ready(policy)
            if busy.job is None:
                busy, other = other, busy
            end(busy)
            if not busy.dead:
                self.assertIsNone(other.job)
                self.clock.advance(1)
                self.clock.advance(GRACE)
                self.die(busy)
            self.assertIsNotNone(other.job)
            spare = other
        self.assertEqual(spare.job, jobs[3])
        self.answer(spare)

    def test_last_jobs_make_room(self) -> None:
        """The last job of a worker makes room that others use at once."""
        policy = catalogue("Echo", Few={"max_running": 1})
        first, second, third = (self.ready(policy) for _ in range(3))
        self.submit(self.ann, "Few")
        jobs = [self.submit(self.ann, "Few") for _ in range(2)]
        self.assertIsNone(self.dispatcher.call_back([third]))
        self.answer(third)
        self.assertEqual(jobs[0].state, JobState.RUNNING)
        second.finish()
        self.dispatcher.answers.job_finished(second, False, b"\0\0", reusable=False)
        self.assertEqual(self.supervisor.released, [third, second])
        self.assertIs(first.job, jobs[1])
        self.answer(first)

    def test_resting_jobs_make_room(self) -> None:
        """A job that rests before its next attempt does not count as running."""
        policy = catalogue(Few={"max_running": 1, "retries": 1})
        worker, other = self.ready(policy), self.ready(policy)
        first, second = self.submit(self.ann, "Few"), self.submit(self.ann, "Few")
        self.assertIsNone(worker.job)
        self.die(other)
        self.assertIs(worker.job, second)
        self.clock.advance(LONGEST_RETRY)
        other = self.ready(policy)
        self.assertIsNone(other.job)
        self.answer(worker)
        self.assertEqual(first.state, JobState.RUNNING)
        self.assertEqual(self.running(), 1)

    def test_turns_are_one_in_all_lanes(self) -> None:
        """A client with jobs of many types gets no more turns than one with jobs of one."""
        policy = catalogue("Echo", Few={"max_running": 2}, Rare={"max_running": 2})
        worker = self.ready(policy)
        self.submit(self.bob)
        for command in ("Few", "Rare", "Echo"):
            for _ in range(3):
                self.submit(self.ann, command)
        theirs = [self.submit(self.bob) for _ in range(4)]
        for _ in range(8):
            self.answer(worker)
        order = ["bob" if job in theirs else "ann" for job in worker.given[1:]]
        self.assertEqual(order, ["ann", "bob"] * 4)

    def test_catalogue_after_the_jobs(self) -> None:
        """A limit that becomes known when its jobs wait already holds for them."""
        jobs = [self.submit(self.ann, "Few") for _ in range(3)]
        other = self.submit(self.ann)
        workers = [self.ready(self.two) for _ in range(4)]
        self.assertEqual([job.state.value for job in jobs], ["running"] * 2 + ["queued"])
        self.assertEqual(other.state, JobState.RUNNING)
        self.assertIsNone(workers[3].job)

    def test_limit_comes_with_new_code(self) -> None:
        """A limit that new code brings counts the jobs that run already."""
        old = catalogue("Few")
        workers = [self.ready(old) for _ in range(3)]
        for _ in range(3):
            self.submit(self.ann, "Few")
        waiting = [self.submit(self.ann, "Few") for _ in range(2)]
        self.ready(self.two)
        self.assertEqual(self.running(), 3)
        self.answer(workers[0])
        self.assertEqual((self.running(), self.dispatcher.waiting), (2, 2))
        self.answer(workers[1])
        self.assertEqual((self.running(), self.dispatcher.waiting), (2, 1))
        self.cancel_all(waiting)

    def test_limit_changes_with_new_code(self) -> None:
        """A higher limit starts more at once, a lower one lets the surplus end, none frees all."""
        workers = [self.ready(self.two) for _ in range(5)]
        for _ in range(6):
            self.submit(self.ann, "Few")
        self.ready(catalogue(Few={"max_running": 4}))
        self.assertEqual(self.running(), 4)
        lower = self.ready(catalogue(Few={"max_running": 1}))
        for worker in workers:
            if worker.job is not None and self.running() > 1:
                self.answer(worker)
                self.assertEqual(self.dispatcher.waiting, 2)
        self.assertEqual(self.running(), 1)
        self.die(lower)
        self.ready(catalogue("Few"))
        self.assertEqual((self.running(), self.dispatcher.waiting), (3, 0))

    def test_death_of_last_old_worker(self) -> None:
        """The death of the last worker of the old code makes room for one job, not for two."""
        old, new = catalogue("Echo", Few={"max_running": 2}), catalogue(Few={"max_running": 2})
        last = self.ready(old)
        self.submit(self.ann, "Few")
        for _ in range(3):
            self.ready(new)
        jobs = [self.submit(self.ann, "Few") for _ in range(3)]
        self.assertEqual(self.running(), 2)
        self.die(last)
        self.assertEqual((self.running(), self.dispatcher.waiting), (2, 1))
        self.cancel_all(jobs)

    def test_client_of_kept_back_jobs_goes(self) -> None:
        """Jobs that are kept back go with their client."""
        worker = self.ready(catalogue(Few={"max_running": 1}))
        self.submit(self.bob, "Few")
        for _ in range(3):
            self.submit(self.ann, "Few")
        self.leave(self.ann)
        self.assertEqual(self.dispatcher.waiting, 0)
        self.answer(worker)


class ByteBoundTests(DispatcherTestCase):
    def setUp(self) -> None:
        """Have room for 1000 bytes to wait."""
        super().setUp()
        self.serve(max_queued_bytes=1000)

    def test_refused(self) -> None:
        """A job that would have the waiting requests exceed their bytes is refused at once."""
        first = self.submit(self.ann, box=bytes(600))
        job = self.submit(self.bob, box=bytes(401))
        self.assertEqual(
            self.bob.failure_of(job),
            "QUEUE_FULL: the jobs that wait have 600 bytes, and with this one would have more than "
            "--max-queued-bytes 1000",
        )
        self.submit(self.bob, box=bytes(400))
        self.dispatcher.cancel(first)
        self.submit(self.bob, box=bytes(600))
        self.assertEqual(len(self.bob.failures), 1)

    def test_every_end_frees_them(self) -> None:
        """The bytes of jobs that start, are cancelled, too late or lose their client are free."""
        for _ in range(3):
            self.submit(self.ann, box=bytes(300))
        worker = self.ready()
        self.dispatcher.cancel(next(iter(self.dispatcher.state.queue)))
        self.submit(self.bob, deadline=1, box=bytes(700))
        self.leave(self.ann)
        self.clock.advance(1)
        self.assertEqual(self.dispatcher.state.queue.size, 0)
        self.die(worker)

    def test_not_for_what_starts_at_once(self) -> None:
        """A job that an idle worker takes does not wait, whatever its size."""
        worker = self.ready()
        self.assertIs(self.submit(self.ann, box=bytes(5000)), worker.job)


class ReportTests(DispatcherTestCase):
    def test_to_its_client(self) -> None:
        """What a job reports reaches its client, in order, and nobody else."""
        worker, other = self.ready(), self.ready()
        theirs, mine = self.submit(self.bob), self.submit(self.ann)
        self.report(worker)
        self.report(worker, parts=True)
        self.report(other)
        self.assertEqual(self.ann.reports, [(mine, b"news", False), (mine, b"news", True)])
        self.assertEqual(self.bob.reports, [(theirs, b"news", False)])

    def test_not_after_a_stop(self) -> None:
        """Nothing is told of a job that is being stopped but its end."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.report(worker)
        self.assertEqual(self.ann.reports, [])
        self.die(worker)

    def test_not_to_a_client_that_has_gone(self) -> None:
        """What a job reports that may finish without its client goes nowhere."""
        worker = self.ready(catalogue(Echo={"on_disconnect": "finish"}))
        self.submit(self.ann)
        self.leave(self.ann)
        self.report(worker)
        self.answer(worker)

    def test_hold_from_report(self) -> None:
        """A client that has too much to read is put on hold while it is told, and the job waits."""
        worker = self.ready()
        self.submit(self.ann, wants_chunks=True)
        self.ann.when_reported = lambda _: self.dispatcher.hold(self.ann)
        self.report(worker, parts=True)
        self.assertTrue(worker.paused)
        self.dispatcher.release(self.ann)
        self.assertFalse(worker.paused)
        self.answer(worker)

    def test_hold_pauses_only_jobs_with_parts(self) -> None:
        """Only the workers of the held client's jobs that send parts of their results wait."""
        workers = [self.ready() for _ in range(3)]
        self.submit(self.bob, wants_chunks=True)
        self.submit(self.ann)
        self.submit(self.ann, wants_chunks=True)
        self.dispatcher.hold(self.ann)
        self.assertEqual([worker.paused for worker in workers], [True, False, False])
        self.dispatcher.release(self.bob)
        self.assertTrue(workers[0].paused)

    def test_client_gone_while_on_hold(self) -> None:
        """A job that waits for a client to read goes on, to be stopped or to finish, without it."""
        worker = self.ready(catalogue("Stop", Finish={"on_disconnect": "finish"}))
        self.submit(self.ann, "Finish", wants_chunks=True)
        other = self.ready(catalogue("Stop", Finish={"on_disconnect": "finish"}))
        self.submit(self.ann, "Stop", wants_chunks=True)
        self.dispatcher.hold(self.ann)
        self.leave(self.ann)
        self.assertEqual([worker.paused, other.paused], [False, False])
        self.assertEqual([worker.interrupts, other.interrupts], [[], [b"cancelled"]])
        self.answer(worker)
        self.die(other)

    def test_time_limit_of_a_paused_job(self) -> None:
        """A job that waits for its client to read has its time limit all the same."""
        worker = self.ready(catalogue(Echo={"time_limit": 5.0}))
        job = self.submit(self.ann, wants_chunks=True)
        self.dispatcher.hold(self.ann)
        self.clock.advance(5)
        self.assertEqual((worker.paused, worker.interrupts), (False, [b"time"]))
        self.answer(worker)
        self.die(worker)
        self.assertIn("TIMED_OUT", self.ann.failure_of(job))


class DismissTests(DispatcherTestCase):
    def test_longest_idle_first(self) -> None:
        """The worker that has been idle for the longest time is let go first."""
        first, second = self.ready(), self.ready()
        self.clock.advance(10)
        self.ready()
        self.assertIs(self.dispatcher.dismiss_idle(1000), first)
        self.assertIs(self.dispatcher.dismiss_idle(1000), second)
        self.assertIsNone(self.dispatcher.dismiss_idle(1000))
        self.assertEqual(self.dispatcher.idle, 1)

    def test_gets_no_job(self) -> None:
        """A worker that was let go gets no job any more, and its end is nobody's loss."""
        worker = self.ready()
        self.dispatcher.dismiss_idle(2000)
        self.submit(self.ann)
        self.assertIsNone(worker.job)
        self.die(worker)
        self.assertEqual(self.dispatcher.waiting, 1)
