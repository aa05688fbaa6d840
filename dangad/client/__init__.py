"""dangad's client for Twisted programs: :func:`connect`, and the :class:`Client` that it gives.

The two ends of a job's way: :meth:`Client.run` makes a box of a command and its arguments and sends
it to :mod:`dangad.server.factory`; the answer becomes a dict again, or the exception that its code
stands for. :meth:`Client.stream` gives a job's partial results as they come. :mod:`dangad.cli` is
built on this. Nothing here is needed to call a job from stock Twisted
(``amp.AMP().callRemote(Command, ...)``); what this adds is priorities, deadlines, cancelling,
progress, the error classes of :mod:`dangad.errors`, and bounds on what a server can make it hold.

- :mod:`.factory`: how a connection is made.
- :mod:`.connection`: one connection, with what users call on it.
- :mod:`.requests`: what is under way over it.
- :mod:`.calls`: commands into boxes, and answers out of them.
- :mod:`.streams`: a job's partial results, until they are read.
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
