"""One connection to a server, as its user has it: every call becomes a request box.

Made by :mod:`dangad.client.factory`. :mod:`dangad.client.calls` makes the boxes' bytes, and
:mod:`dangad.client.requests` knows what is under way.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer
from twisted.internet.interfaces import IFileDescriptorReceiver, ITCPTransport, IUNIXTransport
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from dangad.client.calls import prepare
from dangad.client.requests import Disconnected, NotSent, Requests
from dangad.client.streams import Parts, Stream
from dangad.errors import BadArguments, UnhandledCommand
from dangad.limits import DEFAULTS
from dangad.waiters import Waiters
from dangad.wire import boxes, commands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IPushProducer
    from twisted.protocols import amp
    from twisted.python.failure import Failure

    from dangad.wire.values import Priority

    class _StreamTransport(ITCPTransport, IPushProducer):
        """What is asked of the transport, TCP or not."""


MAX_PAYLOAD = DEFAULTS.max_payload
"""Bytes of the largest answer that is taken; the default of the server's option, too."""
ENVELOPE = 1024
"""Bytes that the server may put around an answer, which its own limit does not count."""
SMALL = 2**16
"""Bytes up to which a request is joined with its tag, to be written in one piece."""

_WANTED = frozenset({boxes.ASK, boxes.COMMAND, boxes.ANSWER, boxes.ERROR})
_NO_OPTIONS = (None, None, None)
_CHUNKS = boxes.pair(boxes.CHUNKS, b"1")


