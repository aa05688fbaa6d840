"""How much is done in one turn of the reactor, and who goes on in the next.

Used by :mod:`dangad.server.connection` and :mod:`dangad.operators.control`, whose peers may send
thousands of requests in one piece, and by :mod:`dangad.server.factory`, which closes thousands of
connections. A user that has more to do than this turn allows waits in line, and others go on in
between.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

log = Logger()

QUOTA = 100
"""Units of work in one turn; a small request is one unit. The turn takes 5 to 10 ms on a usual
machine."""
UNIT = 2**10
"""Bytes of a request, or of a part of one, that count as one further unit. All keys of a request
are examined, and a request may consist of nothing but keys."""

_Each = TypeVar("_Each")


class Turns:
    """Divides the work of each turn among all users that wait, first come, first served.

    An alarm is set, and the quota is renewed, only while a user waits. So a user that stays below
    the quota pays for no more than a subtraction. A turn may begin with less than the quota, never
    with more.
    """

    __slots__ = ("_alarm", "_clock", "_waiting", "left")

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls back in the reactor's next turn."""
        #: Units that may still be done in this turn; the users count them down.
        self.left = QUOTA
        self._clock = clock
        #: The functions to call in later turns.
        self._waiting: deque[Callable[[], object]] = deque()
        #: The call at the next turn; None if nobody waits.
        self._alarm: IDelayedCall | None = None

    def wait(self, go_on: Callable[[], object]) -> None:
        """Call `go_on` in a later turn, when `left` has units for it.

        `go_on` must count down `left`, stop at 0, and call this again if it has more to do.
        """
        self._waiting.append(go_on)
        if self._alarm is None:
            self._alarm = self._clock.callLater(0, self._next)

    def _next(self) -> None:
        self._alarm = None
        waiting, left = self._waiting, QUOTA
        while waiting and left > 0:
            share = self.left = max(1, left // len(waiting))
            try:
                waiting.popleft()()
            except Exception:  # noqa: BLE001 - the others' turn comes, whatever happens in this
                log.failure("a call in a turn of the reactor failed")
            left -= max(1, share - self.left)
        self.left = left
        if waiting and self._alarm is None:
            self._alarm = self._clock.callLater(0, self._next)


def do_in_turns(
    clock: IReactorTime, subjects: Iterable[_Each], act: Callable[[_Each], object], at_once: int
) -> None:
    """Call `act` with each of the subjects: with the first few now, with the next in each turn.

    :param subjects: read one by one; must not change until all are done.
    :param at_once: how many are done in one turn.
    """
    rest = iter(subjects)
    for _ in range(at_once):
        try:
            subject = next(rest)
        except StopIteration:
            return
        act(subject)
    clock.callLater(0, do_in_turns, clock, rest, act, at_once)
