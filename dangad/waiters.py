"""A list of Deferreds that wait for one event. Each can be cancelled.

:class:`Waiters` is used wherever several callers may wait for the same event: the end of a
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
    """The Deferreds of the waiting callers, in the order of :meth:`wait`.

    A callback may cancel another Deferred of the list, or wait again for the next event.
    """

    def __init__(self) -> None:
        #: The Deferreds, none of which has fired.
        self._waiting: dict[Deferred[Outcome], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[Outcome]:
        """A Deferred for the event: it fires or fails by the next `tell` or `fail`.

        Cancelling it ends the wait.
        """
        waiter: Deferred[Outcome] = Deferred(self._waiting.pop)
        self._waiting[waiter] = None
        return waiter

    def tell(self, outcome: Outcome, most: int | None = None) -> None:
        """Fire the Deferreds that wait now.

        :param outcome: the result with which they fire.
        :param most: how many to fire, in the order of waiting; None for all.
        """
        for waiter in self._take(most):
            waiter.callback(outcome)

    def fail(self, error: Exception, most: int | None = None) -> None:
        """Fail the Deferreds that wait now.

        :param error: the exception with which they fail.
        :param most: how many to fail, in the order of waiting; None for all.
        """
        for waiter in self._take(most):
            waiter.errback(error)

    def _take(self, most: int | None) -> Iterator[Deferred[Outcome]]:
        """Remove Deferreds one by one, and pass over the ones that were cancelled before."""
        for waiter in list(itertools.islice(self._waiting, most)):
            if waiter in self._waiting:
                del self._waiting[waiter]
                yield waiter


def fired_within(clock: IReactorTime, seconds: float, waited: Deferred[object]) -> Deferred[bool]:
    """Fires with True when `waited` has fired, or with False after so many seconds.

    Fails if `waited` fails within this time. Afterwards `waited` goes on and is not cancelled;
    Twisted logs a later failure of it.
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
