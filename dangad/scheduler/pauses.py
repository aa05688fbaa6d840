"""Jobs that are held back because their clients do not read, and how long they may hold workers.

Kept by :mod:`dangad.scheduler.dispatcher`. A job whose client does not read the parts of its result
waits in the middle of its run, and its worker with it. That harms nobody while no other job waits.
While others do, a job may keep its worker from them for a time only: :data:`PATIENCE` seconds of
pauses all together, and a second more for each :data:`RATE` bytes of parts that its client takes.
So a client that reads steadily is served for as long as it takes, and one that reads a little now
and then is not. When all workers are held like that, the longest ends after :data:`HURRY` seconds.

That bounds what one job does, not what a thousand do one after the other. So while any is paused
and others wait, and for :data:`WARY` seconds from then on, the dispatcher starts a job that sends
parts on the last worker that moves only if none is left that sends none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.alarms import Alarm, Alarms
    from dangad.scheduler.record import Job

PATIENCE = 10.0
"""Seconds of pauses, all together, for which a job may keep its worker from jobs that wait."""
HURRY = 2.0
"""The same, in seconds, for one job at a time while the jobs of all workers are paused."""
RATE = 2**20
"""Bytes of parts for which a job may be paused a second longer."""
WARY = 10.0
"""Seconds after a job was paused while others waited in which those that send parts leave the last
worker to others."""
LOOK_INTERVAL = 0.5
"""Seconds between two looks at the jobs that are paused."""


class _Account:
    """How one job has been paused.

    :ivar paused: whether it is now.
    :ivar seconds: for how long it was while others waited.
    :ivar bytes: of parts that its client was sent since it was first paused.
    """

    __slots__ = ("bytes", "paused", "seconds")

    def __init__(self) -> None:
        self.paused = True
        self.seconds = 0.0
        self.bytes = 0


class Pauses:
    """The running jobs that were ever paused."""

    def __init__(
        self,
        alarms: Alarms,
        others_wait: Callable[[], bool],
        others_run: Callable[[int], bool],
        keeps_from_others: Callable[[], object],
        end: Callable[[Job, float], object],
    ) -> None:
        """Begin with none.

        :param alarms: where the looks are set.
        :param others_wait: whether a job waits for a worker, and could start if there was one.
        :param others_run: whether any worker has another job than so many that are paused.
        :param keeps_from_others: called while any is paused and others wait, now and then.
        :param end: called with a job that was paused for too long, and for how long.
        """
        self._alarms = alarms
        self._others_wait = others_wait
        self._others_run = others_run
        self._keeps_from_others = keeps_from_others
        self._end = end
        #: What is known of each job that was ever paused.
        self._accounts: dict[Job, _Account] = {}
        #: The next look at those that are paused.
        self._alarm: Alarm | None = None

    def __bool__(self) -> bool:
        """Whether any job that runs was ever paused."""
        return bool(self._accounts)

    def pause(self, job: Job) -> None:
        """`job` is paused from now on."""
        account = self._accounts.get(job)
        if account is None:
            self._accounts[job] = _Account()
        else:
            account.paused = True
        if self._alarm is None:
            self._alarm = self._alarms.set(LOOK_INTERVAL, self._look)

    def resume(self, job: Job) -> None:
        """`job` goes on."""
        if job in self._accounts:
            self._accounts[job].paused = False

    def sent(self, job: Job, size: int) -> None:
        """So many bytes of parts were sent to the client of `job`."""
        if job in self._accounts:
            self._accounts[job].bytes += size

    def forget(self, job: Job) -> None:
        """`job` does not run any more."""
        self._accounts.pop(job, None)
        if not self._accounts and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        """See which jobs were paused for too long, and come back if any is."""
        paused = {job: account for job, account in self._accounts.items() if account.paused}
        self._alarm = None
        if not paused:
            return
        self._alarm = self._alarms.set(LOOK_INTERVAL, self._look)
        if not self._others_wait():
            return
        self._keeps_from_others()
        for account in paused.values():
            account.seconds += LOOK_INTERVAL
        ends = [job for job, account in paused.items() if _excess(account) >= PATIENCE]
        if not ends and not self._others_run(len(paused)):
            longest = max(paused, key=lambda job: _excess(paused[job]))
            ends = [longest] if _excess(paused[longest]) >= HURRY else []
        for job in ends:
            self._end(job, paused[job].seconds)


def _excess(account: _Account) -> float:
    """For how many seconds a job was paused that are not made up for by what its client read."""
    return account.seconds - account.bytes / RATE
