"""A stand-in for the server that operators look after; what it tells is in the reference, too."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from zope.interface import implementer

from dangad.errors import NotRunning
from dangad.scheduler.interfaces import IOperations

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 4700,
    "uptime": 11520.4,
    "state": "running",
    "no_workers": None,
    "generation": 2,
    "reload": {"state": "done", "reason": ""},
    "workers": {
        "min": 1,
        "max": 4,
        "spare": 1,
        "starting": 0,
        "idle": 1,
        "busy": 1,
        "stopping": 1,
    },
    "jobs": {
        "waiting": 0,
        "running": 1,
        "accepted": 120,
        "refused": 3,
        "done": 112,
        "failed": 4,
        "cancelled": 2,
        "timed_out": 0,
        "lost": 1,
    },
    "quarantine": [{"command": "Thumbnail", "seconds": 21.5}],
    "connections": 12,
}
WORKERS: list[dict[str, Any]] = [
    {
        "pid": 4711,
        "state": "busy",
        "generation": 2,
        "age": 7512.9,
        "jobs": 34,
        "memory": 35651584,
        "recycling": None,
        "job": {"id": 120, "command": "Thumbnail", "attempt": 1, "runtime": 2.14},
    },
    {
        "pid": 4712,
        "state": "idle",
        "generation": 2,
        "age": 75.3,
        "jobs": 0,
        "memory": 18874368,
        "recycling": None,
        "job": None,
    },
    {
        "pid": 4703,
        "state": "stopping",
        "generation": 1,
        "age": 11519.8,
        "jobs": 85,
        "memory": 0,
        "recycling": "its code is old",
        "job": None,
    },
]
RECENT: list[dict[str, Any]] = [
    {
        "id": 118,
        "command": "Thumbnail",
        "state": "lost",
        "worker": 4709,
        "attempt": 2,
        "wait": 0.0004,
        "runtime": 0.83,
        "cpu": None,
        "peak_memory": None,
        "ended": 1795766400.25,
        "client": "process 5120 of user 1000",
        "error": "WORKER_LOST: worker 4709 was killed by SIGSEGV 0.8 s into Thumbnail",
    },
    {
        "id": 119,
        "command": "ListDirectory",
        "state": "done",
        "worker": 4711,
        "attempt": 1,
        "wait": 0.2,
        "runtime": 0.0123,
        "cpu": 0.0021,
        "peak_memory": 36700160,
        "ended": 1795766401.5,
        "client": "127.0.0.1:51966",
        "error": None,
    },
]
CONFIG: dict[str, Any] = {
    "file": "/srv/thumbs/dangad.toml",
    "text": "# Thumbnails\njobs = ['thumbs.jobs']\nmax-workers = 2  # as many as cores\n",
    "options": {"jobs": ["thumbs.jobs"], "worker-umask": None, "max-workers": 4, "drain": 7.5},
    "changed": ["max-workers", "drain"],
    "meanings": {
        "jobs": "A module with job types, by its dotted name",
        "worker-umask": "The workers' file mode mask, if not the server's",
        "max-workers": "The most worker processes",
        "drain": "Time for accepted jobs to end when the server stops",
    },
}
COUNTERS = {"done": 113, "failed": 4, "cancelled": 2, "timed_out": 0, "lost": 1}
JOB = 120
"""The job that runs."""
STACK = """\
Current thread 0x00007f2f75694b80 (most recent call first):
  File "/srv/thumbs/jobs.py", line 12 in shrink
  File "/srv/thumbs/jobs.py", line 20 in thumbnail
  File "/usr/lib/python3/dist-packages/dangad/worker/perform.py", line 123 in _perform
  ...
"""


@implementer(IOperations)
class FakeOperations:
    """Tells what it is set to tell, and notes what it is asked to do.

    :ivar wanted: what numbers of workers it was asked for, in order.
    :ivar forced: those that it was to have in any case.
    :ivar reloads: who waits for the end of a reload; a test fires them.
    :ivar drains: who waits for the end of the drain; a test fires them.
    """

    def __init__(self) -> None:
        self.status_document = STATUS
        self.workers_document = WORKERS
        self.recent_document = RECENT
        self.config_document = CONFIG
        self.wanted: list[tuple[int, int]] = []
        self.forced: list[tuple[int, int]] = []
        self.reloads: list[Deferred[None]] = []
        self.drains: list[Deferred[dict[str, int]]] = []

    def status(self) -> dict[str, Any]:
        """See :meth:`IOperations.status`."""
        return self.status_document

    def workers(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.workers`."""
        return self.workers_document

    def recent(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.recent`."""
        return self.recent_document

    def config(self) -> dict[str, Any]:
        """See :meth:`IOperations.config`."""
        return self.config_document

    def scale(self, min_workers: int, max_workers: int, force: bool = False) -> None:
        """See :meth:`IOperations.scale`."""
        if not 0 <= min_workers <= max_workers:
            raise ValueError(f"{min_workers} to {max_workers} workers make no sense")
        self.wanted.append((min_workers, max_workers))
        if force:
            self.forced.append((min_workers, max_workers))

    def pardon(self, command: str) -> bool:
        """See :meth:`IOperations.pardon`."""
        return command in [each["command"] for each in self.status_document["quarantine"]]

    def stack(self, job_id: int) -> Deferred[str]:
        """See :meth:`IOperations.stack`."""
        if job_id != JOB:
            return defer.fail(NotRunning(f"no job {job_id} runs"))
        return defer.succeed(STACK)

    def reload(self) -> Deferred[None]:
        """See :meth:`IOperations.reload`."""
        waiter: Deferred[None] = Deferred(_not_cancelled)
        self.reloads.append(waiter)
        return waiter

    def drain(self) -> Deferred[dict[str, int]]:
        """See :meth:`IOperations.drain`."""
        waiter: Deferred[dict[str, int]] = Deferred(_not_cancelled)
        self.drains.append(waiter)
        return waiter


def _not_cancelled(_: Deferred[Any]) -> None:
    raise AssertionError("what an operator asked for was cancelled")
