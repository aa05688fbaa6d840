"""dangad's own AMP commands, by direction; the names of all begin with ``dangad.``.

:mod:`dangad.server` performs what clients send, :mod:`dangad.worker` sends what the pool's
end of its pipe reads. Job types are commands too, but those are the users'.
"""

from __future__ import annotations

from twisted.protocols import amp

from dangad.wire import Large

PREFIX = b"dangad."

# From client to server.


class Ping(amp.Command):
    """Ask whether the server's loop turns; answered at once, ahead of any job."""

    commandName = b"dangad.Ping"


class Describe(amp.Command):
    """Ask for the job types: a JSON document, described in :mod:`dangad.schema`.

    Answered as soon as the first worker has told what it performs.
    """

    commandName = b"dangad.Describe"
    response = [(b"catalogue", Large(amp.Unicode()))]


class Cancel(amp.Command):
    """Cancel an earlier request of this connection, named by its ``_ask``.

    Answered at once and always with success: there may be nothing left to cancel. The
    cancelled request gets its own answer, which is ``CANCELLED`` unless it ended before.
    """

    commandName = b"dangad.Cancel"
    arguments = [(b"tag", amp.String())]


# From worker to parent, over the pipe; none is answered.


class Hello(amp.Command):
    """The worker has imported its job modules and is ready for its first job."""

    commandName = b"dangad.Hello"
    arguments = [(b"catalogue", Large(amp.Unicode()))]
    requiresAnswer = False


class BootFailed(amp.Command):
    """The worker cannot perform jobs, for a reason in one line, and is about to exit."""

    commandName = b"dangad.BootFailed"
    arguments = [(b"reason", amp.Unicode())]
    requiresAnswer = False


# The pipe's two boxes that are no AMP commands, because a job is passed on as it came. Each
# begins with a pair of its own, and the rest of the box is the client's or the job's.

RUN = b"_run"
"""Parent to worker, first key of the client's own box: "<job id> <attempt>"."""
DONE = b"_done"
"""Worker to parent, first key of a result: the job id."""
FAILED = b"_failed"
"""Worker to parent, first key of an error: the job id."""

WORKER_KEYS = frozenset({DONE, FAILED, b"_command"})
"""The reserved keys that the parent reads in what a worker sends."""
