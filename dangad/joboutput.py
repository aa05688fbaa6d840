"""What a worker prints, line by line in the server's log, with its pid and the job's id.

Fed by :mod:`dangad.workerlink`. Bounded: a line longer than `MAX_LINE` is cut into several, and of
a job that prints more than `MAX_LINES` lines, or one that would fill the log between two jobs,
the rest is only counted.
"""

from __future__ import annotations

from twisted.logger import Logger

log = Logger()

MAX_LINE = 4096
"""Bytes of output that make one log line at most."""
MAX_LINES = 1000
"""Lines that one job may bring into the log."""


class JobOutput:
    """Cuts one worker's output into log lines.

    All mutable state: `pid`; `_job`, the id of the job that runs, 0 between jobs; `_partial`,
    a line that has not ended; `_lines`, how many were logged for the job, and `_dropped`, how
    many were not.
    """

    def __init__(self) -> None:
        self.pid = 0
        self._job = 0
        self._partial = b""
        self._lines = 0
        self._dropped = 0

    def received(self, data: bytes) -> None:
        """Take what the worker printed, cut anywhere."""
        *lines, rest = (self._partial + data).split(b"\n")
        while len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._partial = rest
        for line in lines:
            for start in range(0, len(line) or 1, MAX_LINE):
                self._log(line[start : start + MAX_LINE])

    def begin_job(self, job_id: int) -> None:
        """What comes from now on is printed by this job."""
        if self._partial or self._dropped:
            self.end_job()
        self._job = job_id
        self._lines = 0

    def end_job(self) -> None:
        """What comes from now on is printed by no job."""
        if self._partial:
            self._log(self._partial)
            self._partial = b""
        if self._dropped:
            log.warn(
                "worker {pid} job {job}: {dropped} more lines of output were dropped",
                pid=self.pid,
                job=self._job,
                dropped=self._dropped,
            )
            self._dropped = 0
        self._job = self._lines = 0

    close = end_job

    def _log(self, line: bytes) -> None:
        if self._lines >= MAX_LINES:
            self._dropped += 1
            return
        self._lines += 1
        log.info(
            "worker {pid} job {job}: {line}",
            pid=self.pid,
            job=self._job,
            line=line.rstrip(b"\r").decode("utf-8", "backslashreplace"),
        )
