"""The documents about jobs, and the cancelling of jobs by operators.

A part of :class:`dangad.operators.view.Operations`. :mod:`.filters` says which jobs are meant, and
:mod:`.parts` divides the work on very many jobs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from dangad.errors import NotFound
from dangad.host.clock import epoch_of
from dangad.operators import filters
from dangad.operators.parts import PART, First
from dangad.scheduler.record import JobState
from dangad.wire.controlwords import JOB_ORDERS, RECENT_ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from dangad.operators.filters import Filter
    from dangad.operators.parts import Parts
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.record import Job

    Document = dict[str, Any]

CANCELLED_AT_ONCE = 100
"""The most jobs that are cancelled in one turn of the reactor."""
LAST_LINES = 20
"""The most lines of a job's output in its document."""
LONGEST_LINE = 200
"""The most characters of each of these lines."""
MOST_ATTEMPTS = 100
"""The most earlier attempts in a job's document: the last ones."""
MOST_TRACEBACK = 2**13
"""The most characters of a job's traceback in its document: its end."""


class JobViews:
    """What operators see of jobs, and how they cancel them."""

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        parts: Parts,
        lines_of: Callable[[int], list[str]],
    ) -> None:
        """Speak for the jobs of `dispatcher`.

        :param parts: divides the work.
        :param lines_of: the last lines that the job with this id has printed.
        """
        self._clock = clock
        self._dispatcher = dispatcher
        self._parts = parts
        self._lines_of = lines_of

    # Jobs that wait or run.

    def jobs(
        self, given: Mapping[str, Any] | None, sort: str, limit: int, offset: int
    ) -> Deferred[Document]:
        """See :meth:`IOperations.jobs`."""
        meant = filters.read_live(given)
        order = filters.read_sort(sort, JOB_ORDERS)
        filters.check_page(limit, offset)
        return self._parts.do(self._list(meant, *order, limit, offset))

    def _list(
        self, meant: Filter, sort: str, descending: bool, limit: int, offset: int
    ) -> Generator[None, None, Document]:
        now, total = self._clock.seconds(), 0
        first: First[Job] = First(limit + offset, descending)
        key = _KEYS[sort]
        for part in self._in_parts():
            paused = self._dispatcher.paused
            for job in part:
                if meant.takes_live(job, now, paused):
                    total += 1
                    first.add(key(job, now), job.id, job)
            yield
        now = self._clock.seconds()
        page = [job for job in first.items()[offset:] if filters.is_live(job)]
        return {"total": total, "jobs": [self._live(job, now) for job in page]}

    def _in_parts(self) -> Iterator[Iterable[Job]]:
        """All jobs that wait or run now, in parts; without those that have ended meanwhile."""
        jobs = self._dispatcher.jobs_running() + self._dispatcher.jobs_waiting()
        yield ()
        for start in range(0, len(jobs), PART):
            yield filter(filters.is_live, jobs[start : start + PART])

    def _live(self, job: Job, now: float) -> Document:
        """The entry of a job that waits or runs."""
        age = now - job.accepted_at
        runtime = now - job.started_at if job.state is JobState.RUNNING else None
        return {
            "id": job.id,
            "command": job.name,
            "client": filters.client_of(job),
            "priority": job.priority.name.lower(),
            "state": filters.live_state(job),
            "wait": age if runtime is None else age - runtime,
            "runtime": runtime,
            "attempt": job.attempt,
            "deadline_left": None if job.deadline is None else job.deadline - age,
            "worker": None if runtime is None else job.pid or None,
            "paused": runtime is None and self._dispatcher.paused.holds(job.command),
        }

    # Jobs that have ended.

    def recent(
        self, given: Mapping[str, Any] | None, sort: str | None, limit: int
    ) -> list[Document]:
        """See :meth:`IOperations.recent`."""
        meant = filters.read_ended(given)
        order = None if sort is None else filters.read_sort(sort, RECENT_ORDERS)
        filters.check_page(limit)
        now, epoch = self._clock.seconds(), epoch_of(self._clock)
        jobs = self._dispatcher.counters.recent
        found = [ended_entry(job, epoch) for job in jobs if meant.takes_ended(job, now)]
        if order is None:
            return found[-limit:]
        key, descending = order
        known = [entry for entry in found if entry[key] is not None]
        unknown = [entry for entry in found if entry[key] is None]
        return [*sorted(known, key=itemgetter(key), reverse=descending), *unknown][:limit]

    # One job.

    def job(self, job_id: int) -> Deferred[Document]:
        """See :meth:`IOperations.job`."""
        return self._parts.do(self._tell(job_id))

    def find_live(self, job_id: int) -> Deferred[Job]:
        """The job of this id, which waits or runs; fails with NotFound if there is none."""
        return self._parts.do(self._find_live(job_id))

    def _tell(self, job_id: int) -> Generator[None, None, Document]:
        try:
            job = yield from self._find_live(job_id)
        except NotFound:
            for job in self._dispatcher.counters.recent:
                if job.id == job_id:
                    return self._detail(job, ended_entry(job, epoch_of(self._clock)))
            raise NotFound(
                f"no job {job_id} waits, runs, or is among those that ended last"
            ) from None
        return self._detail(job, self._live(job, self._clock.seconds()))

    def _find_live(self, job_id: int) -> Generator[None, None, Job]:
        for part in self._in_parts():
            for job in part:
                if job.id == job_id:
                    return job
            yield
        raise NotFound(f"no job {job_id} waits or runs")

    def _detail(self, job: Job, entry: Document) -> Document:
        """The entry of a job with everything else that is known of it."""
        epoch = epoch_of(self._clock)
        output, traceback = split_output(self._lines_of(job.id), job.name)
        return entry | {
            "priority": job.priority.name.lower(),
            "deadline": job.deadline,
            "accepted": epoch + job.accepted_at,
            "started": epoch + job.started_at if job.attempt else None,
            "ended": None if filters.is_live(job) else epoch + job.ended_at,
            "attempts": [
                {
                    "started": epoch + each.started_at,
                    "worker": each.pid or None,
                    "ended_for": each.ended_for,
                }
                for each in job.attempts[-MOST_ATTEMPTS:]
            ],
            "output": output,
            "traceback": traceback,
            "policy": dataclasses.asdict(job.policy),
            "bytes": job.size,
            "can_run_again": bool(job.box),
        }

    # Cancelling.

    def cancel(self, which: Collection[int] | Mapping[str, Any], most: int) -> Deferred[Document]:
        """See :meth:`IOperations.cancel`."""
        filters.check_page(most)
        if isinstance(which, Mapping):
            meant = filters.read_live(which)
            if not which:
                raise ValueError("nothing says which jobs to cancel: give ids, or a filter")
            return self._parts.do(self._cancel_meant(meant, most))
        ids = dict.fromkeys(which)
        if not 1 <= len(ids) <= most:
            raise ValueError(f"from 1 to {most} jobs can be cancelled by their ids, not {len(ids)}")
        return self._parts.do(self._cancel_named(ids))

    def _cancel_meant(self, meant: Filter, most: int) -> Generator[None, None, Document]:
        now, matched = self._clock.seconds(), 0
        oldest: First[Job] = First(most, descending=False)
        for part in self._in_parts():
            paused = self._dispatcher.paused
            for job in part:
                if meant.takes_live(job, now, paused):
                    matched += 1
                    oldest.add(job.id, job.id, job)
            yield
        jobs = oldest.items()
        results = yield from self._cancel_each(jobs)
        return {"matched": matched, "results": results, "left": matched - len(jobs)}

    def _cancel_named(self, ids: Collection[int]) -> Generator[None, None, Document]:
        found: dict[int, Job] = {}
        for part in self._in_parts():
            found.update((job.id, job) for job in part if job.id in ids)
            yield
        ended = {job.id: job for job in self._dispatcher.counters.recent if job.id in ids}
        results = yield from self._cancel_each(list(found.values()))
        told = {each["id"]: each for each in results}
        for job_id in ids:
            if job_id not in told:
                job = ended.get(job_id)
                result = "not found" if job is None else "ended"
                command = None if job is None else job.name
                told[job_id] = {"id": job_id, "command": command, "result": result}
        matched = len(found.keys() | ended.keys())
        return {"matched": matched, "results": [told[job_id] for job_id in ids], "left": 0}

    def _cancel_each(self, jobs: list[Job]) -> Generator[None, None, list[Document]]:
        """Cancel the jobs in parts, and return what became of each."""
        results: list[Document] = []
        for start in range(0, len(jobs), CANCELLED_AT_ONCE):
            results += [
                {"id": job.id, "command": job.name, "result": self._cancel(job)}
                for job in jobs[start : start + CANCELLED_AT_ONCE]
            ]
            yield
        return results

    def _cancel(self, job: Job) -> str:
        if not filters.is_live(job):
            return "ended"
        self._dispatcher.cancel_by_operator(job)
        return "stopping" if filters.is_live(job) else "cancelled"


