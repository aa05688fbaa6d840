"""dangad's client for Twisted programs: :func:`connect`, and the :class:`Client` that it returns.

A job's way begins and ends here. :meth:`Client.run` makes a box of a command and its arguments, and
sends it to :mod:`dangad.server.factory`. The answer becomes a dict again, or the exception for its
code. :meth:`Client.stream` returns a job's partial results as they come. :mod:`dangad.cli` is built
on this.

Stock Twisted can call a job without this module (``amp.AMP().callRemote(Command, ...)``). This
client adds priorities, deadlines, cancelling, progress, the error classes of
:mod:`dangad.errors`, and bounds on the memory that a server can make it use.

- :mod:`.factory`: how a connection is made.
- :mod:`.connection`: one connection, with the methods for users.
- :mod:`.requests`: the requests under way over a connection.
- :mod:`.calls`: turns commands into boxes, and boxes into answers.
- :mod:`.streams`: a job's partial results, until they are read.
- :mod:`.tracecontext`: the trace that a call belongs to.
"""

from __future__ import annotations

# Without `__all__`, so that the API pages have each name once: in `dangad`, or in its module.
from dangad.client.connection import MAX_PAYLOAD as MAX_PAYLOAD
from dangad.client.connection import Client as Client
from dangad.client.factory import DEFAULT_ENDPOINT as DEFAULT_ENDPOINT
from dangad.client.factory import ClientFactory as ClientFactory
from dangad.client.factory import connect as connect
from dangad.client.requests import Disconnected as Disconnected
from dangad.client.requests import NotSent as NotSent
