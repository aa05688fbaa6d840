"""Which job starts next, and on which worker.

Kept by :mod:`dangad.scheduler.dispatcher`, which reports each change. Three other modules answer
its questions: :mod:`dangad.scheduler.fairqueue` whose turn it is,
:mod:`dangad.scheduler.assignments` which workers are idle, and :mod:`dangad.scheduler.prefetch` how
many jobs may be prefetched.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from dangad.scheduler import reasons
from dangad.scheduler.chores import PART
from dangad.scheduler.endings import cancel_alarms
from dangad.scheduler.outbox import log_failure
from dangad.scheduler.prefetch import MOST_BYTES, SLOW, Prefetch
from dangad.scheduler.record import Event, JobState
from dangad.scheduler.wariness import Wariness

if TYPE_CHECKING:
    from collections.abc import Collection

    from dangad.scheduler.admission import Admission
    from dangad.scheduler.alarms import Alarm
    from dangad.scheduler.endings import Endings
    from dangad.scheduler.interfaces import ISupervisor, IWorker
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State


class Matching:
    """Starts jobs while there are workers for them, and asks for workers while there are not."""

    def __init__(self, state: State, admission: Admission, endings: Endings) -> None:
        """Begin with nothing to start, and give `endings` its `prefetch`."""
        #: Is told when jobs wait and no worker is idle.
        self.supervisor: ISupervisor | None = None
        #: The supervisor is also told when fewer workers than this are idle.
        self.low_water = 0
        self._state = state
        self._admission = admission
        self._endings = endings
        self._prefetch = endings.prefetch = Prefetch(
            state.assignments, state.queue, self._put_back, endings.worker_failed
        )
        #: When `give_work` goes on by itself; None if it need not.
        self._comes_back: float | None = None
        #: The alarm for it.
        self._round: Alarm | None = None
        #: Which jobs start while some clients do not read, or have cost a worker.
        self.wariness = Wariness(state, self._come_back)

    # What has changed.

    def match(self, now: float) -> None:
        """Start jobs while there are workers for them; if there are not enough, ask for more."""
        state = self._state
        if state.assignments.prefetched and state.queue.news is not None:
            self._prefetch.reclaim_outranked()
        if state.assignments.idle:
            self.give_work(now)
        waiting = state.queue.count - state.queue.paused + state.assignments.prefetched
        if waiting and not state.assignments.idle:
            self.demand(waiting)
        else:
            self.ask_for_spares()

    def start_at_once(self, job: Job, now: float) -> None:
        """Start `job`, which need not wait, and ask for workers if few are left idle."""
        wary = self.wariness
        if wary.active and job.client is not None and wary.stands_back(job, now):
            self._state.queue.push(job.client, job, job.lane)
            self.match(now)
            return
        self.start(job, self._state.assignments.take_idle(job.command), now)
        if self.low_water:
            self.ask_for_spares()

    def ask_for_spares(self) -> None:
        """Ask for workers if few are idle."""
        if len(self._state.assignments.idle) < self.low_water:
            self.demand(0)

    def demand(self, waiting: int) -> None:
        """Tell the supervisor how many jobs wait."""
        if self.supervisor is not None:
            try:
                self.supervisor.demand(waiting)
            except Exception:  # noqa: BLE001 - the supervisor also looks by itself every second
                log_failure("the server failed while it asked for workers")

    def give_work(self, now: float) -> None:
        """Start jobs while there are workers for them, and end the jobs that must not start."""
        state = self._state
        if state.registry.choosy:
            state.lanes.idle_changed()
        pop = self.wariness.pop if self.wariness.active else state.queue.pop
        others = 0
        while state.assignments.idle and (state.queue.count or state.assignments.prefetched):
            job = pop(now)
            if job is None:
                if self._prefetch.reclaim_some():
                    continue
                if state.registry.isolated and state.lanes.lack_unused:
                    self.demand(state.seeking)
                return
            try:
                obstacle = self._admission.obstacle(job, now)
                if obstacle is not None:
                    self._endings.end(job, obstacle, quietly=True)
                elif state.to_review is None or not self._changes_lane(job):
                    self.start(job, state.assignments.take_idle(job.command), now)
                    continue
            except Exception:  # noqa: BLE001 - the job is in no queue now, and must end
                self._endings.end_broken(job)
            others += 1
            if others == PART:
                self._come_back()
                return

    def _come_back(self, delay: float = 0) -> None:
        """Go on with `give_work` in the next turn of the reactor, or after so many seconds."""
        due = self._state.clock.seconds() + delay
        if self._comes_back is None or due < self._comes_back:
            try:
                later, self._round = self._round, self._state.alarms.set(delay, self._go_on)
                if later is not None:
                    later.cancel()
                self._comes_back = due
            except Exception:  # noqa: BLE001 - the next event goes on
                log_failure("the server failed to put off the start of jobs")

    def stop(self) -> None:
        """Cancel the alarm: no job is left."""
        if self._round is not None:
            self._round.cancel()
        self._round = self._comes_back = None

    def _go_on(self) -> None:
        self._round = self._comes_back = None
        self.match(self._state.clock.seconds())
        self._state.tell()

    def rested(self, job: Job) -> None:
        """`job` has rested between two attempts."""
        job.rest_alarm = None
        if job.client is not None:
            job.lane = self._state.lanes.lane_of(job)
            self._state.queue.push(job.client, job, job.lane)
            self.match(self._state.clock.seconds())
            self._state.tell()

    # Starts.

    def start(self, job: Job, worker: IWorker, now: float) -> None:
        """Give `job` to `worker`, which was idle."""
        self._state.assignments.jobs[worker] = [job]
        if job.policy.time_limit is not None or job.deadline is not None:
            _set_time(job, now)
        self.note_start(job, worker, now)
        self._state.assignments.unused.discard(worker)
        if self._state.registry.choosy:
            self._state.lanes.idle_changed()
        try:
            worker.give(job)
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self._endings.worker_failed(worker, job)
        if job.attempt > job.policy.retries:
            job.forget_request()

    def take_from(self, worker: IWorker, now: float) -> list[Job]:
        """Take all jobs that `worker`, which is dead, has begun."""
        assignments = self._state.assignments
        lost = list(assignments.jobs.get(worker, ()))
        if (
            lost and lost[0].state is JobState.PREFETCHED
        ):  # the event that should have noted its start has failed
            self.note_start(lost[0], worker, now)
        for _ in lost:
            begun = assignments.next_of(worker)
            if begun is not None:
                self.note_start(begun, worker, now)
        return lost

    def note_start(self, job: Job, worker: IWorker, now: float) -> None:
        """Note that `worker` runs `job`: it was given the job now, or had prefetched it."""
        state = self._state
        if job.state is JobState.PREFETCHED:
            if state.registry.choosy or job.lane is not None:
                job.lane = state.lanes.running_lane_of(job)  # its type may have got one since
            if job.attempt >= job.policy.retries:
                job.forget_request()
        job.live(Event.START)
        job.attempt += 1
        job.started_at = now
        job.worker = worker
        job.pid = worker.pid
        state.queue.started(job)
        for journal in state.counters.journals:
            state.outbox.put(journal.job_started, job)
        if job.lane is not None:
            state.lanes.started(job.lane)
        limit = job.policy.time_limit
        if limit is not None and job.stopped_for is None:
            job.limit_alarm = self._endings.set_alarm(job, limit, self._endings.time_is_up)
            if job.limit_alarm is None:  # it must not run without one
                state.outbox.put(self._endings.stop_without_limit, job)

    def ended(self, job: Job) -> None:
        """Note that `job` does not run any more."""
        if job.wants_chunks:
            self._endings.pauses.forget(job)
        if self.wariness.active:
            self.wariness.ended(job)
        job.worker = None
        self._state.queue.ended(job)
        if job.lane is not None:
            self._state.lanes.ended(job.lane)

    def _put_back(self, job: Job) -> None:
        """Let `job`, which was prefetched and not begun, wait again."""
        if job.stopped_for is not None or job.client is None:
            self._endings.end(job, job.stopped_for or reasons.client_left())
            self._endings.set_alarm(job, 0, lambda _: self._state.tell())
        else:
            job.lane = self._state.lanes.lane_of(job)
            self._state.queue.put_back(job)

    def return_unread(self, job: Job, box: bytes | memoryview) -> None:
        """Let `job` wait again: its worker died before it had read the request."""
        job.live(Event.RETURN)
        job.box = box
        job.may_retry = True
        job.attempt -= 1
        job.lane = self._state.lanes.lane_of(job)
        cancel_alarms(job, ("limit_alarm",))
        self._state.queue.put_back(job)

    # What is prefetched.

    def prefetch(self, worker: IWorker, now: float) -> None:
        """Let `worker`, which has just ended a job, prefetch more jobs if it is busy again."""
        state, prefetch = self._state, self._prefetch
        if self.wariness.active:
            self.wariness.check(now)
        late = state.assignments.first_with_prefetched()
        if late is not None and state.assignments.jobs[late][0].started_at <= now - SLOW:
            prefetch.reclaim(late)
        row = state.assignments.jobs.get(worker)
        if (
            row is None
            or row[-1].stopped_for is not None
            or row[0].wants_chunks  # while its client does not read, jobs behind it would wait, too
            or worker in state.assignments.called_back
            or worker in state.assignments.doomed
            or state.to_review is not None
            or state.registry.partial  # only an idle worker opens their lanes
            or (prefetch.printed and not prefetch.is_quiet(row[0], now))
        ):
            return
        if prefetch.next_look <= now:
            prefetch.look(state.assignments.running(), now)
        waiting = state.queue.count - state.queue.paused + state.assignments.prefetched
        room = min(worker.room, prefetch.room(worker, waiting, len(state.assignments.jobs)))
        for _ in range(room):
            job = state.queue.pop_prefetch(now, partial(self._may_prefetch, worker, now))
            if job is None:
                return
            if job.policy.time_limit is not None or job.deadline is not None:
                _set_time(job, now)
            if not prefetch.give(worker, job):
                return

    def _may_prefetch(self, worker: IWorker, now: float, job: Job) -> bool:
        """Whether `worker`, which is busy, may prefetch `job`, whose turn it is."""
        return (
            job.lane is None
            and not job.wants_chunks
            and job.size <= MOST_BYTES
            and self._prefetch.may_follow(worker, job)
            and not (self._prefetch.printed and not self._prefetch.is_quiet(job, now))
            and self._admission.obstacle(job, now) is None
        )

    # Why jobs wait.

    def any_could_start(self) -> bool:
        """Whether a job waits for nothing but a worker."""
        state, queue = self._state, self._state.queue
        return not state.assignments.idle and (
            state.assignments.prefetched > 0
            or queue.has_turn()
            or queue.aside.any_but(queue.is_on_hold)
        )

    def any_runs_but(self, paused: int) -> bool:
        """Whether any job runs, apart from so many that are paused."""
        return len(self._state.assignments.jobs) > paused

    # What the workers perform.

    def review(self) -> None:
        """Review all jobs: the catalogue has become known, or has changed."""
        state = self._state
        for row in state.assignments.jobs.values():
            for job in row:
                policy = state.registry.policy(job.command)
                if job.stopped_for is not None:  # whether its worker goes on is settled
                    policy = replace(policy, stoppable=job.policy.stoppable)
                job.policy = policy
        state.counters.metrics.know(state.registry.policies)
        state.lanes.review(state.assignments.running())
        self.review_waiting()

    def review_waiting(self, commands: Collection[bytes] | None = None) -> None:
        """Review the waiting jobs of these commands, or all: others may be paused now, or none."""
        state = self._state
        jobs, under_way = state.queue.jobs(), state.to_review is not None
        if commands is not None and not under_way:
            jobs = [job for job in jobs if job.command in commands]
        jobs.sort(key=attrgetter("id"))  # in a new lane, each client's jobs keep their order
        state.to_review = iter(jobs)
        if not under_way:
            state.outbox.put(state.chores.begin, self._review_some)

    def _review_some(self) -> bool:
        """Review some of the jobs that are to be reviewed; whether more are left.

        Until all of them are reviewed, `give_work` reviews each job before it starts the job.
        """
        state = self._state
        jobs = list(islice(state.to_review or (), PART))
        may_start = False
        for job in jobs:
            if job.state is not JobState.QUEUED or job.client is None:
                continue
            if state.registry.lacks(job.command):
                if state.queue.remove(job):
                    self._endings.end(job, reasons.unhandled(job))
                continue
            job.policy = state.registry.policy(job.command)
            if job.rest_alarm is None and job.lane != state.lanes.lane_of(job):
                state.queue.remove(job)
                may_start |= self._changes_lane(job)
        more = len(jobs) == PART
        if not more:
            state.to_review = None
        if may_start or not more:
            state.outbox.put(self.match, state.clock.seconds())
        state.tell()
        return more

    def _changes_lane(self, job: Job) -> bool:
        """Let `job`, which was taken out, wait in another lane if it belongs there now."""
        job.policy = self._state.registry.policy(job.command)
        lane = self._state.lanes.lane_of(job)
        if job.lane == lane or job.client is None:
            return False
        job.lane = lane
        self._state.queue.push(job.client, job, lane)
        return True


def _set_time(job: Job, now: float) -> None:
    """Note how long `job` may run if it starts now."""
    job.seconds = job.policy.time_limit
    if job.deadline is not None:
        left = job.accepted_at + job.deadline - now
        job.seconds = left if job.seconds is None else min(left, job.seconds)
