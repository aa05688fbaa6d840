"""dangad's own AMP commands, by direction; the names of all begin with ``dangad.``.

:mod:`dangad.server.factory` performs what clients send, :mod:`dangad.operators.control` what
operators send. :mod:`dangad.worker` sends what the pool reads from its pipe. Job types are commands
as well, but they belong to the users.
"""

from __future__ import annotations

import signal

from twisted.protocols import amp

from dangad.errors import (
    BadArguments,
    NoAnswer,
    NotFound,
    NotRunning,
    ReloadFailed,
    ShuttingDown,
)
from dangad.wire.values import Blob, Large

PREFIX = b"dangad."

# From client to server.


class Ping(amp.Command):
    """Ask for a sign of life from the server's loop; answered at once, before any job."""

    commandName = b"dangad.Ping"


class Describe(amp.Command):
    """Ask for the job types: a JSON document, described in :mod:`dangad.wire.catalogue`.

    Answered as soon as the first worker has sent its catalogue.
    """

    commandName = b"dangad.Describe"
    response = [(b"catalogue", Large(amp.Unicode()))]


class Cancel(amp.Command):
    """Cancel an earlier request of this connection, named by its ``_ask``.

    Answered at once, and always with success, even if nothing is left to cancel. The cancelled
    request gets its own answer, which is ``CANCELLED`` unless the request has already ended.
    """

    commandName = b"dangad.Cancel"
    arguments = [(b"tag", amp.String())]


# From server to client, for requests that asked with ``_progress`` or ``_chunks``. They are not
# answered, and never come after the request's own answer.


class Progress(amp.Command):
    """The progress of the job of the request `tag`; at most ten a second."""

    commandName = b"dangad.Progress"
    arguments = [
        (b"tag", amp.String()),
        (b"done", amp.Integer()),
        (b"total", amp.Integer()),
        (b"message", amp.Unicode()),
    ]
    requiresAnswer = False


class Chunk(amp.Command):
    """A part of the result of the request `tag`; parts come in the order of the job's calls."""

    commandName = b"dangad.Chunk"
    arguments = [(b"tag", amp.String()), (b"data", Blob())]
    requiresAnswer = False


# From operator to server, over the control endpoint. A document is JSON, in the shape that
# docs/reference/control.md describes and IOperations promises.


class Status(amp.Command):
    """The status of the server, in a document: an object."""

    commandName = b"dangad.control.Status"
    response = [(b"document", Large(amp.Unicode()))]


class Workers(amp.Command):
    """The worker processes, in a document: a list."""

    commandName = b"dangad.control.Workers"
    response = [(b"document", Large(amp.Unicode()))]


_FILTER: list[tuple[bytes, amp.Argument]] = [
    (b"state", amp.Unicode(optional=True)),
    (b"command", amp.Unicode(optional=True)),
    (b"client", amp.Unicode(optional=True)),
    (b"older_than", amp.Float(optional=True)),
]
"""The arguments that say which jobs are meant; all that are given must be true of a job."""
_PAGE: list[tuple[bytes, amp.Argument]] = [
    (b"sort", amp.Unicode(optional=True)),
    (b"limit", amp.Integer(optional=True)),
]
"""The arguments that say in which order, and how many entries, a document has."""


class Jobs(amp.Command):
    """The jobs that wait and run, in a document: an object with a list."""

    commandName = b"dangad.control.Jobs"
    arguments = [*_FILTER, *_PAGE, (b"offset", amp.Integer(optional=True))]
    response = [(b"document", Large(amp.Unicode()))]
    errors = {BadArguments: BadArguments.code}


class Recent(amp.Command):
    """The jobs that ended last, in a document: a list, the latest last."""

    commandName = b"dangad.control.Recent"
    arguments = [*_FILTER, (b"outcome", amp.Unicode(optional=True)), *_PAGE]
    response = [(b"document", Large(amp.Unicode()))]
    errors = {BadArguments: BadArguments.code}


class Job(amp.Command):
    """Everything about the job of this id, in a document: an object."""

    commandName = b"dangad.control.Job"
    arguments = [(b"job", amp.Integer())]
    response = [(b"document", Large(amp.Unicode()))]
    errors = {NotFound: NotFound.code}


class Commands(amp.Command):
    """The numbers of each command's jobs, in a document: a list."""

    commandName = b"dangad.control.Commands"
    response = [(b"document", Large(amp.Unicode()))]


class Clients(amp.Command):
    """The connected clients, in a document: an object with a list."""

    commandName = b"dangad.control.Clients"
    arguments = _PAGE
    response = [(b"document", Large(amp.Unicode()))]
    errors = {BadArguments: BadArguments.code}


class Deaths(amp.Command):
    """The last workers that died, in a document: a list, the latest last."""

    commandName = b"dangad.control.Deaths"
    response = [(b"document", Large(amp.Unicode()))]


class Watch(amp.Command):
    """The events after the one of this number, in a document: an object with a list.

    Without `after`, the events from now on. Answered once there is one, or after some seconds.
    `kinds` are the wanted kinds of events, with commas between them; all kinds by default.
    """

    commandName = b"dangad.control.Watch"
    arguments = [
        (b"after", amp.Integer(optional=True)),
        (b"command", amp.Unicode(optional=True)),
        (b"client", amp.Unicode(optional=True)),
        (b"kinds", amp.Unicode(optional=True)),
    ]
    response = [(b"document", Large(amp.Unicode()))]
    errors = {BadArguments: BadArguments.code}


