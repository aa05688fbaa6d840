"""Jobs that are paused because their clients do not read, and how long they may keep workers.

Kept by :mod:`dangad.scheduler.dispatcher`. A job is paused in the middle of its run while its
client does not read the parts of its result. Its worker waits, too. This harms nobody while no
other job waits. While others wait, a job may keep its worker from them only for a time:
:data:`PATIENCE` seconds of pauses in all, and a second more for each :data:`RATE` bytes of parts
that its client reads. So a client that reads steadily is served to the end. A client that reads a
little now and then is not. If the jobs of all workers are paused, the job that was paused for
longest ends after :data:`HURRY` seconds.

This bounds the harm of one job, but not that of a thousand jobs one after the other. So while a job
is paused and others wait, and for some time afterwards, jobs that send parts leave the last worker
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
"""Seconds of pauses after which the job that was paused for longest ends, if the jobs of all
workers are paused."""
RATE = 2**20
"""Bytes of parts that a client must read for its job to be allowed one more second of pauses."""
LOOK_INTERVAL = 0.5
"""Seconds between two checks of the paused jobs."""


class _Account:
    """How long one job was paused.

    :ivar paused: whether it is paused now.
    :ivar seconds: how long it was paused while others waited.
    :ivar bytes: the bytes of parts that were sent to its client since the first pause.
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
        """Begin with no paused job.

        :param alarms: where the checks are set.
        :param others_wait: returns whether a job waits for nothing but a worker.
        :param others_run: called with the number of paused jobs; returns whether other jobs run.
        :param keeps_from_others: called now and then while any job is paused and others wait.
        :param end: called with a job that was paused for too long, and with the seconds.
        """
        self._alarms = alarms
        self._others_wait = others_wait
        self._others_run = others_run
        self._keeps_from_others = keeps_from_others
        self._end = end
        #: The pauses of each running job that was ever paused.
        self._accounts: dict[Job, _Account] = {}
        #: The next check of the paused jobs.
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
        """End jobs that were paused for too long, and check again later while any is paused."""
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
    """The seconds for which a job was paused, less those that its client earned by reading."""
    return account.seconds - account.bytes / RATE
