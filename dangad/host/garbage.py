"""How long Python's garbage collector keeps the server from everything else.

Made by :mod:`dangad.service`, for a process that is dangad's own. Python's full collections look at
all objects in one go. With a hundred thousand jobs this takes a tenth of a second, and it happens
again whenever their number has grown by a quarter. Nearly all of dangad's objects die without the
collector, since they are in no reference cycles. It is there for the rest, such as exceptions with
their frames.

So the survivors of a long collection are frozen (:func:`gc.freeze`): the collector does not look at
them any more, and its next run has only what is new. Frozen objects die as others do. When few are
left, and once an hour in any case, all are looked at again.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IReactorTime

LONG = 0.01
"""Seconds of CPU time that make a collection a long one."""
YOUNGER = 2
"""Collections of younger objects, each after 7,000 new ones, before a full one. Python's default is
10, so that a full collection has 70,000 objects to look at."""
LOOK_INTERVAL = 600.0
"""Seconds between two looks at what is frozen."""
FEW = 20_000
"""Frozen objects, beyond those of the start, up to which all are looked at again. This takes 25 ms
for the objects of the start, and 10 ms more."""
LONGEST = 3600.0
"""Seconds after which frozen objects are looked at, however many they are."""
OLDEST = 2
"""The generation whose collection looks at all objects."""


class ShortCollections:
    """Keeps the collections of this process short."""

    def __init__(
        self,
        clock: IReactorTime,
        collector: Any = gc,
        cpu_time: Callable[[], float] = time.thread_time,
    ) -> None:
        """Change nothing yet.

        :param clock: where the time comes from.
        :param collector: the module :mod:`gc`, or another for a test.
        :param cpu_time: the seconds that this thread has computed; every thread may collect.
        """
        self._clock = clock
        self._collector = collector
        self._cpu_time = cpu_time
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        #: When the collection began that goes on now.
        self._began = 0.0
        #: How many objects were frozen at the start.
        self._first = 0
        #: Python's own thresholds.
        self._usual: tuple[int, ...] = ()
        #: When other objects were frozen that were not looked at since; None if there are none.
        self._frozen_at: float | None = None

    def start(self) -> None:
        """Freeze what there is: code and modules, which stay for ever."""
        self._collector.freeze()
        self._first = self._collector.get_freeze_count()
        self._usual = self._collector.get_threshold()
        self._collector.set_threshold(*self._usual[:2], YOUNGER)
        self._collector.callbacks.append(self._collects)
        self._looking.start(LOOK_INTERVAL, now=False)

    def stop(self) -> None:
        """Leave the collector as it was."""
        if self._looking.running:
            self._looking.stop()
            self._collector.callbacks.remove(self._collects)
            self._collector.set_threshold(*self._usual)
            self._collector.unfreeze()

    def _collects(self, phase: str, about: Mapping[str, int]) -> None:
        """Called by the collector, wherever Python code allocates: it must touch nothing else."""
        if about["generation"] != OLDEST:
            return
        now = self._cpu_time()
        if phase == "start":
            self._began = now
        elif now - self._began >= LONG:
            self._collector.freeze()
            if self._frozen_at is None:
                self._frozen_at = self._clock.seconds()

    def _look(self) -> None:
        """Collect what has become garbage since it was frozen, if it is time to."""
        if self._frozen_at is None:
            return
        is_old = self._clock.seconds() >= self._frozen_at + LONGEST
        if is_old or self._collector.get_freeze_count() <= self._first + FEW:
            self._collector.unfreeze()
            self._collector.collect()
            self._collector.freeze()
            self._frozen_at = None
