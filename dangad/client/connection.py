"""One connection to a server, with the methods for users: every call becomes a request box.

Made by :mod:`dangad.client.factory`. :mod:`dangad.client.calls` makes the boxes' bytes, and
:mod:`dangad.client.requests` keeps the requests under way.
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
from dangad.client.tracecontext import present_trace
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
        """What a client needs of its transport, TCP or not."""


MAX_PAYLOAD = DEFAULTS.max_payload
"""Bytes of the largest answer that is accepted by default; the same as the server's default."""
ENVELOPE = 1024
"""Bytes that the server may add to an answer beyond its limit."""
SMALL = 2**16
"""Bytes up to which a request is joined with its tag and written in one piece."""

_WANTED = frozenset({boxes.ASK, boxes.COMMAND, boxes.ANSWER, boxes.ERROR})
_NO_OPTIONS = (None, None, None, None)
_CHUNKS = boxes.pair(boxes.CHUNKS, b"1")


@implementer(IFileDescriptorReceiver)
class Client(Protocol):
    """One connection to a server, over which any number of jobs may be under way.

    Methods that return a Deferred may be called at any time and never raise. When the connection is
    closed, the Deferreds of new calls fail with :class:`NotSent`.

    Requests are written at once. The server stops reading a connection with too many requests in
    flight (``--max-in-flight``); further requests then wait in this process's memory. A program
    with very many jobs should bound the number that is under way.
    """

    transport: _StreamTransport

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        self._reader = boxes.BoxReader(max_payload + ENVELOPE, _WANTED)
        self._requests = Requests(max_payload, self._cancel)
        #: The streams with too many unread chunks. While there are any, nothing is read.
        self._full: set[Parts] = set()
        #: Whether there is a connection.
        self._open = False
        #: Why the connection cannot be used; None while it can.
        self._closed: str | None = "there is no connection yet"
        #: The Deferreds that wait for the end of the connection.
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
        traceparent: str | None = None,
        **more: Any,
    ) -> Deferred[dict[str, Any]]:
        """Run one job; the answer is a dict of its command's response.

        Give the command's arguments by keyword: ``run(Sleep, seconds=2.5)``. The keywords
        `priority`, `deadline`, `progress` and `traceparent` are dangad's own. If a command
        has an argument of one of these names, give it in a dict: ``run(Paint, {"priority": 3},
        deadline=60, ...)``. (Later versions may have more options. An argument with the name of an
        option never gets lost unnoticed: outside of a dict it fails with `BadArguments`.)

        Fires with the response, by Python names. If the command is declared with
        ``requiresAnswer = False``, fires with None at once.

        Fails with

        - an error that the command declares;
        - a class of :mod:`dangad.errors` for everything else that may happen to the job, including
          `UnhandledCommand`;
        - :class:`twisted.protocols.amp.RemoteAmpError`, which has the code, if neither the command
          nor dangad knows the code;
        - :class:`Disconnected` if the connection is lost, or :class:`NotSent` if it was lost before
          the call;
        - `BadArguments`, at once, if an argument cannot be sent;
        - `BadResponse` if the answer does not match the command's declaration;
        - `TooLarge` if the answer is larger than this client accepts.

        Cancelling it asks the server to cancel the job, and fails with
        :class:`twisted.internet.defer.CancelledError` at once. The server's answer is dropped when
        it comes.

        :param command: the job type's command.
        :param arguments: arguments of the command, by their Python names.
        :param priority: how urgent the job is among this client's jobs; None for "normal".
        :param deadline: seconds after which the answer is useless, from the moment when the server
            accepts the request. If the job waits then, it never starts; if it runs, it is stopped.
            A negative number counts as 0.
        :param progress: called with the units done, their total and a message for each progress
            report: at most ten times a second, and never after the answer. Its exceptions are
            logged.
        :param traceparent: the span to which the server's spans of the job belong, as W3C Trace
            Context writes it. None for the present span of OpenTelemetry, if the program uses it.
        :param more: more arguments of the command.
        """
        options = priority, deadline, progress, traceparent
        return self._ask(command, arguments, more, options, None)

    def stream(
        self,
        command: type[amp.Command],
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        priority: Priority | Literal["high", "normal", "low"] | None = None,
        deadline: float | None = None,
        progress: Callable[[int, int, str], object] | None = None,
        traceparent: str | None = None,
        **more: Any,
    ) -> Stream:
        """Run one job; return a stream of its partial results, and its response.

        The request is sent at once. Read the stream with ``async for`` in a coroutine of Twisted's,
        see :class:`dangad.client.streams.Stream`::

            async for chunk in client.stream(ReadFile, path="big.iso"):
                copy.write(chunk)

        Arguments and options are those of :meth:`run`. The iterator raises the errors with which
        :meth:`run` fails. For a job without partial results the stream is empty, and has the
        response.

        A slow reader slows the job down: with more than a megabyte of unread chunks, the client
        stops reading its connection, and in the end the job waits to send its next chunk. Answers
        to other calls of the same client come over the same connection, and wait, too. So do not
        await another call of this client in the loop over a stream, and do not read two of its
        streams one after the other: this could wait for ever. Connect a second client instead. A
        server cuts off a client that reads nothing for five minutes.
        """
        options = priority, deadline, progress, traceparent
        parts = Parts(self._set_pace)
        parts.belong_to(self._ask(command, arguments, more, options, parts))
        return Stream(parts)

    def _ask(
        self,
        command: type[amp.Command],
        arguments: Mapping[str, Any] | None,
        more: dict[str, Any],
        options: tuple[Any, float | None, Callable[[int, int, str], object] | None, str | None],
        parts: Parts | None,
    ) -> Deferred[dict[str, Any]]:
        """The answer to one request, for :meth:`run` and :meth:`stream`."""
        try:
            call = prepare(command)
            request = call.request(_joined(arguments, more) if arguments else more)
            start = call.start
            if options != _NO_OPTIONS:
                start += call.options(*options, apart=arguments is not None)
            if options[3] is None and (trace := present_trace()) is not None:
                start += boxes.pair(boxes.TRACEPARENT, trace.encode())
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

        Fires with the document as soon as the server's first worker has said Hello. Fails with
        `NoWorkers` if no worker can be started, with `ShuttingDown` if the server stops, with
        `QueueFull` if too many clients wait for the catalogue, and otherwise like :meth:`run`.
        Cancelling it drops the answer.
        """
        return self.run(commands.Describe).addCallback(_parse_catalogue)

    def ping(self) -> Deferred[None]:
        """Check that the server is there and its loop turns.

        Fires with None when the server has answered, which does not take a worker. Fails like
        :meth:`run`. Cancelling it drops the answer.
        """
        return self.run(commands.Ping).addCallback(_nothing)

    def close(self) -> Deferred[None]:
        """Close the connection, and give up the jobs under way.

        Calls under way fail with :class:`Disconnected`, and the server ends their jobs unless their
        types say otherwise. If there are none, everything written is sent first.

        Fires with None when the connection is closed, or at once if it is closed already. Never
        fails. Cancelling it only ends the wait.
        """
        if self._closed is None:
            self._closed = "closed by the client"
            if self._requests:
                self.transport.abortConnection()
            else:
                self.transport.loseConnection()
        return self.when_disconnected().addBoth(_nothing)

    def when_disconnected(self) -> Deferred[Disconnected]:
        """Wait for the end of the connection, for whatever reason; may be called at any time.

        Fires with a :class:`Disconnected` that says why, at once if there is no connection any
        more. Fails only if it is cancelled, which only ends the wait.
        """
        if self._closed is not None and not self._open:
            return defer.succeed(Disconnected(f"the connection is closed ({self._closed})"))
        return self._watchers.wait()

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin; from now on the kernel sends small requests at once."""
        self._open = True
        self._closed = None
        transport: Any = self.transport
        # Twisted's transports for UNIX sockets provide ITCPTransport, too.
        if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)  # to notice that the server's machine is gone

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
        """Fail the calls under way, and tell who waits for the end."""
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
        """Read the boxes received so far; stop if the effect of one closes the connection."""
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
        """Take news of a request; decline any other command of the server.

        An unknown command without a tag comes from a newer server, and is ignored.
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
        """Read the connection or stop reading, as the unread chunks of its streams demand."""
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
        """Ask the server to cancel the request."""
        if self._closed is None:
            pairs = [(boxes.COMMAND, commands.Cancel.commandName), (b"tag", tag)]
            self.transport.write(boxes.pack(pairs))


def _joined(arguments: Mapping[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call.

    :raises BadArguments: those that come first are no dict.
    """
    try:
        return {**arguments, **more}
    except TypeError:
        raise BadArguments(f"the arguments are {arguments!r}, not a dict") from None


def _parse_catalogue(response: dict[str, Any]) -> dict[str, Any]:
    catalogue: dict[str, Any] = json.loads(response["catalogue"])
    return catalogue


def _nothing(_: object) -> None:
    return None
