from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dangad.dispatcher import Dispatcher
from dangad.errors import NoWorkers, QueueFull, ShuttingDown
from dangad.interfaces import IClient, IHatchery, IWorker, IWorkforce
from dangad.jobrecord import Job, JobState, Priority
from dangad.workforce import Workforce
from tests.fakes import (
    FakeClient,
    FakeHatchery,
    FakeWorker,
    FakeWorkforce,
    catalogue,
    make_job,
)

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

ECHO = catalogue("Echo")
MAX_QUEUED = 20


class DispatcherTestCase(SynchronousTestCase):
    """A dispatcher with a clock, clients, and a workforce that sends nobody by itself."""

    def setUp(self) -> None:
        """Make the dispatcher and whom it talks to."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.dispatcher = Dispatcher(self.clock, MAX_QUEUED)
        self.workforce = FakeWorkforce()
        self.dispatcher.staffed_by(self.workforce)
        self.ann, self.bob = FakeClient("ann"), FakeClient("bob")

    def tearDown(self) -> None:
        """See that the books balance, whatever was done."""
        tally = self.dispatcher.tally
        self.assertEqual(
            tally.accepted,
            sum(tally.ended.values()) + self.dispatcher.waiting + self.dispatcher.running,
        )

    def submit(
        self, client: FakeClient, command: str = "Echo", priority: Priority = Priority.NORMAL
    ) -> Job:
        """A job of `client`, submitted."""
        job = make_job(client, command, priority)
        self.dispatcher.submit(job)
        return job

    def ready(self, performs: str = ECHO) -> FakeWorker:
        """A worker that has just said Hello."""
        worker = FakeWorker()
        worker.booted = True
        self.dispatcher.worker_ready(worker, performs)
        return worker

    def answer(self, worker: FakeWorker, failed: bool = False, body: bytes = b"\0\0") -> Job:
        """Have `worker` answer its job, which is returned."""
        job = worker.finish()
        self.dispatcher.job_finished(worker, failed, body)
        return job

    def die(self, worker: FakeWorker, how: str = "was killed by SIGKILL") -> None:
        """Have `worker` be gone."""
        worker.die()
        self.dispatcher.worker_gone(worker, worker.killed or how)

    def cancel_all(self, jobs: list[Job]) -> None:
        """Cancel these jobs."""
        for job in jobs:
            self.dispatcher.cancel(job)

    def ended(self) -> dict[str, int]:
        """How many jobs came to which end, without those to which none came."""
        ended = self.dispatcher.tally.ended.items()
        return {state.value: count for state, count in ended if count}


class FakesTests(DispatcherTestCase):
    def test_fakes_keep_the_interfaces(self) -> None:
        """The stand-ins of these tests have all that the interfaces promise."""
        workforce = Workforce(self.clock, self.dispatcher, 1, 1)
        verifyObject(IClient, self.ann)
        verifyObject(IWorker, FakeWorker())
        verifyObject(IWorkforce, self.workforce)
        verifyObject(IWorkforce, workforce)
        verifyObject(IHatchery, FakeHatchery(workforce, self.dispatcher))

    def test_fakes_refuse_an_illegal_order(self) -> None:
        """A worker that is given a job while busy, before its Hello or after death says so."""
        worker = FakeWorker()
        with self.assertRaises(AssertionError):
            worker.perform(make_job(self.ann))
        worker.booted = True
        worker.perform(make_job(self.ann))
        with self.assertRaises(AssertionError):
            worker.perform(make_job(self.ann))
        worker.die()
        with self.assertRaises(AssertionError):
            worker.perform(make_job(self.ann))
        with self.assertRaises(AssertionError):
            worker.kill("again")


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
        self.assertEqual(self.workforce.demands, [])

    def test_waits_for_a_worker(self) -> None:
        """Without an idle worker a job waits, workers are asked for, and the next gets it."""
        job = self.submit(self.ann)
        self.assertEqual((job.state, self.dispatcher.waiting), (JobState.QUEUED, 1))
        self.assertEqual(self.workforce.demands, [1])
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
        self.assertEqual(worker.performed[1:], [high, mine[0], theirs, mine[1], low])

    def test_no_client(self) -> None:
        """A job that nobody will be told about is a mistake."""
        with self.assertRaises(ValueError):
            self.dispatcher.submit(make_job(None))

    def test_works_without_a_workforce(self) -> None:
        """A dispatcher that no workforce staffs lets jobs wait for whoever comes."""
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
        self.dispatcher.log_jobs = True
        job = self.submit(self.ann)
        self.clock.advance(2)
        worker = self.ready()
        self.clock.advance(3)
        with capturedLogs() as events:
            self.answer(worker)
        text = f"job {job.id} Echo done worker={worker.pid} wait=2.000000 runtime=3.000000"
        self.assertEqual([formatEvent(event) for event in events], [text])

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
        self.assertEqual(len(worker.performed), 3)


class RefusalTests(DispatcherTestCase):
    def refused(self, job: Job, text: str) -> None:
        """See that `job`, and no other, was turned away with this text."""
        self.assertEqual(self.ann.failure_of(job), text)
        self.assertEqual(self.dispatcher.tally.refused, 1)

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

    def test_no_waiting_at_all(self) -> None:
        """With room for none to wait, a job runs if a worker is idle and else is refused."""
        self.dispatcher.max_queued = 0
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
        """A worker that performs something else makes its catalogue the one that counts."""
        first = self.ready(catalogue("Echo", "Old"))
        self.submit(self.ann)
        old = self.submit(self.ann, "Old")
        second = self.ready(catalogue("Echo", "New"))
        self.assertEqual(self.ann.failure_of(old), "UNHANDLED: no worker performs Old")
        self.assertIs(self.submit(self.ann, "New"), second.job)
        self.answer(first)

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
        self.assertEqual(self.ended(), {"failed": 1, "cancelled": 2})

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

    def test_waiting_jobs_are_not_touched(self) -> None:
        """A death leaves what waits to the worker that comes next."""
        worker = self.ready()
        self.submit(self.ann)
        waiting = self.submit(self.ann)
        self.die(worker)
        self.assertIs(self.ready().job, waiting)

    def test_never_started_worker(self) -> None:
        """The death of a worker that never was ready concerns no job."""
        self.dispatcher.worker_gone(FakeWorker(), "exited (status 1)")

    def test_submit_from_fail(self) -> None:
        """A client may submit the job again while it is told of its loss."""
        worker = self.ready()
        self.submit(self.ann)
        again: list[Job] = []
        self.ann.when_told = lambda _: again.append(self.submit(self.ann))
        self.die(worker)
        self.assertEqual(self.workforce.demands, [1])
        self.assertIs(self.ready().job, again[0])


class CancelTests(DispatcherTestCase):
    def test_queued(self) -> None:
        """A cancelled job that waits never runs."""
        worker = self.ready()
        self.submit(self.ann)
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.assertEqual(
            self.ann.failure_of(job), "CANCELLED: Echo was cancelled while it waited; it never ran"
        )
        self.answer(worker)
        self.assertIsNone(worker.job)
        self.assertEqual(job.attempt, 0)

    def test_running(self) -> None:
        """A cancelled job that runs ends when its worker is dead, and not before."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.clock.advance(3)
        self.dispatcher.cancel(job)
        text = "Echo was cancelled 3.0 s into its run"
        self.assertEqual((worker.killed, self.ann.failures), (text, []))
        self.assertEqual(self.dispatcher.running, 1)
        self.clock.advance(1)
        self.die(worker)
        self.assertEqual(self.ann.failure_of(job), f"CANCELLED: {text}")
        self.assertEqual(self.ended(), {"cancelled": 1})

    def test_twice(self) -> None:
        """Cancelling a job twice, waiting or running, is the same as once."""
        worker = self.ready()
        running, waiting = self.submit(self.ann), self.submit(self.ann)
        for _ in range(2):
            self.dispatcher.cancel(waiting)
            self.dispatcher.cancel(running)
            self.clock.advance(1)
        self.die(worker)
        self.dispatcher.cancel(running)
        self.assertEqual(len(self.ann.failures), 2)
        self.assertIn("0.0 s into", self.ann.failure_of(running))

    def test_ended(self) -> None:
        """Cancelling a job that has ended does nothing, even to the next job of its worker."""
        worker = self.ready()
        first, second = self.submit(self.ann), self.submit(self.bob)
        self.answer(worker)
        self.dispatcher.cancel(first)
        self.assertIsNone(worker.killed)
        self.assertIs(worker.job, second)

    def test_cancel_from_deliver(self) -> None:
        """A client may cancel its other jobs while it is told of an answer."""
        worker = self.ready()
        self.submit(self.ann)
        second, third = self.submit(self.ann), self.submit(self.ann)
        self.ann.when_told = lambda _: self.cancel_all([second, third])
        self.answer(worker)
        self.assertIn("0.0 s into", worker.killed or "")
        self.assertIn("never ran", self.ann.failure_of(third))

    def test_never_submitted(self) -> None:
        """Cancelling a job that was refused does nothing."""
        self.dispatcher.drain(1)
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.assertEqual(len(self.ann.failures), 1)


