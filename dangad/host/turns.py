"""How much is done in one turn of the reactor, and who goes on in the next.

Used by :mod:`dangad.server.connection` and :mod:`dangad.operators.control`, whose peers may send
thousands of requests in one piece, and by :mod:`dangad.server.factory`, which closes thousands of
connections. Whoever has more to do than is left of this turn waits in line, and others go on in
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
"""Units of work in one turn: a small request is one. That is 5 to 10 ms on a usual machine."""
UNIT = 2**10
"""Bytes of a request, or of a part of one, that count as one more unit. All keys of a request are
looked at, and a request may consist of nothing but keys."""

_Each = TypeVar("_Each")


class Turns:
    """Divides the work of each turn among all who wait for it, in the order of their coming.

    There is an alarm only while somebody waits, and the quota is renewed only then. So whoever
    stays below the quota pays for a subtraction and no more. A turn may begin with less than the
    quota, never with more.
    """

    __slots__ = ("_alarm", "_clock", "_waiting", "left")

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls back in the reactor's next turn."""
        #: Units that may still be done in this turn; whoever does the work counts them down.
        self.left = QUOTA
        self._clock = clock
        #: What to call in the turns to come.
        self._waiting: deque[Callable[[], object]] = deque()
        #: The next turn, if anybody waits for it.
        self._alarm: IDelayedCall | None = None

    def wait(self, go_on: Callable[[], object]) -> None:
        """Have `go_on` called in a turn to come, with its share of that turn's quota in `left`.

        It counts down `left`, stops at 0, and waits again if it has more to do.
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
                log.failure("somebody's turn failed")
            left -= max(1, share - self.left)
        self.left = left
        if waiting and self._alarm is None:
            self._alarm = self._clock.callLater(0, self._next)


def do_in_turns(
    clock: IReactorTime, subjects: Iterable[_Each], act: Callable[[_Each], object], at_once: int
) -> None:
    """Call `act` with each of the subjects: with the first few now, with the next in each turn.

    :param subjects: read as it goes on; must not change meanwhile.
    :param at_once: how many in one turn.
    """
    rest = iter(subjects)
    for _ in range(at_once):
        try:
            subject = next(rest)
        except StopIteration:
            return
        act(subject)
    clock.callLater(0, do_in_turns, clock, rest, act, at_once)
