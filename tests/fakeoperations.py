"""A stand-in for the server that operators look after; what it tells is in the reference, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from zope.interface import implementer

from dangad.errors import NotFound, NotRunning
from dangad.operators import filters
from dangad.operators.interfaces import IOperations
from dangad.wire.words import WrongWord, build_arguments

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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
        "max_queued": 10000,
        "running": 1,
        "accepted": 120,
        "refused": 3,
        "done": 112,
        "failed": 4,
        "cancelled": 2,
        "timed_out": 0,
        "lost": 1,
    },
    "oldest_wait": None,
    "backlog": {"high": 0, "normal": 0, "low": 0},
    "paused": {"all": False, "commands": ["Rotate"]},
    "last": {
        "1m": {
            "seconds": 62.5,
            "jobs": 5,
            "rate": 0.08,
            "failed": 0,
            "cancelled": 0,
            "p50": 0.21,
            "p90": 0.9,
            "p99": 1.2,
            "refused_by_code": {"QUEUE_FULL": 3},
        },
        "5m": {
            "seconds": 325.0,
            "jobs": 26,
            "rate": 0.08,
            "failed": 1,
            "cancelled": 2,
            "p50": 0.2,
            "p90": 0.8,
            "p99": 1.2,
            "refused_by_code": {"QUEUE_FULL": 3},
        },
        "15m": {
            "seconds": 942.5,
            "jobs": 29,
            "rate": 0.03,
            "failed": 1,
            "cancelled": 2,
            "p50": 0.2,
            "p90": 0.8,
            "p99": 1.2,
            "refused_by_code": {"QUEUE_FULL": 3},
        },
    },
    "failed_by_code": {"NOT_FOUND": 3, "JOB_FAILED": 1, "WORKER_LOST": 1},
    "refused_by_code": {"QUEUE_FULL": 3},
    "quarantine": [{"command": "Thumbnail", "seconds": 21.5}],
    "connections": 12,
    "held": 4096,
    "memory": 62914560,
    "stall": {"last_minute": 0.004, "ever": 0.031},
    "deaths": {
        "crashed": 1,
        "killed": 0,
        "memory": 0,
        "exited": 0,
        "released": 5,
        "failed start": 0,
    },
}
WORKERS: list[dict[str, Any]] = [
    {
        "pid": 4711,
        "state": "busy",
        "generation": 2,
        "age": 7512.9,
        "jobs": 34,
        "cpu": 12.5,
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
        "cpu": 0.2,
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
        "cpu": None,
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
DEATHS: list[dict[str, Any]] = [
    {
        "pid": 4709,
        "ended": 1795766400.25,
        "age": 7200.5,
        "jobs": 83,
        "cause": "crashed",
        "why": "was killed by SIGSEGV",
        "job": 118,
    }
]
JOBS: dict[str, Any] = {
    "total": 2,
    "jobs": [
        {
            "id": 120,
            "command": "Thumbnail",
            "client": "process 5120 of user 1000",
            "priority": "normal",
            "state": "running",
            "wait": 0.0004,
            "runtime": 2.14,
            "attempt": 1,
            "deadline_left": None,
            "worker": 4711,
            "paused": False,
        },
        {
            "id": 121,
            "command": "Rotate",
            "client": "127.0.0.1:51966",
            "priority": "high",
            "state": "queued",
            "wait": 1.5,
            "runtime": None,
            "attempt": 0,
            "deadline_left": 28.5,
            "worker": None,
            "paused": True,
        },
    ],
}
DETAIL: dict[str, Any] = {
    **RECENT[0],
    "state": "failed",
    "error": "JOB_FAILED: ValueError: not an image",
    "priority": "normal",
    "deadline": None,
    "accepted": 1795766399.0,
    "started": 1795766399.42,
    "attempts": [{"started": 1795766399.0, "worker": 4708, "ended_for": "was killed by SIGSEGV"}],
    "output": ["reading holiday.png", "decoding"],
    "traceback": 'Traceback (most recent call last):\n  File "/srv/thumbs/jobs.py", line 20, in '
    "thumbnail\nValueError: not an image",
    "policy": {
        "time_limit": 30.0,
        "retries": 1,
        "max_running": None,
        "on_disconnect": "cancel",
        "isolate": False,
        "stoppable": False,
    },
    "bytes": 48211,
    "can_run_again": False,
}
_TIMES = {"p50": 0.2, "p90": 0.8, "p99": 1.2}
_LAST = {
    "seconds": 300.0,
    "jobs": 30,
    "rate": 0.1,
    "failed": 1,
    "cancelled": 2,
    "wait": _TIMES,
    "runtime": _TIMES,
}
COMMANDS: list[dict[str, Any]] = [
    {
        "command": "Thumbnail",
        "doc": "Make an image smaller.",
        "running": 1,
        "waiting": 0,
        "done": 102,
        "failed": 4,
        "cancelled": 2,
        "timed_out": 0,
        "lost": 1,
        "refused": 3,
        "errors": {"NOT_FOUND": 3, "JOB_FAILED": 1},
        "last": {"1m": _LAST, "5m": _LAST, "15m": _LAST},
        "policy": {
            "time_limit": 30.0,
            "retries": 1,
            "max_running": 2,
            "on_disconnect": "cancel",
            "isolate": False,
            "stoppable": False,
        },
        "quarantine": 21.5,
        "paused": False,
    }
]
CLIENTS: dict[str, Any] = {
    "total": 1,
    "clients": [
        {
            "client": "127.0.0.1:51966",
            "peer": "127.0.0.1",
            "since": 3600.5,
            "idle": None,
            "waiting": 1,
            "running": 0,
            "held": False,
            "bytes": 1024,
        }
    ],
}
CANCELLED: dict[str, Any] = {
    "matched": 3,
    "results": [
        {"id": 121, "command": "Rotate", "result": "cancelled"},
        {"id": 120, "command": "Thumbnail", "result": "stopping"},
        {"id": 119, "command": "ListDirectory", "result": "ended"},
        {"id": 7, "command": None, "result": "not found"},
    ],
    "left": 0,
}
PAUSED: dict[str, Any] = {"all": False, "commands": ["Rotate"]}
EVENTS: dict[str, Any] = {
    "events": [
        {
            "number": 41,
            "time": 1795766401.25,
            "kind": "ended",
            "job": 119,
            "command": "ListDirectory",
            "client": "127.0.0.1:51966",
            "worker": 4711,
            "priority": "normal",
            "state": "failed",
            "wait": 0.2,
            "runtime": 0.0123,
            "code": "NOT_FOUND",
            "text": "nothing is at 'nothing'",
        },
        {"number": 42, "time": 1795766401.5, "kind": "worker ready", "worker": 4713},
    ],
    "next": 42,
    "missed": 0,
    "state": "running",
}
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

    :ivar asked: with what it was asked for lists of jobs and clients, in order.
    :ivar cancelled: which jobs it was to cancel, and how many at most.
    :ivar signatures: the commands' entries in the catalogue.
    :ivar again: which jobs it was to run again.
    :ivar called: which commands it was to call, with which words and options.
    :ivar paused: what was to be paused or resumed, each after the word.
    :ivar shutdowns: whether it was to stop at once, each time that it was to stop.
    :ivar watched: what those who watch asked for.
    :ivar watchers: who waits for events; a test fires them.
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
        self.jobs_document = JOBS
        self.cancelled_document: dict[str, Any] = CANCELLED
        self.histograms_document: dict[str, Any] = {
            "edges": [0.1, 1.0],
            "commands": {},
            "stalls": {"edges": [0.1], "counts": [2, 0], "sum": 0.08},
        }
        self.calls_document: list[dict[str, Any]] = []
        self.signatures: dict[str, dict[str, Any]] = {}
        self.again: list[int] = []
        self.called: list[tuple[str, dict[str, list[str]], dict[str, Any]]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.cancelled: list[tuple[Any, int]] = []
        self.paused: list[tuple[str, Any]] = []
        self.shutdowns: list[bool] = []
        self.watched: list[tuple[Any, ...]] = []
        self.watchers: list[Deferred[dict[str, Any]]] = []
        self.wanted: list[tuple[int, int]] = []
        self.forced: list[tuple[int, int]] = []
        self.reloads: list[Deferred[None]] = []
        self.drains: list[Deferred[dict[str, int]]] = []

    def turn(self) -> Deferred[str]:
        """See :meth:`IOperations.turn`."""
        return defer.succeed("")

    def status(self) -> dict[str, Any]:
        """See :meth:`IOperations.status`."""
        return self.status_document

    def workers(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.workers`."""
        return self.workers_document

    def deaths(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.deaths`."""
        return DEATHS

    def jobs(
        self,
        filter: Mapping[str, Any] | None = None,
        sort: str = "state",
        limit: int = 100,
        offset: int = 0,
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.jobs`."""
        filters.read_live(filter)
        filters.check_page(limit, offset)
        self.asked.append((filter, sort, limit, offset))
        return defer.succeed(self.jobs_document)

    def recent(
        self, filter: Mapping[str, Any] | None = None, sort: str | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """See :meth:`IOperations.recent`."""
        filters.read_ended(filter)
        self.asked.append((filter, sort, limit))
        return self.recent_document

    def job(self, job_id: int) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.job`."""
        if job_id != DETAIL["id"]:
            return defer.fail(NotFound(f"no job {job_id}"))
        return defer.succeed(DETAIL)

    def commands(self) -> Deferred[list[dict[str, Any]]]:
        """See :meth:`IOperations.commands`."""
        return defer.succeed(COMMANDS)

    def clients(self, sort: str = "-since", limit: int = 100) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.clients`."""
        self.asked.append((sort, limit))
        return defer.succeed(CLIENTS)

    def watch(
        self,
        after: int | None = None,
        filter: Mapping[str, Any] | None = None,
        kinds: Collection[str] | None = None,
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.watch`."""
        self.watched.append((after, filter, kinds))
        waiter: Deferred[dict[str, Any]] = Deferred(_not_cancelled)
        self.watchers.append(waiter)
        return waiter

    def cancel(
        self, which: Collection[int] | Mapping[str, Any], most: int = 1000
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.cancel`."""
        self.cancelled.append((which, most))
        return defer.succeed(self.cancelled_document)

    def pause(self, commands: Collection[str] | None) -> dict[str, Any]:
        """See :meth:`IOperations.pause`."""
        self.paused.append(("pause", commands))
        return PAUSED

    def resume(self, commands: Collection[str] | None) -> dict[str, Any]:
        """See :meth:`IOperations.resume`."""
        self.paused.append(("resume", commands))
        return PAUSED

    def shutdown(self, now: bool = False) -> None:
        """See :meth:`IOperations.shutdown`."""
        self.shutdowns.append(now)

    def histograms(self) -> dict[str, Any]:
        """See :meth:`IOperations.histograms`."""
        return self.histograms_document

    def signature(self, command: str) -> dict[str, Any] | None:
        """See :meth:`IOperations.signature`."""
        return self.signatures.get(command)

    def run_again(self, job_id: int) -> Deferred[int]:
        """See :meth:`IOperations.run_again`."""
        self.again.append(job_id)
        if job_id != JOB:
            return defer.fail(NotFound(f"no job {job_id} waits or runs"))
        return defer.succeed(JOB + 1)

    def call(
        self, command: str, words: Mapping[str, Sequence[str]], **options: Any
    ) -> Deferred[int]:
        """See :meth:`IOperations.call`."""
        self.called.append((command, {name: list(each) for name, each in words.items()}, options))
        if command in self.signatures:
            try:
                build_arguments(self.signatures[command], words)
            except WrongWord as error:
                return defer.fail(error)
        elif command not in [each["command"] for each in COMMANDS]:
            return defer.fail(ValueError(f"the server has no command {command!r}"))
        return defer.succeed(JOB)

    def calls(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.calls`."""
        return self.calls_document

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
