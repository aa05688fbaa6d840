"""What the scheduler's interfaces promise, asked of the stand-ins and of the real objects.

Each interface has a class of promises, which knows no implementation, and one test case for
each implementation, which says how to bring about what the promises speak of.
"""

from __future__ import annotations

import errno
import itertools
import os
import resource
import select
import signal
import tempfile
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as _reactor
from twisted.internet import task
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from dangad.errors import Cancelled, DangadError, QueueFull, WorkerLost
from dangad.pool.guardian import Guardian
from dangad.pool.launch import WorkerSettings
from dangad.pool.processes import FROM_WORKER, TO_WORKER, WorkerPool
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.interfaces import IClient, IProcess, ISpawner, ISupervisor
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits, WorkerState
from dangad.wire import boxes, commands
from tests.fakes import (
    FakeClient,
    FakeSpawner,
    FakeSupervisor,
    catalogue,
    client_factory,
    make_job,
)
from tests.oddjobs import Endless, Odd, Spoil, Wait
from tests.realserver import PATIENCE, alive, is_frozen, until
from tests.unit.server.test_server import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dangad.scheduler.record import Death, Job

    AsyncPromises = TestCase
    Promises = SynchronousTestCase
else:
    AsyncPromises = Promises = object

reactor: Any = _reactor

News = tuple[Any, ...]


def noted(word: str) -> Callable[..., None]:
    """A method that notes that it was called, and with what."""

    def note(self: RecordingDispatcher, *arguments: Any) -> None:
        self.told.append((word, *arguments))

    return note


class RecordingDispatcher:
    """Stands in for the dispatcher, or for it and the supervisor: notes what it is told, in order.

    :ivar told: what it was told of workers and jobs, by the name of the method.
    :ivar prefetched: jobs that its one worker has prefetched; it says to begin in this order.
    :ivar not_reusable: the workers that were said to be not reusable.
    :ivar deaths: of workers, in order; `reclaimed` is what was reclaimed after the last.
    :ivar when_finished: called when it has been told of the end of a job.
    """

    max_workers = 2
    idle = waiting = 0
    recycle_limits = RecycleLimits()

    def __init__(self) -> None:
        self.told: list[News] = []
        self.prefetched: deque[Job] = deque()
        self.not_reusable: list[Any] = []
        self.deaths: list[Death] = []
        self.reclaimed: list[int] = []
        self.when_finished: Callable[[], object] | None = None

    def job_of(self, _: Any) -> None:
        """See :meth:`.Dispatcher.job_of`: it knows of none."""

    @property
    def answers(self) -> RecordingDispatcher:
        """Who is told of answers."""
        return self

    @property
    def records(self) -> set[Any]:
        """The workers of whose start it was told, and not of their end."""
        started = {news[1] for news in self.told if news[0] == "worker_started"}
        return started - {news[1] for news in self.told if news[0] == "worker_exited"}

    def worker_ready(self, worker: Any, catalogue: str) -> None:
        """Note it."""
        self.told.append(("worker_ready", worker))

    worker_started = noted("worker_started")
    worker_booted = noted("worker_booted")
    no_workers = noted("no_workers")

    def job_reported(self, worker: Any, body: bytes, parts: bool) -> None:
        """Note it."""
        self.told.append(("job_reported", worker, parts))

    def job_finished(
        self,
        worker: Any,
        failed: bool,
        body: bytes,
        usage: bytes,
        *,
        reusable: bool,
        printed: bool = False,
    ) -> None:
        """Note it; the worker has begun the next job that it was given, if it is reusable."""
        self.told.append(("job_finished", worker, failed))
        if not reusable:
            self.not_reusable.append(worker)
        elif self.prefetched:
            self.prefetched.popleft()
        if self.when_finished is not None:
            self.when_finished()

    def worker_gone(self, worker: Any, death: Death) -> None:
        """Note it, and reclaim what can be."""
        self.told.append(("worker_gone", worker, death.how))
        self.deaths.append(death)
        self.reclaimed = worker.reclaim()

    def worker_exited(self, worker: Any, death: Death, performed: int) -> None:
        """Note it."""
        self.told.append(("worker_exited", worker, death.how, performed))

    def outdated(self) -> set[Any]:
        """No worker is: all perform the same."""
        return set()

    def words(self) -> list[str]:
        """The names of what it was told."""
        return [news[0] for news in self.told]


# Workers.


