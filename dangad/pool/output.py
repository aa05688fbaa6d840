"""What a worker prints, as lines of the server's log, each with the worker's pid and the job's id.

Fed by :mod:`dangad.pool.workeroutput`. The output is bounded. A line longer than `MAX_LINE` is cut
into several. After `MAX_LINES` lines of a job the rest is only counted, because writing a line
costs the parent far more than counting it. The same holds if many jobs in a row print much, and for
output between two jobs. :mod:`dangad.pool.outputlog` decides how many lines are written in one
turn of the reactor; :mod:`dangad.pool.outputmemory` keeps the last lines of each job.
"""

from __future__ import annotations

import re
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from dangad.pool.outputlog import OutputLog
from dangad.scheduler.joblog import fields_of
from dangad.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from dangad.scheduler.record import Job

log = Logger()

_CRASH = "Fatal Python error"
_STACK = re.compile(
    rb"((Current thread|Thread) 0x[0-9a-f]+|Stack) .*\(most recent call first\):$"
    rb'|  File ".*", line \S+ in |  <no Python frame>$|  \.\.\.$|$'
)
"""A line of the stacks that a worker prints on request, by :mod:`faulthandler`."""

MAX_LINE = 4096
"""The most bytes of output in one line of the log."""
MAX_LINES = 1000
"""The most lines that one job may write to the log."""
SURE_LINES = 20
"""Lines that each job may write to the log, however much other jobs of its worker have written."""
LINES_A_SECOND = 200
"""Lines a second that the jobs of a worker may write beyond `SURE_LINES`; unused ones add up, to
`MAX_LINES` at most."""
TAIL = 100
"""How many of the last lines of a job's output are remembered: most tracebacks are shorter."""
LAST_LINES = 4
"""The most lines of output in the error that the client of a lost job gets."""
MAX_LAST_LINE = 200
"""The most characters of each line of output in the error that the client of a lost job gets."""
STACK_LINES = 200
"""Lines for which there is room in the log, whatever the job has printed, when a stack is asked
for."""


