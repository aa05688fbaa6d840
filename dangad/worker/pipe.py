"""The worker's ends of its pipes: for jobs and answers, which block, and for orders to stop.

Used by :mod:`dangad.worker.child`; :class:`dangad.pool.link.WorkerLink` has the other ends. A job
blocks the worker. So an order to stop is a box that names the job, and a signal that makes the
worker read it. An order that comes too late, for a job that has just ended, can never hit the next
job, and a foreign signal has no effect.

Orders have a pipe of their own. While a job runs, nothing is read from the pipe of the jobs, so
that prefetched jobs can be reclaimed: see :mod:`dangad.pool.jobpipe`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import threading
from typing import TYPE_CHECKING, Any

from dangad.errors import TooLarge
from dangad.wire import workerboxes
from dangad.wire.boxes import COMMAND, BoxReader, Garbage, pack
from dangad.wire.commands import STACK_SIGNAL, STOP_SIGNAL, Chunk, Progress
from dangad.worker.context import JobCancelled, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.worker.context import JobStopped
    from dangad.worker.perform import Answer

OUT_OF_REACH = 200
"""The lowest number of descriptors that jobs must not hit by accident."""
_ROOM = 8
"""How many descriptors just below the limit of open files serve if `OUT_OF_REACH` is too high."""

_READ_SIZE = 2**16
"""The most bytes that are read at once: a pipe holds as many. For more, each read would call mmap.

Small jobs come in packets, one for each read: see :mod:`dangad.pool.jobpipe`.
"""
_BOX_OVERHEAD = 2**16
"""Bytes by which a box may exceed the largest payload, for the parent's own pairs."""
_MAX_WISH = 2**10
"""Bytes of the largest box that orders a job to stop."""

_HELD_BACK = signal.valid_signals() - {STOP_SIGNAL, STACK_SIGNAL}
"""Signals that wait while a large box is being written."""

_STOPS: dict[bytes, type[JobStopped]] = {b"cancelled": JobCancelled, b"time": TimeLimitExceeded}


