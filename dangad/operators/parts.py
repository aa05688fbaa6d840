"""Work for operators on very many jobs or clients: one part in each turn of the reactor.

A hundred thousand jobs may wait, and many operators may ask for lists of them. Whoever does such
work writes it as a generator, which yields after each part, or waits for a turn. The parts of all
operators' work come one by one, so that a turn of the reactor is never longer than one part. After
each part the server has some time for its clients alone.
"""

from __future__ import annotations

import json
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from twisted.internet.interfaces import IReactorTime

PART = 2000
"""The most jobs or clients that are looked at in one part; this takes 2 to 5 ms."""

WRITTEN_AT_ONCE = 100
"""The most entries of a list that are written as JSON in one part."""

REST = 1.0
"""The time from the end of a part to the next part, in lengths of the part: all operators together
have at most half of the server's time."""

LONGEST_REST = 0.01
"""Seconds from the end of a part to the next part, at most. A part that lasts longer than this was
held up by other processes, or by the garbage collector."""

T = TypeVar("T")


class Parts:
    """The work that is under way."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls for the next part, and tells how long a part took."""
        self._clock = clock
        #: The next part of each work, the one that is due first.
        self._waiting: deque[Callable[[], object]] = deque()
        #: Whether the next part has its turn.
        self._is_due = False
        #: The time at which the rest after the last part is over.
        self._rested_at = 0.0

    def do(self, work: Generator[None, None, T]) -> Deferred[T]:
        """Do `work`, from the next turn of the reactor on.

        Fires with what the generator returns, or fails with what it raises.
        """
        done: Deferred[T] = Deferred()
        self._put(partial(self._go_on, work, done))
        return done

    def turn(self) -> Deferred[str]:
        """Fires, with nothing, when whoever waits may do a part of its work."""
        turn: Deferred[str] = Deferred()
        self._put(partial(turn.callback, ""))
        return turn

    def _put(self, part: Callable[[], object]) -> None:
        self._waiting.append(part)
        if not self._is_due:
            self._is_due = True
            rest = max(0.0, self._rested_at - self._clock.seconds())
            self._clock.callLater(rest, self._do_part)

    def _do_part(self) -> None:
        began = self._clock.seconds()
        self._waiting.popleft()()
        ended = self._clock.seconds()
        rest = min(REST * (ended - began), LONGEST_REST)
        self._rested_at = ended + rest
        self._is_due = bool(self._waiting)
        if self._waiting:
            self._clock.callLater(rest, self._do_part)

    def _go_on(self, work: Generator[None, None, T], done: Deferred[T]) -> None:
        try:
            next(work)
        except StopIteration as ended:
            done.callback(ended.value)
        except Exception:  # noqa: BLE001 - it belongs to whoever waits for the result
            done.errback()
        else:
            self._put(partial(self._go_on, work, done))


async def write_list(entries: Sequence[Any], turn: Callable[[], Awaitable[object]]) -> str:
    """A long list as JSON, written in parts.

    :param turn: waits for the turn of the next part.
    """
    written: list[str] = []
    for start in range(0, len(entries), WRITTEN_AT_ONCE):
        await turn()
        written.append(json.dumps(entries[start : start + WRITTEN_AT_ONCE])[1:-1])
    return f"[{', '.join(written)}]"


class First(Generic[T]):
    """The first few of very many in an order, without sorting all of them."""

    def __init__(self, count: int, descending: bool) -> None:
        """:param count: how many are wanted."""
        self._count = count
        self._descending = descending
        #: The best ones so far and others, each after its key and its own number.
        self._found: list[tuple[Any, int, T]] = []

    def add(self, key: Any, number: int, item: T) -> None:
        """Take `item` into account.

        :param key: its place in the order.
        :param number: the smaller one comes first if keys are equal; each item has its own.
        """
        self._found.append((key, -number if self._descending else number, item))
        if len(self._found) >= 2 * self._count + PART:
            self._sort()

    def items(self) -> list[T]:
        """The first ones, in order."""
        self._sort()
        return [item for _, _, item in self._found]

    def _sort(self) -> None:
        self._found.sort(reverse=self._descending)
        del self._found[self._count :]
