"""What a worker prints, line by line in the server's log, with its pid and the job's id.

Fed by :mod:`dangad.pool.workeroutput`. All of it is bounded. A line longer than `MAX_LINE` is cut
into several. Of a job that prints more than `MAX_LINES` lines the rest is only counted, since to
write a line costs the parent far more than to count it; so is the rest of many jobs that print much
one after the other, and of what would fill the log between two jobs. How many lines are written in
one turn of the reactor is decided in :mod:`dangad.pool.outputlog`.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from dangad.pool.outputlog import OutputLog
from dangad.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

log = Logger()

_CRASH = "Fatal Python error"

MAX_LINE = 4096
"""Bytes of output that make one log line at most."""
MAX_LINES = 1000
"""Lines that one job may bring into the log."""
SURE_LINES = 20
"""Lines that each job may bring into it, whatever the others of its worker have brought."""
LINES_A_SECOND = 200
"""Lines that a worker's jobs may bring besides, in the long run; at once, `MAX_LINES`."""
TAIL = 40
"""Lines that are remembered."""
LAST_LINES = 4
"""Lines that the client of a lost job is told."""
MAX_LAST_LINE = 200
"""Characters of each of them."""
STACK_LINES = 200
"""Lines that a stack may bring into the log beyond that."""


class JobOutput:
    """Cuts one worker's output into log lines."""

    def __init__(self, clock: IReactorTime, written: OutputLog | None = None) -> None:
        """Begin with nothing.

        :param clock: where the time comes from.
        :param written: where the lines go, with those of other workers; None for one of its own.
        """
        self._clock = clock
        self._written = written or OutputLog(clock)
        #: The worker's process id; 0 before it is started.
        self.pid = 0
        #: The last lines of the job that runs, or that ran last.
        self.tail: deque[str] = deque(maxlen=TAIL)
        #: Lists to which lines are added, too, while somebody waits for them.
        self._listeners: list[list[str]] = []
        #: The id of the job that runs; 0 between jobs.
        self._job = 0
        #: The beginning of a line that has not ended.
        self._partial = b""
        #: How many lines of the job were logged.
        self._lines = 0
        #: How many lines of the job were not logged.
        self._dropped = 0
        #: How many lines of any job might be logged ...
        self._room = float(MAX_LINES)
        #: ... at this time.
        self._counted_at = clock.seconds()

    @property
    def floods(self) -> bool:
        """Whether lines of the job were dropped, so that there is no hurry to read more."""
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
        """The lines of `data` that may be logged, and the last ones, which may be told.

        Those between are only counted: so much costs a flood of lines the parent, and no more.
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

    def begin_job(self, job_id: int) -> None:
        """What comes from now on is printed by this job."""
        if self._partial or self._dropped:
            self.end_job()
        self._job = job_id
        self._lines = 0
        if self.tail:
            self.tail.clear()

    def listen(self, lines: list[str]) -> None:
        """Add what comes from now on to `lines`, too; a stack is coming, which is let through."""
        self._lines = min(self._lines, MAX_LINES - STACK_LINES)
        self._room = max(self._room, STACK_LINES)
        self._listeners.append(lines)

    def end_listening(self, lines: list[str]) -> None:
        """Add nothing more to `lines`."""
        self._listeners = [each for each in self._listeners if each is not lines]

    def end_job(self) -> None:
        """What comes from now on is printed by no job."""
        self.flush()
        if self._dropped:
            self._written.write_each(partial(_warn, self.pid, self._job), [self._dropped])
            self._dropped = 0
        self._job = self._lines = 0

    close = end_job

    def flush(self) -> None:
        """Take a line that has not ended for a whole one: no more will come."""
        if self._partial:
            self._log([self._partial])
            self._partial = b""

    def _log(self, lines: list[bytes]) -> None:
        """Have lines written, or dropped; what one costs is paid when it is written."""
        if max(map(len, lines)) > MAX_LINE:
            lines = [
                line[start : start + MAX_LINE]
                for line in lines
                for start in range(0, len(line) or 1, MAX_LINE)
            ]
        self.tail.extend(map(_text, lines[-TAIL:]))
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
    """The end of what a dead worker printed, in one line for its job's client.

    That is the last few lines; but of a report of Python's on a crash, which it prints with the
    innermost frame first, it is the beginning.
    """
    lines = [line for line in tail if line.strip()]
    crashes = [number for number, line in enumerate(lines) if line.startswith(_CRASH)]
    lines = lines[crashes[-1] :][:LAST_LINES] if crashes else lines[-LAST_LINES:]
    return " | ".join(line.strip()[:MAX_LAST_LINE] for line in lines)


def _write(pid: int, job: int, line: bytes) -> None:
    log.info("worker {pid} job {job}: {line}", pid=pid, job=job, line=_text(line))


def _warn(pid: int, job: int, dropped: int) -> None:
    log.warn(
        "worker {pid} job {job}: {dropped} more lines of output were dropped",
        pid=pid,
        job=job,
        dropped=dropped,
    )


def _text(line: bytes) -> str:
    return printable(line.rstrip(b"\r").decode("utf-8", "backslashreplace"), "\t")
