"""What a job function may ask and tell while it runs: :func:`current_job`.

:mod:`dangad.worker.perform` sets it around each call of a job function, and
:mod:`dangad.worker.following` takes it along to the threads that the function starts. After its
end a job reaches nobody, even if a thread that was left behind still holds it.
"""

from __future__ import annotations

import os
import threading
import time
from contextvars import ContextVar
from operator import index
from typing import TYPE_CHECKING, Any

from dangad.text import MOST_QUOTED

if TYPE_CHECKING:
    from collections.abc import Callable

REPORT_INTERVAL = 0.1
"""Seconds between two progress reports that are sent; reports in between are dropped."""
MAX_MESSAGE = 1000
"""The most characters of a progress report's message."""
MAX_NUMBER = 2**63 - 1
"""The largest number of units of work that a progress report may name; it fits into 64 bits."""


class JobStopped(BaseException):
    """The running job is to end now: nobody waits for its answer any more.

    Raised once, in the middle of the job function, in the worker's main thread. The function has a
    moment to clean up until its process is killed. Not an Exception, so that ``except Exception``
    does not catch it.
    """


class TimeLimitExceeded(JobStopped):
    """The job has run for its type's time limit, or its request's deadline has passed."""


class JobCancelled(JobStopped):
    """The job was cancelled, by its client or by an operator."""


