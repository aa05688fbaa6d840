"""Deferreds of all who wait for one event, for as long as each of them wants to wait.

:class:`Waiters` is used wherever an event may be waited for by any number of people: the end of a
connection, a drain, a reload, the first catalogue. :func:`fired_within` bounds one wait by a time.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.interfaces import IReactorTime

Outcome = TypeVar("Outcome")


class Waiters(Generic[Outcome]):
    """Those who wait, in the order in which they came.

    Whoever is told may cancel another's wait, or wait again: that is for the next event.
    """

    def __init__(self) -> None:
        #: Their Deferreds, which have not fired.
        self._waiting: dict[Deferred[Outcome], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[Outcome]:
        """Fires, or fails, as is told; cancelling it ends the wait."""
        waiter: Deferred[Outcome] = Deferred(self._waiting.pop)
        self._waiting[waiter] = None
        return waiter

    def tell(self, outcome: Outcome, most: int | None = None) -> None:
        """End the wait of all who wait now, or of the first so many."""
        for waiter in self._take(most):
            waiter.callback(outcome)

    def fail(self, error: Exception, most: int | None = None) -> None:
        """End the wait likewise, by a failure."""
        for waiter in self._take(most):
            waiter.errback(error)

    def _take(self, most: int | None) -> Iterator[Deferred[Outcome]]:
        """Take them out one by one, but for those whose wait has ended meanwhile."""
        for waiter in list(itertools.islice(self._waiting, most)):
            if waiter in self._waiting:
                del self._waiting[waiter]
                yield waiter


def fired_within(clock: IReactorTime, seconds: float, waited: Deferred[object]) -> Deferred[bool]:
    """Fires with True once `waited` has fired, or with False after so many seconds.

    It fails as `waited` does within the time. Afterwards `waited` goes on, uncancelled: a failure
    is then nobody's, and Twisted logs it.
    """
    ended: Deferred[bool] = Deferred()
    alarm = clock.callLater(seconds, ended.callback, False)

    def fired(result: object) -> object:
        if not alarm.active():
            return result
        alarm.cancel()
        if isinstance(result, Failure):
            ended.errback(result)
        else:
            ended.callback(True)
        return None

    waited.addBoth(fired)
    return ended
