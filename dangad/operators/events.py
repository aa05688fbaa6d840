"""What happens to jobs and workers, event by event, for those who watch: ``dangad watch``.

Made by :mod:`dangad.service`, asked by :mod:`dangad.operators.view`. The last events are kept in a
ring. Whoever watches asks for the events after the last one that they have, and waits if there are
none (a long poll). So nobody is waited for: who asks too late has missed some events, and is told
how many. While nobody has asked for a minute, nothing is kept, and jobs cost what they always cost.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from dangad.host.clock import epoch_of
from dangad.scheduler.clockcalls import call_later, cancel
from dangad.scheduler.interfaces import IJournal, IWorkerJournal
from dangad.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.errors import DangadError
    from dangad.operators.parts import Parts
    from dangad.scheduler.counters import Counters
    from dangad.scheduler.interfaces import IProcess
    from dangad.scheduler.record import Job
    from dangad.scheduler.workerhistory import Gone, WorkerHistory

KEPT = 10_000
"""The most events that are kept."""
MOST = 500
"""The most events in an answer."""
PATIENCE = 10.0
"""Seconds after which whoever waits for events gets an answer without any."""
DELAY = 0.05
"""Seconds for which events are collected before those who wait are told."""
UNWATCHED = 60.0
"""Seconds after the last question from which on events are not kept any more."""
MOST_TEXT = 300
"""The most characters of an event's text."""


class Event(NamedTuple):
    """One event; what does not belong to its kind is None."""

    kind: str
    """``accepted``, ``started``, ``retried``, ``ended`` and ``refused`` for jobs; ``worker
    started``, ``worker ready`` and ``worker gone``; the others are what operators do."""
    at: float
    """When it was told, by the clock."""
    job: int | None = None
    """The job's id."""
    command: str | None = None
    """The command's name, as printable text."""
    client: str | None = None
    """Who submitted the job."""
    worker: int | None = None
    """The process id of the worker."""
    priority: str | None = None
    """The job's priority."""
    state: str | None = None
    """How the job ended, or of what the worker died."""
    wait: float | None = None
    """Seconds from the job's acceptance to its start, or to its end."""
    runtime: float | None = None
    """Seconds that the job ran, or that the worker lived."""
    code: str | None = None
    """The error's code."""
    text: str | None = None
    """The error's text, or what else is to be said."""


class _Watcher(NamedTuple):
    """Somebody who waits for events."""

    after: int
    """The number of the last event that they have."""
    matches: Callable[[Event], bool]
    """Which events they want."""
    told: Deferred[dict[str, Any]]
    """Fires with the answer."""
    alarm: IDelayedCall | None
    """Ends the wait."""


