"""How many workers there are: when to start one, what a death means, which one to dismiss.

Pure rules with a clock and no processes. :mod:`dangad.pool.link` reports births and deaths, and
:mod:`dangad.scheduler.dispatcher` reports waiting jobs. The supervisor asks an :class:`ISpawner`
for processes, and tells the dispatcher which workers it has.

The rules:

- At least `min_workers` always live. While jobs wait there are more, one for each waiting job, up
  to `max_workers`. `spare_workers` are kept idle in addition to the busy ones, within the maximum.
- Only a few workers start at a time, and one in a turn of the reactor: see
  :mod:`dangad.scheduler.pacing`. Before each start the number of missing workers is computed anew,
  so that none is started without need. If an operator wants fewer, starting workers are stopped.
- A surplus worker that has been idle for `IDLE_TIME` seconds is dismissed.
- A worker is *recycled* when it has done enough jobs, is old, holds too much memory, or has old
  code. A replacement is started, perhaps as one process more than the maximum. When it is ready,
  the first recycled worker that is idle leaves. Until then all of them go on.
- If a job needs a worker that has had no job, and there may be no more, one is replaced likewise.
- If one client's jobs have all workers, and no job has started for `relief_after` seconds, while
  another client waits, there may be one more for the others.
- A dead worker is replaced at once. A worker that was let go, or whose job is being stopped, is
  replaced before it is gone, but only a few at a time are. Each further one keeps its place until
  it is gone. So the number of processes has a bound, whatever jobs do.
- If starts fail one after another, the next is put off: :mod:`dangad.scheduler.failingstarts`.
- A worker that does not react, or is too large, is killed: :mod:`dangad.scheduler.watch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from dangad.limits import DEFAULTS, check_numbers
from dangad.scheduler.clockcalls import call_later, cancel
from dangad.scheduler.dismissal import Dismissal
from dangad.scheduler.failingstarts import FailingStarts, cannot_start
from dangad.scheduler.interfaces import ISupervisor, IWorkerEvents
from dangad.scheduler.pacing import Pace
from dangad.scheduler.relief import Relief
from dangad.scheduler.reload import Reload
from dangad.scheduler.watch import Watch
from dangad.scheduler.workerhistory import WorkerHistory
from dangad.scheduler.workerrecord import RecycleLimits, WorkerRecord

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.interfaces import IProcess, ISpawner, IWorker
    from dangad.scheduler.record import Death

START_TIMEOUT = DEFAULTS.start_timeout
"""Seconds in which a worker must say Hello, unless told otherwise."""
IDLE_TIME = 20.0
"""Seconds of idleness after which a surplus worker is let go."""
WATCH_INTERVAL = 1.0
"""Seconds between two checks of all workers."""
LEAVE_AT_ONCE = 10
"""The most workers that are let go in one turn of the reactor."""


@implementer(ISupervisor, IWorkerEvents)
class Supervisor:
    """The rules of the module's docstring."""

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        min_workers: int,
        max_workers: int,
        spare_workers: int = 0,
        recycle_limits: RecycleLimits | None = None,
        *,
        starts_at_once: int = 2,
        leaving_at_once: int = 2,
        start_timeout: float = START_TIMEOUT,
        relief_after: float = 0.0,
    ) -> None:
        """Begin with no workers; `start` begins.

        :param starts_at_once: how many may be starting at a time.
        :param leaving_at_once: how many leaving workers are replaced before they are gone, up to
            `max_workers`.
        :param start_timeout: the seconds in which a worker must say Hello.
        :param relief_after: seconds for which one client may have all workers while others wait
            and no job starts; then there is one worker more. 0 for ever.
        """
        #: The least and the most workers; operators may change both.
        self.min_workers = min_workers
        self.max_workers = max_workers
        self.spare_workers = spare_workers
        self.recycle_limits = recycle_limits or RecycleLimits()
        #: The record of each process that is not known to be dead.
        self.records: dict[IWorker, WorkerRecord] = {}
        #: How far the last reload is.
        self.reloading = Reload()
        #: What is remembered of the workers.
        self.history = WorkerHistory()
        self._clock = clock
        self._dispatcher = dispatcher
        #: Starts the processes; None before `start` and after `stop`.
        self._spawner: ISpawner | None = None
        self._start_timeout = start_timeout
        self._leaving_at_once = leaving_at_once
        #: The workers that are starting, and whether `_adjust` is called in the next turn.
        self._pace = Pace(clock, starts_at_once, self._adjust)
        #: Whether there may be one worker more.
        self._relief = Relief(dispatcher, relief_after)
        #: The starts that failed, and the next try.
        self.failing = FailingStarts(clock, self.records, self._try_again, dispatcher)
        self._dismissal = Dismissal(clock, self.records, dispatcher)
        self._watch = Watch(self.recycle_limits, self._dismissal)
        #: The next call of `_prune`, and of `_look`.
        self._pruning: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None

    def start(self, spawner: ISpawner) -> None:
        """Begin to keep at least the minimum of workers alive, with processes from `spawner`."""
        self._spawner = spawner
        self._dispatcher.supervised_by(self, low_water=self.spare_workers)
        self._watching = call_later(self._clock, WATCH_INTERVAL, self._look)
        self._fill()

    def stop(self) -> None:
        """Start no more workers; the pool stops the living ones."""
        self._spawner = None
        cancel(self._pruning)
        cancel(self._watching)
        self._pruning = self._watching = None
        self.failing.stop()
        self._pace.stop()
        for record in self.records.values():
            record.released = True
            cancel(record.boot_alarm)
        if self.reloading.rolling:
            self.reloading.fail("the server is stopping")

    @property
    def size(self) -> int:
        """How many workers live, including those that start and without those that stop."""
        return sum(not (record.released or record.doomed) for record in self.records.values())

    @property
    def most_processes(self) -> int:
        """How many processes there may be, including those that leave."""
        return self._most + min(self.max_workers, self._leaving_at_once)

    # Told by operators.

    def scale(self, min_workers: int, max_workers: int) -> None:
        """Keep so many workers from now on; surplus ones leave as soon as they are idle.

        Returns at once; the workers come and go later. A further call replaces this one.

        :raises ValueError: the numbers are not valid; the text says why.
        """
        check_numbers(min_workers, max_workers)
        self.min_workers, self.max_workers = min_workers, max_workers
        self._cancel_starts()
        self._adjust()

    def reload(self) -> Deferred[None]:
        """Replace all workers by new ones, which import the present job modules.

        Fires when the last old worker is gone. Fails with :class:`ReloadFailed` if a new worker
        does not start; then the remaining old workers stay.
        """
        return self.reloading.begin(self._spawner, self._renewed)

    def _renewed(self, why_not: str | None) -> None:
        """See :meth:`ISpawner.renew`."""
        if self._spawner is None or not self.reloading.rolling:
            return
        if why_not is not None:
            self.reloading.give_up(why_not, self.records.values())
            return
        for record in self.reloading.prepared(list(self.records.values())):
            self._stop_start(record, "was started before the code was reloaded, and was killed")
        self.failing.retry_at_once()
        self._adjust()

    # Told by the dispatcher.

    def demand(self, waiting: int) -> None:
        """See :meth:`ISupervisor.demand`."""
        self._make_room()
        if self._has_room and (len(self.records) < self._most or self.size < self._most):
            self._fill(waiting)

    def worker_doomed(self, worker: IWorker) -> None:
        """See :meth:`ISupervisor.worker_doomed`."""
        self.records[worker].doomed = True
        self._fill()

    def worker_released(self, worker: IWorker) -> None:
        """See :meth:`ISupervisor.worker_released`."""
        self._dismissal.let_go(self.records[worker])
        self._adjust()

    # Told by the pool.

    def worker_started(self, process: IProcess) -> None:
        """See :meth:`IWorkerEvents.worker_started`."""
        limit, now = self._start_timeout, self._clock.seconds()
        reason = f"did not start within {limit:g} s (--start-timeout), and was killed"
        record = self.records[process] = WorkerRecord(process, self.reloading.generation, now)
        record.boot_alarm = call_later(
            self._clock, limit, self._dismissal.end_start, record, reason
        )
        self._pace.started(process)
        self.history.note_start(process)
        if record.boot_alarm is None:
            self._dismissal.end(record, "was killed: it could not be given a limit to its start")

    def worker_booted(self, worker: IWorker, catalogue: str) -> None:
        """See :meth:`IWorkerEvents.worker_booted`."""
        record = self.records[worker]
        if record.released:
            return
        cancel(record.boot_alarm)
        record.boot_alarm = None
        self._pace.settled(worker)
        record.booted_at = record.asked_at = self._clock.seconds()
        self.reloading.booted(record.generation)
        self.failing.booted()
        self.history.note_boot(record.process)
        self._dispatcher.worker_ready(worker, catalogue)
        for other in self._dispatcher.outdated():
            self.records[other].recycle("it performs other commands than the latest")
        self._adjust()
        if self._pruning is None and self.size > self.min_workers:
            self._pruning = call_later(self._clock, IDLE_TIME, self._prune)

    def worker_answered(self, worker: IWorker) -> None:
        """See :meth:`IWorkerEvents.worker_answered`."""
        self.records[worker].silent = False

    def recycle_worker(self, worker: IWorker, why: str) -> None:
        """See :meth:`IWorkerEvents.recycle_worker`."""
        self.records[worker].recycle(why)
        self._adjust()

    def worker_exited(self, worker: IWorker, death: Death, performed: int) -> None:
        """See :meth:`IWorkerEvents.worker_exited`."""
        record = self.records.pop(worker, None)
        if record is None:
            return
        self._pace.settled(worker)
        cancel(record.boot_alarm)
        job, now = self._dispatcher.job_of(worker), self._clock.seconds()
        self.history.note_death(record, death, performed, now, job)
        if record.booted_at is not None:
            self._dispatcher.worker_gone(worker, death)
        if not record.released:
            reason = self.failing.reason(record, death, performed)
            if reason is None:
                self.failing.forget()
            else:
                self._start_failed(reason, record.generation)
        self._adjust()

    # The rules: how many.

    def _adjust(self) -> None:
        """Bring the number of workers nearer to what it should be; something has changed."""
        if self._spawner is None:
            return
        if self._watching is None:
            self._watching = call_later(self._clock, WATCH_INTERVAL, self._look)
        self._fill()
        self._turn_over()
        self._make_room()
        self.reloading.check([record.generation for record in self.records.values()])

    def _needed(self, waiting: int = 0) -> int:
        """How many workers the jobs need, within the bounds."""
        dispatcher = self._dispatcher
        idle = 0 if dispatcher.lacks_unused else dispatcher.idle
        waiting = max(waiting, dispatcher.seeking, int(dispatcher.is_asked))
        waiting = 0 if idle else waiting  # jobs that wait beside an idle worker are on hold
        busy = sum(record.serves for record in self.records.values()) - idle
        wanted = busy + waiting + self.spare_workers
        return max(self.min_workers, min(self._most, wanted))

    @property
    def _most(self) -> int:
        """How many workers there may be, not counting replacements."""
        return self.max_workers + self._relief.extra

    @property
    def _has_room(self) -> bool:
        """Whether one more process may be started now."""
        return self._pace.may_start and len(self.records) < self.most_processes

    def _fill(self, waiting: int = 0) -> None:
        """Start one worker if some are missing; the others follow in later turns of the reactor."""
        if self._has_room and self._needed(waiting) > self.size:
            self._spawn()

    def _turn_over(self) -> None:
        """Let some workers go if there are too many, or start one in place of a recycled one."""
        for _ in range(LEAVE_AT_ONCE):
            serving = {worker: record for worker, record in self.records.items() if record.serves}
            recycling = [worker for worker, record in serving.items() if record.recycling]
            surplus = len(serving) > self._needed()
            leaving = recycling if surplus else []
            if not leaving and len(serving) > self._most:
                leaving = list(serving)
            worker = self._dispatcher.call_back(leaving)
            if worker is None:
                break
            self._dismissal.let_go(self.records[worker])
        else:
            self._pace.pause()
            return
        if (
            ((recycling and not surplus) or self.reloading.unproven)
            and len(self.records) <= self._most
            and not any(record.starting for record in self.records.values())
        ):
            self._spawn()

    def _make_room(self) -> None:
        """If a job waits for an unused worker, replace a used one, which goes once that is there.

        If no worker is idle, the first that ends its job goes, and is replaced then.
        """
        if (
            self._dispatcher.lacks_unused
            and self._has_room
            and self.size == self._most
            and not any(record.starting for record in self.records.values())
        ):
            if self._dispatcher.idle:
                self._spawn()
            else:
                serving = [worker for worker, record in self.records.items() if record.serves]
                self._dispatcher.call_back(serving)

    def _cancel_starts(self) -> None:
        """Stop surplus workers that are still starting, the latest first."""
        replaced = any(record.serves and record.recycling for record in self.records.values())
        surplus = self.size - self._needed() - (replaced or self.reloading.unproven)
        for record in reversed(list(self.records.values())):
            if surplus > 0 and record.starting:
                self._stop_start(record, "was not wanted any more while it started")
                surplus -= 1

    def _stop_start(self, record: WorkerRecord, reason: str) -> None:
        """End a worker that has not said Hello; this does not count as a failed start."""
        record.released = True
        self._pace.settled(record.process)
        self._dismissal.end(record, reason)

    def _spawn(self) -> None:
        """Start a worker, unless starts are put off, or no more may be started in this turn."""
        if self._spawner is None or self.failing.resting or not self._pace.may_start:
            return
        try:
            self._spawner.spawn()
        except Exception as error:  # noqa: BLE001 - whatever it was, the start has failed
            self._start_failed(cannot_start(error), self.reloading.generation)

    # The rules: starts that fail.

    def _start_failed(self, reason: str, generation: int) -> None:
        if self._spawner is None:
            return
        self.reloading.start_failed(generation, reason, self.records.values())
        self.failing.failed(reason)

    def _try_again(self) -> None:
        # While jobs are refused for want of workers, and the minimum is 0, nobody asks for one.
        self._fill(0 if self.failing.any_serves else 1)
        self._adjust()

    # The rules: those that live.

    def _prune(self) -> None:
        """Let surplus workers go that have been idle for long, and look again later."""
        self._pruning = None
        surplus = self.size - self._needed()
        before = self._clock.seconds() - IDLE_TIME
        while surplus > 0 and (worker := self._dispatcher.dismiss_idle(before)) is not None:
            self._dismissal.let_go(self.records[worker])
            surplus -= 1
        self._relief.look(self.max_workers, self.size, self._clock.seconds())
        if self.size > self.min_workers:
            self._pruning = call_later(self._clock, IDLE_TIME / 2, self._prune)

    def _look(self) -> None:
        """Look at every worker: its memory, its age, and whether it reacts."""
        self._watching = call_later(self._clock, WATCH_INTERVAL, self._look)
        now = self._clock.seconds()
        self._watch.look_at(list(self.records.values()), self._dispatcher.is_idle, now)
        self._relief.look(self.max_workers, self.size, now)
        self._adjust()
