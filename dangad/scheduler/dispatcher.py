"""The rules for jobs: who runs next and where, and what ends a job.

The middle of a job's way: :mod:`dangad.server.factory` submits jobs and is told their outcomes
through :class:`IClient`; :mod:`dangad.pool.link` is given jobs through :class:`IWorker`, and
reports answers. How many workers there are is :mod:`dangad.scheduler.supervisor`'s; which job waits
where is :mod:`dangad.scheduler.fairqueue`'s; the states of a job's life are in
:mod:`dangad.scheduler.record`, and what its client is told in :mod:`dangad.scheduler.reasons`. No
sockets, no processes, no bytes, no time but the clock's.

What always holds between two events: a job that was accepted is either in the queue, or rests
before its next attempt, or runs on exactly one worker, or has ended, and its client was told
of its end once; and no worker is idle while a job waits that may start.

A busy worker may have the next few jobs ahead (:mod:`dangad.scheduler.prefetch`). They wait, and
are taken back if need be. If the worker proves to have begun one, the answers to those before it
are in the pipe: then the last that it has begun is the one that runs, and the others have answered.

An event is decided first and told last: clients are told, and the log written, when all state is
whole (:mod:`dangad.scheduler.outbox`). A client that cannot be told is cut off, and a worker that
cannot be spoken to is killed; nobody else notices. What concerns each of many jobs is done a part
in one turn of the reactor (:mod:`dangad.scheduler.chores`, :mod:`dangad.scheduler.alarms`):
meanwhile a job that must not start does not, though its turn to be told is still to come.

A running job is stopped in two steps: it is interrupted, which it may use to clean up, and
after a time of grace its worker is killed. Either way the worker's process and its group are
gone before the job's client is told, and another worker takes its place.
"""

from __future__ import annotations

import random
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dangad.host.quietlog import QuietLog
from dangad.scheduler import reasons
from dangad.scheduler.alarms import Alarms
from dangad.scheduler.chores import PART, Chores
from dangad.scheduler.concurrency import Lanes
from dangad.scheduler.counters import Counters
from dangad.scheduler.drain import Drain
from dangad.scheduler.fairqueue import UNLIMITED, JobQueue
from dangad.scheduler.idle import IdleWorkers
from dangad.scheduler.outbox import Outbox, log_failure
from dangad.scheduler.pauses import HURRY, WARY, Pauses
from dangad.scheduler.prefetch import MOST_BYTES, SLOW, Prefetch
from dangad.scheduler.quarantine import Quarantine
from dangad.scheduler.record import END_STATES, Event, Job, JobState
from dangad.scheduler.registry import Registry
from dangad.wire import boxes
from dangad.wire.commands import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from dangad.errors import DangadError, WorkerLost
    from dangad.scheduler.alarms import Alarm
    from dangad.scheduler.interfaces import IClient, ISupervisor, IWorker
    from dangad.scheduler.record import Death

log = Logger()

AGEING = 30.0
"""Seconds after which a priority's next job, still waiting, takes turns with higher ones."""
GRACE = 2.0
"""Seconds that an interrupted job has to clean up before its process is killed."""
FIRST_RETRY = 0.1
"""Seconds before the second attempt; each further delay is twice the last."""
LONGEST_RETRY = 10.0
"""Seconds before an attempt at most; each delay is then multiplied by between 0.5 and 1.5."""
LOGGED_ENDS = 10
"""Jobs of one client that end with one kind of error of which each has its line in the log, before
the rest is counted."""
KILL_AGAIN = 1.0
"""Seconds after which a worker that could not be killed is killed again."""