@implementer(IFileDescriptorReceiver)
class Client(Protocol):
    """One connection to a server, over which any number of jobs may be under way.

    Every method that returns a Deferred may be called at any time and raises nothing; once the
    connection is closed, those Deferreds fail with :class:`NotSent`.

    Requests are written at once. The server stops reading a connection with too many requests
    in flight (``--max-in-flight``), and what is sent beyond that waits in this process's memory:
    a program with very many jobs should have a bounded number of them under way.
    """

    transport: _StreamTransport

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        self._reader = boxes.BoxReader(max_payload + ENVELOPE, _WANTED)
        self._requests = Requests(max_payload, self._cancel)
        #: The streams with so many unread chunks that the connection is not read.
        self._full: set[Parts] = set()
        #: Whether there is a connection.
        self._open = False
        #: Why the connection cannot be used; None while it can.
        self._closed: str | None = "there is no connection yet"
        #: Who waits for its end.
        self._watchers: Waiters[Disconnected] = Waiters()

    # For users.

    def run(
        self,
        command: type[amp.Command],
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        priority: Priority | Literal["high", "normal", "low"] | None = None,
        deadline: float | None = None,
        progress: Callable[[int, int, str], object] | None = None,
        **more: Any,
    ) -> Deferred[dict[str, Any]]:
        """The answer of one job, as a dict of its command's response.

        The command's arguments are given by keyword: ``run(Sleep, seconds=2.5)``. The keywords
        `priority`, `deadline` and `progress` are dangad's own; a command with arguments of these
        names takes them, or all its arguments, in a dict:
        ``run(Paint, {"priority": 3}, deadline=60, ...)``.
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
        :param progress: what to call with what is done, the total and a message, each time that
            the job tells of its progress: ten times a second at most, and never after the answer.
            An exception that it raises is logged.
        :param more: more arguments of the command.
        """
        if arguments:
            more = {**arguments, **more}
        options = priority, deadline, progress
        return self._ask(command, more, options, arguments is not None, None)

    def stream(
        self,
        command: type[amp.Command],
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        priority: Priority | Literal["high", "normal", "low"] | None = None,
        deadline: float | None = None,
        progress: Callable[[int, int, str], object] | None = None,
        **more: Any,
    ) -> Stream:
        """The partial results of one job, as they come, and its response.

        The job is asked for at once. What comes is read by ``async for`` in a coroutine of
        Twisted's, see :class:`dangad.client.streams.Stream`::

            async for chunk in client.stream(ReadFile, path="big.iso"):
                copy.write(chunk)

        Arguments and options are those of :meth:`run`. What :meth:`run` fails with, the iterator
        raises. A job that sends no partial results gives a stream of none, and its response.

        A slow reader slows the job: when more than a megabyte or so waits unread, the client
        stops reading its connection, and in the end the job waits with its next chunk. What other
        calls of this same client wait for comes over that connection, too, and waits with it. So
        do not await another call of this client in the loop over a stream, nor read two of its
        streams one after the other: that could wait for ever. Connect a second client for that.
        A server cuts off a client that reads nothing for five minutes.
        """
        if arguments:
            more = {**arguments, **more}
        options = priority, deadline, progress
        parts = Parts(self._set_pace)
        parts.belong_to(self._ask(command, more, options, arguments is not None, parts))
        return Stream(parts)

    def _ask(
        self,
        command: type[amp.Command],
        arguments: dict[str, Any],
        options: tuple[Any, float | None, Callable[[int, int, str], object] | None],
        apart: bool,
        parts: Parts | None,
    ) -> Deferred[dict[str, Any]]:
        """The answer to one request, for :meth:`run` and :meth:`stream`."""
        try:
            call = prepare(command)
            request = call.request(arguments)
            start = call.start
            if options != _NO_OPTIONS:
                start += call.options(*options, apart)
            if parts is not None:
                if not command.requiresAnswer:
                    raise BadArguments(f"{call.name} wants no answer, so there is none to stream")
                start += _CHUNKS
        except Exception:  # noqa: BLE001 - BadArguments, or the command is no command
            return defer.fail()
        if self._closed is not None:
            return defer.fail(
                NotSent(f"{call.name} was not sent: the connection is closed ({self._closed})")
            )
        if not command.requiresAnswer:
            self._write(start, request)
            return cast("Deferred[dict[str, Any]]", defer.succeed(None))
        tag, answer = self._requests.begin(call, options[2], parts)
        self._write(boxes.pair(boxes.ASK, tag) + start, request)
        return answer

    def describe(self) -> Deferred[dict[str, Any]]:
        """The job types that the server performs: the catalogue of :mod:`dangad.wire.catalogue`.

        Fires with the document as soon as the server's first worker has told it. Fails with
        `ShuttingDown` if there will be none, and otherwise like :meth:`run`. Cancelling it drops
        the answer.
        """
        return self.run(commands.Describe).addCallback(_parse_catalogue)

    def ping(self) -> Deferred[None]:
        """Whether the server is there and its loop turns.

        Fires with None when the server has answered, before any job. Fails like :meth:`run`.
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
            if self._requests:
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
        return self._watchers.wait()

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
        except boxes.Garbage as garbage:
            self._closed = f"the server sent {garbage}"
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is under way, and tell who watches."""
        self._open = False
        if self._closed is None:
            self._closed = reason.getErrorMessage().rstrip(".")
        self._requests.disconnected(self._closed)
        self._watchers.tell(Disconnected(f"the connection is closed ({self._closed})"))

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close a descriptor that came over a UNIX socket: no job answers with one."""
        os.close(descriptor)

    # Boxes.

    def _take_boxes(self) -> None:
        """Read the boxes that have come, as long as what they bring about leaves us connected."""
        while self._closed is None and (box := self._reader.next()) is not None:
            self._box_received(box)

    def _box_received(self, box: boxes.Box) -> None:
        failed = False
        tag = box.keys.get(boxes.ANSWER)
        if tag is None:
            tag = box.keys.get(boxes.ERROR)
            failed = True
        if tag is None:
            self._asked(box)
            return
        self._requests.answered(tag, failed, box)

    def _asked(self, box: boxes.Box) -> None:
        """Take news of a request; decline all else that the server asks.

        What wants no answer is a newer server's, and ignored.
        """
        command = box.keys.get(boxes.COMMAND)
        tag = box.keys.get(boxes.ASK)
        if command is None:
            raise boxes.Garbage("a box that is neither an answer nor a request")
        if tag is None and command == commands.Chunk.commandName:
            self._requests.chunk_came(box)
        elif tag is None and command == commands.Progress.commandName:
            self._requests.progress_came(box)
        elif tag is not None:
            error = boxes.error_pairs(UnhandledCommand.code, "a client performs no commands")
            self.transport.write(boxes.pair(boxes.ERROR, tag) + boxes.pack(error))

    def _set_pace(self, parts: Parts) -> None:
        """Read the connection, or do not, as the unread chunks of its streams allow it."""
        before = bool(self._full)
        (self._full.add if parts.full else self._full.discard)(parts)
        if not self._open or bool(self._full) == before:
            return
        if self._full:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def _write(self, start: bytes, rest: bytes) -> None:
        if len(rest) <= SMALL:
            self.transport.write(start + rest)
        else:
            self.transport.writeSequence((start, rest))

    def _cancel(self, tag: bytes) -> None:
        """Have the request cancelled by the server."""
        if self._closed is None:
            pairs = [(boxes.COMMAND, commands.Cancel.commandName), (b"tag", tag)]
            self.transport.write(boxes.pack(pairs))


def _parse_catalogue(response: dict[str, Any]) -> dict[str, Any]:
    catalogue: dict[str, Any] = json.loads(response["catalogue"])
    return catalogue


def _nothing(_: object) -> None:
    return None