class WorkerPromises(AsyncPromises):
    """What :class:`IWorker` promises the dispatcher, which here only notes what it is told."""

    recorder: RecordingDispatcher

    start_worker: Callable[[], Coroutine[Any, Any, Any]]
    """A worker that is idle."""
    quick: Callable[..., Job]
    """A job that ends by itself at once."""
    waiting: Callable[[], Job]
    """A job that ends by itself when `let_end` is called."""
    endless: Callable[[], Job]
    """A job that ends only if it is interrupted."""
    spoiling: Callable[[], Job]
    """A job that ends when `let_end` is called, and leaves its worker not reusable."""
    begun: Callable[[Any], Coroutine[Any, Any, None]]
    """The worker's job runs in it."""
    go_on: Callable[[Any, Job, Job], None]
    """Have the waiting `job` end, unnoticed, and those behind it, until `following` runs."""
    let_end: Callable[[Any], None]
    """Have the waiting job end in the worker, its answer written but not yet taken."""
    told_of_end: Callable[[Any], Coroutine[Any, Any, None]]
    """Wait until it is told that the job of the worker has ended."""
    told_of_ends: Callable[[Any, int], Coroutine[Any, Any, None]]
    """Wait until it has been told that so many jobs of the worker have ended."""
    fall_dead: Callable[[Any], Coroutine[Any, Any, None]]
    """Have the process die of something else than the parent."""
    told_of_death: Callable[[Any], Coroutine[Any, Any, None]]
    """Wait until it is told that the worker is gone, and for what may be told after that."""
    told_nothing: Callable[[Any], Coroutine[Any, Any, None]]
    """Give what might be told wrongly an opportunity."""

    async def setting(self) -> Any:
        """A worker that is idle, with all that was told so far forgotten."""
        worker = await self.start_worker()
        self.recorder.told.clear()
        return worker

    def gone(self, worker: Any) -> str:
        """How the worker ended, of which the dispatcher was told, and of nothing else."""
        self.assertEqual(self.recorder.words(), ["worker_gone"])
        [(_, subject, how)] = self.recorder.told
        self.assertIs(subject, worker)
        self.assertIsInstance(how, str)
        return str(how)

    def gone_at_last(self, worker: Any) -> str:
        """How the worker ended, of which it was told last; before, perhaps of its job's end."""
        if self.recorder.words()[0] == "job_finished":
            self.assertEqual(self.recorder.not_reusable, [worker])
            del self.recorder.told[0]
        return self.gone(worker)

    async def busy(self) -> tuple[Any, Job]:
        """A worker that runs a waiting job, with all that was told so far forgotten."""
        worker = await self.setting()
        job = self.waiting()
        worker.give(job)
        await self.begun(worker)
        return worker, job

    def prefetch(self, worker: Any, *jobs: Job) -> list[int]:
        """Give the worker these prefetched jobs; their ids."""
        for job in jobs:
            self.assertTrue(worker.give(job))
            self.recorder.prefetched.append(job)
        return [job.id for job in jobs]

    def reclaim(self, worker: Any) -> list[int]:
        """Reclaim what the worker has prefetched, and has not begun; the ids."""
        back: list[int] = worker.reclaim()
        self.recorder.prefetched = deque(
            job for job in self.recorder.prefetched if job.id not in back
        )
        return back

    async def assert_idle(self, worker: Any) -> None:
        """The worker takes the next job and answers it."""
        self.recorder.told.clear()
        worker.give(self.quick())
        await self.told_of_end(worker)
        self.assertEqual(self.recorder.told, [("job_finished", worker, False)])

    async def test_state(self) -> None:
        """It is idle, busy while it has a job, stopping when it is asked to exit, and dead."""
        worker, _ = await self.busy()
        verifyObject(IProcess, worker)
        self.assertGreater(worker.pid, 0)
        self.assertIs(worker.state, WorkerState.BUSY)
        self.prefetch(worker, self.quick())
        self.let_end(worker)
        await self.told_of_ends(worker, 2)
        self.assertIs(worker.state, WorkerState.IDLE)
        worker.stop()
        self.assertIs(worker.state, WorkerState.STOPPING)
        await self.told_of_death(worker)
        self.assertIs(worker.state, WorkerState.DEAD)

    async def test_answer(self) -> None:
        """The dispatcher hears of a job's end once, good or bad, and the worker is idle again."""
        worker = await self.setting()
        for fails in (False, True):
            self.recorder.told.clear()
            worker.give(self.quick(fails))
            self.assertEqual(self.recorder.told, [])
            await self.told_of_end(worker)
            self.assertEqual(self.recorder.told, [("job_finished", worker, fails)])
            await self.assert_idle(worker)

    async def test_death(self) -> None:
        """Of a worker that dies, idle, busy or paused, the dispatcher hears that it is gone.

        What it had not begun can be reclaimed then.
        """
        for busy, paused, prefetched in (
            (False, False, False),
            (True, False, False),
            (True, True, False),
            (True, False, True),
        ):
            worker = await self.setting()
            if busy:
                worker.give(self.endless())
                await self.begun(worker)
            if paused:
                worker.pause()
            ids = self.prefetch(worker, self.quick(), self.quick()) if prefetched else []
            await self.fall_dead(worker)
            await self.told_of_death(worker)
            self.assertEqual(self.gone(worker), "was killed by SIGKILL")
            self.assertEqual(self.recorder.reclaimed, ids)
            self.assertEqual(self.recorder.deaths[-1].unread, b"")

    async def test_kill(self) -> None:
        """A worker that is killed is gone, for the first reason given; its job has not finished.

        So it is if it is idle, busy, was only just given a job, or was interrupted. Until it is
        dead, it is stopping.
        """
        for given, begun, interrupted in (
            (False, False, False),
            (True, False, False),
            (True, True, False),
            (True, True, True),
        ):
            worker = await self.setting()
            job = self.endless()
            if given:
                worker.give(job)
            if begun:
                await self.begun(worker)
            if interrupted:
                worker.interrupt(job, b"time")
            worker.kill("was in the way")
            worker.kill("was still in the way")
            self.assertEqual((self.recorder.told, worker.state), ([], WorkerState.STOPPING))
            await self.told_of_death(worker)
            self.assertEqual(self.gone(worker), "was in the way")
            self.assertIs(worker.state, WorkerState.DEAD)

    async def test_kill_after_the_end(self) -> None:
        """So it is if the job had ended in the worker; an answer that was written counts.

        And so it is if nothing was taken of what the job wrote.
        """
        for paused in (False, True):
            worker = await self.setting()
            self.recorder.not_reusable.clear()
            worker.give(self.waiting())
            await self.begun(worker)
            if paused:
                worker.pause()
            self.let_end(worker)
            worker.kill("was in the way")
            await self.told_of_death(worker)
            self.assertEqual(self.gone_at_last(worker), "was in the way")

    async def test_stop(self) -> None:
        """An idle worker that is to stop exits by itself, and nothing else is told."""
        for has_performed in (False, True):
            worker = await self.setting()
            if has_performed:
                await self.assert_idle(worker)
                self.recorder.told.clear()
            worker.stop()
            self.assertEqual(self.recorder.told, [])
            await self.told_of_death(worker)
            self.assertEqual(self.gone(worker), "exited (status 0)")

    async def test_interrupt(self) -> None:
        """An interrupted job ends by itself, for either reason, and its worker with it.

        So does one that was only just given, and may not have begun, and one behind which all that
        was prefetched was reclaimed.
        """
        for why, begun, prefetched in (
            (b"cancelled", True, False),
            (b"time", True, False),
            (b"cancelled", False, False),
            (b"cancelled", True, True),
        ):
            worker = await self.setting()
            job = self.endless()
            worker.give(job)
            if begun:
                await self.begun(worker)
            if prefetched:
                self.prefetch(worker, self.quick(), self.quick())
                self.reclaim(worker)
            worker.interrupt(job, why)
            self.assertEqual(self.recorder.told, [])
            await self.told_of_death(worker)
            self.assertEqual(self.gone(worker), "exited (status 0)")

    async def test_interrupt_after_the_end(self) -> None:
        """An interrupt does nothing if the job has ended, nor to the next job.

        That is so whether or not the dispatcher has heard of the end.
        """
        worker = await self.setting()
        job = self.waiting()
        worker.give(job)
        await self.begun(worker)
        self.let_end(worker)
        worker.interrupt(job, b"cancelled")
        await self.told_of_end(worker)
        self.assertEqual(self.recorder.told, [("job_finished", worker, False)])
        worker.interrupt(job, b"time")
        await self.assert_idle(worker)
        await self.assert_idle(worker)

    async def test_pause(self) -> None:
        """Nothing is told of a job while it is paused; when it is resumed, all is.

        So it is with a worker that goes on to the next job meanwhile.
        """
        for prefetched in (False, True):
            worker, job = await self.busy()
            worker.pause()
            if prefetched:
                following = self.waiting()
                self.prefetch(worker, following)
                self.go_on(worker, job, following)
            else:
                self.let_end(worker)
            await self.told_nothing(worker)
            self.assertEqual(self.recorder.told, [])
            worker.resume()
            await self.told_of_ends(worker, 1)
            self.assertEqual(self.recorder.told, [("job_finished", worker, False)])
            if prefetched:
                self.let_end(worker)
                await self.told_of_ends(worker, 2)
            await self.assert_idle(worker)
            worker.kill("is not needed any more")
            await self.told_of_death(worker)

    async def test_pause_and_resume_in_any_order(self) -> None:
        """Any number of either, in any order, is harmless while a job runs; the last counts."""
        worker = await self.setting()
        for calls in itertools.product(("pause", "resume"), repeat=3):
            worker.give(self.waiting())
            await self.begun(worker)
            for call in (*calls, "resume"):
                getattr(worker, call)()
            self.let_end(worker)
            await self.told_of_end(worker)
            self.assertEqual(self.recorder.told, [("job_finished", worker, False)])
            worker.resume()
            self.recorder.told.clear()
        await self.assert_idle(worker)

    async def test_reclaim(self) -> None:
        """What has not been begun can be reclaimed, in order; then the worker never begins it.

        Where nothing is prefetched, nothing is reclaimed.
        """
        worker, _ = await self.busy()
        self.assertEqual(self.reclaim(worker), [])
        ids = self.prefetch(worker, self.quick(), self.quick(), self.quick())
        self.assertEqual(self.reclaim(worker), ids)
        self.assertEqual(self.reclaim(worker), [])
        self.let_end(worker)
        await self.told_of_ends(worker, 1)
        await self.assert_idle(worker)

    async def test_given_again(self) -> None:
        """What was reclaimed may be given again, in any order.

        Prefetched jobs are begun in their order, each after the answer to the one before.
        """
        worker, _ = await self.busy()
        self.assertGreater(worker.room, 0)
        jobs = [self.quick(), self.quick(), self.quick(fails=True)]
        for _ in range(4):
            ids = self.prefetch(worker, *jobs)
            self.assertEqual(self.reclaim(worker), ids)
            jobs.insert(0, jobs.pop())
        self.prefetch(worker, *jobs)
        self.let_end(worker)
        await self.told_of_ends(worker, 4)
        failed = [False, True, False, False]
        self.assertEqual(self.recorder.told, [("job_finished", worker, each) for each in failed])
        await self.assert_idle(worker)

    async def test_reclaim_of_what_was_begun(self) -> None:
        """What the worker has begun stays with it, and the answer to the one before is there."""
        worker, job = await self.busy()
        first, second, third = self.waiting(), self.quick(), self.quick()
        _, *rest = self.prefetch(worker, first, second, third)
        self.go_on(worker, job, first)
        self.assertEqual(self.reclaim(worker), rest)
        await self.told_of_ends(worker, 1)
        self.assertEqual(self.recorder.told, [("job_finished", worker, False)])
        self.let_end(worker)
        await self.told_of_ends(worker, 2)
        await self.assert_idle(worker)

    async def test_kill_with_jobs_prefetched(self) -> None:
        """What it had prefetched can be reclaimed; what it had answered before counts."""
        worker, job = await self.busy()
        first = self.waiting()
        _, *rest = self.prefetch(worker, first, self.quick(), self.quick())
        self.go_on(worker, job, first)
        worker.kill("was in the way")
        await self.told_of_death(worker)
        self.assertEqual(self.recorder.words(), ["job_finished", "worker_gone"])
        self.assertEqual(self.recorder.not_reusable, [worker])
        self.assertEqual(self.recorder.deaths[0].how, "was in the way")
        self.assertEqual(self.recorder.reclaimed, rest)

    async def test_not_reusable_with_jobs_prefetched(self) -> None:
        """A worker that is not reusable begins none of those that it has prefetched."""
        worker = await self.setting()
        worker.give(self.spoiling())
        await self.begun(worker)
        ids = self.prefetch(worker, self.quick(), self.quick())
        self.let_end(worker)
        await self.told_of_ends(worker, 1)
        self.assertEqual(self.recorder.not_reusable, [worker])
        self.assertEqual(self.reclaim(worker), ids)
        self.assertEqual(self.recorder.told, [("job_finished", worker, False)])
        worker.stop()
        await self.told_of_death(worker)
        self.assertEqual(self.recorder.words(), ["job_finished", "worker_gone"])
        self.assertEqual(self.recorder.deaths[0].how, "exited (status 0)")


