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

A running job is stopped in two steps: it is interrupted, which it may use to clean up, and
after a time of grace its worker is killed. Either way the worker's process and its group are
gone before the job's client is told, and another worker takes its place.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dangad import verdicts
from dangad.commands import Chunk
from dangad.jobqueue import JobQueue
from dangad.jobrecord import END_STATES, Event, Job, JobState
from dangad.lanes import Lanes
from dangad.quarantine import Quarantine
from dangad.repertoire import Repertoire
from dangad.staff import Staff

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

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
RECENT = 100
"""Jobs that are remembered after their end."""
ENDS_AT_ONCE = 100
"""Waiting jobs of a quarantined command that are ended in one turn of the reactor."""


class Tally:
    """How many jobs came to which end since the server started.

    :ivar accepted: jobs that were queued or started.
    :ivar refused: requests that were turned away at once.
    :ivar ended: ends of accepted jobs, by state.
    """

    __slots__ = ("accepted", "ended", "refused")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.ended: dict[JobState, int] = dict.fromkeys(END_STATES, 0)


class Dispatcher:
    """The rules of the module's docstring.

    All mutable state: `_queue`, the jobs that wait, and `_lanes`, which of them are kept back;
    `_running`, the job of each busy worker; `_staff`, the idle workers; `_called_back`, workers
    of which the next to end its job gets no other; `_matching`, whether the idle are being given
    jobs; `recent`, the last jobs that ended; `low_water`, how many idle workers are too few;
    `_repertoire`, what the workers perform, and `_quarantine`, what they must not for a while;
    `_no_workers`, why none can be had, if so; `_drained`, who waits for the end, `_draining`,
    whether it has begun, and `_drain_alarm`, its limit.
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
        self.log_jobs = log_jobs
        self.tally = Tally()
        self.recent: deque[Job] = deque(maxlen=RECENT)
        self.low_water = 0
        self._clock = clock
        self._chance = chance or random.Random()
        self._workforce: IWorkforce | None = None
        self._queue = JobQueue(AGEING)
        self._running: dict[IWorker, Job] = {}
        self._repertoire = Repertoire()
        self._staff = Staff(self._repertoire)
        self._lanes = Lanes(self._queue, self._repertoire, self._staff)
        self._called_back: Collection[IWorker] = ()
        self._matching = False
        self._quarantine = Quarantine(quarantine_after, quarantine_time)
        self._no_workers: str | None = None
        self._draining = False
        self._drained: list[Deferred[None]] = []
        self._drain_alarm: IDelayedCall | None = None

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
        return self._draining

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
        if self._queue.remove(job):
            self._end(job, verdicts.cancelled_waiting(job))
        elif job.worker is not None and job.stopped_for is None:
            ran = self._clock.seconds() - job.started_at
            self._stop(job, verdicts.cancelled_running(job, ran), b"cancelled")

    def client_gone(self, client: IClient) -> None:
        """Tell `client` nothing any more, and end its jobs.

        Those that wait never run; those that run are stopped, unless their type says that they
        finish.
        """
        waiting = self._queue.drop(client)
        for job in waiting:
            job.client = None
            self._end(job, verdicts.client_left(), quietly=True)
        if waiting:
            log.info("{jobs} waiting jobs of a client that disconnected end", jobs=len(waiting))
        for worker, job in list(self._running.items()):
            if job.client is client:
                job.client = None
                worker.resume()
                if self._repertoire.policy(job.command).on_disconnect == "cancel":
                    self.cancel(job)

    def hold(self, client: IClient) -> None:
        """Start no job of `client`, and let those that send it parts wait: it does not read."""
        self._queue.hold(client)
        for worker, job in self._running.items():
            if job.client is client and job.wants_chunks and job.stopped_for is None:
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
            if self._draining:
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
        self, worker: IWorker, failed: bool, body: bytes, receipt: bytes = b"", fit: bool = True
    ) -> None:
        """`worker` has answered its job, with an error if `failed`, and is idle.

        :param body: the answer.
        :param receipt: what the job took, in the form of ``Job.receipt``.
        :param fit: whether the worker may be given another job.
        """
        job = self._running[worker]
        if job.stopped_for is not None:
            worker.kill(f"was stopped: {job.stopped_for}")
            return
        del self._running[worker]
        now = job.ended_at = self._clock.seconds()
        self._leave_worker(job)
        self._quarantine.succeeded(job.command)
        state = job.live(Event.FAIL if failed else Event.ANSWER)
        self._cancel_alarms(job)
        self.tally.ended[state] += 1
        job.receipt = receipt
        job.box = b""
        self.recent.append(job)
        released = not fit or worker in self._called_back
        if not released:
            self._staff.add(worker, now)
        self._give_work(now)
        if self.log_jobs:
            self._log_end(job)
        client, job.client = job.client, None
        if client is not None:
            client.deliver(job, failed, body)
        if released:
            self._release(worker)
        if self._draining:
            self._check_drained()

    def worker_gone(self, worker: IWorker, death: Death) -> None:
        """`worker` is dead, and its process group with it."""
        self._staff.remove(worker)
        job = self._running.pop(worker, None)
        if job is not None:
            self._leave_worker(job)
        if self._repertoire.leave(worker):
            self._review_jobs()
        self._lanes.staff_changed()
        if job is None:
            return
        now = self._clock.seconds()
        job.receipt = death.receipt
        if job.stopped_for is not None:
            self._end(job, job.stopped_for)
        else:
            ran = now - job.started_at
            self._lost(job, verdicts.lost(job, worker.pid, death, ran), now)
        self._give_work(now)

    def dismiss_idle(self, before: float) -> IWorker | None:
        """A worker that has been idle since before that time, taken away; None if there is none."""
        worker = self._staff.idle_since(before)
        if worker is not None:
            self.dismiss(worker)
        return worker

    def dismiss(self, worker: IWorker) -> None:
        """Give `worker` no job any more, if it is idle: it is about to be killed."""
        self._staff.remove(worker)
        self._lanes.staff_changed()

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
        if not self._draining:
            self._draining = True
            self._repertoire.give_up(verdicts.stopping())
        if self._drain_alarm is not None:
            self._drain_alarm.cancel()
        self._drain_alarm = self._clock.callLater(seconds, self._give_up_draining, seconds)
        return self.when_drained()

    def when_drained(self) -> Deferred[None]:
        """Fires once no job is left after the drain, which may be still to begin."""
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        if self._draining:
            self._check_drained()
        return done

    # What is refused.

    def _refusal(self, job: Job, now: float, may_start: bool) -> DangadError | None:
        if self._draining:
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
            while self._staff.idle and (job := self._queue.pop(now)) is not None:
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
        policy = self._repertoire.policy(job.command)
        job.live(Event.START)
        job.attempt += 1
        job.started_at = now
        job.worker = worker
        job.pid = worker.pid
        job.seconds = policy.time_limit
        if policy.time_limit is not None:
            job.run_alarm = self._clock.callLater(policy.time_limit, self._time_is_up, job)
        if job.deadline is not None:
            left = job.accepted_at + job.deadline - now
            job.seconds = left if job.seconds is None else min(left, job.seconds)
        self._running[worker] = job
        self._lanes.started(job)
        self._lanes.staff_changed()
        worker.perform(job)
        if job.attempt > policy.retries:
            job.box = b""

    def _leave_worker(self, job: Job) -> None:
        """Note that `job` does not run any more."""
        job.worker = None
        self._lanes.ended(job)

    def _review_jobs(self) -> None:
        """Look at all jobs again: what the workers perform has become known, or changed."""
        self._lanes.review(self._running.values())
        for job in list(self._queue):
            if job.lane != (lane := self._lanes.lane_of(job)):
                job.lane = lane
                if job.run_alarm is None and job.client is not None:
                    self._queue.remove(job)
                    self._queue.push(job.client, job, lane)
        for job in [job for job in self._queue if self._repertoire.lacks(job.command)]:
            if self._queue.remove(job):
                self._end(job, verdicts.unhandled(job))

    # What ends a job.

    def _deadline_passed(self, job: Job) -> None:
        job.deadline_alarm = None
        if self._queue.remove(job):
            self._end(job, verdicts.waited_too_long(job))
        elif job.stopped_for is None:
            ran = self._clock.seconds() - job.started_at
            error = verdicts.reached_deadline(job, ran)
            self._stop(job, error, b"time")

    def _time_is_up(self, job: Job) -> None:
        job.run_alarm = None
        ran = self._clock.seconds() - job.started_at
        self._stop(job, verdicts.ran_too_long(job, ran), b"time")

    def _stop(self, job: Job, error: DangadError, why: bytes) -> None:
        """Have `job`, which runs, end with `error`: by itself, or when the grace is over."""
        if job.worker is None or job.stopped_for is not None:
            return
        job.stopped_for = error
        if job.run_alarm is not None:
            job.run_alarm.cancel()
        job.run_alarm = self._clock.callLater(GRACE, job.worker.kill, f"was killed: {error}")
        job.worker.resume()
        if why == b"time":
            job.worker.show_stack()
        job.worker.interrupt(job, why)

    def _lost(self, job: Job, error: WorkerLost, now: float) -> None:
        """Have `job`, whose worker died, run again if it may, and end it if not."""
        job.lost_for = error
        quarantined = self._quarantine.worker_lost(job.command, now)
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
        jobs = list(self._queue)
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
        self.tally.ended[state] += 1
        job.ended_at = self._clock.seconds()
        job.box = b""
        self.recent.append(job)
        if not quietly:
            log.info(
                "job {job} {command} ended as {state}: {error}",
                job=job.id,
                command=job.name,
                state=state.value,
                error=str(error),
            )
        if self.log_jobs:
            self._log_end(job)
        client, job.client = job.client, None
        if client is not None:
            client.fail(job, error)
        if self._draining:
            self._check_drained()

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

    def _log_end(self, job: Job) -> None:
        took = job.took
        log.info(
            "job {job} {command} {state} worker={pid} wait={wait:.6f} runtime={runtime:.6f} "
            "cpu={cpu:.6f} peak_memory={peak}",
            job=job.id,
            command=job.name,
            state=job.state.value,
            pid=job.pid,
            wait=job.wait,
            runtime=job.runtime,
            cpu=took.cpu if took else 0.0,
            peak=took.peak_memory if took else 0,
        )

    def _release(self, worker: IWorker) -> None:
        """Give back a worker that has done its last job."""
        if worker in self._called_back:
            self._called_back = ()
        if self._workforce is not None:
            self._workforce.worker_released(worker)

    # The end of all.

    def _give_up_draining(self, seconds: float) -> None:
        self._drain_alarm = None
        error = verdicts.stopped(seconds)
        self._end_waiting(error)
        for worker, job in list(self._running.items()):
            if job.stopped_for is None:
                job.stopped_for = error
            worker.kill(f"was killed: {error}")

    def _check_drained(self) -> None:
        if self.tally.accepted != sum(self.tally.ended.values()):
            return
        if self._drain_alarm is not None:
            self._drain_alarm.cancel()
            self._drain_alarm = None
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            waiter.callback(None)
