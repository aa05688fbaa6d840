"""What it means for the jobs of a client that it does not read, reads again, or is gone.

Kept by :mod:`dangad.scheduler.dispatcher`, whose events these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler import reasons

if TYPE_CHECKING:
    from dangad.scheduler.endings import Endings
    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.matching import Matching
    from dangad.scheduler.state import State


class Absences:
    """Holds, releases and ends the jobs of clients."""

    def __init__(self, state: State, matching: Matching, endings: Endings) -> None:
        self._state = state
        self._matching = matching
        self._endings = endings

    def hold(self, client: IClient) -> None:
        """Start no job of `client`, which does not read, and pause its jobs that send parts."""
        running = self._endings.prefetch.reclaim_of(client)
        self._state.queue.hold(client)
        for job in running:
            if job.worker is not None and job.wants_chunks and job.stopped_for is None:
                try:
                    job.worker.pause()
                    self._endings.pauses.pause(job)
                except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                    self._endings.worker_failed(job.worker, job)
        self._state.tell()

    def release(self, client: IClient) -> None:
        """Let the jobs of `client` go on, and start more."""
        if client in self._state.gone:
            return
        self._state.queue.release(client)
        for job in self._state.assignments.jobs_of(client):
            if job.worker is not None and job.wants_chunks:
                self._endings.resume(job.worker, job)
        self._matching.match(self._state.clock.seconds())
        self._state.tell()

    def client_gone(self, client: IClient) -> None:
        """Tell `client` nothing any more, and end its jobs.

        Its waiting jobs never run, and end in parts, one in each turn of the reactor. Its running
        jobs are stopped, unless the policy of their type says that they finish.
        """
        running = self._endings.prefetch.reclaim_of(client)
        for job in running:
            job.asker = client.name
            job.client = None
        self._state.gone.add(client)
        self._matching.wariness.client_gone(client)
        self._state.queue.hold(client)
        for job in running:
            if job.worker is not None:
                self._endings.resume(job.worker, job)
                if job.policy.on_disconnect == "cancel":
                    self._endings.prefetch.reclaim(job.worker)
                    error = reasons.cancelled_running(job, self._endings.ran(job))
                    self._endings.stop(job, error, b"cancelled")
        self._endings.end_those_of(client)
        self._state.tell()