class RunningJob:
    """The job that runs in this process now.

    It may be used from any thread. After the job's end, and in a fork of its process, it tells
    nobody anything.

    :ivar id: the server's number for it; 0 outside a server.
    :ivar command: the name of its command.
    :ivar attempt: 1 at the first run, 2 at the first retry, and so on.
    """

    def __init__(
        self,
        id: int,
        command: str,
        attempt: int,
        ends_at: float | None = None,
        report: Callable[[int, int, str], None] | None = None,
        part: Callable[[bytes], None] | None = None,
    ) -> None:
        """Describe a job.

        :param ends_at: when its time is over, in seconds of :func:`time.monotonic`.
        :param report: takes its progress; None if nobody wants it.
        :param part: takes the parts of its result; None if nobody wants them.
        """
        self.id = id
        self.command = command
        self.attempt = attempt
        self._ends_at = ends_at
        self._report = report
        self._part = part
        #: The time before which no progress is sent.
        self._next_report = 0.0
        #: The last progress, if it was not sent because of this.
        self._unsent: tuple[tuple[int, int, str], ...] = ()
        self._process = os.getpid()
        #: Whether the client is being told something; a signal's handler may interrupt this.
        self._is_telling = False
        #: Whether the job has ended.
        self._ended = False
        if report is not None or part is not None:
            #: Held while the client is told something, and by `end`, so that nothing follows the
            #: end.
            self._telling = threading.RLock()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit or deadline, 0 or more; None if the job has neither."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def has_ended(self) -> bool:
        """Whether the job function has returned or raised; then the client is told nothing more."""
        return self._ended

    @property
    def wants_chunks(self) -> bool:
        """Whether the client asked for partial results, and :meth:`send` reaches it."""
        return self._part is not None and not self._ended and os.getpid() == self._process

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Tell the client, if it asked, that `done` of `total` units of work are done.

        May be called as often as is convenient: the client is told ten times a second at
        most, and always of the last call. A `total` of 0 means that it is not known; `done` may
        exceed it. A message is cut to `MAX_MESSAGE` characters. After the job's end, and in a
        forked process, this does nothing.

        :raises TypeError: `done` or `total` is not a whole number, or `message` is not a text.
        :raises ValueError: `done` or `total` is less than 0, or beyond `MAX_NUMBER`.
        """
        report = _whole("done", done), _whole("total", total), _text(message)
        if self._report is None:
            return
        self._unsent = (report,)
        if time.monotonic() >= self._next_report:
            self.flush()

    def send(self, chunk: bytes) -> None:
        """Send the next part of the result to the client, if it asked for partial results.

        Blocks while the client does not read fast enough, so that nothing piles up.

        :raises TypeError: the chunk is not bytes.
        :raises TooLarge: the chunk is larger than the server's ``--max-payload``.
        :raises RuntimeError: the job has ended, or this is a fork of its process, or this is called
            in a signal handler that has interrupted another call.
        """
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise TypeError(f"a chunk is bytes, not {type(chunk).__name__}")
        if self is not NO_JOB and not self._tell(self._send_part, bytes(chunk)):
            raise RuntimeError(f"nothing can be sent for job {self.id} {self.command}: {self._why}")

    def flush(self) -> None:
        """Tell the client the last progress, if this was not done yet and is possible now."""
        self._tell(self._send_unsent)

    def end(self) -> None:
        """Tell the client the last progress, and nothing more from now on.

        If another thread is telling the client something, waits for this thread.
        """
        if self._report is None and self._part is None:
            self._ended = True
            return
        with self._telling:
            self._send_unsent()
            self._ended = True

    def _tell(self, tell: Callable[..., None], *news: Any) -> bool:
        """Whether the client could be told, by calling `tell`."""
        if os.getpid() != self._process:
            return False  # without the lock, which perhaps nobody is there to release
        if self._report is None and self._part is None:
            return not self._ended  # the client asked for nothing, so there is no lock
        with self._telling:
            if self._ended or self._is_telling:
                return False
            self._is_telling = True
            try:
                tell(*news)
            finally:
                self._is_telling = False
        return True

    @property
    def _why(self) -> str:
        """Why the client could not be told."""
        if os.getpid() != self._process:
            return "this is a fork of its process; return the data to the process that forked"
        return "it has ended" if self._ended else "its process is in the middle of sending"

    def _send_unsent(self) -> None:
        if self._report is not None and self._unsent:
            self._next_report = time.monotonic() + REPORT_INTERVAL
            (report,), self._unsent = self._unsent, ()
            self._report(*report)

    def _send_part(self, chunk: bytes) -> None:
        if self._part is not None:
            self._part(chunk)


NO_JOB = RunningJob(0, "", 1)
"""What :func:`current_job` returns where no job runs, for example in a test."""

MARK = "_dangad_job"
"""The attribute of a thread that holds the job in which it was started."""

_context: ContextVar[RunningJob | None] = ContextVar("dangad.current_job", default=None)


def current_job() -> RunningJob:
    """The job that runs here now; a stand-in with id 0 if there is none.

    A thread has the job that started it, until this job ends.
    """
    job = inherited_job()
    return NO_JOB if job is None or job.has_ended else job


def inherited_job() -> RunningJob | None:
    """The job to which the running code belongs, even if it has ended; None if there is none.

    The context knows the job; coroutines and tasks take their context along. In other code the
    thread knows it.
    """
    job = _context.get()
    return vars(threading.current_thread()).get(MARK) if job is None else job


def is_left_over() -> bool:
    """Whether the running code is not a part of the job that runs in this process, if any.

    If so, the code belongs to a job that has ended, or runs in a thread that no job has started.
    """
    job = inherited_job()
    if job is None:
        return threading.current_thread() is not threading.main_thread()
    return job.has_ended


def set_current_job(job: RunningJob) -> None:
    """Make :func:`current_job` return `job` in this context; `NO_JOB` for none."""
    _context.set(None if job is NO_JOB else job)


def run_for(
    job: RunningJob, function: Callable[..., Any], /, *arguments: Any, **keywords: Any
) -> Any:
    """Call `function` as a part of `job`, and return its result."""
    token = _context.set(job)
    try:
        return function(*arguments, **keywords)
    finally:
        _context.reset(token)


def _whole(name: str, number: int) -> int:
    """The argument of this name as a plain int."""
    try:
        whole = int.__index__(index(number))
    except TypeError:
        shown = repr(number)[:MOST_QUOTED]
        raise TypeError(f"`{name}` is {shown}, where a whole number is needed") from None
    if not 0 <= whole <= MAX_NUMBER:
        raise ValueError(f"`{name}` is not between 0 and {MAX_NUMBER}, as progress has to be")
    return whole


def _text(message: str) -> str:
    """The message as a plain str, cut, and without what UTF-8 cannot encode."""
    if not isinstance(message, str):
        raise TypeError(f"a message is a text, not {type(message).__name__}")
    return str.__getitem__(message, slice(MAX_MESSAGE)).encode("utf-8", "replace").decode("utf-8")
