"""The rules for jobs: who runs next and where, and what ends a job.

The middle of a job's way: :mod:`dangad.server` submits jobs and is told their outcomes through
:class:`IClient`; :mod:`dangad.workerlink` is given jobs through :class:`IWorker`, and reports
answers. How many workers there are is :mod:`dangad.workforce`'s; which job waits where is
:mod:`dangad.jobqueue`'s; the states of a job's life are in :mod:`dangad.jobrecord`, and what
its client is told in :mod:`dangad.verdicts`. No sockets, no processes, no bytes, no time but
the clock's.

What always holds between two events: a job that was accepted is either in the queue, or rests
before its next attempt, or runs on exactly one worker, or has ended, and its client was told
of its end once; and no worker is idle while a job waits that may start.

A busy worker may have the next few jobs ahead (:mod:`dangad.prefetch`). They wait, and are taken
back if need be. If the worker proves to have begun one, its answer to the one before is in the
pipe, and is taken at once: then that is a job that runs like any other.

A running job is stopped in two steps: it is interrupted, which it may use to clean up, and
after a time of grace its worker is killed. Either way the worker's process and its group are
gone before the job's client is told, and another worker takes its place.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dangad import verdicts
from dangad.commands import Chunk
from dangad.draining import Drain
from dangad.jobqueue import JobQueue
from dangad.jobrecord import Event, Job, JobState
from dangad.lanes import Lanes
from dangad.prefetch import MOST_BYTES, SLOW, Prefetch, has_been_begun
from dangad.quarantine import Quarantine
from dangad.repertoire import Repertoire
from dangad.staff import Staff
from dangad.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.interfaces import IReactorTime

    from dangad.errors import DangadError, WorkerLost
    from dangad.interfaces import IClient, IWorker, IWorkforce
    from dangad.jobrecord import Death

log = Logger()

AGEING = 30.0
"""Seconds after which a priority's next job, still waiting, takes turns with higher ones."""
GRACE = 2.0
"""Seconds that an interrupted job has to clean up before its process is killed."""
FIRST_RETRY = 0.1
"""Seconds before the second attempt; each further delay is twice the last."""
LONGEST_RETRY = 10.0
"""Seconds before an attempt at most; each delay is then multiplied by between 0.5 and 1.5."""
ENDS_AT_ONCE = 100
"""Waiting jobs of a quarantined command that are ended in one turn of the reactor."""


