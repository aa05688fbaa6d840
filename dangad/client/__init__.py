"""dangad's client for Twisted programs: :func:`connect`, and the :class:`Client` that it gives.

The two ends of a job's way: :meth:`Client.run` makes a box of a command and its arguments and
sends it to :mod:`dangad.server`; the answer becomes a dict again, or the exception that its code
stands for. :mod:`dangad.cli` is built on this. Nothing here is needed to call a job from stock
Twisted (``amp.AMP().callRemote(Command, ...)``); what this adds is priorities, deadlines,
cancelling, the error classes of :mod:`dangad.errors`, and bounds on what a server can make it hold.
"""

from __future__ import annotations

import itertools
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IFileDescriptorReceiver, ITCPTransport, IUNIXTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from zope.interface import implementer

from dangad import commands, wire
from dangad.client.calls import Call, prepare
from dangad.errors import BadResponse, TooLarge, UnhandledCommand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
    from twisted.protocols import amp
    from twisted.python.failure import Failure

    from dangad.jobrecord import Priority

DEFAULT_ENDPOINT = "unix:dangad.sock"
"""Where a server started with the defaults, from the same directory, is found."""
MAX_PAYLOAD = 64 * 2**20
"""Bytes of the largest answer that is taken; the default of the server's option, too."""
ENVELOPE = 1024
"""Bytes that the server may put around an answer, which its own limit does not count."""
SMALL = 2**16
"""Bytes up to which a request is joined with its tag, to be written in one piece."""

_WANTED = frozenset({wire.ASK, wire.COMMAND, wire.ANSWER, wire.ERROR})


class Disconnected(ConnectionError):
    """The connection was closed before the answer came; whether the job ran is unknown.

    The server ends the jobs of a client that disconnects, unless their type says that they
    finish; but it may have ended this one before. Send the request again, over a new connection,
    if the job may safely run twice.
    """


class NotSent(Disconnected):
    """The connection was closed before the request could be sent; nothing ran.

    It may be sent again over a new connection.
    """


def connect(
    reactor: Any,
    endpoint: str | IStreamClientEndpoint = DEFAULT_ENDPOINT,
    *,
    max_payload: int = MAX_PAYLOAD,
) -> Deferred[Client]:
    """A client of the server at `endpoint`.

    Fires with a :class:`Client` once the connection is made. Fails with what the endpoint fails
    with (a :class:`twisted.internet.error.ConnectError`, mostly), or with a ValueError or
    TypeError if the endpoint's description cannot be read. Cancelling it gives up connecting.

    The connection is made once. When it is lost, the client is of no more use: see
    :class:`ClientFactory` for one that comes back, and for why that is not done here.

    :param endpoint: a Twisted client endpoint, or its description, like ``unix:dangad.sock`` or
        ``tcp:localhost:7003``.
    :param max_payload: bytes of the largest answer to take; like the server's ``--max-payload``.
    """
    try:
        target = clientFromString(reactor, endpoint) if isinstance(endpoint, str) else endpoint
        return cast("Deferred[Client]", target.connect(ClientFactory(max_payload)))
    except Exception:  # noqa: BLE001 - what is wrong with an endpoint is said by anybody's code
        return defer.fail()


class ClientFactory(Factory):
    """Makes a :class:`Client` for each connection; for endpoints and for Twisted's ClientService.

    A client does not reconnect. Only its user knows what is to become of the jobs whose answers
    were lost with the connection: one may be sent again, another must not run twice, a third is
    of no use any more. So a lost connection is told to whoever waits for an answer, as
    :class:`Disconnected`, and a new connection is a new client. Twisted's service makes them::

        from twisted.application.internet import ClientService
        from twisted.internet.endpoints import clientFromString

        service = ClientService(
            clientFromString(reactor, "tcp:jobs.example.com:7003"), dangad.client.ClientFactory()
        )
        service.startService()
        ...
        client = await service.whenConnected()  # for each job: the client of the moment
        answer = await client.run(Thumbnail, image=image, width=200)
    """

    noisy = False

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        """Remember the size in bytes of the largest answer that clients take."""
        self._max_payload = max_payload

    def buildProtocol(self, addr: IAddress | None) -> Client:
        """A client for a new connection."""
        client = Client(self._max_payload)
        client.factory = self
        return client