class JobOutput:
    """Cuts one worker's output into log lines."""

    def __init__(self, clock: IReactorTime, written: OutputLog | None = None) -> None:
        """Begin with nothing.

        :param clock: the source of time.
        :param written: where the lines go, shared with other workers; None for a log of its own.
        """
        self._clock = clock
        self._written = written or OutputLog(clock)
        #: The worker's process id; 0 before it has started.
        self.pid = 0
        #: The last lines of the running job, or of the last one.
        self.tail: deque[str] = deque(maxlen=TAIL)
        #: The last job that has printed something.
        self._printed_by = 0
        #: The id of the last job whose stack was asked for, or 0. A stack is not output of its job,
        #: unless it shows where the job was when its time was up.
        self._asked = 0
        #: Lists to which each line is also added while somebody waits for it.
        self._listeners: list[list[str]] = []
        #: The running job; None between jobs.
        self._job: Job | None = None
        #: The beginning of a line that has not ended.
        self._partial = b""
        #: How many lines of the job were logged.
        self._lines = 0
        #: How many lines of the job were not logged.
        self._dropped = 0
        #: How many lines beyond `SURE_LINES` might be logged at the time `_counted_at`.
        self._room = float(MAX_LINES)
        #: When `_room` was computed.
        self._counted_at = clock.seconds()

    @property
    def floods(self) -> bool:
        """Whether lines of the job were dropped; then there is no hurry to read more."""
        return self._dropped > 0

    def received(self, data: bytes) -> None:
        """Take what the worker printed, cut anywhere."""
        if not self._listeners:
            data = self._pass_over(data)
        *lines, rest = (self._partial + data).split(b"\n")
        while len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._partial = rest
        if lines:
            self._log(lines)

    def _pass_over(self, data: bytes) -> bytes:
        """The part of `data` to split into lines: the lines to log, and the last ones, for `tail`.

        The lines in between are only counted. So a flood of output costs the parent little.
        """
        start = 0
        for _ in range(self._may_log()):
            if (start := data.find(b"\n", start) + 1) == 0:
                return data
        end = len(data)
        for _ in range(TAIL + 1):
            if (end := data.rfind(b"\n", start, end)) < 0:
                return data
        self._dropped += data.count(b"\n", start, end) + 1
        if start == 0:
            self._partial = b""
        return data[:start] + data[end + 1 :]

    def _may_log(self) -> int:
        """How many lines of the job may be logged now."""
        now = self._clock.seconds()
        self._room = min(MAX_LINES, self._room + (now - self._counted_at) * LINES_A_SECOND)
        self._counted_at = now
        sure = SURE_LINES - self._lines
        return max(sure, min(MAX_LINES - self._lines, int(self._room)), 0)

    def begin_job(self, job: Job) -> None:
        """Count the output as this job's from now on."""
        if self._partial or self._dropped:
            self.end_job()
        self._job = job
        self._lines = 0
        if self.tail:
            self._forget_tail()

    def listen(self, lines: list[str]) -> None:
        """Add the output to `lines`, too, from now on; make room in the log for a stack."""
        self._asked = self._job.id if self._job is not None else 0
        self._lines = min(self._lines, MAX_LINES - STACK_LINES)
        self._room = max(self._room, STACK_LINES)
        self._listeners.append(lines)

    def end_listening(self, lines: list[str]) -> None:
        """Add nothing more to `lines`."""
        self._listeners = [each for each in self._listeners if each is not lines]

    def end_job(self) -> None:
        """Count the output as no job's from now on; log how many lines were dropped."""
        self.flush()
        if self._dropped:
            self._written.write_each(partial(_warn, self.pid, self._job), [self._dropped])
            self._dropped = 0
        self._job = None
        self._lines = 0

    def close(self) -> None:
        """Count the output as no job's from now on: the worker is gone."""
        self.end_job()
        self._forget_tail()

    def _forget_tail(self) -> None:
        """Begin a new tail; the memory keeps the lines of the job."""
        if self._printed_by:
            self._written.memory.keep(self._printed_by, self.tail)
            self._printed_by = 0
        self.tail.clear()

    def flush(self) -> None:
        """Log an unfinished line as a whole one: no more of it will come."""
        if self._partial:
            self._log([self._partial])
            self._partial = b""

    def _log(self, lines: list[bytes]) -> None:
        """Write lines, or drop them. The cost of a line arises when it is written."""
        if max(map(len, lines)) > MAX_LINE:
            lines = [
                line[start : start + MAX_LINE]
                for line in lines
                for start in range(0, len(line) or 1, MAX_LINE)
            ]
        own, job = lines, self._job
        if job is not None and job.id == self._asked and job.stopped_for is None:
            own = [line for line in lines if not _STACK.match(line)]
        self.tail.extend(map(_text, own[-TAIL:]))
        if own and self._job is not None and self._job.id != self._printed_by:
            self._printed_by = self._job.id
            self._written.memory.note(self._job.id, self.tail)
        for listener in self._listeners:
            listener.extend(map(_text, lines))
        sure = max(0, SURE_LINES - self._lines)
        more = max(0, min(MAX_LINES - self._lines - sure, int(self._room)))
        taken = lines[: sure + more]
        self._room -= max(0, len(taken) - sure)
        self._lines += len(taken)
        self._dropped += len(lines) - len(taken)
        self._written.write_each(partial(_write, self.pid, self._job), taken)


def last_lines(tail: Iterable[str]) -> str:
    """The end of a dead worker's output, in one line for its job's client.

    These are the last few lines. If Python has printed a crash report (:mod:`faulthandler`), they
    are its first lines instead: there the innermost frame comes first.
    """
    lines = [line for line in tail if line.strip()]
    crashes = [number for number, line in enumerate(lines) if line.startswith(_CRASH)]
    lines = lines[crashes[-1] :][:LAST_LINES] if crashes else lines[-LAST_LINES:]
    return " | ".join(line.strip()[:MAX_LAST_LINE] for line in lines)


def _write(pid: int, job: Job | None, line: bytes) -> None:
    log.info("worker {worker} job {job}: {line}", **_fields(pid, job), line=_text(line))


def _warn(pid: int, job: Job | None, dropped: int) -> None:
    text = "worker {worker} job {job}: {dropped} more lines of output were dropped"
    log.warn(text, **_fields(pid, job), dropped=dropped)


def _fields(pid: int, job: Job | None) -> dict[str, Any]:
    """The fields of a line that the worker has printed; job 0 stands for none."""
    return {**(fields_of(job) if job is not None else {"job": 0}), "worker": pid}


def _text(line: bytes) -> str:
    return printable(line.rstrip(b"\r").decode("utf-8", "backslashreplace"), "\t")
