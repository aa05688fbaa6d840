"""The idle workers: who was used last, and which of them can do what.

Kept by :mod:`dangad.scheduler.dispatcher`, which adds a worker when it has nothing to do and takes
one for each job that starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dangad.scheduler.interfaces import IWorker
    from dangad.scheduler.registry import Registry


class IdleWorkers:
    """Idle workers, the most recently used last.

    All mutable state: `idle`, the workers with the time since when, for others to look at only.
    """

    def __init__(self, registry: Registry) -> None:
        """Begin with nobody.

        :param registry: what each of them performs.
        """
        self._registry = registry
        self.idle: dict[IWorker, float] = {}

    def add(self, worker: IWorker, now: float) -> None:
        """`worker` is idle from `now` on."""
        self.idle[worker] = now

    def remove(self, worker: IWorker) -> bool:
        """Take `worker` out; whether it was idle."""
        return self.idle.pop(worker, None) is not None

    def take(self, command: bytes) -> IWorker:
        """The worker that was used last, of those that perform `command`, taken out.

        :raises LookupError: none does.
        """
        if command not in self._registry.partial:
            return self.idle.popitem()[0]
        for worker in reversed(self.idle):
            if self._registry.performs(worker, command):
                del self.idle[worker]
                return worker
        raise LookupError(command)

    def can(self, command: bytes) -> bool:
        """Whether any performs `command`."""
        return any(self._registry.performs(worker, command) for worker in self.idle)

    def idle_since(self, before: float) -> IWorker | None:
        """The one that has been idle for longest, if since before that time; not taken out."""
        for worker, since in self.idle.items():
            return worker if since <= before else None
        return None
