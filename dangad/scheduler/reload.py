"""How far a reload is: the change of the pool to new job code, one worker at a time.

Kept by :mod:`dangad.scheduler.supervisor`, which replaces the workers; shown to operators.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from twisted.logger import Logger

from dangad.errors import ReloadFailed
from dangad.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from twisted.internet.defer import Deferred

    from dangad.scheduler.interfaces import ISpawner
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
        #: Why the last reload failed; empty if it did not.
        self.reason = ""
        #: Whether workers start with the new code of the last reload.
        self._prepared = False
        #: Whether a worker with the new code has booted.
        self._proven = False
        #: What has prepared the new code.
        self._spawner: ISpawner | None = None
        #: The Deferreds that fire at the end of the reload.
        self._waiters: Waiters[None] = Waiters()

    @property
    def rolling(self) -> bool:
        """Whether a reload is under way."""
        return self.state is ReloadState.ROLLING

    @property
    def unproven(self) -> bool:
        """Whether workers are to start with the new code, and none has booted yet."""
        return self.rolling and self._prepared and not self._proven

    def begin(
        self, spawner: ISpawner | None, renewed: Callable[[str | None], object]
    ) -> Deferred[None]:
        """Begin a reload, even in the middle of another. Workers still start with the old code.

        Fires when no older worker is left. Fails with :class:`ReloadFailed` if `fail` is called.
        Cancelling it ends the wait.

        :param spawner: prepares the new code; None if the server is stopping.
        :param renewed: the `done` of :meth:`ISpawner.renew`.
        """
        self.state = ReloadState.ROLLING
        self.reason = ""
        self._prepared = self._proven = False
        self._spawner = spawner
        done = self._waiters.wait()
        if spawner is None:
            self.fail("the server is stopping")
        else:
            spawner.renew(renewed)
        return done

    def prepared(self, records: Collection[WorkerRecord]) -> list[WorkerRecord]:
        """Begin a new generation: workers start with the new code from now on.

        The workers that serve are to be replaced. Returns those that are starting with older code.
        """
        self.generation += 1
        self._prepared = True
        for record in records:
            if record.serves:
                record.recycling = record.recycling or OLD_CODE
        return [record for record in records if record.starting]

    def booted(self, generation: int) -> None:
        """Hear that a worker of `generation` has booted."""
        if self.unproven and generation == self.generation:
            self._proven = True
            self._end_renewal()

    def start_failed(self, generation: int, reason: str, records: Iterable[WorkerRecord]) -> None:
        """Hear that a worker of `generation` could not start."""
        if self.rolling and self._prepared and generation == self.generation:
            self.give_up(reason, records)

    def fail(self, reason: str) -> None:
        """End the reload. If no worker of its generation has booted, the generation is undone."""
        self.state = ReloadState.FAILED
        self.reason = reason
        if self._prepared and not self._proven:
            self.generation -= 1
            self._end_renewal()
        self._waiters.fail(ReloadFailed(reason))

    def _end_renewal(self) -> None:
        if self._spawner is not None:
            self._spawner.end_renewal(self._proven)

    def give_up(self, reason: str, records: Iterable[WorkerRecord]) -> None:
        """The new code cannot be served: keep the old workers."""
        log.error("the reload failed, and the old code stays: {reason}", reason=reason)
        for record in records:
            if record.recycling == OLD_CODE:
                record.recycling = None
        self.fail(reason)

    def check(self, living: Collection[int]) -> None:
        """End the reload if no worker is older; `living` has the generation of each worker."""
        if (
            self.rolling
            and self._proven
            and all(generation >= self.generation for generation in living)
        ):
            self.state = ReloadState.DONE
            self._waiters.tell(None)
            log.info("reloaded: all workers are of generation {n}", n=self.generation)
