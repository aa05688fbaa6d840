"""How many workers there are: when to start one, what a death means, when to let one go.

Pure rules with a clock and no processes: told of births and deaths by :mod:`dangad.workerlink`
and of waiting jobs by :mod:`dangad.dispatcher`, it asks an :class:`IHatchery` for processes
and tells the dispatcher which workers it has.

The rules:

- At least `min_workers` live always; more, up to `max_workers`, while jobs wait.
- A dead worker is replaced at once. If starts fail one after another (a worker that died
  before it said Hello, or idle before it did anything) the next is tried after a delay that
  doubles from a tenth of a second to half a minute, so a server whose workers cannot start
  rests, and recovers by itself.
- When no worker could be had for `PATIENCE` seconds and the last start failed, the
  dispatcher is told why, and refuses jobs until a worker starts.
- A worker above the minimum that has been idle for `IDLE_TIME` seconds is let go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger
from zope.interface import implementer

from dangad.interfaces import IWorkforce

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.dispatcher import Dispatcher
    from dangad.interfaces import IHatchery, IWorker

log = Logger()

FIRST_DELAY = 0.1
"""Seconds before the second start in a row that follows a failure."""
LONGEST_DELAY = 30.0
"""Seconds between starts, however often they fail."""
PATIENCE = 10.0
"""Seconds for which jobs wait for a first worker while starts fail."""
PROBATION = 5.0
"""Seconds after which an idle worker that did nothing yet counts as well started."""
BOOT_LIMIT = 60.0
"""Seconds in which a worker must say Hello."""
IDLE_TIME = 20.0
"""Seconds of idleness after which a surplus worker is let go."""


class _Life:
    """What the workforce knows of one living worker."""

    __slots__ = ("boot_alarm", "booted_at", "stopping")

    def __init__(self, boot_alarm: IDelayedCall) -> None:
        self.boot_alarm = boot_alarm
        self.booted_at: float | None = None
        self.stopping = False


@implementer(IWorkforce)
class Workforce:
    """The rules of the module's docstring.

    All mutable state: `_lives` has every process that is not known to be dead; `_failures`
    counts failures of starts since the last good one (those that come while the next try
    waits already count as one), `_failed_at` and `_reason` say when and why the last failed;
    `_retry`, `_alarm` and `_pruning` are the pending calls of the clock: the next start, the
    end of patience, the next look for idle surplus.
    """

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        min_workers: int,
        max_workers: int,
    ) -> None:
        self.min_workers = min_workers
        self.max_workers = max_workers
        self._clock = clock
        self._dispatcher = dispatcher
        self._hatchery: IHatchery | None = None
        self._lives: dict[IWorker, _Life] = {}
        self._failures = 0
        self._failed_at = 0.0
        self._reason = ""
        self._retry: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None
        self._pruning: IDelayedCall | None = None

    def start(self, hatchery: IHatchery) -> None:
        """Begin to keep the minimum alive, with processes from `hatchery`."""
        self._hatchery = hatchery
        self._dispatcher.staffed_by(self)
        self._fill()

    def stop(self) -> None:
        """Start no more workers; the living are the pool's to stop."""
        self._hatchery = None
        for call in (self._retry, self._alarm, self._pruning):
            if call is not None:
                call.cancel()
        self._retry = self._alarm = self._pruning = None
        for life in self._lives.values():
            life.stopping = True
            if life.booted_at is None and life.boot_alarm.active():
                life.boot_alarm.cancel()

    @property
    def size(self) -> int:
        """How many workers live, those that start included, those that stop not."""
        return sum(not life.stopping for life in self._lives.values())

    # Told by the dispatcher.

    def demand(self, waiting: int) -> None:
        """See :meth:`IWorkforce.demand`."""
        self._fill(waiting)

    # Told by the pool.

    def worker_started(self, worker: IWorker) -> None:
        """A process was started for `worker`, which has not said Hello."""
        alarm = self._clock.callLater(
            BOOT_LIMIT, worker.kill, f"did not start within {BOOT_LIMIT:.0f} s"
        )
        self._lives[worker] = _Life(alarm)

    def worker_booted(self, worker: IWorker, catalogue: str) -> None:
        """`worker` has said Hello, with the catalogue of what it performs."""
        life = self._lives[worker]
        if life.stopping:
            return
        life.boot_alarm.cancel()
        life.booted_at = self._clock.seconds()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._dispatcher.worker_ready(worker, catalogue)
        if self._pruning is None and self.size > self.min_workers:
            self._pruning = self._clock.callLater(IDLE_TIME, self._prune)

    def worker_exited(self, worker: IWorker, how: str, performed: int) -> None:
        """`worker` is gone, and its process group with it.

        :param how: what ended it, as in "was killed by SIGKILL".
        :param performed: how many jobs it was given while it lived.
        """
        life = self._lives.pop(worker)
        if life.booted_at is None:
            if life.boot_alarm.active():
                life.boot_alarm.cancel()
        else:
            self._dispatcher.worker_gone(worker, how)
        if life.stopping:
            return
        if life.booted_at is None:
            self._start_failed(f"worker {worker.pid} {how}")
        elif not performed and self._clock.seconds() - life.booted_at < PROBATION:
            self._start_failed(f"worker {worker.pid} {how} as soon as it was ready")
        else:
            self._failures = 0
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            self._fill()

    # The rules.

    def _fill(self, waiting: int = 0) -> None:
        """Start what is missing: the minimum, and up to the maximum one for each waiting job."""
        idle = self._dispatcher.idle
        waiting = 0 if idle else max(waiting, self._dispatcher.waiting)  # if so, they are on hold
        booted = sum(
            life.booted_at is not None and not life.stopping for life in self._lives.values()
        )
        wanted = max(self.min_workers, min(self.max_workers, booted - idle + waiting))
        for _ in range(wanted - self.size):
            if self._hatchery is None or self._retry is not None:
                return
            try:
                self._hatchery.spawn()
            except OSError as error:
                self._start_failed(f"no process can be started: {error.strerror or error}")

    def _start_failed(self, reason: str) -> None:
        self._reason = reason
        if self._hatchery is None:
            return
        if self._alarm is None and not self._has_booted():
            self._alarm = self._clock.callLater(PATIENCE, self._give_up_waiting)
        if self._retry is not None:
            return
        now = self._clock.seconds()
        if any(
            life.booted_at is not None and self._failed_at <= life.booted_at <= now - PROBATION
            for life in self._lives.values()
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
        self._retry = self._clock.callLater(delay, self._try_again)

    def _has_booted(self) -> bool:
        return any(
            life.booted_at is not None and not life.stopping for life in self._lives.values()
        )

    def _try_again(self) -> None:
        self._retry = None
        # With no minimum, and jobs refused for want of workers, nobody else asks for a worker.
        self._fill(0 if self._has_booted() else 1)

    def _give_up_waiting(self) -> None:
        self._alarm = None
        if self._failures and not self._has_booted():
            self._dispatcher.no_workers(self._reason)

    def _prune(self) -> None:
        """Let go what is above the minimum and has been idle for long, and look again later."""
        self._pruning = None
        surplus = self.size - self.min_workers
        before = self._clock.seconds() - IDLE_TIME
        while surplus > 0 and (worker := self._dispatcher.dismiss_idle(before)) is not None:
            self._lives[worker].stopping = True
            worker.stop()
            surplus -= 1
        if surplus > 0:
            self._pruning = self._clock.callLater(IDLE_TIME / 2, self._prune)