@implementer(IJournal, IWorkerJournal)
class Events:
    """Keeps the last events while somebody watches."""

    def __init__(
        self, clock: IReactorTime, counters: Counters, history: WorkerHistory, parts: Parts
    ) -> None:
        """Keep nothing yet.

        :param counters: tells of jobs, if it is asked to.
        :param history: tells of workers, likewise.
        :param parts: divides the work if many watch.
        """
        self._clock = clock
        self._parts = parts
        self._counters = counters
        self._history = history
        #: The last events.
        self._ring: deque[Event] = deque(maxlen=KEPT)
        #: How many events there were since somebody began to watch.
        self._count = 0
        #: Those who wait.
        self._watchers: deque[_Watcher] = deque()
        #: The call that tells them of new events; None if none is due.
        self._telling: IDelayedCall | None = None
        #: Whether they are being told.
        self._is_telling = False
        #: The call that ends the watch; None while nothing is kept.
        self._end: IDelayedCall | None = None
        #: Whether the server has stopped: nobody waits any more.
        self.stopped = False

    def watch(
        self, after: int | None, matches: Callable[[Event], bool]
    ) -> Deferred[dict[str, Any]]:
        """The events after the one of this number, or from now on if it is None.

        Fires with a document: the events, the number of the last one that was looked at, for the
        next question, and how many were missed. It waits for events if there are none, but not
        for ever.
        """
        if self.stopped:
            return succeed(self._answer(self._count, matches))
        if self._end is None:
            self._counters.journals += (self,)
            self._history.journals += (self,)
        cancel(self._end)
        self._end = call_later(self._clock, UNWATCHED, self._stop)
        if after is None or after > self._count:
            after = self._count
        told: Deferred[dict[str, Any]] = Deferred()
        alarm = call_later(self._clock, PATIENCE, self._give_up, told)
        self._watchers.append(_Watcher(after, matches, told, alarm))
        if after < self._count:
            self._tell()
        return told

    def stop(self) -> None:
        """Answer those who wait with the events so far, and keep nothing any more."""
        self.stopped = True
        for watcher in list(self._watchers):
            self._give_up(watcher.told)
        cancel(self._telling)
        cancel(self._end)
        self._stop()

    def note(self, kind: str, text: str | None = None, command: str | None = None) -> None:
        """Note what an operator has done, or what the server does as a whole."""
        if self._end is not None:
            self._put(Event(kind, self._clock.seconds(), command=command, text=text))

    # As a journal of jobs.

    def job_accepted(self, job: Job) -> None:
        """See :meth:`IJournal.job_accepted`."""
        self._put_job("accepted", job)

    def job_started(self, job: Job) -> None:
        """See :meth:`IJournal.job_started`."""
        self._put_job("started", job, wait=job.started_at - job.accepted_at)

    def job_retried(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_retried`."""
        code = error.code.decode("ascii", "replace")
        self._put_job("retried", job, code=code, text=_shown(str(error)))

    def job_ended(self, job: Job) -> None:
        """See :meth:`IJournal.job_ended`."""
        code, text = job.ended_for or (None, None)
        self._put_job(
            "ended",
            job,
            state=job.state.value,
            wait=job.wait,
            runtime=job.runtime if job.attempt else None,
            code=code,
            text=text,
        )

    def job_refused(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_refused`."""
        code = error.code.decode("ascii", "replace")
        self._put_job("refused", job, code=code, text=_shown(str(error)))

    # As a journal of workers.

    def worker_started(self, process: IProcess) -> None:
        """See :meth:`IWorkerJournal.worker_started`."""
        self._put(Event("worker started", self._clock.seconds(), worker=process.pid or None))

    def worker_ready(self, process: IProcess) -> None:
        """See :meth:`IWorkerJournal.worker_ready`."""
        self._put(Event("worker ready", self._clock.seconds(), worker=process.pid))

    def worker_gone(self, gone: Gone) -> None:
        """See :meth:`IWorkerJournal.worker_gone`."""
        self._put(
            Event(
                "worker gone",
                self._clock.seconds(),
                worker=gone.pid or None,
                state=gone.cause.value,
                runtime=gone.age,
                text=_shown(gone.why),
            )
        )

    def _put_job(self, kind: str, job: Job, **more: Any) -> None:
        client = job.asker if job.client is None else job.client.name
        self._put(
            Event(
                kind,
                self._clock.seconds(),
                job.id,
                job.name,
                printable(client),
                job.pid or None,
                job.priority.name.lower(),
                **more,
            )
        )

    def _put(self, event: Event) -> None:
        self._ring.append(event)
        self._count += 1
        if self._watchers and not self._is_telling:
            self._tell_later()

    def _tell_later(self) -> None:
        if self._telling is None:
            self._telling = call_later(self._clock, DELAY, self._tell)

    def _tell(self) -> None:
        """Answer those who wait for one of the new events, one in each turn."""
        cancel(self._telling)
        self._telling = None
        if not self._is_telling:
            self._is_telling = True
            self._parts.do(self._tell_each())

    def _tell_each(self) -> Generator[None, None, None]:
        for _ in range(len(self._watchers)):
            if not self._watchers:  # they may have been answered meanwhile
                break
            watcher = self._watchers.popleft()
            answer = self._answer(watcher.after, watcher.matches)
            if answer["events"] or answer["missed"]:
                cancel(watcher.alarm)
                watcher.told.callback(answer)
            else:
                self._watchers.append(watcher._replace(after=answer["next"]))
            yield
        self._is_telling = False
        if any(watcher.after < self._count for watcher in self._watchers):
            self._tell_later()

    def _give_up(self, told: Deferred[dict[str, Any]]) -> None:
        """Answer whoever has waited for long."""
        for watcher in self._watchers:
            if watcher.told is told:
                self._watchers.remove(watcher)
                cancel(watcher.alarm)
                told.callback(self._answer(watcher.after, watcher.matches))
                return

    def _stop(self) -> None:
        """Keep nothing any more."""
        self._end = None
        self._ring.clear()
        self._counters.journals = tuple(j for j in self._counters.journals if j is not self)
        self._history.journals = tuple(j for j in self._history.journals if j is not self)

    def _answer(self, after: int, matches: Callable[[Event], bool]) -> dict[str, Any]:
        """The document with the events after the one of this number."""
        oldest = self._count - len(self._ring)
        missed, last = max(0, oldest - after), max(after, oldest)
        epoch = epoch_of(self._clock)
        found: list[dict[str, Any]] = []
        for event in islice(self._ring, last - oldest, None):
            last += 1
            if matches(event):
                found.append(_document(event, last, epoch))
                if len(found) == MOST:
                    break
        return {"events": found, "next": last, "missed": missed}


def _document(event: Event, number: int, epoch: float) -> dict[str, Any]:
    """An event for those who watch.

    :param epoch: the Unix time at which the clock was at 0.
    """
    fields = {name: value for name, value in event._asdict().items() if value is not None}
    return {"number": number, "time": epoch + fields.pop("at"), **fields}


def _shown(text: str) -> str:
    return printable(text[:MOST_TEXT])
