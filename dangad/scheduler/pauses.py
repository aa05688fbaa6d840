"""Jobs that are paused because their clients do not read, and how long they may keep workers.

Kept by :mod:`dangad.scheduler.dispatcher`. A job whose client does not read the parts of its result
waits in the middle of its run, and its worker with it. This harms nobody while no other job waits.
While others wait, a job may keep its worker from them only for a time: for :data:`PATIENCE` seconds
of pauses in all, and a second more for each :data:`RATE` bytes of parts that its client reads. So a
client that reads steadily is served to the end, and one that reads a little now and then is not. If
all workers are kept in this way, the job that was paused for longest ends after :data:`HURRY`
seconds.

This bounds what one job does, but not what a thousand jobs do one after the other. So while any job
is paused and others wait, and for a time afterwards, jobs that send parts leave the last worker
that makes progress to others: see :mod:`dangad.scheduler.wariness`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.alarms import Alarm, Alarms
    from dangad.scheduler.record import Job

PATIENCE = 10.0
"""Seconds of pauses, in all, for which a job may keep its worker from jobs that wait."""
HURRY = 2.0
"""Seconds of pauses after which the longest paused job ends while the jobs of all workers are
paused."""
RATE = 2**20
"""Bytes of parts for which a job may be paused for a second more."""
LOOK_INTERVAL = 0.5
"""Seconds between two looks at the jobs that are paused."""


class _Account:
    """For how long one job was paused.

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
        :param others_wait: whether a job waits for nothing but a worker.
        :param others_run: whether more workers have jobs than so many whose jobs are paused.
        :param keeps_from_others: called now and then while any job is paused and others wait.
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
    """Seconds for which a job was paused, less those that its client made up for by reading."""
    return account.seconds - account.bytes / RATE