_KEYS: dict[str, Callable[[Job, float], Any]] = {
    "state": lambda job, _: (job.state is not JobState.RUNNING, job.accepted_at),
    "age": lambda job, now: now - job.accepted_at,
    "wait": lambda job, now: _wait(job, now),
    "runtime": lambda job, now: now - job.started_at if job.state is JobState.RUNNING else -1.0,
    "priority": lambda job, _: int(job.priority),
    "command": lambda job, _: job.name,
    "client": lambda job, _: filters.client_of(job),
}
"""What each sort order compares."""


def _wait(job: Job, now: float) -> float:
    """How long `job`, which has not ended, has waited."""
    return (job.started_at if job.state is JobState.RUNNING else now) - job.accepted_at


def split_output(lines: list[str], command: str) -> tuple[list[str], str | None]:
    """The last lines that a job has printed, and the traceback that its worker printed after them.

    The worker prints a line with the command's name before the traceback.

    :param lines: the last lines of the job's worker during the job.
    """
    heading = f"{command} failed:"
    start = max((number for number, line in enumerate(lines) if line == heading), default=None)
    traceback = None
    if start is not None:
        traceback = "\n".join(lines[start + 1 :])[-MOST_TRACEBACK:]
        lines = lines[:start]
    return [line[:LONGEST_LINE] for line in lines[-LAST_LINES:]], traceback


def ended_entry(job: Job, epoch: float) -> Document:
    """The entry of a job that has ended.

    :param epoch: the Unix time at which the dispatcher's clock was at 0.
    """
    took = job.took
    return {
        "id": job.id,
        "command": job.name,
        "state": job.state.value,
        "worker": job.pid or None,
        "attempt": job.attempt,
        "wait": job.wait,
        "runtime": job.runtime,
        "cpu": took.cpu if took else None,
        "peak_memory": (took.peak_memory or None) if took else None,
        "ended": epoch + job.ended_at,
        "client": job.asker,
        "error": None if job.ended_for is None else "{}: {}".format(*job.ended_for),
    }
