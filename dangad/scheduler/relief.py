"""One worker beyond the maximum, for clients that wait while one client's jobs have all workers.

Kept by :mod:`dangad.scheduler.supervisor`, which checks now and then. Taking turns helps only when
a job ends. A client that was alone may have filled all workers with jobs that take hours, or never
end. Stopping one of them would harm a client that has only used idle workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from dangad.scheduler.dispatcher import Dispatcher

log = Logger()


class Relief:
    """Whether there is one worker more, for jobs that wait behind another client's jobs."""

    def __init__(self, dispatcher: Dispatcher, after: float) -> None:
        """Begin with no further worker.

        :param after: seconds without a start after which there is a further worker; 0 for never.
        """
        #: How many workers beyond the maximum there may be.
        self.extra = 0
        self._dispatcher = dispatcher
        self._after = after
        #: Since when jobs have waited for the further worker; None if none do.
        self._since: float | None = None
        #: How many jobs had been started at that time.
        self._starts = 0

    def look(self, max_workers: int, size: int, now: float) -> None:
        """See whether the further worker is needed.

        :param max_workers: how many workers there may be without it.
        :param size: how many workers there are.
        """
        if not self._after:
            return
        held, wanted = self._dispatcher.is_held_by_one(max_workers)
        if self.extra:
            if not held or (not wanted and size <= max_workers):
                self.extra = 0
                self._dispatcher.limit_each(None)
            return
        if not (held and wanted) or self._starts != self._dispatcher.starts:
            self._since = None
        if not (held and wanted):
            return
        if self._since is None:
            self._since, self._starts = now, self._dispatcher.starts
        if now - self._since >= self._after:
            self.extra, self._since = 1, None
            self._dispatcher.limit_each(max_workers)
            log.info(
                "one client's jobs have had all workers for {seconds:g} s while others wait: "
                "one worker more is started for the others",
                seconds=self._after,
            )