class FakeWorkerTest(WorkerPromises, TestCase):
    """FakeWorker keeps the promises; what a process does by itself is the spawner's to call."""

    def setUp(self) -> None:
        """Make an recorder and a spawner, with a real supervisor between them."""
        super().setUp()
        self.recorder = RecordingDispatcher()
        recorder: Any = self.recorder
        supervisor = Supervisor(Clock(), recorder, 0, 2)
        self.spawner = FakeSpawner(supervisor, recorder)
        self.how = "exited (status 0)"
        self.failing: set[int] = set()
        self.spoilers: set[int] = set()

    async def start_worker(self) -> Any:
        """See :class:`WorkerPromises`."""
        self.spawner.spawn()
        worker = self.spawner.starting[0]
        self.spawner.boot(worker, catalogue("Odd"))
        return worker

    def answer(self, worker: Any) -> None:
        """Have it answer as its job is to."""
        job = worker.job
        self.spawner.answer(worker, job.id in self.failing, reusable=job.id not in self.spoilers)

    def quick(self, fails: bool = False) -> Job:
        """See :class:`WorkerPromises`."""
        job = make_job(None)
        if fails:
            self.failing.add(job.id)
        return job

    waiting = endless = quick

    def spoiling(self) -> Job:
        """See :class:`WorkerPromises`."""
        job = make_job(None)
        self.spoilers.add(job.id)
        return job

    async def begun(self, worker: Any) -> None:
        """It has."""

    def let_end(self, worker: Any) -> None:
        """See :class:`WorkerPromises`; one that is not reusable then begins nothing more."""
        if worker.job.id not in self.spoilers:
            worker.go_on()

    def go_on(self, worker: Any, job: Job, following: Job) -> None:
        """See :class:`WorkerPromises`."""
        while worker.prefetched[worker.begun - 1] is not following or not worker.begun:
            worker.go_on()

    async def told_of_end(self, worker: Any) -> None:
        """See :class:`WorkerPromises`."""
        self.answer(worker)

    async def told_of_ends(self, worker: Any, count: int) -> None:
        """See :class:`WorkerPromises`."""
        while self.recorder.words().count("job_finished") < count:
            self.answer(worker)

    async def fall_dead(self, worker: Any) -> None:
        """See :class:`WorkerPromises`."""
        self.how = "was killed by SIGKILL"

    async def told_of_death(self, worker: Any) -> None:
        """One that exits has been asked to, and one that is killed cannot answer any more."""
        while worker.has_answered and worker.job is not None:
            worker.paused = False
            self.answer(worker)
        if worker.killed is not None:
            self.assertRaises(AssertionError, self.spawner.answer, worker)
        if self.how == "exited (status 0)":
            self.assertTrue(worker.killed or worker.stopping or worker.interrupts)
        self.spawner.die(worker, self.how)
        self.assertRaises(AssertionError, self.spawner.answer, worker)
        self.assertRaises(AssertionError, worker.die)

    async def told_nothing(self, worker: Any) -> None:
        """A paused worker cannot be heard."""
        self.assertRaises(AssertionError, self.spawner.answer, worker)
        self.assertRaises(AssertionError, self.spawner.report, worker)

    async def test_only_idle_workers_take_jobs(self) -> None:
        """A job for a worker that starts, stops, is killed or is dead is an error."""
        self.spawner.spawn()
        starting = self.spawner.starting[0]
        self.assertRaises(AssertionError, starting.give, make_job(None))
        stopping, killed, dead = [await self.start_worker() for _ in range(3)]
        stopping.stop()
        killed.kill("was in the way")
        self.spawner.die(dead)
        for worker in (stopping, killed, dead):
            self.assertRaises(AssertionError, worker.give, make_job(None))

    async def test_only_the_last_job_is_interrupted(self) -> None:
        """An interrupt of a job that the worker was not given, or not last, is an error."""
        worker = await self.start_worker()
        first, second = make_job(None), make_job(None)
        worker.give(first)
        self.assertRaises(AssertionError, worker.interrupt, second, b"time")
        self.spawner.answer(worker)
        worker.give(second)
        self.assertRaises(AssertionError, worker.interrupt, first, b"time")


