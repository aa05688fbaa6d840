"""One bound for all bytes that the server holds for its clients, and what happens beyond it.

Counted are requests of which only a part has come, requests that are not answered yet, and answers
and parts of results that their clients have not read. Whoever holds bytes changes `total` when
they come and go. Known by :mod:`dangad.server.factory`; clients are :class:`IHolder` to it.

Beyond half of the bound, only as many of the clients for whom much is held are read as there is
room for, each with one more of the largest requests; those with least go first, and one is always
read. Of those that are read and do not get on, and those that do not read, the largest are refused
or cut off. If the bound is reached, the largest are, whether they get on or not.
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
"""Seconds between two looks at who holds most, while much is held."""
PATIENCE = 10.0
"""Seconds in which a large holder must have got on, while much is held."""
DEFAULT_LIMIT = 2**30
"""The bound in bytes, unless a quarter of the machine's memory is less ..."""
DEFAULT_PAYLOADS = 4
"""... but never less than so many of the largest requests."""
LEAST = 2**16
"""Bytes that are held for a client before it is looked at: nobody is cut off for fewer."""


def default_limit(max_payload: int) -> int:
    """The bound for a server whose operator names none.

    :param max_payload: bytes of the largest request.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(DEFAULT_LIMIT, memory // 4), DEFAULT_PAYLOADS * max_payload)


class IHolder(Interface):
    """Somebody for whom bytes are held."""

    held: int = Attribute("How many.")
    unread: int = Attribute("How many of them are answers that it has not read.")

    def progress() -> Hashable:
        """Something that is another as soon as one of these bytes has come or gone."""

    def wait_for_memory() -> None:
        """Send no more, until `go_on`."""

    def go_on() -> None:
        """Send again."""

    def shed() -> int:
        """Have what can be given up be given up, and be told why; how many bytes that is.

        They may still be counted for a moment.
        """


class MemoryBudget:
    """Counts the bytes, and acts when there are many.

    Its cost is one addition and one comparison for what comes, and a look at all holders each
    :data:`LOOK_INTERVAL` only while more than half of the limit is held.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limit: int,
        largest: int,
        holders: Callable[[], Iterable[IHolder]],
    ) -> None:
        """Begin with nothing held.

        :param clock: where the time comes from.
        :param limit: bytes that are held at most.
        :param largest: bytes of the largest request.
        :param holders: gives all for whom something may be held.
        """
        self.limit = limit
        self.alert = limit // 2
        #: The bytes that are held.
        self.total = 0
        self._clock = clock
        self._largest = largest
        self._holders = holders
        #: Who is not read because of it.
        self._waiting: set[IHolder] = set()
        #: How far the large holders were at the last look for progress.
        self._marks: dict[IHolder, Hashable] = {}
        #: When that was.
        self._marked_at = 0.0
        #: The next look.
        self._alarm: IDelayedCall | None = None

    def add(self, size: int) -> None:
        """So many bytes more are held; whoever gives them back subtracts them from `total`.

        On a hot path, add to `total` and call :meth:`press` if that is above `alert`.
        """
        self.total += size
        if self.total > self.alert:
            self.press()

    def press(self) -> None:
        """Much is held: look soon at who holds it."""
        if self._alarm is None:
            self._alarm = self._clock.callLater(0, self._look)

    def forget(self, holder: IHolder) -> None:
        """`holder` is gone, and what was held for it was subtracted."""
        self._waiting.discard(holder)
        self._marks.pop(holder, None)

    def stop(self) -> None:
        """Look at nobody any more: the server stops."""
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
        """Have as many read as there is room for: those that are, and those with least, first."""
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
        """Have those give up what is held for them who have not got on for long.

        Whoever is not read cannot get on with sending, but with reading.
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
        """Have the first of the holders give up what they can, until that is so many bytes."""
        for holder in holders:
            if excess <= 0:
                return
            excess -= holder.shed()

    def _relax(self) -> None:
        """Read all again."""
        self._marks.clear()
        waiting, self._waiting = self._waiting, set()
        for holder in waiting:
            holder.go_on()
