"""One bound for all bytes that the server holds for its clients, and what happens beyond it.

Incomplete requests count, and so do unanswered requests, unread answers and unread partial results.
Code that holds bytes changes `total` when bytes come and go. :mod:`dangad.server.factory` makes the
budget, which knows clients as :class:`IHolder`.

Beyond half of the bound, the server reads only some of the large holders: as many as would still
fit if each sent one more largest request. The smallest of them come first, and at least one is
read. The largest holders that make no progress, with sending or with reading, are refused or cut
off. At the bound itself the largest holders are refused or cut off even if they make progress.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.logger import Logger
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

log = Logger()

LOOK_INTERVAL = 0.1
"""Seconds between two checks of the holders, while the budget is more than half used."""
PATIENCE = 10.0
"""Seconds in which a large holder must make progress, while the budget is more than half used."""
DEFAULT_LIMIT = 2**30
"""The default bound in bytes, or a quarter of the machine's memory if this is less."""
DEFAULT_PAYLOADS = 4
"""The least default bound, in requests of the largest size."""
LEAST = 2**16
"""Bytes from which on a client is a large holder: nobody is cut off for fewer."""


def default_limit(max_payload: int) -> int:
    """The bound in bytes for a server whose operator sets none.

    :param max_payload: bytes of the largest request.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(DEFAULT_LIMIT, memory // 4), DEFAULT_PAYLOADS * max_payload)


class IHolder(Interface):
    """A client for which bytes are held."""

    held: int = Attribute("How many.")
    unread: int = Attribute("How many of these bytes are answers that the client has not read.")

    def progress() -> Hashable:
        """A value that changes whenever one of these bytes has come or gone."""

    def wait_for_memory() -> None:
        """Do not read the client, until `go_on`."""

    def go_on() -> None:
        """Read the client again."""

    def shed() -> int:
        """Give up bytes held for the client, and tell it why. Returns the number of bytes.

        They may still be counted for a moment.
        """


class MemoryBudget:
    """Counts the bytes, and acts when there are many.

    It costs one addition and one comparison for each piece of data. Only while more than half of
    the limit is held, it checks all holders every :data:`LOOK_INTERVAL` seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limit: int,
        largest: int,
        holders: Callable[[], Iterable[IHolder]],
    ) -> None:
        """Begin with nothing held.

        :param clock: the source of time.
        :param limit: the most bytes that are held.
        :param largest: bytes of the largest request.
        :param holders: returns all clients for which bytes may be held.
        """
        self.limit = limit
        self.alert = limit // 2
        #: The bytes that are held.
        self.total = 0
        self._clock = clock
        self._largest = largest
        self._holders = holders
        #: The holders that are not read because of the budget.
        self._waiting: set[IHolder] = set()
        #: The progress of the large holders when it was last noted.
        self._marks: dict[IHolder, Hashable] = {}
        #: When it was last noted.
        self._marked_at = 0.0
        #: The call for the next check; None if none is due.
        self._alarm: IDelayedCall | None = None

    def add(self, size: int) -> None:
        """Count so many more bytes; the caller subtracts them from `total` when they are gone.

        On a hot path, add to `total` and call :meth:`press` if it is above `alert`.
        """
        self.total += size
        if self.total > self.alert:
            self.press()

    def press(self) -> None:
        """Check the holders soon: more than half of the budget is used."""
        if self._alarm is None:
            self._alarm = self._clock.callLater(0, self._look)

    def forget(self, holder: IHolder) -> None:
        """Forget `holder`, which is gone; its bytes were subtracted before."""
        self._waiting.discard(holder)
        self._marks.pop(holder, None)

    def stop(self) -> None:
        """End all checks: the server stops."""
        self.alert = self.limit = 2**63
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        if self.total <= self.alert:
            self._relax()
            return
        self._alarm = self._clock.callLater(LOOK_INTERVAL, self._look)
        sizes = [(holder.held, holder) for holder in self._holders()]
        large = sorted((each for each in sizes if each[0] >= LEAST), key=lambda each: -each[0])
        largest_first = [holder for _, holder in large]
        if self.total > self.limit:
            self._shed(largest_first, self.total - (self.alert + self.limit) // 2)
        self._look_for_progress(largest_first)
        self._share_out([each for each in largest_first[::-1] if each.unread < LEAST])

    def _share_out(self, smallest_first: list[IHolder]) -> None:
        """Read as many holders as there is room for, the smallest first."""
        room = max(self.limit - self.total, self._largest)
        waiting = self._waiting
        for holder in sorted(smallest_first, key=waiting.__contains__):
            room -= self._largest
            if room >= 0 and holder in waiting:
                waiting.discard(holder)
                holder.go_on()
            elif room < 0 and holder not in waiting:
                waiting.add(holder)
                holder.wait_for_memory()

    def _look_for_progress(self, largest_first: list[IHolder]) -> None:
        """Let the holders that have made no progress for long give up their bytes.

        A holder that the server does not read cannot make progress with sending, only with reading.
        """
        now, marks, waiting = self._clock.seconds(), self._marks, self._waiting
        if marks and now < self._marked_at + PATIENCE:
            return
        stuck = [
            holder
            for holder in largest_first
            if (holder not in waiting or holder.unread >= LEAST)
            and marks.get(holder, holder) == holder.progress()
        ]
        self._shed(stuck, self.total - self.alert)
        self._marks = {
            holder: holder.progress() for holder in largest_first if holder not in waiting
        }
        self._marked_at = now

    def _shed(self, holders: Iterable[IHolder], excess: int) -> None:
        """Let holders give up bytes, one after the other, until the sum is `excess`."""
        for holder in holders:
            if excess <= 0:
                return
            excess -= holder.shed()

    def _relax(self) -> None:
        """Read all holders again."""
        self._marks.clear()
        waiting, self._waiting = self._waiting, set()
        for holder in waiting:
            holder.go_on()