def look_until(condition: Callable[[], bool]) -> None:
    """Look often until it is true, and do not let the reactor turn meanwhile."""
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError(f"{condition} did not come true")


class RealPoolCase(TestCase):
    """A real pool of real processes, which is empty before the test and after it."""

    timeout = 90
    jobs: tuple[str, ...] = ("tests.oddjobs",)

    def fill_pool(self, supervisor: Any, recorder: Any) -> None:
        """Make the pool, which the test's own clock tells of the time."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.clock: Any = Clock()
        directory = os.path.join(self.folder, "directory")
        os.mkdir(directory)
        settings = WorkerSettings(self.jobs, directory=directory)
        self.pool = WorkerPool(self.clock, supervisor, recorder, Guardian(reactor), settings)
        self.addCleanup(self.empty_pool)

    async def empty_pool(self) -> None:
        """Kill what is left."""
        self.pool.kill_all("was killed: the test is over")
        await until(lambda: not self.pool.processes)
        await self.pool.stop()


class WorkerLinkTest(WorkerPromises, RealPoolCase):
    """WorkerLink keeps the promises with a real process."""

    def setUp(self) -> None:
        """Make an recorder and a pool, with a real supervisor between them that starts nothing."""
        super().setUp()
        self.recorder = RecordingDispatcher()
        recorder: Any = self.recorder
        self.supervisor = Supervisor(Clock(), recorder, 0, 2)
        self.fill_pool(self.supervisor, recorder)
        self.numbers = itertools.count(1)
        self.marks: dict[int, str] = {}
        self.paths: dict[int, str] = {}

    def make(self, command: type[amp.Command], **arguments: Any) -> Job:
        """A job of `command`, for a worker."""
        box = command.makeArguments(arguments, amp.AMP())
        box[boxes.COMMAND] = command.commandName
        job = make_job(None, command.commandName.decode(), box=boxes.pack(box.items()))
        job.attempt = 1
        return job

    def new_path(self) -> str:
        """Where no file is."""
        return os.path.join(self.folder, str(next(self.numbers)))

    async def start_worker(self) -> Any:
        """See :class:`WorkerPromises`."""
        self.pool.spawn()
        (worker,) = self.pool.processes
        await until(lambda: ("worker_ready", worker) in self.recorder.told)
        return worker

    def quick(self, fails: bool = False) -> Job:
        """See :class:`WorkerPromises`."""
        return self.make(Odd, what="raise" if fails else "nothing")

    def waiting(self) -> Job:
        """See :class:`WorkerPromises`."""
        return self.when_let_end(Wait)

    def spoiling(self) -> Job:
        """See :class:`WorkerPromises`."""
        return self.when_let_end(Spoil)

    def when_let_end(self, command: type[amp.Command]) -> Job:
        """A job of `command` that ends when `let_end` is called."""
        self.mark, self.path = self.new_path(), self.new_path()
        job = self.make(command, path=self.path, mark=self.mark)
        self.marks[job.id], self.paths[job.id] = self.mark, self.path
        return job

    def endless(self) -> Job:
        """See :class:`WorkerPromises`."""
        self.mark = self.new_path()
        return self.make(Endless, how="sleep", mark=self.mark)

    async def begun(self, worker: Any) -> None:
        """See :class:`WorkerPromises`."""
        await until(lambda: os.path.exists(self.mark))

    def let_end(self, worker: Any) -> None:
        """The answer is in the pipe when this returns, and the reactor has not turned since."""
        with open(self.path, "w"):
            pass
        pipe = worker.transport.transport.pipes[FROM_WORKER]
        self.assertTrue(select.select([pipe.fileno()], [], [], 60)[0])

    def go_on(self, worker: Any, job: Job, following: Job) -> None:
        """The reactor has not turned when this returns."""
        with open(self.paths[job.id], "w"):
            pass
        look_until(lambda: os.path.exists(self.marks[following.id]))

    async def told_of_end(self, worker: Any) -> None:
        """See :class:`WorkerPromises`."""
        await until(lambda: self.recorder.told)

    async def told_of_ends(self, worker: Any, count: int) -> None:
        """See :class:`WorkerPromises`."""
        await until(lambda: self.recorder.words().count("job_finished") == count)

    async def fall_dead(self, worker: Any) -> None:
        """See :class:`WorkerPromises`."""
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    async def told_of_death(self, worker: Any) -> None:
        """See :class:`WorkerPromises`."""
        await until(lambda: worker not in self.pool.processes)
        self.assertFalse(alive(worker.pid))
        self.assertEqual(self.supervisor.size, 0)

    async def told_nothing(self, worker: Any) -> None:
        """Let the reactor turn."""
        for _ in range(10):
            await task.deferLater(reactor, 0)

    async def test_interrupt_before_the_job_is_read(self) -> None:
        """A job that is too large to be written at once is interrupted all the same."""
        worker = await self.setting()
        job = self.endless()
        job.box = boxes.pack((b"%d" % n, bytes(60_000)) for n in range(20))
        worker.give(job)
        worker.interrupt(job, b"cancelled")
        await self.told_of_death(worker)
        self.assertEqual(self.gone(worker), "was killed before it had read its job")

    async def test_calls_after_death(self) -> None:
        """What the dispatcher asks of a worker between its death and the news does nothing.

        Nor does a job for one that was killed, not by the dispatcher, while it was idle.
        """
        worker = await self.setting()
        job = self.endless()
        worker.give(job)
        await self.begun(worker)
        await self.fall_dead(worker)
        for call in (worker.pause, worker.resume, worker.pause):
            call()
        worker.interrupt(job, b"time")
        worker.kill("was in the way")
        await self.told_of_death(worker)
        self.assertEqual(self.gone(worker), "was in the way")
        other = await self.setting()
        other.kill("wrote garbage")
        other.give(self.quick())
        await self.told_of_death(other)
        self.assertEqual(self.gone(other), "wrote garbage")

    async def frozen(self) -> Any:
        """A worker that was idle and reads nothing, until it is thawed."""
        worker = await self.setting()
        os.kill(worker.pid, signal.SIGSTOP)
        await until(lambda: is_frozen(worker.pid))
        return worker

    def thaw(self, worker: Any) -> None:
        """Have it read again."""
        os.kill(worker.pid, signal.SIGCONT)

    async def test_reclaim_before_the_job_is_read(self) -> None:
        """What a worker has prefetched is reclaimed alone, even if its own job is not read yet."""
        worker = await self.frozen()
        worker.give(self.quick(fails=True))
        for _ in range(3):
            ids = self.prefetch(worker, self.quick(), self.quick(), self.quick())
            self.assertEqual(self.reclaim(worker), ids)
        self.prefetch(worker, self.quick())
        self.thaw(worker)
        await self.told_of_ends(worker, 2)
        failed = [True, False]
        self.assertEqual(self.recorder.told, [("job_finished", worker, each) for each in failed])
        await self.assert_idle(worker)

    async def test_reclaim_while_it_reads(self) -> None:
        """So it is if the worker reads at the same moment: each job goes to one of the two."""
        worker = await self.setting()
        for delay in range(1000):
            self.recorder.told.clear()
            worker.give(self.quick())
            ids = self.prefetch(worker, self.quick(), self.quick(), self.quick())
            for _ in range(delay % 250):
                pass  # until it is awake, or nearly
            self.assertLessEqual(set(self.reclaim(worker)), set(ids))
            count = 1 + len(self.recorder.prefetched)
            while len(self.recorder.told) < count:
                await task.deferLater(reactor, 0)
                self.assertLessEqual(set(self.recorder.words()), {"job_finished"})
            self.assertEqual(self.recorder.told, count * [("job_finished", worker, False)])

    async def test_reclaim_when_it_awakes(self) -> None:
        """So it is if the worker begins to read while the parent does, as late as that can be."""
        worker = await self.frozen()
        jobs = worker.transport.jobs
        worker.give(self.quick())
        ids = self.prefetch(worker, self.quick(), self.quick(), self.quick())
        pipe, read = os.stat(worker.transport.transport.pipes[TO_WORKER].fileno()), os.read

        def read_and_thaw(fd: int, size: int) -> bytes:
            data = read(fd, size)
            if os.path.samestat(os.stat(fd), pipe) and is_frozen(worker.pid) and jobs.unread:
                left = jobs.unread
                self.thaw(worker)
                look_until(lambda: jobs.unread < left)
            return data

        patch = self.patch(os, "read", read_and_thaw)
        back = self.reclaim(worker)
        patch.restore()
        self.thaw(worker)
        self.assertLessEqual(set(back), set(ids))
        count = 1 + len(self.recorder.prefetched)
        await until(lambda: len(self.recorder.told) >= count or self.recorder.deaths)
        self.assertEqual(self.recorder.told, count * [("job_finished", worker, False)])
        await self.assert_idle(worker)

    async def test_reclaim_behind_a_ping(self) -> None:
        """So it is if a ping lies before the job, which is answered."""
        worker = await self.frozen()
        life = self.supervisor.records[worker]
        life.silent = True
        worker.ping()
        worker.give(self.quick())
        ids = self.prefetch(worker, self.quick(), self.quick())
        self.assertEqual(self.reclaim(worker), ids)
        self.thaw(worker)
        await self.told_of_ends(worker, 1)
        await until(lambda: not life.silent)
        await self.assert_idle(worker)

    async def test_has_read(self) -> None:
        """Jobs that are prefetched need not be read; the one that was given to run must be."""
        worker = await self.frozen()
        self.assertTrue(worker.has_read())
        worker.give(self.waiting())
        self.assertFalse(worker.has_read())
        self.prefetch(worker, self.quick(), self.quick())
        self.assertFalse(worker.has_read())
        self.thaw(worker)
        await self.begun(worker)
        self.assertTrue(worker.has_read())
        self.reclaim(worker)
        self.assertTrue(worker.has_read())
        self.prefetch(worker, self.quick())
        self.assertTrue(worker.has_read())

    async def test_largest_prefetched(self) -> None:
        """One that just does is prefetched, reclaimed, and done as any other."""
        worker, _ = await self.busy()
        job = self.make(Odd, what="nothing", detail="")
        self.prefetch(worker, job)
        free = select.PIPE_BUF - worker.transport.jobs.unread
        self.reclaim(worker)
        job.box = self.make(Odd, what="nothing", detail="x" * (free + 1)).box
        self.assertFalse(worker.give(job))
        job.box = self.make(Odd, what="nothing", detail="x" * free).box
        self.assertEqual(self.reclaim(worker), [])
        ids = self.prefetch(worker, job)
        self.assertEqual(worker.transport.jobs.unread, select.PIPE_BUF)
        self.assertEqual(self.reclaim(worker), ids)
        self.prefetch(worker, job)
        self.let_end(worker)
        await self.told_of_ends(worker, 2)
        await self.assert_idle(worker)

    async def test_behind_a_large_job(self) -> None:
        """Behind a job that is no packet nothing is prefetched; behind the next it is again."""
        worker = await self.setting()
        for size in (select.PIPE_BUF, 50_000):
            self.recorder.told.clear()
            worker.give(self.make(Odd, what="some time", detail="x" * size))
            self.assertFalse(worker.give(self.quick()))
            self.assertEqual(worker.reclaim(), [])
            await self.told_of_ends(worker, 1)
            await self.assert_idle(worker)
        worker.give(self.waiting())
        await self.begun(worker)
        self.assertTrue(worker.give(self.quick()))

    async def test_unread_at_death(self) -> None:
        """A request that a dead worker had not read is told, and prefetched jobs are kept.

        So it is if the worker had not read a ping before, and has nothing prefetched.
        """
        for pinged in (False, True):
            worker = await self.frozen()
            if pinged:
                worker.ping()
            job = self.quick()
            job.seconds = 2.5
            worker.give(job)
            ids = [] if pinged else self.prefetch(worker, self.quick(), self.quick())
            await self.fall_dead(worker)
            await self.told_of_death(worker)
            self.gone(worker)
            self.assertEqual(self.recorder.deaths[-1].unread, job.box)
            self.assertEqual(self.recorder.reclaimed, ids)


# Clients.


class Requests:
    """Stands in for the dispatcher of clients.

    :ivar submitted: the jobs that were submitted to it, in order.
    :ivar held: the clients that are on hold.
    :ivar next_id: gives the ids of jobs.
    """

    def __init__(self) -> None:
        self.submitted: list[Job] = []
        self.held: list[Any] = []
        self.next_id = itertools.count(1).__next__

    def submit(self, job: Job) -> None:
        """Note it."""
        self.submitted.append(job)

    def hold(self, client: Any) -> None:
        """Note it."""
        self.held.append(client)

    def release(self, client: Any) -> None:
        """Note it."""
        self.held.remove(client)

    def client_gone(self, client: Any) -> None:
        """Nothing."""


def body(**pairs: bytes) -> bytes:
    """What follows the tag in a box."""
    return boxes.pack((key.encode(), value) for key, value in pairs.items())


class ClientPromises(Promises):
    """What :class:`IClient` promises the dispatcher."""

    requests: Requests
    client: Any

    submit: Callable[..., list[Job]]
    """Have the client submit so many jobs now, and `later` when it is told of an end."""
    read_slowly: Callable[[], None]
    """Have the next news be too much for the client."""
    heard: Callable[[], list[News]]
    """What has reached the client: the tag, what it is, and what it says, in order."""

    def test_interface(self) -> None:
        """It has all that the dispatcher may ask for."""
        verifyObject(IClient, self.client)

    def test_answers(self) -> None:
        """Results and errors of workers reach it once, under the tags of their jobs, in order."""
        first, second, third = self.submit(3)
        self.client.deliver(third, False, body(data=b"3"))
        self.client.deliver(first, True, body(_error_code=b"MINE", _error_description=b"no"))
        self.client.deliver(second, False, body())
        self.assertEqual(
            self.heard(),
            [
                (third.tag, "answer", {b"data": b"3"}),
                (first.tag, "error", {b"_error_code": b"MINE", b"_error_description": b"no"}),
                (second.tag, "answer", {}),
            ],
        )

    def test_failures(self) -> None:
        """The ends that no worker told reach it likewise, with code and text."""
        first, second = self.submit(2)
        self.client.fail(second, WorkerLost("worker 4711 exited"))
        self.client.fail(first, Cancelled("it never ran"))
        self.assertEqual(
            self.heard(),
            [
                (second.tag, "error", says(WorkerLost("worker 4711 exited"))),
                (first.tag, "error", says(Cancelled("it never ran"))),
            ],
        )

    def test_reports(self) -> None:
        """News of its jobs reach it in order, and before the ends of their jobs."""
        first, second = self.submit(2)
        half = body(done=b"1", total=b"2", message=b"")
        self.client.report(first, half, parts=False)
        self.client.report(second, body(data=b"a"), parts=True)
        self.client.report(second, body(data=b"b"), parts=True)
        self.client.deliver(second, False, body(data=b"c"))
        self.client.fail(first, Cancelled("no"))
        self.assertEqual(
            self.heard(),
            [
                (first.tag, "dangad.Progress", {b"done": b"1", b"total": b"2", b"message": b""}),
                (second.tag, "dangad.Chunk", {b"data": b"a"}),
                (second.tag, "dangad.Chunk", {b"data": b"b"}),
                (second.tag, "answer", {b"data": b"c"}),
                (first.tag, "error", says(Cancelled("no"))),
            ],
        )

    def test_submits_when_told(self) -> None:
        """It may submit more before `deliver` and `fail` return."""
        first, second = self.submit(2, later=2)
        self.client.deliver(first, False, body())
        self.assertEqual(len(self.requests.submitted), 3)
        self.client.fail(second, QueueFull("no"))
        self.assertEqual(len(self.requests.submitted), 4)
        self.assertEqual([tag for tag, *_ in self.heard()], [first.tag, second.tag])
        third, fourth = self.requests.submitted[2:]
        self.client.deliver(fourth, False, body())
        self.client.deliver(third, False, body())
        self.assertEqual([tag for tag, *_ in self.heard()], [fourth.tag, third.tag])

    def test_put_on_hold_by_news(self) -> None:
        """It may be put on hold before `report` returns, and hears of its jobs none the less."""
        (job,) = self.submit(1)
        self.read_slowly()
        self.client.report(job, body(data=b"a"), parts=True)
        self.assertEqual(self.requests.held, [self.client])
        self.client.deliver(job, False, body())
        self.assertEqual(
            self.heard(), [(job.tag, "dangad.Chunk", {b"data": b"a"}), (job.tag, "answer", {})]
        )


def says(error: DangadError) -> dict[bytes, bytes]:
    """An error as a client reads it."""
    return dict(boxes.error_pairs(error.code, str(error)))


class FakeClientTest(ClientPromises, SynchronousTestCase):
    """FakeClient keeps the promises; what it does when it is told is the test's to say."""

    def setUp(self) -> None:
        """Make a client that notes all that it is told in one list."""
        super().setUp()
        self.requests = Requests()
        self.client = FakeClient("ann")
        self.client.when_told = self.told
        self.client.when_reported = self.told_news
        self.later = 0
        self.slow = False
        self.news: list[News] = []

    def told(self, job: Job) -> None:
        """Note the end of `job`, and submit another."""
        for answered, failed, text in self.client.answers[-1:]:
            if answered is job:
                word = "error" if failed else "answer"
                self.news.append((job.tag, word, boxes.unpack(text)))
        for failed_job, error in self.client.failures[-1:]:
            if failed_job is job:
                self.news.append((job.tag, "error", says(error)))
        if self.later:
            self.later -= 1
            self.submit(1, self.later)

    def told_news(self, job: Job) -> None:
        """Note the news of `job`."""
        _, text, parts = self.client.reports[-1]
        command = commands.Chunk if parts else commands.Progress
        self.news.append((job.tag, command.commandName.decode(), boxes.unpack(text)))
        if self.slow:
            self.requests.hold(self.client)

    def submit(self, count: int, later: int = 0) -> list[Job]:
        """See :class:`ClientPromises`."""
        self.later = later
        jobs = [make_job(self.client) for _ in range(count)]
        for job in jobs:
            self.requests.submit(job)
        return jobs

    def read_slowly(self) -> None:
        """See :class:`ClientPromises`."""
        self.slow = True

    def heard(self) -> list[News]:
        """See :class:`ClientPromises`."""
        news, self.news = self.news, []
        return news

    def test_told_once(self) -> None:
        """To tell it of an ended job once more is an error, whatever is told."""
        first, second = self.submit(2)
        self.client.deliver(first, False, body())
        self.client.fail(second, Cancelled("no"))
        for job in (first, second):
            self.assertRaises(AssertionError, self.client.deliver, job, False, body())
            self.assertRaises(AssertionError, self.client.fail, job, Cancelled("no"))
            self.assertRaises(AssertionError, self.client.report, job, body(), True)


