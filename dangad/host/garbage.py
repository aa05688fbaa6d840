"""How long Python's garbage collector keeps the server from everything else.

Used by :mod:`dangad.service`, for a process that is dangad's own. A full collection of Python's
examines all objects in one go. With a hundred thousand jobs this takes a tenth of a second, and it
happens again whenever the number of objects has grown by a quarter. Nearly all of dangad's objects
die without the collector, since they are in no reference cycle. The collector is needed for the
others, such as exceptions with their frames.

So the survivors of a long collection are frozen (:func:`gc.freeze`): the collector no longer
examines them, and its next run has only new objects to examine. Frozen objects are freed as usual
when their last reference goes. When few frozen objects are left, and once an hour in any case, all
objects are examined again.
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
"""How many collections of younger objects, each after 7,000 new objects, come before a full one.
With Python's default of 10, a full collection has 70,000 new objects to examine."""
LOOK_INTERVAL = 600.0
"""Seconds between two checks whether to examine the frozen objects."""
FEW = 20_000
"""All objects are examined again if at most this many are frozen in addition to those of the start.
This takes 25 ms for the objects of the start, and 10 ms for the others."""
LONGEST = 3600.0
"""Seconds after which frozen objects are examined, however many they are."""
OLDEST = 2
"""The generation whose collection examines all objects."""


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
        :param cpu_time: returns the CPU seconds of this thread; every thread may collect.
        """
        self._clock = clock
        self._collector = collector
        self._cpu_time = cpu_time
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        #: The CPU time at which the present collection began.
        self._began = 0.0
        #: How many objects were frozen at the start.
        self._first = 0
        #: Python's own thresholds.
        self._usual: tuple[int, ...] = ()
        #: When objects were first frozen that have not been examined since; None if there are none.
        self._frozen_at: float | None = None

    def start(self) -> None:
        """Freeze the objects of the start: code and modules, which stay for ever."""
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
        """Called by the collector, wherever Python code allocates: may touch nothing but `self`."""
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
        """Collect frozen objects that have become garbage, if it is time to."""
        if self._frozen_at is None:
            return
        is_old = self._clock.seconds() >= self._frozen_at + LONGEST
        if is_old or self._collector.get_freeze_count() <= self._first + FEW:
            self._collector.unfreeze()
            self._collector.collect()
            self._collector.freeze()
            self._frozen_at = None