class Dispatcher:
    """The rules of the module's docstring.

    All mutable state: `_queue`, the jobs that wait, and `_lanes`, which of them are kept back;
    `_running`, the job of each busy worker, and `_ahead`, those that it has ahead; `_idle_workers`,
    the idle workers; `_pauses`, the running jobs that wait for their clients to read;
    `_wary_until`, the time for which those that send parts leave the last worker to others, and
    `_pop`, which gives the job that starts next; `_called_back`, workers of which the next to end
    its job gets no other; `_doomed`, workers that are to be gone, and why; `_outbox`, what is still
    to be told of the present event, and `_alarms` and `_chores`, what is to be done later; `_gone`,
    clients that are gone and have jobs that wait; `_to_review`, the jobs that may have another
    lane, or must not wait, since the workers' offer changed, and None if all were looked at;
    `_resumes`, whether starts go on in the next turn; `counters`, what became of the jobs that
    ended; `low_water`, how many idle workers are too few; `_registry`, what the workers perform,
    and `_quarantine`, what they must not for a while; `_no_workers`, why none can be had, if so;
    `_drain`, the end of all, and `_given_up`, why the drain does not wait any more.
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
        self.counters = Counters(log_jobs)
        self.low_water = 0
        self._clock = clock
        self._chance = chance or random.Random()
        self._supervisor: ISupervisor | None = None
        self._queue = JobQueue(AGEING)
        self._running: dict[IWorker, Job] = {}
        self._outbox = Outbox()
        self._alarms = Alarms(clock)
        self._chores = Chores(clock)
        self._ahead = Prefetch(self._queue, self._put_back, self._worker_failed)
        self._registry = Registry()
        self._idle_workers = IdleWorkers(self._registry)
        self._lanes = Lanes(self._queue, self._registry, self._idle_workers)
        self._called_back: Collection[IWorker] = ()
        self._pauses = Pauses(
            self._alarms,
            self._any_could_start,
            self._any_runs_but,
            self._be_wary,
            self._end_unread,
        )
        self._wary_until = 0.0
        self._pop: Callable[[float], Job | None] = self._queue.pop
        self._doomed: dict[IWorker, str] = {}
        self._gone: set[IClient] = set()
        self._to_review: Iterator[Job] | None = None
        self._resumes = False
        self._quiet = QuietLog(clock, log, LOGGED_ENDS)
        self._quarantine = Quarantine(quarantine_after, quarantine_time)
        self._no_workers: str | None = None
        self._drain = Drain(self._alarms, self.counters, self._give_up_draining)
        self._given_up: DangadError | None = None

    def supervised_by(self, supervisor: ISupervisor) -> None:
        """Tell `supervisor` from now on when jobs wait and no worker is idle."""
        self._supervisor = supervisor

    @property
    def waiting(self) -> int:
        """How many jobs wait, those that rest before their next attempt included."""
        return len(self._queue) + self._ahead.count

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def idle(self) -> int:
        """How many workers are idle."""
        return len(self._idle_workers.idle)

    @property
    def draining(self) -> bool:
        """Whether it accepts no more jobs."""
        return self._drain.begun

    @property
    def no_workers_because(self) -> str | None:
        """Why no worker can be had, if so."""
        return self._no_workers

    @property
    def starts(self) -> int:
        """How many jobs have been started."""
        return self._queue.starts

    def is_held_by_one(self, workers: int) -> tuple[bool, bool]:
        """Whether so many jobs of one client run; and if so, whether others have some to start."""
        client = self._queue.runner_of(workers)
        return client is not None, client is not None and self._queue.has_turn_beside(client)

    def limit_each(self, most: int | None) -> None:
        """Have no more than `most` jobs of each client run from now on; None for any number."""
        self._queue.most_running = UNLIMITED if most is None else most
        self._match(self._clock.seconds())
        self._outbox.send()

    def is_idle(self, worker: IWorker) -> bool:
        """Whether `worker` is idle."""
        return worker in self._idle_workers.idle

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
        if refusal is None and job.deadline is not None:
            job.deadline_alarm = self._set_alarm(job, job.deadline, self._deadline_passed)
            if job.deadline_alarm is None:
                refusal = reasons.broken(job)
        if refusal is not None:
            self.counters.refused += 1
            self._tell_end(client, job, refusal)
            return
        self.counters.accepted += 1
        try:
            if may_start and not (self._queue or self._ahead):
                self._start(job, self._idle_workers.take(job.command), now)
                self._ask_for_spares()
            else:
                self._queue.push(client, job, job.lane)
                self._match(now)
        except Exception:  # noqa: BLE001 - it was accepted, and must end
            self._end_broken(job)
        if self._outbox.calls:
            self._outbox.send()

    def cancel(self, job: Job) -> None:
        """End `job` if it has not ended: at once if it waits, else by stopping it."""
        if self._take_out(job):
            self._end(job, reasons.cancelled_waiting(job))
        else:
            self._stop(job, reasons.cancelled_running(job, self._ran(job)), b"cancelled")
        self._outbox.send()

    def client_gone(self, client: IClient) -> None:
        """Tell `client` nothing any more, and end its jobs.

        Those that wait never run, and end a part in each turn of the reactor; those that run are
        stopped, unless their type says that they finish.
        """
        for job in self._ahead.jobs_of(client):
            self._ahead.take_back(job.worker)
        running = [job for job in self._running.values() if job.client is client]
        running += self._ahead.jobs_of(client)  # the worker has begun them
        for job in running:
            job.asker = client.name
            job.client = None
        self._gone.add(client)
        self._queue.hold(client)
        for job in running:
            if job.worker is not None:
                self._resume(job.worker, job)
                if self._registry.policy(job.command).on_disconnect == "cancel":
                    self._ahead.take_back(job.worker)
                    self._stop(job, reasons.cancelled_running(job, self._ran(job)), b"cancelled")
        self._chores.begin(partial(self._end_some_of, client))
        self._outbox.send()

    def hold(self, client: IClient) -> None:
        """Start no job of `client`, and let those that send it parts wait: it does not read."""
        for job in self._ahead.jobs_of(client):
            self._ahead.take_back(job.worker)
        self._queue.hold(client)
        for worker, job in list(self._running.items()):
            if job.client is client and job.wants_chunks and job.stopped_for is None:
                try:
                    worker.pause()
                    self._pauses.pause(job)
                except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                    self._worker_failed(worker, job)
        self._outbox.send()

    def release(self, client: IClient) -> None:
        """Let the jobs of `client` go on, and start more."""
        if client in self._gone:
            return
        self._queue.release(client)
        for worker, job in list(self._running.items()):
            if job.client is client and job.wants_chunks:
                self._resume(worker, job)
        self._match(self._clock.seconds())
        self._outbox.send()

    def describe(self) -> Deferred[str]:
        """The catalogue of job types.

        Fires with the JSON document of :mod:`dangad.wire.catalogue`, as soon as the first worker
        has told it, which counts as demand for one. Fails with :class:`ShuttingDown` if the server
        stops before, :class:`NoWorkers` if no worker can be had, and :class:`QueueFull` if as many
        as may wait for jobs wait for this.
        """
        refusal: DangadError | None = None
        if not self._registry.known:
            if self._drain.begun:
                refusal = reasons.stopping()
            elif self._no_workers is not None:
                refusal = reasons.no_workers(self._no_workers)
            elif self._registry.waiting >= self.max_queued:
                refusal = reasons.too_many_wait(self.max_queued)
        if refusal is not None:
            refused: Deferred[str] = Deferred()
            refused.errback(refusal)
            return refused
        waiter = self._registry.catalogue()
        if not self._registry.known:
            self._demand(1)
        return waiter

    # Told by the supervisor and by workers.

    def worker_ready(self, worker: IWorker, catalogue: str) -> None:
        """`worker` has booted, performs what `catalogue` says, and is idle."""
        self._no_workers = None
        now = self._clock.seconds()
        self._ahead.reclaim_all()
        self._idle_workers.add(worker, now)
        if self._registry.join(worker, catalogue):
            self._review_jobs()
            self._tell_catalogue(reasons.stopping())
        self._match(now)
        self._outbox.send()

    def job_reported(self, worker: IWorker, command: bytes, body: bytes) -> None:
        """The job of `worker` has news for its client: see :meth:`IClient.report`."""
        job = self._running[worker]
        client = job.client
        if client is None or job.stopped_for is not None:
            return
        if command == Chunk.commandName:
            job.box = b""  # never again: its client would get the parts twice
            if self._pauses:
                self._pauses.sent(job, len(body))
        try:
            client.report(job, command, body)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one client
            self._client_failed(client, job)

    def job_finished(
        self,
        worker: IWorker,
        failed: bool,
        body: bytes,
        usage: bytes = b"",
        *,
        reusable: bool = True,
        printed: bool = False,
    ) -> None:
        """`worker` has answered its job, with an error if `failed`.

        It is idle then, or has begun the next of those that it has ahead.

        :param body: the answer.
        :param usage: what the job took, in the form of ``Job.usage``.
        :param reusable: whether the worker may be given another job; if not, it begins none.
        :param printed: whether the job has printed something.
        """
        job = self._running[worker]
        if job.stopped_for is not None:
            self._kill(worker, f"was stopped: {job.stopped_for}", job)
            return
        del self._running[worker]
        now = self._clock.seconds()
        released = False
        try:
            job.live(Event.FAIL if failed else Event.ANSWER)
            job.usage = usage
            self.counters.note_end(job, now)
            if failed:
                self._note_error(job, body)
            self._leave_worker(job)
            self._cancel_alarms(job)
            self._quarantine.succeeded(job.command)
            self._ahead.note(job, printed)
            released = self._go_on(worker, reusable, now)
            self._give_work(now)
            if self._ahead or worker in self._running:
                self._prefetch(worker, now)
        except Exception:  # noqa: BLE001 - the job has ended, and its client is to be told
            self._worker_failed(worker, job)
        client, job.client = job.client, None
        if client is not None:
            try:
                client.deliver(job, failed, body)
            except Exception:  # noqa: BLE001 - whatever it was, it concerns one client
                self._client_failed(client, job)
        if released:
            self._release(worker, job)
        if self.counters.log_jobs:
            self._outbox.put(self.counters.log_end, job)
        if self._drain.begun:
            self._outbox.last = self._check_drain
        if self._outbox.calls or self._outbox.last is not None:
            self._outbox.send()

    def worker_gone(self, worker: IWorker, death: Death) -> None:
        """`worker` is dead, and its process group with it."""
        self._idle_workers.remove(worker)
        self._doomed.pop(worker, None)
        now = self._clock.seconds()
        self._ahead.take_back(worker)
        running = self._running.pop(worker, None)
        lost = [] if running is None else [running]
        while (begun := self._begin_next(worker, now)) is not None:
            lost.append(begun)
        self._ahead.reclaim_all()
        changed = self._registry.leave(worker)
        self._lanes.idle_changed()
        for job in lost:
            try:
                self._leave_worker(job)
                job.usage = death.usage
                if job.stopped_for is not None:
                    self._end(job, job.stopped_for)
                elif death.unread and job is running and job.client is not None:
                    self._return(job, death.unread)
                else:
                    error = reasons.lost(job, worker.pid, death, now - job.started_at)
                    self._lost(job, error, now, job is lost[0])
            except Exception:  # noqa: BLE001 - each of them must end
                self._end_broken(job)
        if changed:
            self._review_jobs()
        self._give_work(now)
        self._outbox.send()

    def dismiss_idle(self, before: float) -> IWorker | None:
        """A worker that has been idle since before that time, taken away; None if there is none."""
        worker = self._idle_workers.idle_since(before)
        if worker is not None:
            self.dismiss(worker)
        return worker

    def dismiss(self, worker: IWorker) -> None:
        """Give `worker` no job any more: it is about to be killed."""
        self._idle_workers.remove(worker)
        self._lanes.idle_changed()
        self._ahead.take_back(worker)

    def outdated(self) -> set[IWorker]:
        """The workers that perform other commands than the latest that has booted."""
        return self._registry.outdated()

    def call_back(self, workers: Collection[IWorker]) -> IWorker | None:
        """Take away one of `workers`: one that is idle, which is returned, or the next to be.

        In the latter case the supervisor is told of it, as ``worker_released``, instead of its
        being given another job. Each call takes the place of the last; with no workers it only
        ends the wait.
        """
        self._called_back = ()
        for worker in workers:
            if self._idle_workers.remove(worker):
                self._lanes.idle_changed()
                return worker
        self._called_back = workers
        for worker in workers:
            self._ahead.take_back(worker)
        return None

    def no_workers(self, reason: str) -> None:
        """No worker can be had, for `reason`: refuse what waits and what comes, until one can."""
        self._no_workers = reason
        error = reasons.no_workers(reason)
        self._tell_catalogue(error)
        self._end_waiting(error, lambda: self._no_workers is reason)
        self._outbox.send()

    # Told by operators.

    def pardon(self, command: bytes) -> bool:
        """End the quarantine of `command`; whether there was any."""
        pardoned = self._quarantine.pardon(command)
        self._match(self._clock.seconds())
        self._outbox.send()
        return pardoned

    def kept_away(self) -> dict[bytes, float]:
        """The commands in quarantine, with the seconds for which they still are."""
        return self._quarantine.kept_away(self._clock.seconds())

    # Told by the service.

    def drain(self, seconds: float) -> Deferred[None]:
        """Accept no more jobs, and finish those that were accepted, for at most `seconds`.

        What has not ended by then is stopped with :class:`ShuttingDown`. Fires with None once
        no job is left. May be called again with a new limit.
        """
        if not self._drain.begun:
            self._tell_catalogue(reasons.stopping())
        self._drain.begin(seconds)
        self._outbox.last = self._check_drain
        self._outbox.send()
        return self.when_drained()

    def when_drained(self) -> Deferred[None]:
        """Fires once no job is left after the drain, which may be still to begin."""
        return self._drain.wait()

    # What is refused.

    def _refusal(self, job: Job, now: float, may_start: bool) -> DangadError | None:
        if self._drain.begun:
            return reasons.stopping()
        if self._registry.lacks(job.command):
            return reasons.unhandled(job)
        if self._no_workers is not None:
            return reasons.no_workers(self._no_workers)
        if seconds := self._quarantine.seconds_left(job.command, now):
            return reasons.quarantined(job, seconds)
        if job.deadline is not None and job.deadline <= 0:
            return reasons.came_late(job)
        if may_start:
            return None
        if self.waiting >= self.max_queued:
            return reasons.too_many_wait(self.max_queued)
        size = self._queue.size + self._ahead.size
        if size + job.size > self.max_queued_bytes:
            return reasons.too_much_waits(size, self.max_queued_bytes)
        return None

    # Who runs next.

    def _may_start_at_once(self, job: Job, client: IClient) -> bool:
        """Whether a worker is idle for `job`; then what waits is on hold, or in a closed lane."""
        return bool(
            self._idle_workers.idle
            and not self._queue.is_on_hold(client)
            and not self._queue.is_closed(job.lane)
            and not self._queue.runs_enough(client)
        )

    def _match(self, now: float) -> None:
        """Start jobs while there are workers for them, and ask for workers if there are not."""
        self._ahead.reclaim_outranked()
        self._give_work(now)
        if (self._queue or self._ahead) and not self._idle_workers.idle:
            self._demand(self.waiting)
        else:
            self._ask_for_spares()

    def _ask_for_spares(self) -> None:
        if len(self._idle_workers.idle) < self.low_water:
            self._demand(0)

    def _demand(self, waiting: int) -> None:
        """Tell the supervisor what waits, last of all."""
        if self._supervisor is not None:
            try:
                self._supervisor.demand(waiting)
            except Exception:  # noqa: BLE001 - it looks at what waits by itself, every second
                log_failure("the server failed while it asked for workers")

    def _give_work(self, now: float) -> None:
        """Start jobs while there are workers for them, and end those that must not start."""
        self._lanes.idle_changed()
        others = 0
        while self._idle_workers.idle:
            job = self._pop(now)
            if job is None:
                if self._ahead.reclaim_some():
                    continue
                return
            try:
                obstacle = self._obstacle(job, now)
                if obstacle is not None:
                    self._end(job, obstacle, quietly=True)
                elif self._to_review is None or not self._changes_lane(job):
                    self._start(job, self._idle_workers.take(job.command), now)
                    continue
            except Exception:  # noqa: BLE001 - it is in no queue, and must end
                self._end_broken(job)
            others += 1
            if others == PART:
                self._resume_starts()
                return

    def _pop_warily(self, now: float) -> Job | None:
        """The job that starts next, while there are clients that do not read.

        One that sends parts is set aside, if it would have the last worker that moves, for as long
        as others may start.
        """
        over = now >= self._wary_until
        if over and not self._queue.aside:
            self._pop = self._queue.pop
        all_may = over or self._others_move(now)
        if all_may:
            self._queue.call_one()
        for _ in range(PART):
            job = self._queue.pop(now)
            if job is None:
                all_may = True
                if not self._queue.call_one():
                    return None
            elif all_may or not job.wants_chunks:
                return job
            else:
                self._queue.set_aside(job)
        self._resume_starts()
        return None

    def _others_move(self, now: float) -> bool:
        """Whether a worker is idle besides one, or has only just begun a job without parts."""
        return len(self._idle_workers.idle) > 1 or any(
            not job.wants_chunks and now - job.started_at < HURRY for job in self._running.values()
        )

    def _resume_starts(self) -> None:
        """Go on with `_give_work` in the next turn."""
        if not self._resumes:
            try:
                self._alarms.set(0, self._starts_resume)
                self._resumes = True
            except Exception:  # noqa: BLE001 - the next event goes on
                log_failure("the server failed to put off the start of jobs")

    def _starts_resume(self) -> None:
        self._resumes = False
        self._match(self._clock.seconds())
        self._outbox.send()

    def _obstacle(self, job: Job, now: float) -> DangadError | None:
        """Why `job`, whose turn it is, must not start; the reactor may be late with an alarm."""
        if job.deadline is not None and job.accepted_at + job.deadline <= now:
            return reasons.waited_too_long(job)
        if seconds := self._quarantine.seconds_left(job.command, now):
            return reasons.quarantined(job, seconds)
        if self._to_review is not None and self._registry.lacks(job.command):
            return reasons.unhandled(job)
        return self._given_up

    def _start(self, job: Job, worker: IWorker, now: float) -> None:
        """Have `worker`, which was idle, perform `job`."""
        self._running[worker] = job
        self._set_time(job, now)
        self._note_start(job, worker, now)
        self._lanes.idle_changed()
        try:
            job.pid = worker.pid
            worker.perform(job)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self._worker_failed(worker, job)
        self._drop_box(job)

    def _note_start(self, job: Job, worker: IWorker, now: float) -> None:
        """Note that `job` runs."""
        job.live(Event.START)
        job.attempt += 1
        job.started_at = now
        job.worker = worker
        self._lanes.started(job)
        limit = self._registry.policy(job.command).time_limit
        if limit is not None and job.stopped_for is None:
            job.run_alarm = self._set_alarm(job, limit, self._time_is_up)
            if job.run_alarm is None:  # it must not run without
                self._outbox.put(self._stop_without_limit, job)

    def _set_time(self, job: Job, now: float) -> None:
        """Note how long `job` may run if it starts now."""
        job.seconds = self._registry.policy(job.command).time_limit
        if job.deadline is not None:
            left = job.accepted_at + job.deadline - now
            job.seconds = left if job.seconds is None else min(left, job.seconds)

    def _drop_box(self, job: Job) -> None:
        """Forget the request of `job`, which runs, unless it may be needed again."""
        if job.attempt > self._registry.policy(job.command).retries:
            job.box = b""

    def _return(self, job: Job, box: bytes) -> None:
        """Let `job` wait again, whose request its worker, now dead, had not read."""
        job.live(Event.RETURN)
        job.box = box
        job.attempt -= 1
        job.lane = self._lanes.lane_of(job)
        self._cancel_run_alarm(job)
        self._queue.put_back(job)

    def _put_back(self, job: Job) -> None:
        """Let `job` wait again, which a worker had ahead and has not begun."""
        if job.stopped_for is not None or job.client is None:
            self._end(job, job.stopped_for or reasons.client_left())
            self._set_alarm(job, 0, lambda _: self._outbox.send())
        else:
            job.lane = self._lanes.lane_of(job)
            self._queue.put_back(job)

    # Who has which jobs ahead.

    def _take_out(self, job: Job) -> bool:
        """Take `job` out of the queue, or back from its worker; False if that has begun it."""
        self._ahead.take_back(job.worker)
        return job.worker is None and self._queue.remove(job)

    def _go_on(self, worker: IWorker, reusable: bool, now: float) -> bool:
        """Have `worker`, which has ended a job, go on with what it has ahead, or else be idle.

        True if it is to do neither, but to be given back.
        """
        if self._ahead:
            if not reusable:
                self._ahead.take_back(worker)
            self._ahead.reclaim_outranked()
            job = self._begin_next(worker, now)
            if job is not None:
                self._running[worker] = job
                try:
                    job.pid = worker.pid
                    worker.begin(job)
                except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                    self._worker_failed(worker, job)
                self._drop_box(job)
                return False
        if not reusable or worker in self._called_back or worker in self._doomed:
            return True
        self._idle_workers.add(worker, now)
        return False

    def _begin_next(self, worker: IWorker, now: float) -> Job | None:
        """The next job that `worker` has ahead, which it has begun; None if it has none."""
        job = self._ahead.next(worker)
        if job is not None:
            job.lane = self._lanes.lane_of(job)  # it may have got one since it went ahead
            self._note_start(job, worker, now)
        return job

    def _prefetch(self, worker: IWorker, now: float) -> None:
        """Give `worker`, which has just ended a job, some ahead if it is busy again."""
        late = self._ahead.longest_waiting()
        if late is not None and self._running[late].started_at <= now - SLOW:
            self._ahead.take_back(late)
        running = self._running.get(worker)
        if (
            running is None
            or self._ahead.last(worker, running).stopped_for is not None
            or running.wants_chunks  # when its client does not read, others would wait with it
            or worker in self._called_back
            or worker in self._doomed
            or self._to_review is not None
            or self._registry.partial  # only a worker that is idle opens their lanes
            or not (worker.can_prefetch and self._ahead.is_quiet(running, now))
        ):
            return
        if self._ahead.next_look <= now:
            self._ahead.look(self._running.values(), now)
        for _ in range(self._ahead.room(worker, self.waiting, len(self._running))):
            job = self._queue.pop_prefetch(now, partial(self._may_prefetch, worker, running))
            if job is None:
                return
            self._set_time(job, now)
            if not self._ahead.give(worker, job):
                return

    def _may_prefetch(self, worker: IWorker, running: Job, job: Job) -> bool:
        """Whether `job`, whose turn it is, may be given to `worker`, which runs another."""
        now = self._clock.seconds()
        return (
            job.lane is None
            and not job.wants_chunks
            and job.size <= MOST_BYTES
            and self._ahead.may_follow(worker, running, job)
            and self._ahead.is_quiet(job, now)
            and self._obstacle(job, now) is None
        )

    def _leave_worker(self, job: Job) -> None:
        """Note that `job` does not run any more."""
        if self._pauses:
            self._pauses.forget(job)
        job.worker = None
        self._lanes.ended(job)

    def _review_jobs(self) -> None:
        """Look at all jobs again: what the workers perform has become known, or changed."""
        self._lanes.review(self._running.values())
        under_way = self._to_review is not None
        self._to_review = iter(list(self._queue))
        if not under_way:
            self._outbox.put(self._chores.begin, self._review_some)

    def _review_some(self) -> bool:
        """Look at some of the jobs that waited when the offer changed; whether more are left.

        Meanwhile a job whose turn it is is looked at before it starts.
        """
        jobs = list(islice(self._to_review or (), PART))
        for job in jobs:
            if job.state is not JobState.QUEUED or job.worker is not None or job.client is None:
                continue
            if self._registry.lacks(job.command):
                if self._queue.remove(job):
                    self._end(job, reasons.unhandled(job))
            elif job.run_alarm is None and job.lane != self._lanes.lane_of(job):
                self._queue.remove(job)
                self._changes_lane(job)
        if len(jobs) == PART:
            return True
        self._to_review = None
        self._outbox.put(self._match, self._clock.seconds())
        self._outbox.send()
        return False

    def _changes_lane(self, job: Job) -> bool:
        """Let `job`, which was taken out, wait in the lane that it belongs in, if that is new."""
        lane = self._lanes.lane_of(job)
        if job.lane == lane or job.client is None:
            return False
        job.lane = lane
        self._queue.push(job.client, job, lane)
        return True

    def _tell_catalogue(self, error: DangadError) -> None:
        """Tell those who wait for it the catalogue, or `error` if it is not known."""
        if self._registry.waiting:
            self._outbox.put(self._chores.begin, partial(self._registry.tell, PART, error))

    # What ends a job.

    def _deadline_passed(self, job: Job) -> None:
        job.deadline_alarm = None
        if self._take_out(job):
            self._end(job, reasons.waited_too_long(job))
        else:
            self._stop(job, reasons.reached_deadline(job, self._ran(job)), b"time")
        self._outbox.send()

    def _time_is_up(self, job: Job) -> None:
        job.run_alarm = None
        self._ahead.take_back(job.worker)
        self._stop(job, reasons.ran_too_long(job, self._ran(job)), b"time")
        self._outbox.send()

    def _stop(self, job: Job, error: DangadError, why: bytes) -> None:
        """Have `job`, which runs, end with `error`: by itself, or when the grace is over.

        What its worker had ahead has been taken back.
        """
        worker = job.worker
        if worker is None or job.stopped_for is not None:
            return
        if self._ahead.last(worker, job) is not job:
            return  # it has answered: its worker has begun another since
        job.stopped_for = error
        self._cancel_run_alarm(job)
        if worker in self._doomed:
            return  # it is being killed already
        job.run_alarm = self._set_alarm(job, GRACE, self._grace_is_over)
        if job.run_alarm is None:
            self._kill(worker, f"was killed: {error}", job)
            return
        try:
            worker.resume()
            self._pauses.resume(job)
            if why == b"time":
                worker.show_stack()
            worker.interrupt(job, why)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self._worker_failed(worker, job)

    def _stop_without_limit(self, job: Job) -> None:
        """Stop `job`, of whose time limit nobody would be told."""
        self._ahead.take_back(job.worker)
        self._stop(job, reasons.broken(job), b"cancelled")

    def _any_could_start(self) -> bool:
        """Whether a job waits for nothing but a worker."""
        return not self._idle_workers.idle and (
            self._ahead.count > 0
            or self._queue.has_turn()
            or any(
                job.client is not None and not self._queue.is_on_hold(job.client)
                for job in self._queue.aside.values()
            )
        )

    def _be_wary(self) -> None:
        """Have jobs that send parts leave the last worker to others, for a time."""
        self._wary_until = self._clock.seconds() + WARY
        self._pop = self._pop_warily

    def _any_runs_but(self, paused: int) -> bool:
        """Whether any worker has another job than the so many that are paused."""
        return len(self._running) > paused

    def _end_unread(self, job: Job, seconds: float) -> None:
        """End `job`, whose client does not read, since it keeps its worker from others."""
        self._ahead.take_back(job.worker)
        self._stop(job, reasons.not_read(job, seconds), b"cancelled")
        self._outbox.send()

    def _grace_is_over(self, job: Job) -> None:
        job.run_alarm = None
        if job.worker is not None:
            self._kill(job.worker, f"was killed: {job.stopped_for}", job)

    def _lost(self, job: Job, error: WorkerLost, now: float, blamed: bool) -> None:
        """Have `job`, whose worker died, run again if it may, and end it if not.

        :param blamed: whether the worker counts as one that the job's command has cost.
        """
        job.lost_for = error
        quarantined = blamed and self._quarantine.worker_lost(job.command, now)
        if quarantined:
            self._outbox.put(
                partial(
                    log.warn,
                    "{command} is quarantined: {error}",
                    command=job.name,
                    error=str(error),
                )
            )
        retries = self._registry.policy(job.command).retries
        if job.attempt > retries or not job.box or job.client is None:
            self._end(job, error)
            return
        if quarantined:
            self._end(
                job, reasons.quarantined(job, self._quarantine.seconds_left(job.command, now))
            )
            return
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(job.attempt - 1, 30))
        delay *= self._chance.uniform(0.5, 1.5)
        self._cancel_run_alarm(job)
        job.run_alarm = self._set_alarm(job, delay, self._rested)
        if job.run_alarm is None:
            self._end(job, error)
            return
        job.live(Event.RETRY)
        self._queue.rest(job)
        self._log(
            "retry",
            job.client.name,
            "job {job} {command} is tried again in {delay:.1f} s: attempt {attempt}: {error}",
            job=job.id,
            command=job.name,
            delay=delay,
            attempt=job.attempt,
            error=str(error),
        )

    def _rested(self, job: Job) -> None:
        job.run_alarm = None
        if job.client is not None:
            job.lane = self._lanes.lane_of(job)
            self._queue.push(job.client, job, job.lane)
            self._match(self._clock.seconds())
            self._outbox.send()

    def _end_some_of(self, client: IClient) -> bool:
        """End some jobs of `client`, which is gone; whether there are more."""
        jobs = self._queue.drop(client, PART)
        self._end_all(jobs, reasons.client_left())
        if jobs:
            self._log(
                "gone",
                client.name,
                "{jobs} waiting jobs of a client that disconnected end: {client}",
                jobs=len(jobs),
                client=client.name,
            )
        more = len(jobs) >= PART
        if not more:
            self._outbox.put(self._gone.discard, client)  # after what was to be told before
        self._outbox.send()
        return more

    def _end_waiting(self, error: DangadError, still: Callable[[], bool]) -> None:
        """End all that waits, as long as it is `still` to end."""
        self._ahead.reclaim_all()
        self._outbox.put(self._chores.begin, partial(self._end_some, error, still))

    def _end_some(self, error: DangadError, still: Callable[[], bool]) -> bool:
        """End some of what waits; whether there is more."""
        if not still():
            return False
        jobs = list(islice(self._queue, PART))
        for job in jobs:
            self._queue.remove(job)
        self._end_all(jobs, error)
        if jobs:
            text = "{jobs} waiting jobs end: {error}"
            self._log("all", "", text, jobs=len(jobs), error=str(error))
        self._outbox.send()
        return bool(self._queue)

    def _end_all(self, jobs: Iterable[Job], error: DangadError) -> None:
        """End `jobs`, which were taken out of the queue."""
        for job in jobs:
            try:
                self._end(job, error, quietly=True)
            except Exception:  # noqa: BLE001 - each of them must end
                self._end_broken(job)

    def _end(self, job: Job, error: DangadError, quietly: bool = False) -> None:
        """Bring `job`, which neither waits nor runs any more, to an end without an answer.

        One that has lost a worker has run, and must not be told what means that it has not.
        """
        error = reasons.as_one_that_ran(job, error)
        job.live(reasons.event_of(error))
        self.counters.note_end(job, self._clock.seconds())
        self.counters.note_reason(job, error.code, str(error))
        self._cancel_alarms(job)
        if not quietly and not self.counters.log_jobs:
            self._log(
                error.code.decode("ascii", "replace"),
                job.asker,
                "job {job} {command} ended as {state}: {error}",
                job=job.id,
                command=job.name,
                state=job.state.value,
                error=str(error),
            )
        if self.counters.log_jobs:
            self._outbox.put(self.counters.log_end, job)
        client, job.client = job.client, None
        if client is not None and client not in self._gone:
            self._outbox.put(self._tell_end, client, job, error)
        if self._drain.begun:
            self._outbox.last = self._check_drain

    def _log(self, kind: str, asker: str, text: str, **fields: object) -> None:
        """Write it to the log when the event's state is whole, unless there is much of the kind."""
        self._outbox.put(partial(self._quiet.info, kind, asker, text, **fields))

    def _note_error(self, job: Job, body: bytes) -> None:
        """Note the error that a worker answered."""
        error = boxes.unpack(body)
        text = error.get(boxes.ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
        self.counters.note_reason(job, error.get(boxes.ERROR_CODE, b"UNKNOWN"), text)

    def _ran(self, job: Job) -> float:
        """How long `job` has run; 0 if its worker has only just begun it."""
        return self._clock.seconds() - job.started_at if job.state is JobState.RUNNING else 0.0

    def _cancel_alarms(self, job: Job) -> None:
        self._cancel_run_alarm(job)
        if job.deadline_alarm is not None:
            job.deadline_alarm.cancel()
            job.deadline_alarm = None

    def _cancel_run_alarm(self, job: Job) -> None:
        if job.run_alarm is not None:
            job.run_alarm.cancel()
            job.run_alarm = None

    def _set_alarm(self, job: Job, delay: float, call: Callable[[Job], object]) -> Alarm | None:
        """An alarm of `job`; None if the clock cannot set one."""
        try:
            return self._alarms.set(delay, call, job)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one job
            log_failure("job {job} {command}: no alarm can be set", job=job.id, command=job.name)
            return None

    # Who cannot be told, or does not do as told.

    def _tell_end(self, client: IClient, job: Job, error: DangadError) -> None:
        """Tell `client` that `job` ended with `error`."""
        if client in self._gone:
            return  # it went when it was told of another
        try:
            client.fail(job, error)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one client
            self._client_failed(client, job)

    def _client_failed(self, client: IClient, job: Job) -> None:
        """Cut off `client`, which raised when it was told of `job`."""
        log_failure(
            "job {job} {command}: its client could not be told, and is cut off",
            job=job.id,
            command=job.name,
        )
        self._outbox.put(client.abort)
        self._outbox.put(self.client_gone, client)
        self._outbox.send()

    def _worker_failed(self, worker: IWorker, job: Job) -> None:
        """Kill `worker`, which raised when it was asked for something about `job`."""
        log_failure(
            "job {job} {command}: its worker could not be spoken to, and is killed",
            job=job.id,
            command=job.name,
        )
        self._kill(worker, "was killed: the server failed while it spoke to it", job)

    def _kill(self, worker: IWorker, reason: str, job: Job) -> None:
        """Kill `worker`, on account of `job`, and again if that fails."""
        self._idle_workers.remove(worker)
        self._doomed[worker] = reason
        try:
            worker.kill(reason)
        except Exception:  # noqa: BLE001 - else it might hold its job for ever
            log_failure(
                "job {job} {command}: its worker could not be killed",
                job=job.id,
                command=job.name,
            )
            self._set_alarm(job, KILL_AGAIN, partial(self._kill_again, worker))

    def _kill_again(self, worker: IWorker, job: Job) -> None:
        if worker in self._doomed:
            self._kill(worker, self._doomed[worker], job)

    def _resume(self, worker: IWorker, job: Job) -> None:
        """Have `worker`, which runs `job`, go on if it was paused."""
        try:
            worker.resume()
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self._worker_failed(worker, job)
        self._pauses.resume(job)

    def _end_broken(self, job: Job) -> None:
        """Bring `job` to an end wherever it is: the server has failed in the middle of an event."""
        log_failure(
            "the server failed while it dealt with job {job} {command}",
            job=job.id,
            command=job.name,
        )
        worker, error = job.worker, reasons.broken(job)
        if worker is None:
            worker = next((each for each, mine in self._running.items() if mine is job), None)
        if worker is not None:
            job.stopped_for = job.stopped_for or error
            self._kill(worker, f"was killed: {error}", job)
        elif job.state not in END_STATES:
            self._queue.remove(job)
            self._end(job, error)

    def _release(self, worker: IWorker, job: Job) -> None:
        """Give back a worker that has done its last job, which was `job`."""
        if worker in self._called_back:
            self._called_back = ()
        if self._supervisor is not None:
            try:
                self._supervisor.worker_released(worker)
            except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                self._worker_failed(worker, job)

    # The end of all.

    def _check_drain(self) -> None:
        """The drain may be over."""
        if self.counters.all_ended:
            self._quiet.flush()
        self._drain.check()

    def _give_up_draining(self, seconds: float) -> None:
        error = self._given_up = reasons.stopped(seconds)
        self._end_waiting(error, lambda: True)
        self._ahead.reclaim_all()
        for worker, job in list(self._running.items()):
            last = self._ahead.last(worker, job)  # those before it have answered
            last.stopped_for = last.stopped_for or error
            self._kill(worker, f"was killed: {error}", job)
        self._outbox.send()
