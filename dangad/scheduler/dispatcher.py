"""The events of a job's life, and what follows from each: the heart of the scheduler.

The middle of a job's way: :mod:`dangad.server.connection` submits jobs and is told their outcomes
through :class:`IClient`; :mod:`dangad.pool.link` is given jobs through :class:`IWorker`, and
reports answers. :mod:`dangad.scheduler.supervisor` decides how many workers there are. No sockets,
no processes, no bytes, no time but the clock's.

The parts decide what follows from an event: :mod:`.admission` whether a job may come in and start,
:mod:`.matching` which jobs start, :mod:`.answers` what an answer means, :mod:`.endings` how a job
ends, :mod:`.retries` whether it is tried again. :mod:`.absences` deals with clients that do not
read or are gone, :mod:`.interventions` with the wishes of operators, :mod:`.descriptions` with
those who ask for the catalogue. They share :mod:`.state`, which says what always holds between two
events.

An event is decided first and told last: clients are told, and the log is written, once all state is
whole (:mod:`.outbox`). Work on many jobs is done in parts, one in each turn of the reactor
(:mod:`.chores`, :mod:`.alarms`). Until such work reaches a job, the job is kept from starting if it
must not start.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from dangad.limits import DEFAULTS, LOG_FAILED
from dangad.scheduler import reasons
from dangad.scheduler.absences import Absences
from dangad.scheduler.admission import Admission
from dangad.scheduler.answers import Answers
from dangad.scheduler.descriptions import Descriptions
from dangad.scheduler.drain import Drain
from dangad.scheduler.endings import Endings
from dangad.scheduler.fairqueue import UNLIMITED
from dangad.scheduler.interventions import Interventions
from dangad.scheduler.matching import Matching
from dangad.scheduler.pauses import Pauses
from dangad.scheduler.quarantine import Quarantine
from dangad.scheduler.retries import Retries
from dangad.scheduler.state import State, log
from dangad.wire.catalogue import NO_POLICY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.scheduler.concurrency import Paused
    from dangad.scheduler.interfaces import IClient, ISupervisor, IWorker
    from dangad.scheduler.record import Death, Job


class Dispatcher:
    """What happens to jobs, each event a method."""

    def __init__(
        self,
        clock: IReactorTime,
        max_queued: int = DEFAULTS.max_queued,
        *,
        max_queued_bytes: int = DEFAULTS.max_queued_bytes,
        quarantine_after: int = DEFAULTS.quarantine_after,
        quarantine_time: float = DEFAULTS.quarantine_time,
        log_jobs: str = LOG_FAILED,
        chance: random.Random | None = None,
    ) -> None:
        """Begin with no jobs and no workers.

        :param clock: where the time comes from.
        :param max_queued: how many jobs may wait, of all clients together.
        :param max_queued_bytes: how many bytes their requests may have together.
        :param quarantine_after: how many workers in a row a command may cost; 0 for any number.
        :param quarantine_time: seconds for which it is then refused.
        :param log_jobs: which jobs are logged, one of :data:`dangad.limits.LOG_JOBS`.
        :param chance: where the jitter of retries comes from.
        """
        self.state = state = State(clock, Quarantine(quarantine_after, quarantine_time), log_jobs)
        self.counters = state.counters
        #: Gives a job its id, unique among the jobs of all front doors.
        self.next_id: Callable[[], int] = itertools.count(1).__next__
        self.admission = Admission(state, max_queued, max_queued_bytes)
        self._clock = clock
        self._endings = endings = Endings(state, self._check_drain, self.client_gone)
        self._matching = matching = Matching(state, self.admission, endings)
        self._prefetch = endings.prefetch
        self.admission.wariness = endings.wariness = matching.wariness
        endings.pauses = Pauses(
            state.alarms,
            matching.any_could_start,
            matching.any_runs_but,
            matching.wariness.begin,
            endings.stop_unread,
        )
        retries = Retries(state, endings, matching.rested, chance or random.Random())
        self.answers = Answers(state, endings, matching, retries, endings.pauses)
        self._absences = Absences(state, matching, endings)
        self._descriptions = Descriptions(state, self.admission, matching)
        self._interventions = Interventions(state, matching, endings)
        self._drain = Drain(state, self._give_up_draining)

    def supervised_by(self, supervisor: ISupervisor, low_water: int = 0) -> None:
        """Tell `supervisor` from now on when jobs wait and no worker is idle.

        :param low_water: the supervisor is also told when fewer workers than this are idle.
        """
        self._matching.supervisor = self._endings.supervisor = supervisor
        self._matching.low_water = low_water

    @property
    def is_wary(self) -> bool:
        """Whether some jobs may have to leave the last worker to others: see :mod:`.wariness`."""
        return self._matching.wariness.active

    @property
    def waiting(self) -> int:
        """How many jobs wait, including prefetched jobs and jobs that rest between attempts."""
        return self.state.waiting

    @property
    def seeking(self) -> int:
        """How many jobs wait for a worker: all that wait, without the paused ones."""
        return self.state.seeking

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self.state.assignments.jobs)

    @property
    def idle(self) -> int:
        """How many workers are idle."""
        return len(self.state.assignments.idle)

    @property
    def is_asked(self) -> bool:
        """Whether a client, or the server, waits for the first catalogue."""
        return self.state.registry.waiting > 0

    @property
    def lacks_unused(self) -> bool:
        """Whether a job waits for nothing but a worker that has done nothing yet."""
        return bool(self.state.registry.isolated) and self.state.lanes.lack_unused

    @property
    def draining(self) -> bool:
        """Whether no more jobs are accepted."""
        return self.state.draining

    @property
    def starts(self) -> int:
        """How many jobs have been started."""
        return self.state.queue.starts

    def is_held_by_one(self, workers: int) -> tuple[bool, bool]:
        """Whether so many jobs of one client run; and if so, whether a job of another may start."""
        queue = self.state.queue
        client = queue.runner_of(workers)
        return client is not None, client is not None and queue.has_turn_beside(client)

    def limit_each(self, most: int | None) -> None:
        """Run at most `most` jobs of each client at a time from now on; None for any number."""
        self.state.queue.most_running = UNLIMITED if most is None else most
        self._matching.match(self._clock.seconds())
        self.state.tell()

    def is_idle(self, worker: IWorker) -> bool:
        """Whether `worker` is idle."""
        return worker in self.state.assignments.idle

    def job_of(self, worker: IWorker) -> Job | None:
        """The job that `worker` runs."""
        row = self.state.assignments.jobs.get(worker)
        return row[0] if row else None

    def worker_of(self, job_id: int) -> IWorker | None:
        """The worker that runs the job with this id; None if none does."""
        for worker, row in self.state.assignments.jobs.items():
            if row[0].id == job_id:
                return worker
        return None

    # Told by clients.

    def submit(self, job: Job) -> None:
        """Accept `job`, and start it if a worker is idle; or refuse it.

        A refusal is told through ``job.client.fail``, with the reason, before this returns.
        """
        client, state = job.client, self.state
        assert client is not None, f"{job!r} has no client"
        now = job.accepted_at = self._clock.seconds()
        job.policy = state.registry.policies.get(job.command, NO_POLICY)
        if job.policy.max_running is not None or state.registry.choosy or state.lanes.paused:
            job.lane = state.lanes.lane_of(job)
        may_start = bool(state.assignments.idle) and state.queue.may_pass(client, job.lane)
        refusal = self.admission.refusal(job, now, may_start)
        if refusal is None and job.deadline is not None:
            refusal = self._endings.set_deadline(job, job.deadline)
        if refusal is not None:
            self._endings.refuse(client, job, refusal)
            return
        state.counters.note_acceptance(job)
        try:
            if may_start and not (state.queue.count or state.assignments.prefetched):
                self._matching.start_at_once(job, now)
            else:
                state.queue.push(client, job, job.lane)
                self._matching.match(now)
        except Exception:  # noqa: BLE001 - it was accepted, and must end
            self._endings.end_broken(job)
        if state.outbox.calls:
            state.outbox.send()

    def cancel(self, job: Job) -> None:
        """End `job` if it has not ended: at once if it waits, by stopping it if it runs."""
        self._endings.cancel(job, reasons.cancelled_waiting, reasons.cancelled_running)

    def client_gone(self, client: IClient) -> None:
        """See :meth:`.Absences.client_gone`."""
        self._absences.client_gone(client)

    def hold(self, client: IClient) -> None:
        """See :meth:`.Absences.hold`."""
        self._absences.hold(client)

    def release(self, client: IClient) -> None:
        """See :meth:`.Absences.release`."""
        self._absences.release(client)

    def describe(self, by_server: bool = False) -> Deferred[str]:
        """See :meth:`.Descriptions.describe`."""
        return self._descriptions.describe(by_server)

    # Told by the supervisor and by workers.

    def worker_ready(self, worker: IWorker, catalogue: str) -> None:
        """`worker` has booted and is idle; it performs the job types of `catalogue`."""
        self.state.no_workers = self.state.no_unused = None
        now = self._clock.seconds()
        self._prefetch.reclaim_all()
        self._matching.wariness.replaced()
        self.state.assignments.idle[worker] = now
        self.state.assignments.unused.add(worker)
        if self.state.registry.join(worker, catalogue):
            self._matching.review()
            self._descriptions.tell(reasons.stopping())
        self._matching.match(now)
        self.state.tell()

    def worker_gone(self, worker: IWorker, death: Death) -> None:
        """`worker` is dead, and its process group with it."""
        self.answers.worker_gone(worker, death)
        self.state.tell()

    def dismiss_idle(self, before: float) -> IWorker | None:
        """Dismiss and return a worker that has been idle since `before`; None if there is none."""
        worker = self.state.assignments.idle_since(before)
        if worker is not None:
            self.dismiss(worker)
        return worker

    def dismiss(self, worker: IWorker) -> None:
        """Give `worker` no more jobs: it is about to be ended."""
        self.state.assignments.remove_idle(worker)
        self.state.lanes.idle_changed()
        self._prefetch.reclaim(worker)

    def outdated(self) -> set[IWorker]:
        """The workers that perform other commands than the worker that booted last."""
        return self.state.registry.outdated()

    def call_back(self, workers: Collection[IWorker]) -> IWorker | None:
        """Take away one of `workers`, and return it if it is idle.

        If none is idle, the first of them to end its job gets no other job: the supervisor is told
        of it as ``worker_released``. Each call replaces the one before; a call with no workers
        only withdraws it.
        """
        assignments = self.state.assignments
        assignments.called_back = ()
        for worker in workers:
            if assignments.remove_idle(worker):
                self.state.lanes.idle_changed()
                return worker
        assignments.called_back = workers
        for worker in workers:
            self._prefetch.reclaim(worker)
        return None

    def no_workers(self, reason: str, *, unused: bool = False) -> None:
        """No worker can be started, or no `unused` one: end the jobs that wait for one."""
        state, error = self.state, reasons.no_workers(reason)
        if unused:
            state.no_unused = reason
            self._endings.end_isolated(error, lambda: state.no_unused is reason)
        else:
            state.no_workers = reason
            self._descriptions.tell(error)
            self._endings.end_waiting(error, lambda: state.no_workers is reason)
        state.tell()

    # Told by operators.

    def jobs_waiting(self) -> list[Job]:
        """The jobs that wait, in no order; those that are prefetched or rest are among them."""
        return [*self.state.queue.jobs(), *self.state.assignments.waiting()]

    def jobs_running(self) -> list[Job]:
        """The jobs that run."""
        return list(self.state.assignments.running())

    @property
    def paused(self) -> Paused:
        """What is paused."""
        return self._interventions.paused

    def pause(self, commands: Collection[bytes] | None) -> Paused:
        """See :meth:`.Interventions.pause`."""
        return self._interventions.pause(commands)

    def resume(self, commands: Collection[bytes] | None) -> Paused:
        """See :meth:`.Interventions.resume`."""
        return self._interventions.resume(commands)

    def cancel_by_operator(self, job: Job) -> None:
        """See :meth:`.Interventions.cancel`."""
        self._interventions.cancel(job)

    def pardon(self, command: bytes) -> bool:
        """See :meth:`.Interventions.pardon`."""
        return self._interventions.pardon(command)

    def kept_away(self) -> dict[bytes, float]:
        """The commands in quarantine, each with the seconds that are left of it."""
        return self.state.quarantine.kept_away(self._clock.seconds())

    # Told by the service.

    def drain(self, seconds: float) -> Deferred[None]:
        """Accept no more jobs, and finish the accepted ones within `seconds`.

        After this time the jobs that are left end with :class:`ShuttingDown`. Fires with None once
        no job is left. May be called again with a new limit.
        """
        if not self.state.draining:
            self._descriptions.tell(reasons.stopping())
        if self.state.lanes.paused is not None:
            text = "the drain resumes all jobs: it could not end while some are paused"
            self.state.outbox.put(log.info, text)
            self.resume(None)
        self._drain.begin(seconds)
        self.state.outbox.last = self._check_drain
        self.state.tell()
        return self.when_drained()

    def when_drained(self) -> Deferred[None]:
        """Fires once no job is left after a drain. The drain may begin later than this call."""
        return self._drain.wait()

    def _check_drain(self) -> None:
        """See whether the drain is over."""
        if self.state.counters.all_ended:
            self.state.quiet.flush()
            self._matching.stop()
        self._drain.check()

    def _give_up_draining(self, seconds: float) -> None:
        error = self.state.given_up = reasons.stopped(seconds)
        self._endings.end_waiting(error, lambda: True)
        self._endings.stop_all(error)
        self.state.tell()