class ClientConnectionTest(ClientPromises, SynchronousTestCase):
    """ClientConnection keeps the promises, over a line in memory."""

    def setUp(self) -> None:
        """Connect a client."""
        super().setUp()
        self.connect(10)

    def connect(self, max_in_flight: int) -> None:
        """Connect a client that may have so many requests in flight."""
        self.requests = Requests()
        dispatcher: Any = self.requests
        factory = client_factory(Clock(), dispatcher, max_in_flight=max_in_flight)
        self.line = Line()
        self.client = self.line.protocol = factory.buildProtocol(None)
        self.client.makeConnection(self.line)

    def submit(self, count: int, later: int = 0) -> list[Job]:
        """What comes later has come already, but the limit keeps it from being read."""
        if later:
            self.connect(count)
        box = [(boxes.COMMAND, b"Echo")]
        self.line.send(
            b"".join(boxes.pack([(boxes.ASK, b"tag%d" % n), *box]) for n in range(count + later))
        )
        jobs = list(self.requests.submitted)
        self.assertEqual(len(jobs), count)
        return jobs

    def read_slowly(self) -> None:
        """See :class:`ClientPromises`."""
        self.line.capacity = 0

    def heard(self) -> list[News]:
        """See :class:`ClientPromises`."""
        news: list[News] = []
        came = b"".join(iter(self.line.take, b""))
        for box in amp.parseString(came):
            pairs = dict(box)
            if boxes.COMMAND in pairs:
                word, tag = pairs.pop(boxes.COMMAND).decode(), pairs.pop(b"tag")
            elif boxes.ANSWER in pairs:
                word, tag = "answer", pairs.pop(boxes.ANSWER)
            else:
                word, tag = "error", pairs.pop(boxes.ERROR)
            news.append((tag, word, pairs))
        return news


