"""Work for operators on very many jobs or clients: one part in each turn of the reactor.

A hundred thousand jobs may wait, and many operators may ask for lists of them. Whoever does such
work writes it as a generator, which yields after each part. The parts of all operators' work come
one by one, so that a turn of the reactor is never longer than one part.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from twisted.internet.interfaces import IReactorTime

PART = 2000
"""The most jobs or clients that are looked at in one part; this takes 2 to 5 ms."""

WRITTEN_AT_ONCE = 100
"""The most entries of a list that are written as JSON in one part."""

T = TypeVar("T")


class Parts:
    """The work that is under way."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls for the next part."""
        self._clock = clock
        #: The generators, the next one first, each with the Deferred for its result.
        self._waiting: deque[tuple[Generator[None, None, Any], Deferred[Any]]] = deque()
        #: Whether the next part has its turn.
        self._is_due = False

    def do(self, work: Generator[None, None, T]) -> Deferred[T]:
        """Do `work`, from the next turn of the reactor on.

        Fires with what the generator returns, or fails with what it raises.
        """
        done: Deferred[T] = Deferred()
        self._waiting.append((work, done))
        self._go_on()
        return done

    def _go_on(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._do_part)

    def _do_part(self) -> None:
        self._is_due = False
        work, done = self._waiting.popleft()
        try:
            next(work)
        except StopIteration as ended:
            done.callback(ended.value)
        except Exception:  # noqa: BLE001 - it belongs to whoever waits for the result
            done.errback()
        else:
            self._waiting.append((work, done))
        self._go_on()


def write_list(entries: Sequence[Any]) -> Generator[None, None, str]:
    """A long list as JSON, as work to be done in parts."""
    written: list[str] = []
    for start in range(0, len(entries), WRITTEN_AT_ONCE):
        written.append(json.dumps(entries[start : start + WRITTEN_AT_ONCE])[1:-1])
        yield
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