class DisconnectTests(DispatcherTestCase):
    def leave(self, client: FakeClient) -> None:
        """Have `client` disconnect; if it is told anything afterwards, it raises."""
        client.gone = True
        self.dispatcher.client_gone(client)

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

    def test_running_job_is_stopped(self) -> None:
        """The running job of a client that disconnects is stopped, and nobody is told."""
        worker = self.ready()
        self.submit(self.ann)
        self.leave(self.ann)
        self.assertIn("cancelled", worker.killed or "")
        self.die(worker)
        self.assertEqual(self.ended(), {"cancelled": 1})

    def test_running_job_may_finish(self) -> None:
        """With on_disconnect="finish" the running job goes on, and its answer is dropped."""
        worker = self.ready(catalogue(Echo={"on_disconnect": "finish"}))
        self.submit(self.ann)
        self.leave(self.ann)
        self.assertIsNone(worker.killed)
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

    def test_after_cancel(self) -> None:
        """A client may go while its cancelled job is being stopped."""
        worker = self.ready(catalogue(Echo={"on_disconnect": "finish"}))
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.leave(self.ann)
        self.die(worker)
        self.assertEqual(self.ended(), {"cancelled": 1})

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
        self.assertEqual(self.ended(), {"failed": 1, "cancelled": 1})


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
        self.assertEqual(self.workforce.demands[-1], 1)

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

    def test_finishes_what_was_accepted(self) -> None:
        """What runs and what waits is done and answered before the drain ends."""
        worker = self.ready()
        jobs = [self.submit(self.ann) for _ in range(3)]
        drained = self.dispatcher.drain(10)
        for _ in jobs:
            self.assertNoResult(drained)
            self.answer(worker)
        self.successResultOf(drained)
        self.assertEqual([job for job, _, _ in self.ann.answers], jobs)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ends_after_the_last_answer_is_told(self) -> None:
        """When the drain ends, the last answer is with its client."""
        worker = self.ready()
        self.submit(self.ann)
        told = self.dispatcher.drain(10).addCallback(lambda _: len(self.ann.answers))
        self.answer(worker)
        self.assertEqual(self.successResultOf(told), 1)

    def test_gives_up(self) -> None:
        """After its limit what waits fails and what runs is killed; both are told why."""
        worker = self.ready()
        running, waiting = self.submit(self.ann), self.submit(self.bob)
        drained = self.dispatcher.drain(2.5)
        self.clock.advance(2.5)
        text = "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s"
        self.assertEqual(self.bob.failure_of(waiting), text)
        self.assertEqual(self.ann.failures, [])
        self.assertIn("server stopped", worker.killed or "")
        self.assertNoResult(drained)
        self.die(worker)
        self.assertEqual(self.ann.failure_of(running), text)
        self.successResultOf(drained)

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

    def test_cancelled_job_stays_cancelled(self) -> None:
        """A job that was being cancelled when the drain gave up has been cancelled."""
        worker = self.ready()
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.dispatcher.drain(1)
        self.clock.advance(1)
        self.die(worker)
        self.assertIn("CANCELLED", self.ann.failure_of(job))

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

    def test_held_jobs(self) -> None:
        """The jobs of a client that does not read are given up with the rest at the limit."""
        self.ready()
        self.dispatcher.hold(self.ann)
        job = self.submit(self.ann)
        drained = self.dispatcher.drain(5)
        self.clock.advance(5)
        self.assertIn("SHUTTING_DOWN", self.ann.failure_of(job))
        self.successResultOf(drained)

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
        self.assertEqual(self.workforce.demands, [1, 1])
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
        """No more may wait for the catalogue than may wait for a worker."""
        waiting = [self.dispatcher.describe() for _ in range(MAX_QUEUED)]
        self.failureResultOf(self.dispatcher.describe(), QueueFull)
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