# Spawners.


class SpawnerPromises(AsyncPromises):
    """What :class:`ISpawner` promises the supervisor, which here only notes what it is told."""

    recorder: RecordingDispatcher
    spawner: Any

    greeted: Callable[[Any], Coroutine[Any, Any, None]]
    """Wait until the worker has said Hello."""
    gone: Callable[[Any], Coroutine[Any, Any, None]]
    """Wait until the worker, which has a reason to be gone, is gone."""
    break_starts: Callable[[], None]
    """Have the system have no room for another process."""
    repair_starts: Callable[[], None]
    """Have it have room again."""

    def spawn(self) -> Any:
        """Start a worker, which is told before that returns, and nothing else."""
        before = len(self.recorder.told)
        self.assertIsNone(self.spawner.spawn())
        ((word, worker),) = self.recorder.told[before:]
        self.assertEqual(word, "worker_started")
        verifyObject(IProcess, worker)
        return worker

    def test_interface(self) -> None:
        """It has all that the supervisor may ask for."""
        verifyObject(ISpawner, self.spawner)

    async def test_life(self) -> None:
        """A worker's start, its Hello with a catalogue, and its end are told once each."""
        worker = self.spawn()
        self.assertIs(worker.state, WorkerState.STARTING)
        await self.greeted(worker)
        self.assertIs(worker.state, WorkerState.IDLE)
        word, subject, says_hello = self.recorder.told[1]
        self.assertEqual((word, subject), ("worker_booted", worker))
        self.assertIn('"Odd"', says_hello)
        worker.kill("was in the way")
        await self.gone(worker)
        self.assertEqual(self.recorder.told[2:], [("worker_exited", worker, "was in the way", 0)])

    async def test_no_hello(self) -> None:
        """A worker that is gone before its Hello has never booted."""
        worker = self.spawn()
        worker.kill("took its time")
        self.assertIs(worker.state, WorkerState.STOPPING)
        await self.gone(worker)
        self.assertIs(worker.state, WorkerState.DEAD)
        self.assertEqual(self.recorder.told[1:], [("worker_exited", worker, "took its time", 0)])

    async def test_two_lives(self) -> None:
        """Each call starts one worker, with a life and a process id of its own."""
        first, second = self.spawn(), self.spawn()
        await self.greeted(second)
        await self.greeted(first)
        self.assertNotEqual(first.pid, second.pid)
        second.kill("was in the way")
        await self.gone(second)
        for worker in (first, second):
            told = [news[0] for news in self.recorder.told if news[1] is worker]
            exits = ["worker_exited"] * (worker is second)
            self.assertEqual(told, ["worker_started", "worker_booted", *exits])

    async def test_no_room(self) -> None:
        """If there is no room for a process, that is raised, and nothing is told."""
        self.break_starts()
        for _ in range(3):
            self.assertRaises(OSError, self.spawner.spawn)
        self.assertEqual(self.recorder.told, [])
        self.repair_starts()
        worker = self.spawn()
        await self.greeted(worker)
        self.assertEqual(self.recorder.words(), ["worker_started", "worker_booted"])