class Config(amp.Command):
    """The server's options, in a document: an object."""

    commandName = b"dangad.control.Config"
    response = [(b"document", Large(amp.Unicode()))]


class CancelJobs(amp.Command):
    """Cancel jobs: those of these ids, or the oldest that the filter means, at most `most`.

    Answered when each was dealt with, with a document: an object with a result for each.
    """

    commandName = b"dangad.control.Cancel"
    arguments = [
        (b"jobs", amp.ListOf(amp.Integer(), optional=True)),
        *_FILTER,
        (b"most", amp.Integer(optional=True)),
    ]
    response = [(b"document", Large(amp.Unicode()))]
    errors = {BadArguments: BadArguments.code}


class Pause(amp.Command):
    """Start no more jobs of these commands, or of all commands if none is given.

    Answered at once with a document: an object that says what is paused now.
    """

    commandName = b"dangad.control.Pause"
    arguments = [(b"commands", amp.ListOf(amp.Unicode(), optional=True))]
    response = [(b"document", Large(amp.Unicode()))]
    errors = {BadArguments: BadArguments.code, ShuttingDown: ShuttingDown.code}


class Resume(Pause):
    """Start jobs of these commands again, or of all commands if none is given."""

    commandName = b"dangad.control.Resume"


class Shutdown(amp.Command):
    """Stop the server as SIGTERM does, or, with `now`, as a second SIGTERM; answered at once."""

    commandName = b"dangad.control.Shutdown"
    arguments = [(b"now", amp.Boolean(optional=True))]


class Scale(amp.Command):
    """Keep at least `min` and at most `max` workers from now on.

    Answered at once. With `force`, even if the machine has no room for so many.
    """

    commandName = b"dangad.control.Scale"
    arguments = [
        (b"min", amp.Integer()),
        (b"max", amp.Integer()),
        (b"force", amp.Boolean(optional=True)),
    ]
    errors = {BadArguments: BadArguments.code, ShuttingDown: ShuttingDown.code}


class Want(Scale):
    """The name that :class:`Scale` had before: programs that send it are still answered."""

    commandName = b"dangad.control.Want"


class Pardon(amp.Command):
    """End the quarantine of a command at once; an error if the command is in none."""

    commandName = b"dangad.control.Pardon"
    arguments = [(b"command", amp.Unicode())]
    errors = {BadArguments: BadArguments.code}


class Stack(amp.Command):
    """The Python stack of the running job of this id, as text of many lines."""

    commandName = b"dangad.control.Stack"
    arguments = [(b"job", amp.Integer())]
    response = [(b"stack", Large(amp.Unicode()))]
    errors = {NotRunning: NotRunning.code, NoAnswer: NoAnswer.code}


class Reload(amp.Command):
    """Replace the workers by workers that import the job modules anew; answered afterwards."""

    commandName = b"dangad.control.Reload"
    errors = {ReloadFailed: ReloadFailed.code, ShuttingDown: ShuttingDown.code}


class Drain(amp.Command):
    """Take no new jobs, finish those accepted, and stop the server.

    Answered when these jobs have ended, with a document: an object that counts the ends.
    """

    commandName = b"dangad.control.Drain"
    response = [(b"document", Large(amp.Unicode()))]


# From worker to parent, over the pipe. They are not answered, and the command's name comes first in
# the box. The pipe's other boxes are in dangad.wire.workerboxes.


class Hello(amp.Command):
    """The worker has imported its job modules, and is ready for its first job.

    `cpu` is the CPU time of the import, in microseconds. `shared` is the number of bytes that the
    worker had when it was forked from a template with the job modules: it shares this memory with
    the other forks.
    """

    commandName = b"dangad.Hello"
    arguments = [
        (b"catalogue", Large(amp.Unicode())),
        (b"cpu", amp.Integer()),
        (b"shared", amp.Integer(optional=True)),
    ]
    requiresAnswer = False


class LastWords(amp.Command):
    """The worker is about to exit. The reason is one line that continues "worker 4711 ..."."""

    commandName = b"dangad.LastWords"
    arguments = [(b"reason", amp.Unicode())]
    requiresAnswer = False


TEMPLATE_ORDERS = 3
"""The descriptor of the socket over which a template gets its orders, and reports."""
TEMPLATE_READY = b"ready"
"""A template's report that it can fork workers."""
TEMPLATE_NEVER = b"never"
"""A template's report that it will never be able to fork workers; the reason follows."""
TEMPLATE_UNSHAREABLE = b"unshareable"
"""A template's report that the job modules that it has imported forbid forks; the reason
follows."""
TEMPLATE_BROKEN = b"broken"
"""A template's report that it could not import the job modules; the reason follows."""
STOP_SIGNAL = signal.SIGURG
"""The signal that makes a worker look for a :data:`~dangad.wire.workerboxes.STOP` while a job runs.

By default this signal is ignored. So it does no harm to a worker that has not set its handler yet,
nor to a program that a job has started.
"""
STACK_SIGNAL = signal.SIGWINCH
"""The signal that makes a worker print its stack, even in a busy loop; ignored by default."""