class WorkerPipe:
    """The pipes, and the order to stop the running job."""

    def __init__(self, read_fd: int, write_fd: int, wish_fd: int, max_payload: int) -> None:
        """Take the pipes over from the descriptors on which they were handed down.

        :param read_fd: the descriptor from which jobs come.
        :param write_fd: the descriptor to which answers go.
        :param wish_fd: the descriptor from which orders to stop come.
        :param max_payload: bytes of the largest request, and of the largest part of a result.
        """
        self._read_fd = _move(read_fd)
        self._write_fd = _move(write_fd)
        #: The descriptor from which orders to stop come.
        self._wish_fd = _move(wish_fd)
        os.set_blocking(self._wish_fd, False)
        self._max_payload = max_payload
        #: Assembles the boxes of jobs.
        self._reader = BoxReader(max_payload + _BOX_OVERHEAD, ())
        #: Assembles the boxes of orders to stop.
        self._wishes = BoxReader(_MAX_WISH, ())
        #: The id of the process that may use the pipes; its forks may not.
        self._owner = os.getpid()
        self._writing = threading.Lock()
        #: The id of the running job; None between jobs.
        self._job: int | None = None
        #: Whether the signal to stop came between jobs.
        self._called = False
        #: Called instead of raising an exception when the job is to stop; None to raise.
        self._on_stop: Callable[[JobStopped], None] | None = None
        #: Whether a part of a box was written, and the rest never will be.
        self._torn = False
        #: Whether a running job was told to stop.
        self.stopped = False
        signal.signal(STOP_SIGNAL, self._signalled)
        # A job may leave O_ASYNC on a pipe: SIGIO would kill the worker during a later job.
        signal.signal(signal.SIGIO, ignore_signal)

    def next_job(self) -> bytes | None:
        """Wait for the next job's box; None when the parent has closed the pipe."""
        while True:
            while (box := self._reader.next()) is not None:
                if box.raw == workerboxes.PING_BOX:
                    self._write(workerboxes.PONG_BOX)
                elif box.raw is not None:
                    return bytes(box.raw)
            data = self._read()
            if not data:
                return None
            self._reader.feed(data)

    def _read(self) -> bytes:
        """Wait for bytes in the pipe of jobs; empty when the parent has closed the pipe."""
        while True:
            try:
                return os.read(self._read_fd, _READ_SIZE)
            except BlockingIOError:  # a job, or a thread that it left, has changed the pipe
                os.set_blocking(self._read_fd, True)

    def wait_for_end(self) -> None:
        """Take no more jobs, and wait until the parent has closed the pipe.

        Jobs that the parent still puts into the pipe are not read, and can be reclaimed.
        """
        poll = select.poll()
        poll.register(self._read_fd, 0)
        poll.poll()

    def begin_job(self, job_id: int) -> None:
        """Allow the job to be stopped, by an exception at any line of the main thread.

        :raises JobStopped: the order to stop has already come.
        """
        self._job = job_id
        if self._called:
            self._called = False
            self._look()

    def end_job(self) -> None:
        """Note that no job runs any more."""
        self._job = None

    def go_on(self) -> bool:
        """Get ready for another job after a stopped one; False if this is not possible."""
        if self._torn or not self._writing.acquire(blocking=False):
            return False
        self._writing.release()
        self._job, self._called, self._on_stop = None, False, None
        self.stopped = False
        signal.signal(STOP_SIGNAL, self._signalled)
        return True

    def instead_of_raising(self, on_stop: Callable[[JobStopped], None] | None) -> None:
        """Stop an asynchronous job by a call, with the exception that would have been raised.

        :param on_stop: the function to call; None to raise again.
        """
        self._on_stop = on_stop

    def send_command(self, command: Any, **arguments: object) -> None:
        """Send one of dangad's commands to the parent."""
        strings = command.makeArguments(arguments, None)
        self._write(pack([(COMMAND, command.commandName), *strings.items()]))

    def send_answer(
        self, job_id: int, answer: Answer, usage: bytes = b"0 0 0", marks: int = 0
    ) -> None:
        """Send the answer to the job `job_id`.

        :param usage: the job's resource usage; `usage` and `marks` are as in `workerboxes.DONE`.
        """
        self._write(workerboxes.answer_head(job_id, answer.failed, usage, marks) + answer.body)

    def send_report(self, job_id: int, done: int, total: int, message: str) -> None:
        """Send the client of the job `job_id` its progress."""
        if self.stopped:
            return  # a box may be half written, so nothing more is sent
        strings = Progress.makeArguments(
            {"tag": b"", "done": done, "total": total, "message": message}, None
        )
        del strings[b"tag"]
        self._write(workerboxes.report_head(job_id) + pack(strings.items()))

    def send_part(self, job_id: int, data: bytes) -> None:
        """Send the client of the job `job_id` a part of its result.

        :raises TooLarge: the part is larger than the largest payload.
        """
        strings = Chunk.makeArguments({"tag": b"", "data": data}, None)
        del strings[b"tag"]
        body = pack(strings.items())
        if len(body) > self._max_payload:
            raise TooLarge(
                f"a chunk of {len(data)} bytes, in a box of {len(body)}, where "
                f"{self._max_payload} are the limit"
            )
        if not self.stopped:  # as above
            self._write(workerboxes.part_head(job_id) + body)

    def close_in_fork(self) -> None:
        """Close the pipes in a fork of the worker, which must not use them."""
        for fd in (self._read_fd, self._write_fd, self._wish_fd):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._read_fd = self._write_fd = self._wish_fd = -1

    def _write(self, data: bytes) -> None:
        if os.getpid() != self._owner:
            os._exit(1)  # a fork that has returned from the job function must not use the pipe
        with self._writing:
            if len(data) <= select.PIPE_BUF:
                try:
                    os.write(self._write_fd, data)  # writes all of it or nothing, see pipe(7)
                except BlockingIOError:
                    self._write_large(data)
            else:
                self._write_large(data)

    def _write_large(self, data: bytes) -> None:
        """Write a box in as many steps as it takes, and all of it.

        The job may have set a signal handler that raises, for example to limit time. The box is
        finished before the handler runs: otherwise the parent would take the next box for the rest
        of this one. Only an order to stop is obeyed at once: after it the server reads no more of
        the job.
        """
        view = memoryview(data)
        written: list[int] = []
        raised: BaseException | None = None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            while sum(written) < len(data):
                try:  # by `map`, since between a call and an assignment a handler may be called
                    written.extend(map(os.write, (self._write_fd,), (view[sum(written) :],)))
                except BlockingIOError:  # a job has changed the pipe
                    os.set_blocking(self._write_fd, True)
                except OSError:
                    raise
                except BaseException as error:
                    if self.stopped:
                        self._torn = bool(written)
                        raise
                    raised = raised or error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if raised is not None:
            raise raised

    def _signalled(self, _number: int, _frame: object) -> None:
        if os.getpid() != self._owner:
            return
        if self._job is None:
            self._called = True
        else:
            self._look()

    def _look(self) -> None:
        """Read the orders; stop the running job if one of them says so."""
        with contextlib.suppress(
            OSError, Garbage
        ):  # there is nothing more, or the pipe is not ours
            os.set_blocking(self._wish_fd, False)  # a job may have changed it
            while data := os.read(self._wish_fd, _MAX_WISH):
                self._wishes.feed(data)
        with contextlib.suppress(Garbage):
            while (box := self._wishes.next()) is not None:
                job_id, why = workerboxes.read_stop(bytes(box.raw or workerboxes.PING_BOX))
                if job_id == self._job and not self.stopped:
                    self._stop(why)

    def _stop(self, why: bytes) -> None:
        self.stopped = True
        # The parent repeats its signal until the job has ended. This must not disturb its cleanup.
        signal.signal(STOP_SIGNAL, signal.SIG_IGN)
        exception = _STOPS.get(why, JobCancelled)()
        if self._on_stop is None:
            raise exception
        self._on_stop(exception)


def ignore_signal(_number: int, _frame: object) -> None:
    """Do nothing on a signal; SIG_IGN would be inherited by the programs that jobs start."""


def put_out_of_reach(fd: int) -> int:
    """Duplicate `fd` to a number that no job hits by accident, and that is closed on exec.

    The number is below `OUT_OF_REACH` if the limit of open files is too small.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    bounded = limit != resource.RLIM_INFINITY
    least = min(OUT_OF_REACH, max(limit - _ROOM, 0)) if bounded else OUT_OF_REACH
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def _move(fd: int) -> int:
    """Move the descriptor `fd` out of reach of jobs; its new number."""
    moved = put_out_of_reach(fd)
    os.close(fd)
    return moved