class FakeSpawnerTest(SpawnerPromises, TestCase):
    """FakeSpawner keeps the promises; when a worker boots and dies is the test's to say."""

    def setUp(self) -> None:
        """Make the spawner."""
        super().setUp()
        self.recorder = RecordingDispatcher()
        recorder: Any = self.recorder
        self.spawner = FakeSpawner(recorder, recorder)

    async def greeted(self, worker: Any) -> None:
        """See :class:`SpawnerPromises`."""
        self.spawner.boot(worker, catalogue("Odd"))

    async def gone(self, worker: Any) -> None:
        """One that is killed cannot say Hello any more."""
        self.assertRaises(AssertionError, self.spawner.boot, worker, catalogue("Odd"))
        self.spawner.die(worker)

    def break_starts(self) -> None:
        """See :class:`SpawnerPromises`."""
        self.spawner.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")

    def repair_starts(self) -> None:
        """See :class:`SpawnerPromises`."""
        self.spawner.refusal = None


def _no_room(*args: object, **keywords: object) -> int:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


class WorkerPoolTest(SpawnerPromises, RealPoolCase):
    """WorkerPool keeps the promises with real processes."""

    def setUp(self) -> None:
        """Make the pool."""
        super().setUp()
        self.recorder = RecordingDispatcher()
        self.fill_pool(self.recorder, self.recorder)
        self.spawner = self.pool

    async def greeted(self, worker: Any) -> None:
        """See :class:`SpawnerPromises`."""
        await until(
            lambda: any(news[:2] == ("worker_booted", worker) for news in self.recorder.told)
        )

    async def gone(self, worker: Any) -> None:
        """See :class:`SpawnerPromises`."""
        await until(lambda: worker not in self.pool.processes)
        self.assertFalse(alive(worker.pid))

    def break_starts(self) -> None:
        """Have each fork fail, as it does when the user has too many processes."""
        self.patches = [self.patch(os, name, _no_room) for name in ("fork", "posix_spawnp")]

    def repair_starts(self) -> None:
        """See :class:`SpawnerPromises`."""
        for patch in self.patches:
            patch.restore()

    def test_no_descriptors(self) -> None:
        """So it is if there is no room for the pipes of another process."""
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, hard))
        try:
            self.assertRaises(OSError, self.pool.spawn)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(self.recorder.told, [])
        self.assertFalse(self.pool.processes)


