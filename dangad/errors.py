"""Every error that a client or an operator can meet, one class each, with its AMP error code.

The server sends the code and the text; :mod:`dangad.client` turns the code back into the
class. A client of stock Twisted gets these classes if its command declares them, as in
``errors = {**dangad.ERRORS, MyError: b"MY_ERROR"}``. Otherwise it gets an ``UnknownRemoteError``
with the text alone.

Each docstring says what happened, to which job, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class DangadError(Exception):
    """The base class of all errors that dangad itself reports; never raised itself."""

    code: ClassVar[bytes] = b""


class JobFailed(DangadError):
    """The job function raised an exception that its command does not declare.

    The text is the exception's type and message; the traceback is in the server's log under
    the job's id. Declare the exception in the command's ``errors`` if clients should tell it
    from others.
    """

    code = b"JOB_FAILED"


class BadArguments(DangadError):
    """The request could not be read: an argument or a reserved key is missing or malformed.

    Nothing ran. Correct the request; sending it again unchanged cannot help.
    """

    code = b"BAD_ARGUMENTS"


class BadResponse(DangadError):
    """The job function ran to its end, but its response is not what its command declares.

    What the job did is done. Correct the job function or the command's ``response``.
    """

    code = b"BAD_RESPONSE"


class TimedOut(DangadError):
    """The job ran for longer than its type's time limit and was stopped."""

    code = b"TIMED_OUT"


class DeadlinePassed(DangadError):
    """The request's deadline passed, while the job waited or while it ran, and it was stopped."""

    code = b"DEADLINE_PASSED"


class Cancelled(DangadError):
    """The job was cancelled by its client or by an operator before it ended.

    It never ran, or its process is gone; the text says which.
    """

    code = b"CANCELLED"


class WorkerLost(DangadError):
    """The worker process died while it ran this job; how far the job came is unknown.

    The text says which signal or exit status ended the worker. The job is not run again unless
    its type allows retries. A new worker takes the place of the old one.
    """

    code = b"WORKER_LOST"


class QueueFull(DangadError):
    """The server holds as much work as it may, and refused this request at once.

    Nothing ran. Wait and try again, or raise the limit that the text names.
    """

    code = b"QUEUE_FULL"


class NoWorkers(DangadError):
    """No worker may or can take the job, for the reason in the text.

    Either no worker can be started: the server goes on trying, and recovers by itself. Or the
    command has killed too many workers in a row, and is kept away from them for a while.
    """

    code = b"NO_WORKERS"


class ShuttingDown(DangadError):
    """The server is stopping and takes no new jobs, or it stopped before this one could end."""

    code = b"SHUTTING_DOWN"


class TooLarge(DangadError):
    """The request or the answer is larger than the server's ``--max-payload``."""

    code = b"TOO_LARGE"


class Forbidden(DangadError):
    """The server takes no connections of this user, or does not know whose connection this is.

    Nothing ran. Connect as the user that the server runs as, or ask its operator to admit you:
    ``--allow-users``, ``--allow-groups``, or a ``mode=`` for its UNIX socket.
    """

    code = b"FORBIDDEN"


class UnhandledCommand(DangadError):
    """No worker performs a command of this name; the code is AMP's own.

    Compare with ``dangad commands``, and with the modules given to ``--jobs``.
    """

    code = b"UNHANDLED"


class NotRunning(DangadError):
    """No job with the id that an operator named is running: it waits, has ended, or never existed.

    Only operators meet it. ``dangad workers`` shows the running jobs with their ids.
    """

    code = b"NOT_RUNNING"


class NotFound(DangadError):
    """No job with the id that an operator named waits, runs, or is among the last that have ended.

    Only operators meet it. The server remembers the last thousand jobs that have ended.
    """

    code = b"NOT_FOUND"


class NoAnswer(DangadError):
    """A worker has not answered an operator's question in time; the text says in which state it is.

    Only operators meet it. A process that was stopped answers once it is continued; one that waits
    for a disk or has very much to do may answer if it is asked again.
    """

    code = b"NO_ANSWER"


class ReloadFailed(DangadError):
    """The new code cannot be served, for the reason in the text; the old workers go on.

    Only operators meet it. Correct the code, and reload again. If a worker dies before that, its
    replacement meets the same fault.
    """

    code = b"RELOAD_FAILED"


ERRORS: dict[type[Exception], bytes] = {
    error: error.code
    for error in (
        JobFailed,
        BadArguments,
        BadResponse,
        TimedOut,
        DeadlinePassed,
        Cancelled,
        WorkerLost,
        QueueFull,
        NoWorkers,
        ShuttingDown,
        TooLarge,
        Forbidden,
    )
}
"""The errors that clients can meet, with their AMP codes, in the form of ``amp.Command.errors``."""
