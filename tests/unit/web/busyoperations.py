"""A server with much to show, made of documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.protocols import amp

from dangad.errors import NotFound
from dangad.operators import filters
from dangad.operators.parts import Parts
from dangad.wire.catalogue import NO_POLICY, describe_command
from dangad.wire.values import Blob, Large
from tests.fakeoperations import STATUS, WORKERS, FakeOperations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

HOSTILE = '<script>alert("x")</script>&amp;\u202e'
"""A name that would do harm where it is not escaped."""
NOW = 1795766410.0
"""The Unix time at which the documents were made."""


def window(jobs: int, failed: int, median: float | None) -> dict[str, Any]:
    """Rates and percentiles over some minutes."""
    times = {
        "p50": median,
        "p90": None if median is None else median * 4,
        "p99": None if median is None else median * 12,
    }
    return {
        "seconds": 60.0,
        "jobs": jobs,
        "rate": jobs / 60,
        "failed": failed,
        "cancelled": 1,
        "refused_by_code": {},
        **times,
    }


def command(name: str, **changes: Any) -> dict[str, Any]:
    """A command as ``IOperations.commands`` tells it."""
    times = window(240, 2, 0.012)
    last = {
        "jobs": times["jobs"],
        "rate": times["rate"],
        "failed": times["failed"],
        "cancelled": times["cancelled"],
        "wait": {key: times[key] for key in ("p50", "p90", "p99")},
        "runtime": {key: times[key] * 3 for key in ("p50", "p90", "p99")},
    }
    return {
        "command": name,
        "doc": f"Does what {name} says.",
        "running": 1,
        "waiting": 2,
        "done": 1480,
        "failed": 12,
        "cancelled": 4,
        "timed_out": 2,
        "lost": 1,
        "refused": 3,
        "errors": {"BAD_IMAGE": 12, "WORKER_LOST": 1},
        "last": {"1m": last, "5m": last, "15m": last},
        "policy": {"time_limit": 30.0, "max_running": None},
        "quarantine": None,
        "paused": False,
        **changes,
    }


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """A job as ``IOperations.jobs`` lists it."""
    return {
        "id": number,
        "command": "Thumbnail",
        "client": "process 5120 of user 1000",
        "priority": "normal",
        "state": "queued",
        "wait": 2.5,
        "runtime": None,
        "attempt": 1,
        "deadline_left": 27.5,
        "worker": None,
        "paused": False,
        **changes,
    }


def ended(number: int, **changes: Any) -> dict[str, Any]:
    """A job as ``IOperations.recent`` lists it."""
    return {
        "id": number,
        "command": "Thumbnail",
        "state": "done",
        "worker": 4711,
        "attempt": 1,
        "wait": 0.2,
        "runtime": 0.0123,
        "cpu": 0.0021,
        "peak_memory": 36700160,
        "ended": NOW - 3,
        "client": "process 5120 of user 1000",
        "error": None,
        **changes,
    }


class Draw(amp.Command):
    """Has an argument of each type."""

    arguments = [
        (b"title", Large(amp.Unicode())),
        (b"size-of", amp.Integer(optional=True)),
        (b"bright", amp.Boolean(optional=True)),
        (b"factor", amp.Float(optional=True)),
        (b"since", amp.DateTime(optional=True)),
        (b"raw", amp.String(optional=True)),
        (b"widths", amp.ListOf(amp.Integer(), optional=True)),
        (b"rows", amp.AmpList([(b"name", amp.Unicode())], optional=True)),
    ]
    response = [(b"image", Blob())]


def signature(name: str) -> dict[str, Any]:
    """A command's entry in the catalogue, with an argument of each type."""
    return {**describe_command(Draw, NO_POLICY, "Draw."), "name": name}


def called(number: int, name: str, **changes: Any) -> dict[str, Any]:
    """A call as ``IOperations.calls`` tells it."""
    return {
        "job": number,
        "command": name,
        "words": None,
        "again": None,
        "priority": "normal",
        "deadline": None,
        "chunks": False,
        "called": NOW - 30,
        "under_way": False,
        "progress": {"done": 3, "total": 12, "message": HOSTILE},
        "parts": [HOSTILE, "a part"],
        "part_count": 2,
        "answer": f'{{"image": "{HOSTILE}"}}',
        "error": None,
        **changes,
    }