class Dispatcher:
    """The rules of the module's docstring.

    All mutable state: `_queue`, the jobs that wait, and `_lanes`, which of them are kept back;
    `_running`, the job of each busy worker, and `_ahead`, those that it has ahead; `_staff`, the
    idle workers; `_called_back`, workers of which the next to end its job gets no other;
    `_matching`, whether the idle are being given jobs; `_lost_jobs`, whose worker is gone and who
    are dealt with one after the other; `tally`, what became of those that ended;
    `low_water`, how many idle workers are too few; `_repertoire`, what the workers perform, and
    `_quarantine`, what they must not for a while; `_no_workers`, why none can be had, if so;
    `_drain`, the end of all.
    """

    def __init__(
        self,
        clock: IReactorTime,
        max_queued: int = 10_000,
        *,
        max_queued_bytes: int = 2**30,
        quarantine_after: int = 5,
        quarantine_time: float = 30.0,
        log_jobs: bool = False,
        chance: random.Random | None = None,
    ) -> None:
        """Begin with no jobs and no workers.

        :param clock: where the time comes from.
        :param max_queued: how many jobs may wait, of all clients together.
        :param max_queued_bytes: how many bytes their requests may have together.
        :param quarantine_after: how many workers in a row a command may cost; 0 for any number.
        :param quarantine_time: seconds for which it is then refused.
        :param log_jobs: whether the end of every job is logged, not only of those that fail.
        :param chance: where the jitter of retries comes from.
        """
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.tally = Tally(log_jobs)
        self.low_water = 0
        self._clock = clock
        self._chance = chance or random.Random()
        self._workforce: IWorkforce | None = None
        self._queue = JobQueue(AGEING)
        self._running: dict[IWorker, Job] = {}
        self._ahead = Prefetch(self._queue)
        self._repertoire = Repertoire()
        self._staff = Staff(self._repertoire)
        self._lanes = Lanes(self._queue, self._repertoire, self._staff)
        self._called_back: Collection[IWorker] = ()
        self._matching = False
        self._lost_jobs: list[Job] = []
        self._quarantine = Quarantine(quarantine_after, quarantine_time)
        self._no_workers: str | None = None
        self._drain = Drain(clock, self.tally, self._give_up_draining)

    def staffed_by(self, workforce: IWorkforce) -> None:
        """Tell `workforce` from now on when jobs wait and no worker is idle."""
        self._workforce = workforce

    @property
    def waiting(self) -> int:
        """How many jobs wait, those that rest before their next attempt included."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def idle(self) -> int:
        """How many workers are idle."""
        return len(self._staff.idle)

    @property
    def draining(self) -> bool:
        """Whether it accepts no more jobs."""
        return self._drain.begun

    @property
    def no_workers_because(self) -> str | None:
        """Why no worker can be had, if so."""
        return self._no_workers

    def is_idle(self, worker: IWorker) -> bool:
        """Whether `worker` is idle."""
        return worker in self._staff.idle

    def job_of(self, worker: IWorker) -> Job | None:
        """The job that `worker` runs."""
        return self._running.get(worker)

    def worker_of(self, job_id: int) -> IWorker | None:
        """Who runs the job with that id."""
        for worker, job in self._running.items():
            if job.id == job_id:
                return worker
        return None

    # Told by clients.

    def submit(self, job: Job) -> None:
        """Accept `job`, and start it if a worker is idle; or refuse it.

        A job is refused by ``job.client.fail`` before this returns, with the reason.
        """
        client = job.client
        if client is None:
            raise ValueError(f"{job!r} has no client")
        now = job.accepted_at = self._clock.seconds()
        job.lane = self._lanes.lane_of(job)
        may_start = self._may_start_at_once(job, client)
        refusal = self._refusal(job, now, may_start)
        if refusal is not None:
            self.tally.refused += 1
            client.fail(job, refusal)
            return
        self.tally.accepted += 1
        if job.deadline is not None:
            job.deadline_alarm = self._clock.callLater(job.deadline, self._deadline_passed, job)
        if may_start and not self._queue:
            self._start(job, self._staff.take(job.command), now)
            self._ask_for_spares()
        else:
            self._queue.push(client, job, job.lane)
            self._match(now)

    def cancel(self, job: Job) -> None:
        """End `job` if it has not ended: at once if it waits, else by stopping it."""
        if self._take_out(job):
            self._end(job, verdicts.cancelled_waiting(job))
        elif has_been_begun(job):
            job.stopped_for = job.stopped_for or verdicts.cancelled_running(job, 0.0)
        elif job.state is JobState.RUNNING:
            ran = self._clock.seconds() - job.started_at
            self._stop(job, verdicts.cancelled_running(job, ran), b"cancelled")

    def client_gone(self, client: IClient) -> None:
        """Tell `client` nothing any more, and end its jobs.

        Those that wait never run; those that run are stopped, unless their type says that they
        finish.
        """
        for job in self._ahead.jobs_of(client):
            self._ahead.take_back(job.worker)
        running = [job for job in self._running.values() if job.client is client]
        running += self._ahead.jobs_of(client)  # begun, in truth
        running += [job for job in self._lost_jobs if job.client is client]
        for job in running:
            job.client = None
        waiting = self._queue.drop(client)
        for job in waiting:
            job.client = None
            self._end(job, verdicts.client_left(), quietly=True)
        if waiting:
            log.info("{jobs} waiting jobs of a client that disconnected end", jobs=len(waiting))
        for job in running:
            self._ahead.settle(job.worker)
            if has_been_begun(job) or job in self._lost_jobs:
                job.stopped_for = job.stopped_for or verdicts.client_left()
            elif job.worker is not None:
                job.worker.resume()
                if self._repertoire.policy(job.command).on_disconnect == "cancel":
                    self.cancel(job)

    def hold(self, client: IClient) -> None:
        """Start no job of `client`, and let those that send it parts wait: it does not read."""
        for job in self._ahead.jobs_of(client):
            self._ahead.take_back(job.worker)
        self._queue.hold(client)
        for job in self._ahead.jobs_of(client):
            self._ahead.settle(job.worker)
        for worker, job in list(self._running.items()):
            if job.client is client and job.wants_chunks:
                self._ahead.settle(worker)  # others' jobs must not wait with it
                if self._running.get(worker) is job and job.stopped_for is None:
                    worker.pause()

    def release(self, client: IClient) -> None:
        """Let the jobs of `client` go on, and start more."""
        self._queue.release(client)
        for worker, job in self._running.items():
            if job.client is client and job.wants_chunks:
                worker.resume()
        self._match(self._clock.seconds())

    def describe(self) -> Deferred[str]:
        """The catalogue of job types.

        Fires with the JSON document of :mod:`dangad.schema`, as soon as the first worker has
        told it, which counts as demand for one. Fails with :class:`ShuttingDown` if the server
        stops before, :class:`NoWorkers` if no worker can be had, and :class:`QueueFull` if as
        many as may wait for jobs wait for this.
        """
        refusal: DangadError | None = None
        if not self._repertoire.known:
            if self._drain.begun:
                refusal = verdicts.stopping()
            elif self._no_workers is not None:
                refusal = verdicts.no_workers(self._no_workers)
            elif self._repertoire.waiting >= self.max_queued:
                refusal = verdicts.too_many_wait(self.max_queued)
        if refusal is not None:
            refused: Deferred[str] = Deferred()
            refused.errback(refusal)
            return refused
        waiter = self._repertoire.catalogue()
        if not self._repertoire.known and self._workforce is not None:
            self._workforce.demand(1)
        return waiter

    # Told by the workforce and by workers.

    def worker_ready(self, worker: IWorker, catalogue: str) -> None:
        """`worker` has booted, performs what `catalogue` says, and is idle."""
        self._no_workers = None
        now = self._clock.seconds()
        self._ahead.take_all_back()
        self._staff.add(worker, now)
        if self._repertoire.join(worker, catalogue):
            self._review_jobs()
        self._match(now)

    def job_reported(self, worker: IWorker, command: bytes, body: bytes) -> None:
        """The job of `worker` has news for its client: see :meth:`IClient.report`."""
        job = self._running[worker]
        if job.client is not None and job.stopped_for is None:
            if command == Chunk.commandName:
                job.box = b""  # never again: its client would get the parts twice
            job.client.report(job, command, body)

    def job_finished(
        self,
        worker: IWorker,
        failed: bool,
        body: bytes,
        receipt: bytes = b"",
        *,
        fit: bool = True,
        printed: bool = False,
    ) -> None:
        """`worker` has answered its job, with an error if `failed`.

        It is idle then, or has begun the next of those that it has ahead.

        :param body: the answer.
        :param receipt: what the job took, in the form of ``Job.receipt``.
        :param fit: whether the worker may be given another job; if not, it begins none.
        :param printed: whether the job has printed something.
        """
        job = self._running[worker]
        if job.stopped_for is not None:
            worker.kill(f"was stopped: {job.stopped_for}")
            return
        del self._running[worker]
        now = self._clock.seconds()
        self._leave_worker(job)
        self._quarantine.succeeded(job.command)
        job.live(Event.FAIL if failed else Event.ANSWER)
        self._cancel_alarms(job)
        job.receipt = receipt
        self.tally.note_end(job, now)
        self._ahead.note(job, printed)
        released = self._go_on(worker, fit, now)
        self._give_work(now)
        self.tally.log_end(job)
        client, job.client = job.client, None
        if client is not None:
            client.deliver(job, failed, body)
        if released:
            self._release(worker)
        if self._ahead or worker in self._running:
            self._give_ahead(worker, now)
        self._drain.check()

    def worker_gone(self, worker: IWorker, death: Death) -> None:
        """`worker` is dead, and its process group with it."""
        self._staff.remove(worker)
        job = self._running.pop(worker, None)
        now = self._clock.seconds()
        self._ahead.take_back(worker)
        lost = [] if job is None else [job]
        while (begun := self._begin_next(worker, now)) is not None:
            lost.append(begun)
        self._ahead.take_all_back()
        self._lost_jobs += lost
        for each in lost:
            self._leave_worker(each)
        changed = self._repertoire.leave(worker)
        if changed:
            self._review_jobs()
        self._lanes.staff_changed()
        for each in lost:
            self._lost_jobs.remove(each)
            each.receipt = death.receipt
            if each.stopped_for is not None:
                self._end(each, each.stopped_for)
            elif death.unread and each is job and each.client is not None:
                self._return(each, death.unread)
            else:
                ran = now - each.started_at
                self._lost(each, verdicts.lost(each, worker.pid, death, ran), now, each is lost[0])
        if changed:
            self._review_jobs()  # again, for those of them that wait now
        self._give_work(now)

    def dismiss_idle(self, before: float) -> IWorker | None:
        """A worker that has been idle since before that time, taken away; None if there is none."""
        worker = self._staff.idle_since(before)
        if worker is not None:
            self.dismiss(worker)
        return worker

    def dismiss(self, worker: IWorker) -> None:
        """Give `worker` no job any more: it is about to be killed."""
        self._staff.remove(worker)
        self._lanes.staff_changed()
        self._ahead.take_back(worker)

    def outdated(self) -> set[IWorker]:
        """The workers that perform other commands than the latest that has booted."""
        return self._repertoire.outdated()

    def call_back(self, workers: Collection[IWorker]) -> IWorker | None:
        """Take away one of `workers`: one that is idle, which is returned, or the next to be.

        In the latter case the workforce is told of it, as ``worker_released``, instead of its
        being given another job. Each call takes the place of the last; with no workers it only
        ends the wait.
        """
        self._called_back = ()
        for worker in workers:
            if self._staff.remove(worker):
                self._lanes.staff_changed()
                return worker
        self._called_back = workers
        for worker in workers:
            self._ahead.take_back(worker)
        return None

    def no_workers(self, reason: str) -> None:
        """No worker can be had, for `reason`: refuse what waits and what comes, until one can."""
        self._no_workers = reason
        self._repertoire.give_up(verdicts.no_workers(reason))
        self._end_waiting(verdicts.no_workers(reason))

    # Told by the service.

    def drain(self, seconds: float) -> Deferred[None]:
        """Accept no more jobs, and finish those that were accepted, for at most `seconds`.

        What has not ended by then is stopped with :class:`ShuttingDown`. Fires with None once
        no job is left. May be called again with a new limit.
        """
        if not self._drain.begun:
            self._repertoire.give_up(verdicts.stopping())
        self._drain.begin(seconds)
        return self.when_drained()

    def when_drained(self) -> Deferred[None]:
        """Fires once no job is left after the drain, which may be still to begin."""
        return self._drain.wait()

    # What is refused.

    def _refusal(self, job: Job, now: float, may_start: bool) -> DangadError | None:
        if self._drain.begun:
            return verdicts.stopping()
        if self._repertoire.lacks(job.command):
            return verdicts.unhandled(job)
        if self._no_workers is not None:
            return verdicts.no_workers(self._no_workers)
        if seconds := self._quarantine.seconds_left(job.command, now):
            return verdicts.quarantined(job, seconds)
        if job.deadline is not None and job.deadline <= 0:
            return verdicts.came_late(job)
        if may_start:
            return None
        if self.waiting >= self.max_queued:
            return verdicts.too_many_wait(self.max_queued)
        if self._queue.size + job.size > self.max_queued_bytes:
            return verdicts.too_much_waits(self._queue.size, self.max_queued_bytes)
        return None

    # Who runs next.

    def _may_start_at_once(self, job: Job, client: IClient) -> bool:
        """Whether a worker is idle for `job`; then what waits is on hold, or in a closed lane."""
        return bool(
            self._staff.idle
            and not self._queue.is_on_hold(client)
            and not self._queue.is_closed(job.lane)
        )

    def _match(self, now: float) -> None:
        """Start jobs while there are workers for them, and ask for workers if there are not."""
        self._ahead.give_way()
        self._give_work(now)
        if self._queue and not self._staff.idle and self._workforce is not None:
            self._workforce.demand(len(self._queue))
        else:
            self._ask_for_spares()

    def _ask_for_spares(self) -> None:
        if len(self._staff.idle) < self.low_water and self._workforce is not None:
            self._workforce.demand(0)

    def _give_work(self, now: float) -> None:
        """Start jobs while there are workers for them, and end those that must not start.

        A client that is told of an end may submit more: that waits for the loop's next round.
        """
        if self._matching:
            return
        self._matching = True
        self._lanes.staff_changed()
        ends = 0
        try:
            while self._staff.idle:
                job = self._queue.pop(now)
                if job is None:
                    if self._ahead.take_some_back():
                        continue
                    break
                obstacle = self._obstacle(job, now)
                if obstacle is None:
                    self._start(job, self._staff.take(job.command), now)
                    continue
                self._end(job, obstacle, quietly=True)
                ends += 1
                if ends == ENDS_AT_ONCE:
                    self._clock.callLater(0, self._match_again)
                    return
        finally:
            self._matching = False

    def _match_again(self) -> None:
        self._match(self._clock.seconds())

    def _obstacle(self, job: Job, now: float) -> DangadError | None:
        """Why `job`, whose turn it is, must not start; the reactor may be late with an alarm."""
        if job.deadline is not None and job.accepted_at + job.deadline <= now:
            return verdicts.waited_too_long(job)
        if seconds := self._quarantine.seconds_left(job.command, now):
            return verdicts.quarantined(job, seconds)
        return None

    def _start(self, job: Job, worker: IWorker, now: float) -> None:
        """Have `worker`, which was idle, perform `job`."""
        self._set_time(job, now)
        self._note_start(job, worker, now)
        self._running[worker] = job
        self._lanes.staff_changed()
        worker.perform(job)
        self._drop_box(job)

    def _note_start(self, job: Job, worker: IWorker, now: float) -> None:
        """Note that `job` runs."""
        job.live(Event.START)
        job.attempt += 1
        job.started_at = now
        job.worker = worker
        job.pid = worker.pid
        limit = self._repertoire.policy(job.command).time_limit
        if limit is not None:
            job.run_alarm = self._clock.callLater(limit, self._time_is_up, job)
        self._lanes.started(job)

    def _set_time(self, job: Job, now: float) -> None:
        """Note how long `job` may run if it starts now."""
        job.seconds = self._repertoire.policy(job.command).time_limit
        if job.deadline is not None:
            left = job.accepted_at + job.deadline - now
            job.seconds = left if job.seconds is None else min(left, job.seconds)

    def _drop_box(self, job: Job) -> None:
        """Forget the request of `job`, which runs, unless it may be needed again."""
        if job.attempt > self._repertoire.policy(job.command).retries:
            job.box = b""

    def _return(self, job: Job, box: bytes) -> None:
        """Let `job` wait again, whose request its worker, now dead, had not read."""
        job.live(Event.RETURN)
        job.box = box
        job.attempt -= 1
        self._cancel_run_alarm(job)
        self._queue.put_back(job)

    # Who has which jobs ahead.

    def _take_out(self, job: Job) -> bool:
        """Take `job` out of the queue if it waits; else learn how far it is."""
        self._ahead.take_back(job.worker)
        if job.worker is None and self._queue.remove(job):
            return True
        self._ahead.settle(job.worker)
        return False

    def _go_on(self, worker: IWorker, fit: bool, now: float) -> bool:
        """Have `worker`, which has ended a job, go on with what it has ahead, or else be idle.

        True if it is to do neither, but to be given back.
        """
        if self._ahead:
            if not fit:
                self._ahead.take_back(worker)
            self._ahead.give_way()
            job = self._begin_next(worker, now)
            if job is not None:
                self._running[worker] = job
                worker.begin(job)
                self._drop_box(job)
                return False
        if not fit or worker in self._called_back:
            return True
        self._staff.add(worker, now)
        return False

    def _begin_next(self, worker: IWorker, now: float) -> Job | None:
        """The next job that `worker` has ahead, which it has begun; None if it has none."""
        job = self._ahead.next(worker)
        if job is not None:
            job.lane = self._lanes.lane_of(job)  # it may have got one since it went ahead
            self._note_start(job, worker, now)
        return job

    def _give_ahead(self, worker: IWorker, now: float) -> None:
        """Give `worker`, which has just ended a job, some ahead if it is busy again."""
        late = self._ahead.longest_waiting()
        if late is not None and self._running[late].started_at <= now - SLOW:
            self._ahead.take_back(late)
        running = self._running.get(worker)
        if (
            running is None
            or running.stopped_for is not None
            or worker is self._ahead.settling
            or worker in self._called_back
            or self._repertoire.partial  # only a worker that is idle opens their lanes
            or not (worker.can_prefetch and self._ahead.is_quiet(running, now))
        ):
            return
        for _ in range(self._ahead.room(worker, len(self._queue), len(self._running))):
            job = self._queue.pop(now, self._may_go_ahead)
            if job is None:
                return
            self._set_time(job, now)
            if not self._ahead.give(worker, job):
                return

    def _may_go_ahead(self, job: Job) -> bool:
        """Whether `job`, whose turn it is, may be given to a busy worker."""
        now = self._clock.seconds()
        return (
            job.lane is None
            and job.size <= MOST_BYTES
            and self._ahead.is_quiet(job, now)
            and self._obstacle(job, now) is None
            and not self._queue.has_above(job.priority)  # it has aged, and theirs is the next turn
        )

    def _leave_worker(self, job: Job) -> None:
        """Note that `job` does not run any more."""
        job.worker = None
        self._lanes.ended(job)

    def _review_jobs(self) -> None:
        """Look at all jobs again: what the workers perform has become known, or changed."""
        self._lanes.review(self._running.values())
        for job in [job for job in self._queue if not has_been_begun(job)]:
            if job.lane != (lane := self._lanes.lane_of(job)):
                job.lane = lane
                if job.run_alarm is None and job.client is not None:
                    self._queue.remove(job)
                    self._queue.push(job.client, job, lane)
        for job in [job for job in self._queue if self._repertoire.lacks(job.command)]:
            if not has_been_begun(job) and self._queue.remove(job):
                self._end(job, verdicts.unhandled(job))

    # What ends a job.

    def _deadline_passed(self, job: Job) -> None:
        job.deadline_alarm = None
        if self._take_out(job):
            self._end(job, verdicts.waited_too_long(job))
        elif has_been_begun(job):
            job.stopped_for = job.stopped_for or verdicts.reached_deadline(job, 0.0)
        elif job.state is JobState.RUNNING:
            ran = self._clock.seconds() - job.started_at
            error = verdicts.reached_deadline(job, ran)
            self._stop(job, error, b"time")

    def _time_is_up(self, job: Job) -> None:
        job.run_alarm = None
        self._ahead.settle(job.worker)
        ran = self._clock.seconds() - job.started_at
        self._stop(job, verdicts.ran_too_long(job, ran), b"time")

    def _stop(self, job: Job, error: DangadError, why: bytes) -> None:
        """Have `job`, which runs, end with `error`: by itself, or when the grace is over."""
        if job.state is not JobState.RUNNING or job.stopped_for is not None:
            return
        job.stopped_for = error
        worker = job.worker
        if worker is None:
            return  # it has just died, and this job's end is yet to come
        if job.run_alarm is not None:
            job.run_alarm.cancel()
        job.run_alarm = self._clock.callLater(GRACE, worker.kill, f"was killed: {error}")
        worker.resume()
        if why == b"time":
            worker.show_stack()
        worker.interrupt(job, why)

    def _lost(self, job: Job, error: WorkerLost, now: float, blamed: bool) -> None:
        """Have `job`, whose worker died, run again if it may, and end it if not.

        :param blamed: whether the worker counts as one that the job's command has cost.
        """
        job.lost_for = error
        quarantined = blamed and self._quarantine.worker_lost(job.command, now)
        if quarantined:
            log.warn("{command} is quarantined: {error}", command=job.name, error=str(error))
        retries = self._repertoire.policy(job.command).retries
        if job.attempt > retries or not job.box or job.client is None:
            self._end(job, error)
            return
        if quarantined:
            self._end(
                job, verdicts.quarantined(job, self._quarantine.seconds_left(job.command, now))
            )
            return
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(job.attempt - 1, 30))
        delay *= self._chance.uniform(0.5, 1.5)
        log.info(
            "job {job} {command} is tried again in {delay:.1f} s: attempt {attempt}: {error}",
            job=job.id,
            command=job.name,
            delay=delay,
            attempt=job.attempt,
            error=str(error),
        )
        job.live(Event.RETRY)
        self._cancel_run_alarm(job)
        self._queue.rest(job)
        job.run_alarm = self._clock.callLater(delay, self._rested, job)

    def _rested(self, job: Job) -> None:
        job.run_alarm = None
        if job.client is not None:
            self._queue.push(job.client, job, job.lane)
            self._match(self._clock.seconds())

    def _end_waiting(self, error: DangadError) -> None:
        """End all that waits now: to hear of an end, a client may end others, or submit more."""
        self._ahead.take_all_back()
        jobs = [job for job in self._queue if not has_been_begun(job)]
        for job in jobs:
            if self._queue.remove(job):
                self._end(job, error, quietly=True)
        if jobs:
            log.info("{jobs} waiting jobs end: {error}", jobs=len(jobs), error=str(error))

    def _end(self, job: Job, error: DangadError, quietly: bool = False) -> None:
        """Bring `job`, which neither waits nor runs any more, to an end without an answer.

        One that has lost a worker has run, and must not be told what means that it has not.
        """
        error = verdicts.as_one_that_ran(job, error)
        state = job.live(verdicts.event_of(error))
        self._cancel_alarms(job)
        self.tally.note_end(job, self._clock.seconds())
        if not quietly:
            log.info(
                "job {job} {command} ended as {state}: {error}",
                job=job.id,
                command=job.name,
                state=state.value,
                error=str(error),
            )
        self.tally.log_end(job)
        client, job.client = job.client, None
        if client is not None:
            client.fail(job, error)
        self._drain.check()

    def _cancel_alarms(self, job: Job) -> None:
        self._cancel_run_alarm(job)
        if job.deadline_alarm is not None:
            job.deadline_alarm.cancel()
            job.deadline_alarm = None

    def _cancel_run_alarm(self, job: Job) -> None:
        if job.run_alarm is not None:
            if job.run_alarm.active():
                job.run_alarm.cancel()
            job.run_alarm = None

    def _release(self, worker: IWorker) -> None:
        """Give back a worker that has done its last job."""
        if worker in self._called_back:
            self._called_back = ()
        if self._workforce is not None:
            self._workforce.worker_released(worker)

    # The end of all.

    def _give_up_draining(self, seconds: float) -> None:
        error = verdicts.stopped(seconds)
        self._end_waiting(error)
        for begun in self._ahead.take_all_back():
            begun.stopped_for = begun.stopped_for or error
        for worker, job in list(self._running.items()):
            if job.stopped_for is None:
                job.stopped_for = error
            worker.kill(f"was killed: {error}")
