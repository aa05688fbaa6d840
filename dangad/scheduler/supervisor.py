"""How many workers there are: when to start one, what a death means, which one to let go.

Pure rules with a clock and no processes: told of births and deaths by :mod:`dangad.pool.link` and
of waiting jobs by :mod:`dangad.scheduler.dispatcher`, it asks an :class:`ISpawner` for processes
and tells the dispatcher which workers it has.

The rules:

- At least `min_workers` live always; more, up to `max_workers`, while jobs wait: one for each
  at once. `spare_workers` are kept idle beyond the busy ones, as far as the maximum allows.
- Only a few start at a time, and one in a turn of the reactor: see
  :mod:`dangad.scheduler.pacing`. How many are missing is asked anew before each start, so that a
  start that nobody wants any more is not made; and an operator who wants fewer has those
  stopped that are still starting.
- A worker above that which has been idle for `IDLE_TIME` seconds is let go.
- A worker is *recycled* when it has done enough jobs, lived long enough, holds too much memory, or
  its code is old. A replacement is started, which may be one process more than the maximum, and
  when that is ready the first of these that is idle leaves. Until then they all go on.
- While one client's jobs have all workers, and no job has started for `relief_after` seconds
  though another client has one, there may be one worker more, which is for the others.
- A dead worker is replaced at once, at that pace. If starts fail one after another (a worker
  that died before it said Hello, or idle before it did anything) the next is tried after a delay
  that doubles from a tenth of a second to half a minute, so a server whose workers cannot start
  rests, and recovers by itself.
- When no worker could be had for `PATIENCE` seconds and the last start failed, the
  dispatcher is told why, and refuses jobs until a worker starts.
- An idle worker is asked for a sign of life now and then. One that gives none is killed, and
  so is one that does not read the job that it was given, or holds more memory than any may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger
from zope.interface import implementer

from dangad.limits import DEFAULTS
from dangad.scheduler.interfaces import ISupervisor, IWorkerEvents
from dangad.scheduler.outbox import log_failure
from dangad.scheduler.pacing import Pace
from dangad.scheduler.relief import Relief
from dangad.scheduler.reload import Reload
from dangad.scheduler.workerrecord import RecycleLimits, WorkerRecord
from dangad.text import show_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.interfaces import IProcess, ISpawner, IWorker
    from dangad.scheduler.record import Death

log = Logger()

FIRST_DELAY = 0.1
"""Seconds before the second start in a row that follows a failure."""
LONGEST_DELAY = 30.0
"""Seconds between starts, however often they fail."""
PATIENCE = 10.0
"""Seconds for which jobs wait for a first worker while starts fail."""
PROBATION = 5.0
"""Seconds after which an idle worker that did nothing yet counts as well started."""
START_TIMEOUT = DEFAULTS.start_timeout
"""Seconds in which a worker must say Hello, unless told otherwise."""
IDLE_TIME = 20.0
"""Seconds of idleness after which a surplus worker is let go."""
WATCH_INTERVAL = 1.0
"""Seconds between two looks at every worker."""
KILL_AGAIN = 1.0
"""Seconds after which a worker that could not be killed is killed again."""
HEARTBEAT = 10.0
"""Seconds between two questions to an idle worker whether it records."""
HEARTBEAT_PATIENCE = 5.0
"""Seconds in which it must answer."""

LEAVE_AT_ONCE = 10
"""Workers that are let go in one turn of the reactor, if many are too many."""

_OLD_CODE = "its code is old"


@implementer(ISupervisor, IWorkerEvents)
class Supervisor:
    """The rules of the module's docstring.

    All mutable state: `min_workers` and `max_workers`, which may be changed; `records`, every
    process that is not known to be dead; `reloading`, how far the last reload is; `_relief`,
    whether there may be one more; `_pace`, which
    of them are starting, and what is left for the next turn of the reactor; `_failures`
    counts failures of starts since the last good one (those that come while the next try
    waits already count as one), `_failed_at` and `_reason` say when and why the last failed;
    `_retry`, `_alarm`, `_pruning` and `_watching` are the pending calls of the clock: the next
    start, the end of patience, the next look for idle surplus, the next look at all workers.
    """

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
        start_timeout: float = START_TIMEOUT,
        relief_after: float = 0.0,
    ) -> None:
        """Begin with no workers; `start` begins.

        :param starts_at_once: how many may be starting at a time.
        :param start_timeout: the seconds in which a worker must say Hello.
        :param relief_after: seconds for which one client may have all workers while others wait
            and nothing starts, before there is one for these; 0 for ever.
        """
        self.min_workers = min_workers
        self.max_workers = max_workers
        self.spare_workers = spare_workers
        self.recycle_limits = recycle_limits or RecycleLimits()
        self.records: dict[IWorker, WorkerRecord] = {}
        self.reloading = Reload()
        self._clock = clock
        self._dispatcher = dispatcher
        self._spawner: ISpawner | None = None
        self._pace = Pace(clock, starts_at_once, self._adjust)
        self._start_timeout = start_timeout
        self._relief = Relief(dispatcher, relief_after)
        self._failures = 0
        self._failed_at = 0.0
        self._reason = ""
        self._retry: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None
        self._pruning: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None

    def start(self, spawner: ISpawner) -> None:
        """Begin to keep the minimum alive, with processes from `spawner`."""
        self._spawner = spawner
        self._dispatcher.supervised_by(self, low_water=self.spare_workers)
        self._watching = self._later(WATCH_INTERVAL, self._watch)
        self._fill()

    def stop(self) -> None:
        """Start no more workers; the living are the pool's to stop."""
        self._spawner = None
        for call in (self._retry, self._alarm, self._pruning, self._watching):
            self._cancel(call)
        self._retry = self._alarm = self._pruning = self._watching = None
        self._pace.stop()
        for record in self.records.values():
            record.released = True
            if record.booted_at is None:
                self._cancel(record.boot_alarm)
        if self.reloading.rolling:
            self.reloading.fail("the server is stopping")

    @property
    def size(self) -> int:
        """How many workers live, those that start included, those that stop not."""
        return sum(not record.released for record in self.records.values())

    # Told by operators.

    def scale(self, min_workers: int, max_workers: int) -> None:
        """Keep so many workers from now on; surplus ones leave as soon as they are idle.

        Returns at once, and the workers come and go later. Another order takes its place.

        :raises ValueError: the numbers make no sense, and why.
        """
        if min_workers < 0 or max_workers < 1 or min_workers > max_workers:
            raise ValueError(
                f"{min_workers} to {max_workers} workers: the first is at least 0, the second "
                "at least 1, and not less than the first"
            )
        self.min_workers = min_workers
        self.max_workers = max_workers
        self._cancel_starts()
        self._adjust()

    def reload(self) -> Deferred[None]:
        """Replace all workers by such that are started from now on, with the code of now.

        Fires when the last old one is gone. Fails with :class:`ReloadFailed`, and leaves those
        that are left of the old ones where they are, if one of the new does not start.
        """
        done = self.reloading.begin()
        if self._spawner is None:
            self.reloading.fail("the server is stopping")
            return done
        for record in list(self.records.values()):
            if record.serves:
                record.recycling = record.recycling or _OLD_CODE
            elif record.starting:
                self._stop_start(record, "was started before the code was reloaded, and was killed")
        self._cancel(self._retry)
        self._retry = None
        self._adjust()
        return done

    # Told by the dispatcher.

    def demand(self, waiting: int) -> None:
        """See :meth:`ISupervisor.demand`."""
        if self._pace.may_start and (len(self.records) < self._most or self.size < self._most):
            self._fill(waiting)

    def worker_released(self, worker: IWorker) -> None:
        """See :meth:`ISupervisor.worker_released`."""
        self._let_go(worker)
        self._adjust()

    # Told by the pool.

    def worker_started(self, process: IProcess) -> None:
        """See :meth:`IWorkerEvents.worker_started`."""
        limit = self._start_timeout
        reason = f"did not start within {limit:g} s (--start-timeout), and was killed"
        now = self._clock.seconds()
        record = self.records[process] = WorkerRecord(process, self.reloading.generation, now)
        record.boot_alarm = self._later(limit, self._end_start, record, reason)
        self._pace.started(process)
        if record.boot_alarm is None:
            self._end(record, "was killed: it could not be given a limit to its start")

    def worker_booted(self, worker: IWorker, catalogue: str) -> None:
        """See :meth:`IWorkerEvents.worker_booted`."""
        record = self.records[worker]
        if record.released:
            return
        self._cancel(record.boot_alarm)
        record.boot_alarm = None
        self._pace.settled(worker)
        record.booted_at = record.asked_at = self._clock.seconds()
        self.reloading.booted(record.generation)
        self._cancel(self._alarm)
        self._alarm = None
        self._dispatcher.worker_ready(worker, catalogue)
        for other in self._dispatcher.outdated():
            self._recycle(self.records[other], "it performs other commands than the latest")
        self._adjust()
        if self._pruning is None and self.size > self.min_workers:
            self._pruning = self._later(IDLE_TIME, self._prune)

    def worker_answered(self, worker: IWorker) -> None:
        """See :meth:`IWorkerEvents.worker_answered`."""
        self.records[worker].silent = False

    def recycle_worker(self, worker: IWorker, why: str) -> None:
        """See :meth:`IWorkerEvents.recycle_worker`."""
        self._recycle(self.records[worker], why)
        self._adjust()

    def worker_exited(self, worker: IWorker, death: Death, performed: int) -> None:
        """See :meth:`IWorkerEvents.worker_exited`."""
        record = self.records.pop(worker, None)
        if record is None:
            return
        self._pace.settled(worker)
        if record.booted_at is None:
            self._cancel(record.boot_alarm)
        else:
            self._dispatcher.worker_gone(worker, death)
        if record.released:
            pass
        elif record.booted_at is None:
            self._start_failed(f"worker {worker.pid} {death.how}", record.generation)
        elif not performed and self._clock.seconds() - record.booted_at < PROBATION:
            self._start_failed(
                f"worker {worker.pid} {death.how} as soon as it was ready", record.generation
            )
        else:
            self._failures = 0
            self._cancel(self._retry)
            self._retry = None
        self._adjust()

    # The rules: how many.

    def _adjust(self) -> None:
        """Bring the workers nearer to what they should be; something has changed."""
        if self._spawner is None:
            return
        if self._watching is None:
            self._watching = self._later(WATCH_INTERVAL, self._watch)
        self._fill()
        self._turn_over()
        if self.reloading.rolling and self.reloading.check(
            [record.generation for record in self.records.values()]
        ):
            log.info("reloaded: all workers are of generation {n}", n=self.reloading.generation)

    def _needed(self, waiting: int = 0) -> int:
        """How many workers the jobs want, within the bounds."""
        idle = self._dispatcher.idle
        waiting = 0 if idle else max(waiting, self._dispatcher.waiting)  # if so, they are on hold
        busy = sum(record.serves for record in self.records.values()) - idle
        wanted = busy + waiting + self.spare_workers
        return max(self.min_workers, min(self._most, wanted))

    @property
    def _most(self) -> int:
        """How many workers there may be, replacements apart."""
        return self.max_workers + self._relief.extra

    def _fill(self, waiting: int = 0) -> None:
        """Start one worker if some are missing; the others follow in later turns."""
        if self._pace.may_start and self._needed(waiting) > self.size:
            self._spawn()

    def _turn_over(self) -> None:
        """Have some workers leave if there are too many, or start one for those that are due."""
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
            self._let_go(worker)
        else:
            self._pace.pause()
            return
        if (
            ((recycling and not surplus) or self.reloading.unproven)
            and len(self.records) <= self._most
            and not any(record.starting for record in self.records.values())
        ):
            self._spawn()

    def _cancel_starts(self) -> None:
        """Stop those that start for an earlier order, the latest first, as far as too many."""
        replaced = any(record.serves and record.recycling for record in self.records.values())
        surplus = self.size - self._needed() - (replaced or self.reloading.unproven)
        for record in reversed(list(self.records.values())):
            if surplus > 0 and record.starting:
                self._stop_start(record, "was not wanted any more while it started")
                surplus -= 1

    def _stop_start(self, record: WorkerRecord, reason: str) -> None:
        """Have a worker gone that has not said Hello; that is no failure of its."""
        record.released = True
        self._pace.settled(record.process)
        self._end(record, reason)

    def _let_go(self, worker: IWorker) -> None:
        record = self.records[worker]
        record.released = True
        try:
            record.process.stop()
        except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
            self._spoken_to_in_vain(record)

    def _recycle(self, record: WorkerRecord, why: str) -> None:
        if record.recycling is None:
            record.recycling = why
            log.info("worker {pid} is to be replaced: {why}", pid=record.process.pid, why=why)

    def _spawn(self) -> None:
        """Start a worker, unless one has just failed to start, or it is not the time for it."""
        if self._spawner is None or self._retry is not None or not self._pace.may_start:
            return
        try:
            self._spawner.spawn()
        except OSError as error:
            which = f": {error.filename}" if error.filename else ""
            reason = f"no process can be started: {error.strerror or error}{which}"
            self._start_failed(reason, self.reloading.generation)
        except Exception as error:  # noqa: BLE001 - a start that fails, whatever it was
            log_failure("the server failed while it started a worker")
            self._start_failed(
                f"the server failed while it started one: {error!r}", self.reloading.generation
            )

    # The rules: starts that fail.

    def _start_failed(self, reason: str, generation: int) -> None:
        self._reason = reason
        if self._spawner is None:
            return
        if self.reloading.rolling and generation == self.reloading.generation:
            self._give_up_reload(reason)
        if self._alarm is None and not self._has_booted():
            self._alarm = self._later(PATIENCE, self._give_up_waiting)
        if self._retry is not None:
            return
        now = self._clock.seconds()
        if any(
            record.booted_at is not None and self._failed_at <= record.booted_at <= now - PROBATION
            for record in self.records.values()
        ):
            self._failures = 0
        self._failures += 1
        self._failed_at = now
        delay = 0.0
        if self._failures > 1:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._failures - 2, 30))
        log.warn(
            "start {failures} in a row failed: {reason}; next try in {delay:.1f} s",
            failures=self._failures,
            reason=reason,
            delay=delay,
        )
        self._retry = self._later(delay, self._try_again)

    def _give_up_reload(self, reason: str) -> None:
        """The new code cannot be served: leave the old workers where they are."""
        log.error("the reload failed, and the old workers stay: {reason}", reason=reason)
        for record in self.records.values():
            if record.recycling == _OLD_CODE:
                record.recycling = None
        self.reloading.fail(reason)

    def _has_booted(self) -> bool:
        return any(record.serves for record in self.records.values())

    def _try_again(self) -> None:
        self._retry = None
        # With no minimum, and jobs refused for want of workers, nobody else asks for a worker.
        self._fill(0 if self._has_booted() else 1)
        self._adjust()

    def _give_up_waiting(self) -> None:
        self._alarm = None
        if self._failures and not self._has_booted():
            self._dispatcher.no_workers(self._reason)

    # The rules: those that live.

    def _prune(self) -> None:
        """Let go what is not needed and has been idle for long, and look again later."""
        self._pruning = None
        surplus = self.size - self._needed()
        before = self._clock.seconds() - IDLE_TIME
        while surplus > 0 and (worker := self._dispatcher.dismiss_idle(before)) is not None:
            self._let_go(worker)
            surplus -= 1
        self._relief.look(self.max_workers, self.size, self._clock.seconds())
        if self.size > self.min_workers:
            self._pruning = self._later(IDLE_TIME / 2, self._prune)

    def _watch(self) -> None:
        """Look at every worker: its memory, its age, and whether it records."""
        self._watching = self._later(WATCH_INTERVAL, self._watch)
        now = self._clock.seconds()
        for worker, record in list(self.records.items()):
            if record.serves:
                try:
                    self._weigh(record, now)
                    self._listen(record, self._dispatcher.is_idle(worker), now)
                except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                    self._spoken_to_in_vain(record)
        self._relief.look(self.max_workers, self.size, now)
        self._adjust()

    def _weigh(self, record: WorkerRecord, now: float) -> None:
        """See whether the worker is too large, or old enough to be replaced."""
        recycle_limits = self.recycle_limits
        memory = record.process.memory()
        if recycle_limits.max_memory and memory > recycle_limits.max_memory:
            self._kill(
                record,
                f"had {show_bytes(memory)} of memory, where --max-memory is "
                f"{show_bytes(recycle_limits.max_memory)}, and was killed",
            )
        elif recycle_limits.memory and memory > recycle_limits.memory:
            self._recycle(record, f"it has {show_bytes(memory)} of memory")
        elif (
            recycle_limits.age
            and record.booted_at is not None
            and now - record.booted_at >= recycle_limits.age
        ):
            self._recycle(record, f"it is {now - record.booted_at:.0f} s old")

    def _listen(self, record: WorkerRecord, idle: bool, now: float) -> None:
        """See whether the worker gives signs of life; ask it for one if it is idle."""
        if record.process.has_read():
            record.unread_since = None
        elif record.unread_since is None:
            record.unread_since = now
        elif now - record.unread_since >= HEARTBEAT_PATIENCE:
            self._kill(
                record, f"did not read what it was sent for {HEARTBEAT_PATIENCE:g} s and was killed"
            )
            return
        if not idle:
            record.process.verify()
        if record.silent and now - record.asked_at >= HEARTBEAT_PATIENCE:
            self._kill(record, f"gave no sign of life for {HEARTBEAT_PATIENCE:g} s and was killed")
        elif idle and not record.silent and now - record.asked_at >= HEARTBEAT:
            record.asked_at = now
            record.silent = True
            record.process.ping()

    def _kill(self, record: WorkerRecord, reason: str) -> None:
        self._dispatcher.dismiss(record.process)
        self._end(record, reason)

    # Who does not do as told.

    def _end(self, record: WorkerRecord, reason: str) -> None:
        """Kill a worker that is not gone, and again if that fails."""
        if self.records.get(record.process) is not record:
            return
        try:
            record.process.kill(reason)
        except Exception:  # noqa: BLE001 - else it might stay for ever
            log_failure("worker {pid} could not be killed", pid=record.process.pid)
            self._later(KILL_AGAIN, self._end, record, reason)

    def _end_start(self, record: WorkerRecord, reason: str) -> None:
        """Kill a worker that has not said Hello by now."""
        if record.starting:
            self._end(record, reason)

    def _spoken_to_in_vain(self, record: WorkerRecord) -> None:
        """Kill a worker that raised; to be called where the exception is caught."""
        log_failure("worker {pid} could not be spoken to, and is killed", pid=record.process.pid)
        self._kill(record, "was killed: the server failed while it spoke to it")

    def _later(
        self, delay: float, call: Callable[..., object], *arguments: object
    ) -> IDelayedCall | None:
        """Have the clock make this call; None if it cannot."""
        try:
            return self._clock.callLater(delay, call, *arguments)
        except Exception:  # noqa: BLE001 - the rules go on without, till the next look at all
            log_failure("the server failed to put off a call")
            return None

    def _cancel(self, call: IDelayedCall | None) -> None:
        """Have the clock not make this call, if it is still to come."""
        try:
            if call is not None and call.active():
                call.cancel()
        except Exception:  # noqa: BLE001 - then it comes, and finds nothing to do
            log_failure("the server failed to cancel a call")