class BrokenWorkerPoolTest(RealPoolCase):
    """WorkerPool, when the job modules cannot be imported."""

    jobs = ("tests.no_such_module",)

    async def test_cannot_boot(self) -> None:
        """A worker that cannot say Hello is started and gone, and the reason is told."""
        recorder = RecordingDispatcher()
        self.fill_pool(recorder, recorder)
        self.pool.spawn()
        await until(lambda: not self.pool.processes)
        self.assertEqual(recorder.words(), ["worker_started", "worker_exited"])
        self.assertIn("no_such_module", recorder.told[1][2])


# Supervisors.


class SupervisorPromises(Promises):
    """What :class:`ISupervisor` promises the dispatcher, which is a real one."""

    supervisor: Any
    dispatcher: Dispatcher

    def demanded(self) -> int:
        """The largest number of waiting jobs that it has heard of and not forgotten."""
        raise NotImplementedError

    def submit(self) -> None:
        """Have a job wait."""
        self.dispatcher.submit(make_job(self.ann))

    def make_dispatcher(self) -> None:
        """Make a dispatcher without workers."""
        self.clock = Clock()
        self.ann = FakeClient("ann")
        self.dispatcher = Dispatcher(self.clock)

    def test_interface(self) -> None:
        """It has all that the dispatcher may ask for."""
        verifyObject(ISupervisor, self.supervisor)

    def test_demand(self) -> None:
        """It hears of each job that waits while no worker is idle."""
        self.assertEqual(self.demanded(), 0)
        for waiting in (1, 2, 3):
            self.submit()
            self.assertEqual(self.demanded(), waiting)

    def test_demand_again(self) -> None:
        """To hear of the same jobs again changes nothing, nor does any number do harm."""
        self.submit()
        for _ in range(3):
            self.assertIsNone(self.supervisor.demand(1))
        self.assertEqual(self.demanded(), 1)
        self.assertIsNone(self.supervisor.demand(1_000_000))
        self.assertEqual(self.dispatcher.waiting, 1)


class FakeSupervisorTest(SupervisorPromises, SynchronousTestCase):
    """FakeSupervisor keeps the promises."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        self.make_dispatcher()
        self.supervisor = FakeSupervisor()
        self.dispatcher.supervised_by(self.supervisor)

    def demanded(self) -> int:
        """See :class:`SupervisorPromises`."""
        return max(self.supervisor.demands, default=0)

    def test_demand_for_nothing(self) -> None:
        """To demand workers for less than no jobs is an error."""
        self.assertRaises(AssertionError, self.supervisor.demand, -1)


class SupervisorTest(SupervisorPromises, SynchronousTestCase):
    """Supervisor keeps the promises, with workers that are no processes."""

    def setUp(self) -> None:
        """Make one of none to ten workers."""
        super().setUp()
        self.make_dispatcher()
        self.supervisor = Supervisor(self.clock, self.dispatcher, 0, 10, starts_at_once=20)
        self.spawner = FakeSpawner(self.supervisor, self.dispatcher)
        self.supervisor.start(self.spawner)

    def demanded(self) -> int:
        """A worker starts for each job, one in a turn of the reactor."""
        self.clock.pump([0] * 20)
        return self.spawner.spawned
