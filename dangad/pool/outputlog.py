"""The lines of all workers' output on their way into the log, a bounded number in each turn.

Fed by :mod:`dangad.pool.output`; :mod:`dangad.pool.processes` makes one for all workers. Writing a
line costs the parent far more than reading it. A worker's pipe holds thousands of lines: written at
once, they would block the reactor for a tenth of a second. :mod:`dangad.pool.output` limits the
lines of each worker, so few wait here.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from dangad.host.turns import Turns
from dangad.pool.outputmemory import OutputMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime


class OutputLog:
    """Writes lines to the log in the order of arrival: at once, while there are few."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls back in the reactor's next turn."""
        #: The last lines of each job.
        self.memory = OutputMemory()
        #: The share of this turn of the reactor, in lines.
        self._turns = Turns(clock)
        #: The lines for later turns, each batch with the function that writes a line.
        self._waiting: deque[tuple[Callable[[Any], object], Iterator[object]]] = deque()

    def write_each(self, write: Callable[[Any], object], lines: Iterable[object]) -> None:
        """Call `write` with each of the lines, now or soon.

        Handing over many lines costs no more than handing over one.

        :param write: logs one line.
        """
        in_line = bool(self._waiting)
        self._waiting.append((write, iter(lines)))
        if not in_line:
            self._go_on()

    def flush(self) -> None:
        """Write all waiting lines now: the reactor stops."""
        while self._waiting:
            write, lines = self._waiting.popleft()
            for line in lines:
                write(line)

    def _go_on(self) -> None:
        """Write as many lines as this turn allows."""
        turns, waiting = self._turns, self._waiting
        while waiting and turns.left > 0:
            write, lines = waiting[0]
            for line in islice(lines, turns.left):
                turns.left -= 1
                write(line)
            if turns.left > 0:
                waiting.popleft()
        if waiting:
            turns.wait(self._go_on)