@implementer(IFileDescriptorReceiver)
class Client(Protocol):
    """One connection to a server, over which any number of jobs may be under way.

    Every method that returns a Deferred may be called at any time and raises nothing; once the
    connection is closed, those Deferreds fail with :class:`NotSent`.

    Requests are written at once. The server stops reading a connection with too many requests
    in flight (``--max-in-flight``), and what is sent beyond that waits in this process's memory:
    a program with very many jobs should have a bounded number of them under way.

    All mutable state: `_pending`, by tag, each request under way with its Deferred, or None in
    place of both if that was cancelled and the server's answer is still to come; `_closed`, why
    the connection cannot be used any more, None while it can; `_open`, whether there is one;
    `_watchers`, who waits to be told of its end.
    """

    transport: ITCPTransport

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        self._reader = wire.BoxReader(max_payload + ENVELOPE, _WANTED)
        self._next_tag = itertools.count(1).__next__
        self._pending: dict[bytes, tuple[Call, Deferred[Any]] | None] = {}
        self._open = False
        self._closed: str | None = "there is no connection yet"
        self._watchers: list[Deferred[Disconnected]] = []

    # For users.

    def run(
        self,
        command: type[amp.Command],
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        priority: Priority | Literal["high", "normal", "low"] | None = None,
        deadline: float | None = None,
        **more: Any,
    ) -> Deferred[dict[str, Any]]:
        """The answer of one job, as a dict of its command's response.

        The command's arguments are given by keyword: ``run(Sleep, seconds=2.5)``. The keywords
        `priority` and `deadline` are dangad's own; a command with arguments of these names takes
        them, or all its arguments, in a dict: ``run(Paint, {"priority": 3}, deadline=60, ...)``.
        (Later versions may have more such options. A command of whose arguments one is named
        like an option never loses it unnoticed: without the dict, that is `BadArguments`.)

        Fires with the response; with None, at once, if the command is declared with
        ``requiresAnswer = False``.

        Fails with an error that the command declares; with the class of :mod:`dangad.errors` that
        tells what else befell the job, `UnhandledCommand` among them; with
        :class:`twisted.protocols.amp.RemoteAmpError`, which keeps the code, if that is known to
        neither; with :class:`Disconnected` if the connection is lost, or :class:`NotSent` if it
        was lost before. Arguments that cannot be sent fail at once with `BadArguments`, an answer
        that the command does not declare with `BadResponse`, and one that is larger than this
        client takes with `TooLarge`.

        Cancelling it asks the server to cancel the job and fails with
        :class:`twisted.internet.defer.CancelledError` at once; the server's answer, whatever it
        is, is dropped when it comes.

        :param command: the job type's command.
        :param arguments: arguments of the command, by their Python names.
        :param priority: which jobs go first; the server takes none for "normal".
        :param deadline: seconds from now after which the answer is of no use: a job that waits
            by then never starts, one that runs is stopped. Less than 0 counts as 0.
        :param more: more arguments of the command.
        """
        try:
            call = prepare(command)
            request = call.request({**arguments, **more} if arguments else more)
            start = call.start
            if priority is not None or deadline is not None:
                start += call.options(priority, deadline, arguments is not None)
        except Exception:  # noqa: BLE001 - BadArguments, or the command is no command
            return defer.fail()
        if self._closed is not None:
            return defer.fail(
                NotSent(f"{call.name} was not sent: the connection is closed ({self._closed})")
            )
        if not command.requiresAnswer:
            self._write(start, request)
            return cast("Deferred[dict[str, Any]]", defer.succeed(None))
        tag = b"%d" % self._next_tag()
        answer: Deferred[dict[str, Any]] = defer.Deferred(partial(self._cancel, tag))
        self._pending[tag] = call, answer
        self._write(wire.pair(wire.ASK, tag) + start, request)
        return answer

    def describe(self) -> Deferred[dict[str, Any]]:
        """The job types that the server performs: the catalogue of :mod:`dangad.schema`.

        Fires with the document as soon as the server's first worker has told it. Fails with
        `ShuttingDown` if there will be none, and otherwise like :meth:`run`. Cancelling it drops
        the answer.
        """
        return self.run(commands.Describe).addCallback(_parse_catalogue)

    def ping(self) -> Deferred[None]:
        """Whether the server is there and its loop turns.

        Fires with None when the server has answered, ahead of any job. Fails like :meth:`run`.
        Cancelling it drops the answer.
        """
        return self.run(commands.Ping).addCallback(_nothing)

    def close(self) -> Deferred[None]:
        """Close the connection, and give up the jobs under way.

        Those fail with :class:`Disconnected`, and the server ends them as their types say. If
        there are none, what was written is sent first. Fires with None when the connection is
        closed, at once if it is already. Never fails. Cancelling it ends the wait and no more.
        """
        if self._closed is None:
            self._closed = "closed by the client"
            if self._pending:
                self.transport.abortConnection()
            else:
                self.transport.loseConnection()
        return self.when_disconnected().addBoth(_nothing)

    def when_disconnected(self) -> Deferred[Disconnected]:
        """The end of the connection, whoever brings it about; may be asked for at any time.

        Fires with a :class:`Disconnected` that tells why, at once if there is no connection any
        more. Fails only when cancelled, which ends the wait and no more.
        """
        if self._closed is not None and not self._open:
            return defer.succeed(Disconnected(f"the connection is closed ({self._closed})"))
        watcher: Deferred[Disconnected] = defer.Deferred(self._forget_watcher)
        self._watchers.append(watcher)
        return watcher

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin; small requests are not held back to be sent with later ones."""
        self._open = True
        self._closed = None
        transport: Any = self.transport
        # Twisted's transports for UNIX sockets say that they are TCP's, too.
        if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)  # else a server that vanished is never missed

    def dataReceived(self, data: bytes) -> None:
        """Take the server's bytes."""
        if self._closed is not None:
            return
        self._reader.feed(data)
        try:
            self._take_boxes()
        except wire.Garbage as garbage:
            self._closed = f"the server sent {garbage}"
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is under way, and tell who watches."""
        self._open = False
        if self._closed is None:
            self._closed = reason.getErrorMessage().rstrip(".")
        for tag in list(self._pending):  # taken off one by one: their callbacks may cancel others
            request = self._pending.pop(tag)
            if request is not None:
                call, answer = request
                answer.errback(
                    Disconnected(
                        f"the connection was closed before the answer to {call.name} came, and "
                        f"whether it ran is unknown ({self._closed})"
                    )
                )
        while self._watchers:
            watcher = self._watchers.pop(0)
            watcher.callback(Disconnected(f"the connection is closed ({self._closed})"))

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close a descriptor that came over a UNIX socket: no job answers with one."""
        os.close(descriptor)

    # Boxes.

    def _take_boxes(self) -> None:
        """Read the boxes that have come, as long as what they bring about leaves us connected."""
        while self._closed is None and (box := self._reader.next()) is not None:
            self._box_received(box)

    def _box_received(self, box: wire.Box) -> None:
        failed = False
        tag = box.keys.get(wire.ANSWER)
        if tag is None:
            tag = box.keys.get(wire.ERROR)
            failed = True
        if tag is None:
            self._asked(box)
            return
        if tag not in self._pending:
            raise wire.Garbage(f"an answer to {tag[:40]!r}, which was not asked or is answered")
        request = self._pending.pop(tag)
        if request is None:
            return
        call, answer = request
        if box.raw is None:
            answer.errback(
                TooLarge(
                    f"the answer to {call.name} is {box.size} bytes, and this client takes "
                    f"{self._max_payload} (max_payload)"
                )
            )
            return
        strings = wire.unpack(box.raw)
        if failed:
            answer.errback(call.error(strings))
            return
        try:
            response = call.response(strings)
        except BadResponse as error:
            answer.errback(error)
        else:
            answer.callback(response)

    def _asked(self, box: wire.Box) -> None:
        """Decline what the server asks; what wants no answer is a newer server's, and ignored."""
        if wire.COMMAND not in box.keys:
            raise wire.Garbage("a box that is neither an answer nor a request")
        tag = box.keys.get(wire.ASK)
        if tag is not None:
            error = wire.error_pairs(UnhandledCommand.code, "a client performs no commands")
            self.transport.write(wire.pair(wire.ERROR, tag) + wire.pack(error))

    def _write(self, start: bytes, rest: bytes) -> None:
        if len(rest) <= SMALL:
            self.transport.write(start + rest)
        else:
            self.transport.writeSequence((start, rest))

    def _cancel(self, tag: bytes, answer: Deferred[Any]) -> None:
        """Have the request cancelled by the server, and drop its answer."""
        self._pending[tag] = None
        if self._closed is None:
            pairs = [(wire.COMMAND, commands.Cancel.commandName), (b"tag", tag)]
            self.transport.write(wire.pack(pairs))

    def _forget_watcher(self, watcher: Deferred[Disconnected]) -> None:
        self._watchers.remove(watcher)


def _parse_catalogue(response: dict[str, Any]) -> dict[str, Any]:
    catalogue: dict[str, Any] = json.loads(response["catalogue"])
    return catalogue


def _nothing(_: object) -> None:
    return None
