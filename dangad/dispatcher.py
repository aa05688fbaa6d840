"""The rules for jobs: who runs next and where, what an answer, a death, a cancel or a drain means.

The middle of a job's way: :mod:`dangad.server` submits jobs and is told their outcomes through
:class:`IClient`; :mod:`dangad.pool` is given jobs through :class:`IWorker` and reports answers.
How many workers there are is :mod:`dangad.workforce`'s; which job waits where is
:mod:`dangad.jobqueue`'s. No sockets, no processes, no bytes, no time but the clock's.

What always holds between two events: a job that was accepted is either in the queue, or runs
on exactly one worker, or has ended, and its client was told of its end once; and no worker is
idle while a job waits that may start.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dangad.errors import (
    Cancelled,
    DangadError,
    NoWorkers,
    QueueFull,
    ShuttingDown,
    UnhandledCommand,
    WorkerLost,
)
from dangad.jobqueue import JobQueue
from dangad.jobrecord import END_STATES, Job, JobState, Policy

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.interfaces import IClient, IWorker, IWorkforce

log = Logger()

AGEING = 30.0
"""Seconds after which a priority's next job, still waiting, takes turns with higher ones."""

_END_STATES: dict[type[DangadError], JobState] = {
    Cancelled: JobState.CANCELLED,
    WorkerLost: JobState.LOST,
}


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

    All mutable state: `_queue`, the jobs that wait; `_running`, the job of each busy worker;
    `_idle`, the idle workers with the time since when, the most recently used last;
    `_policies` and `_catalogue`, what the workers perform (None until one has told);
    `_describing`, who waits to be told; `_no_workers`, why none can be had, if so;
    `_drained`, who waits for the end, once the server drains, and `_drain_alarm`, its limit.
    """

    def __init__(self, clock: IReactorTime, max_queued: int, log_jobs: bool = False) -> None:
        """Begin with no jobs and no workers.

        :param clock: where the time comes from.
        :param max_queued: how many jobs may wait, of all clients together.
        :param log_jobs: whether the end of every job is logged, not only of those that fail.
        """
        self.max_queued = max_queued
        self.log_jobs = log_jobs
        self.tally = Tally()
        self._clock = clock
        self._workforce: IWorkforce | None = None
        self._queue = JobQueue(AGEING)
        self._running: dict[IWorker, Job] = {}
        self._idle: dict[IWorker, float] = {}
        self._policies: dict[bytes, Policy] | None = None
        self._catalogue = ""
        self._describing: list[Deferred[str]] = []
        self._no_workers: str | None = None
        self._draining = False
        self._drained: list[Deferred[None]] = []
        self._drain_alarm: IDelayedCall | None = None

    def staffed_by(self, workforce: IWorkforce) -> None:
        """Tell `workforce` from now on when jobs wait and no worker is idle."""
        self._workforce = workforce

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def idle(self) -> int:
        """How many workers are idle."""
        return len(self._idle)

    # Told by clients.

    def submit(self, job: Job) -> None:
        """Accept `job`, and start it if a worker is idle; or refuse it.

        A job is refused by ``job.client.fail`` before this returns, with the reason.
        """
        client = job.client
        if client is None:
            raise ValueError(f"{job!r} has no client")
        refusal = self._refusal(job, client)
        if refusal is not None:
            self.tally.refused += 1
            client.fail(job, refusal)
            return
        self.tally.accepted += 1
        now = job.accepted_at = self._clock.seconds()
        if self._idle and not self._queue.is_on_hold(client):  # then what waits is on hold
            worker, _ = self._idle.popitem()
            self._start(job, worker, now)
            return
        self._queue.push(client, job)
        self._match(now)

    def cancel(self, job: Job) -> None:
        """End `job` if it has not ended: at once if it waits, by killing its worker if it runs."""
        if self._queue.remove(job):
            self._end(job, Cancelled(f"{job.name} was cancelled while it waited; it never ran"))
        elif job.worker is not None and job.stopped_for is None:
            ran = self._clock.seconds() - job.started_at
            self._stop(job, Cancelled(f"{job.name} was cancelled {ran:.1f} s into its run"))

    def client_gone(self, client: IClient) -> None:
        """Tell `client` nothing any more, and end its jobs.

        Those that wait never run; those that run are stopped, unless their type says that they
        finish.
        """
        for job in self._queue.drop(client):
            job.client = None
            self._end(job, Cancelled(f"the client of {job.name} disconnected"))
        for job in [job for job in self._running.values() if job.client is client]:
            job.client = None
            if self._policy(job).on_disconnect == "cancel":
                self.cancel(job)

    def hold(self, client: IClient) -> None:
        """Start no job of `client` until it is released: it does not read its answers."""
        self._queue.hold(client)

    def release(self, client: IClient) -> None:
        """Start jobs of `client` again."""
        self._queue.release(client)
        self._match(self._clock.seconds())

    def describe(self) -> Deferred[str]:
        """The catalogue of job types.

        Fires with the JSON document of :mod:`dangad.schema`, as soon as the first worker has
        told it, which counts as demand for one. Fails with :class:`ShuttingDown` if the server
        stops before, :class:`NoWorkers` if no worker can be had, and :class:`QueueFull` if as
        many as may wait for jobs wait for this.
        """
        waiter: Deferred[str] = Deferred()
        if self._policies is not None:
            waiter.callback(self._catalogue)
        elif self._draining:
            waiter.errback(ShuttingDown("the server is stopping"))
        elif self._no_workers is not None:
            waiter.errback(self._no_workers_error())
        elif len(self._describing) >= self.max_queued:
            waiter.errback(self._queue_full())
        else:
            self._describing.append(waiter)
            if self._workforce is not None:
                self._workforce.demand(1)
        return waiter

    # Told by the workforce and by workers.

    def worker_ready(self, worker: IWorker, catalogue: str) -> None:
        """`worker` has booted, performs what `catalogue` says, and is idle."""
        self._no_workers = None
        if catalogue != self._catalogue:
            self._adopt(catalogue)
        self._idle[worker] = self._clock.seconds()
        self._match(self._idle[worker])

    def job_finished(self, worker: IWorker, failed: bool, body: bytes) -> None:
        """`worker` has answered its job, with an error if `failed`, and is idle."""
        job = self._running.pop(worker)
        now = self._clock.seconds()
        job.worker = None
        next_job = self._queue.pop(now)
        if next_job is None:
            self._idle[worker] = now
        else:
            self._start(next_job, worker, now)
        job.state = JobState.FAILED if failed else JobState.DONE
        self.tally.ended[job.state] += 1
        if self.log_jobs:
            self._log_end(job, worker, now)
        client, job.client = job.client, None
        if client is not None:
            client.deliver(job, failed, body)
        if self._draining:
            self._check_drained()

    def worker_gone(self, worker: IWorker, how: str) -> None:
        """`worker` is dead, and its process group with it: ended as in "was killed by SIGSEGV"."""
        self._idle.pop(worker, None)
        job = self._running.pop(worker, None)
        if job is not None:
            job.worker = None
            ran = self._clock.seconds() - job.started_at
            self._end(
                job,
                job.stopped_for
                or WorkerLost(f"worker {worker.pid} {how} {ran:.1f} s into {job.name}"),
            )

    def dismiss_idle(self, before: float) -> IWorker | None:
        """A worker that has been idle since before that time, taken away; None if there is none."""
        for worker, since in self._idle.items():
            if since <= before:
                del self._idle[worker]
                return worker
        return None

    def no_workers(self, reason: str) -> None:
        """No worker can be had, for `reason`: refuse what waits and what comes, until one can."""
        self._no_workers = reason
        waiters, self._describing = self._describing, []
        for waiter in waiters:
            waiter.errback(self._no_workers_error())
        self._end_waiting(list(self._queue), self._no_workers_error())

    # Told by the service.

    def drain(self, seconds: float) -> Deferred[None]:
        """Accept no more jobs, and finish those that were accepted, for at most `seconds`.

        What has not ended by then is stopped with :class:`ShuttingDown`. Fires with None once
        no job is left. May be called again with a new limit.
        """
        if not self._draining:
            self._draining = True
            waiters, self._describing = self._describing, []
            for waiter in waiters:
                waiter.errback(ShuttingDown("the server is stopping"))
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        if self._drain_alarm is not None:
            self._drain_alarm.cancel()
        self._drain_alarm = self._clock.callLater(seconds, self._give_up_draining, seconds)
        self._check_drained()
        return done

    # The rules.

    def _refusal(self, job: Job, client: IClient) -> DangadError | None:
        if self._draining:
            return ShuttingDown("the server is stopping and takes no new jobs")
        if self._policies is not None and job.command not in self._policies:
            return self._unhandled(job)
        if self._no_workers is not None:
            return self._no_workers_error()
        if len(self._queue) >= self.max_queued and (
            not self._idle or self._queue.is_on_hold(client)
        ):
            return self._queue_full()
        return None

    def _unhandled(self, job: Job) -> DangadError:
        return UnhandledCommand(f"no worker performs {job.name}")

    def _queue_full(self) -> DangadError:
        return QueueFull(f"{self.max_queued} jobs wait already, which is --max-queued")

    def _no_workers_error(self) -> DangadError:
        return NoWorkers(f"no worker can be started: {self._no_workers}")

    def _policy(self, job: Job) -> Policy:
        return (self._policies or {}).get(job.command) or Policy()

    def _adopt(self, catalogue: str) -> None:
        """Take `catalogue` for what the workers perform, and refuse what waits for more."""
        self._policies = {
            entry["name"].encode("ascii"): Policy(**entry["policy"])
            for entry in json.loads(catalogue)["commands"]
        }
        self._catalogue = catalogue
        for job in [job for job in self._queue if job.command not in self._policies]:
            self._end_waiting([job], self._unhandled(job))
        waiters, self._describing = self._describing, []
        for waiter in waiters:
            waiter.callback(catalogue)

    def _match(self, now: float) -> None:
        """Start jobs while there are workers for them, and ask for workers if there are not."""
        while self._idle and (job := self._queue.pop(now)) is not None:
            worker, _ = self._idle.popitem()
            self._start(job, worker, now)
        if self._queue and not self._idle and self._workforce is not None:
            self._workforce.demand(len(self._queue))

    def _start(self, job: Job, worker: IWorker, now: float) -> None:
        job.state = JobState.RUNNING
        job.attempt += 1
        job.started_at = now
        job.worker = worker
        self._running[worker] = job
        worker.perform(job)

    def _stop(self, job: Job, error: DangadError) -> None:
        """Kill the worker that runs `job`, which ends with `error` once that is dead."""
        job.stopped_for = error
        if job.worker is not None:
            job.worker.kill(str(error))

    def _end_waiting(self, jobs: list[Job], error: DangadError) -> None:
        """End those of `jobs` that still wait: to hear of an end, a client may end others."""
        for job in jobs:
            if self._queue.remove(job):
                self._end(job, error)

    def _end(self, job: Job, error: DangadError) -> None:
        """Bring `job`, which neither waits nor runs any more, to an end without an answer."""
        job.state = _END_STATES.get(type(error), JobState.FAILED)
        self.tally.ended[job.state] += 1
        log.info(
            "job {job} {command} ended as {state}: {error}",
            job=job.id,
            command=job.name,
            state=job.state.value,
            error=str(error),
        )
        client, job.client = job.client, None
        if client is not None:
            client.fail(job, error)
        if self._draining:
            self._check_drained()

    def _log_end(self, job: Job, worker: IWorker, now: float) -> None:
        log.info(
            "job {job} {command} {state} worker={pid} wait={wait:.6f} runtime={runtime:.6f}",
            job=job.id,
            command=job.name,
            state=job.state.value,
            pid=worker.pid,
            wait=job.started_at - job.accepted_at,
            runtime=now - job.started_at,
        )

    def _give_up_draining(self, seconds: float) -> None:
        self._drain_alarm = None
        error = ShuttingDown(f"the server stopped; the job had not ended after {seconds:g} s")
        self._end_waiting(list(self._queue), error)
        for job in list(self._running.values()):
            if job.stopped_for is None:
                self._stop(job, error)

    def _check_drained(self) -> None:
        if self.tally.accepted != sum(self.tally.ended.values()):
            return
        if self._drain_alarm is not None:
            self._drain_alarm.cancel()
            self._drain_alarm = None
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            waiter.callback(None)
