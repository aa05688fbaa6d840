"""How far a reload is: the pool going over to new job code, one worker at a time.

Kept by :mod:`dangad.scheduler.supervisor`, which replaces the workers; told to operators.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from twisted.logger import Logger

from dangad.errors import ReloadFailed
from dangad.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from twisted.internet.defer import Deferred

    from dangad.scheduler.workerrecord import WorkerRecord

log = Logger()

OLD_CODE = "its code is old"
"""Why a worker is replaced in a reload."""


class ReloadState(enum.Enum):
    """What became of the last reload."""

    NONE = "none"
    ROLLING = "rolling"
    DONE = "done"
    FAILED = "failed"


class Reload:
    """The last reload, and the generation that it made."""

    def __init__(self) -> None:
        #: The generation of the workers that are started now, as a number.
        self.generation = 1
        #: What became of the last reload.
        self.state = ReloadState.NONE
        #: Why it failed, if it did.
        self.reason = ""
        #: Whether a worker of its generation has booted.
        self._proven = False
        #: Who is to be told of its end.
        self._waiters: Waiters[None] = Waiters()

    @property
    def rolling(self) -> bool:
        """Whether there are workers left to replace, or it is not known yet if it can be done."""
        return self.state is ReloadState.ROLLING

    @property
    def unproven(self) -> bool:
        """Whether it is not known yet if the new code can be served."""
        return self.rolling and not self._proven

    def begin(self) -> Deferred[None]:
        """Begin a new generation, in the middle of a reload too.

        Fires when no older worker is left; fails as `fail` is told. Cancelling it ends the wait.
        """
        self.generation += 1
        self.state = ReloadState.ROLLING
        self.reason = ""
        self._proven = False
        return self._waiters.wait()

    def booted(self, generation: int) -> None:
        """Hear that a worker of `generation` has booted."""
        if generation == self.generation:
            self._proven = True

    def fail(self, reason: str) -> None:
        """End the reload; if no worker of its generation has booted, it never was one."""
        self.state = ReloadState.FAILED
        self.reason = reason
        if not self._proven:
            self.generation -= 1
        self._waiters.fail(ReloadFailed(reason))

    def give_up(self, reason: str, records: Iterable[WorkerRecord]) -> None:
        """The new code cannot be served: leave the old workers where they are."""
        log.error("the reload failed, and the old workers stay: {reason}", reason=reason)
        for record in records:
            if record.recycling == OLD_CODE:
                record.recycling = None
        self.fail(reason)

    def check(self, living: Collection[int]) -> None:
        """End the reload if `living`, the generations of all workers, has none that is older."""
        if self._proven and all(generation >= self.generation for generation in living):
            self.state = ReloadState.DONE
            self._waiters.tell(None)
            log.info("reloaded: all workers are of generation {n}", n=self.generation)