class BusyOperations(FakeOperations):
    """Tells what it is set to tell, and notes what it is asked to do.

    :ivar asked: the filters, orders and bounds of lists that it was asked for.
    :ivar can_run_again: whether it holds the requests of its jobs.
    :ivar orders: what it was told to do.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls for the next part of long work."""
        super().__init__()
        self._parts = Parts(clock)
        self.status_document = {
            **STATUS,
            "jobs": {**STATUS["jobs"], "waiting": 214, "running": 3},
            "oldest_wait": 4.25,
            "backlog": {"high": 2, "normal": 200, "low": 12},
            "paused": {"all": False, "commands": []},
            "last": {
                "1m": window(480, 3, 0.03),
                "5m": window(2400, 9, 0.03),
                "15m": window(7000, 20, 0.03),
            },
            "failed_by_code": {"BAD_IMAGE": 12, "WORKER_LOST": 1, "TIMED_OUT": 2},
            "refused_by_code": {"QUEUE_FULL": 3},
            "memory": 41 * 2**20,
            "stall": {"last_minute": 0.0031, "ever": 0.0214},
            "deaths": {"crashed": 2, "released": 5},
        }
        self.workers_document = [{"cpu": 12.5, **each} for each in WORKERS]
        self.commands_document = [
            command("Thumbnail"),
            command("ListDirectory", running=0, waiting=0, paused=True),
            command(HOSTILE, quarantine=12.5),
        ]
        self.entries = [
            entry(120, state="running", runtime=2.14, worker=4711, attempt=2),
            entry(121, command=HOSTILE, client=HOSTILE),
            *(entry(number) for number in range(122, 322)),
        ]
        self.recent_document = [
            ended(100, state="failed", error=f"BAD_IMAGE: {HOSTILE}"),
            ended(101, command=HOSTILE, state="lost", error="WORKER_LOST: worker 4709 died"),
            ended(102),
        ]
        self.deaths_document = [
            {
                "pid": 4709,
                "ended": NOW - 60,
                "age": 812.5,
                "jobs": 85,
                "cause": "crashed",
                "why": "was killed by SIGSEGV 0.8 s into Thumbnail",
                "job": 101,
            },
            {
                "pid": 4703,
                "ended": NOW - 5,
                "age": 3600.0,
                "jobs": 1000,
                "cause": "released",
                "why": "has done 1,000 jobs",
                "job": None,
            },
        ]
        self.clients_document = {
            "total": 1,
            "clients": [
                {
                    "client": HOSTILE,
                    "peer": "user 1000",
                    "since": 812.0,
                    "idle": 0.5,
                    "waiting": 214,
                    "running": 3,
                    "held": True,
                    "bytes": 120_000,
                }
            ],
        }
        self.signatures = {name: signature(name) for name in ("Thumbnail", HOSTILE)}
        self.config_document = {"options": {"listen": ["unix:/run/dangad.sock:mode=660"]}}
        self.calls_document = [
            called(
                140, HOSTILE, words={"title": [HOSTILE]}, answer=None, under_way=True, part_count=33
            ),
            called(139, "Thumbnail", answer=None, error=f"BAD_IMAGE: {HOSTILE}", again=120),
            called(138, "Thumbnail", words={"title": ["a cat"], "widths": ["1", "2"]}),
        ]
        self.can_run_again = False
        self.orders: list[tuple[Any, ...]] = []

    def turn(self) -> Deferred[str]:
        """See :meth:`IOperations.turn`."""
        return self._parts.turn()

    def recent(
        self, filter: Mapping[str, Any] | None = None, sort: str | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """See :meth:`IOperations.recent`."""
        filters.read_ended(filter)
        self.asked.append(("recent", filter, sort, limit))
        return self.recent_document

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
        self.asked.append(("jobs", filter, sort, limit, offset))
        found = self.entries
        return defer.succeed({"total": len(found), "jobs": found[offset : offset + limit]})

    def job(self, job_id: int) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.job`."""
        found = [each for each in self.entries + self.recent_document if each["id"] == job_id]
        if not found:
            return defer.fail(NotFound(f"no job {job_id} is known"))
        return defer.succeed(
            {
                **found[0],
                "accepted": NOW - 10,
                "started": NOW - 4,
                "ended": found[0].get("ended"),
                "attempts": [
                    {"started": NOW - 8, "worker": 4709, "ended_for": "WORKER_LOST: it died"}
                ],
                "output": ["reads the image", HOSTILE],
                "traceback": f"Traceback:\n  {HOSTILE}\n",
                "policy": {"time_limit": 30.0},
                "bytes": 81920,
                "can_run_again": self.can_run_again,
            }
        )

    def commands(self) -> Deferred[list[dict[str, Any]]]:
        """See :meth:`IOperations.commands`."""
        return defer.succeed(self.commands_document)

    def clients(self, sort: str = "-since", limit: int = 100) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.clients`."""
        return defer.succeed(self.clients_document)

    def deaths(self) -> list[dict[str, Any]]:
        """See :meth:`IOperations.deaths`."""
        return self.deaths_document

    def histograms(self) -> dict[str, Any]:
        """See :meth:`IOperations.histograms`."""
        times = {"counts": [5, 3, 0, 1], "sum": 0.75}
        both = {"wait": times, "runtime": times}
        return {
            "edges": [0.01, 0.1, 1.0],
            "commands": {each["command"]: both for each in self.commands_document},
            "stalls": {"edges": [0.01, 0.1, 1.0], **times},
        }

    def cancel(
        self, which: Collection[int] | Mapping[str, Any], most: int = 1000
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`IOperations.cancel`."""
        self.orders.append(("cancel", which, most))
        results = [
            {"id": 120, "command": "Thumbnail", "result": "stopping"},
            {"id": 121, "command": HOSTILE, "result": "cancelled"},
        ]
        return defer.succeed({"matched": 5, "results": results, "left": 3})

    def pause(self, commands: Collection[str] | None) -> dict[str, Any]:
        """See :meth:`IOperations.pause`."""
        self.orders.append(("pause", commands))
        return {"all": commands is None, "commands": list(commands or [])}

    def resume(self, commands: Collection[str] | None) -> dict[str, Any]:
        """See :meth:`IOperations.resume`."""
        self.orders.append(("resume", commands))
        return {"all": False, "commands": []}
