"""The control endpoint, where operators connect: AMP commands that inspect and steer the server.

No job passes here. ``dangad status`` and the other subcommands of :mod:`dangad.cli.operators`
send the commands; :mod:`.orders` has a function for each. Every command that may affect jobs is
logged.

Whoever can connect can stop the server: access to the endpoint's address is the only protection.
The limits here guard against faulty programs, not against hostile ones.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from zope.interface import implementer

from dangad.errors import BadArguments, DangadError, QueueFull, TooLarge, UnhandledCommand
from dangad.host.quietlog import QuietLog
from dangad.host.turns import Turns
from dangad.operators.orders import AT_ONCE, NAMES, ONLY_LOOK, PERFORM
from dangad.operators.parts import WRITTEN_AT_ONCE, write_list
from dangad.scheduler.clockcalls import cancel
from dangad.server.passeddescriptors import dispose
from dangad.text import kind_in_words, printable, quote
from dangad.wire import boxes, commands

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IConsumer, IReactorTime, ITCPTransport
    from twisted.python.failure import Failure

    from dangad.operators.interfaces import IOperations

    class _StreamTransport(ITCPTransport, IConsumer, IPushProducer):
        """What a connection needs of its transport, TCP or not."""


log = Logger()

MAX_CONNECTIONS = 20
"""The most open connections: people and their dashboards are few. A further one takes the place of
a connection that waits for no answer."""
MAX_REQUEST = 2**15
"""Bytes of the largest request: a thousand ids, or a thousand names of commands."""
MOST_LOGGED = 200
"""The most characters of each argument in the log."""
REQUEST_COST = 20
"""The cost of a request in a turn of the reactor, in client requests: documents are expensive."""
FLUSH_TIME = 1.0
"""Seconds in which an operator must have read the last answers when the server ends."""
MAX_WAITING = 100
"""The most requests in progress, and the most requests for events, including requests of
connections that have closed since."""


_COMMANDS: dict[bytes, type[amp.Command]] = {command.commandName: command for command in PERFORM}


@implementer(IPushProducer, IFileDescriptorReceiver)
class ControlConnection(Protocol):
    """One operator's connection. While its answers are not read, it is not read either."""

    transport: _StreamTransport

    def __init__(self, site: ControlFactory) -> None:
        self._site = site
        #: Assembles the boxes of requests.
        self._reader = boxes.BoxReader(MAX_REQUEST, boxes.REQUEST_KEYS)
        #: Whether the operator is slow to read the answers.
        self._congested = False
        #: Whether requests are left for a later turn of the reactor.
        self._in_line = False
        #: Whether answers can be written.
        self._open = False
        #: How many requests of this connection are in progress, except those for events.
        self.waiting = 0

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin to read; be told from now on when the operator is slow to read."""
        self._open = True
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Take the operator's bytes."""
        self._reader.feed(data)
        self._take_boxes()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the operator; requests in progress go on."""
        self._open = False
        self._site.connection_lost(self)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close the connection of an operator who passes a descriptor: no command takes one."""
        dispose(descriptor)
        if self._open:
            self._site.quiet.warn(
                "descriptor", None, "an operator passed a file descriptor; closing"
            )
            self.abort()

    # The transport's calls, as this is the producer of answers.

    def pauseProducing(self) -> None:
        """Take no more requests: the operator does not read the answers."""
        self._congested = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Take requests again: the operator has read the answers."""
        self._congested = False
        if not self._in_line:
            self.transport.resumeProducing()
            self._take_boxes()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""

    # The factory's call.

    def close(self) -> None:
        """Close the connection when what was written to it is sent; `connectionLost` follows."""
        self._open = False
        self.transport.unregisterProducer()  # otherwise a paused one would keep it open
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection now; `connectionLost` follows."""
        self._open = False
        self.transport.abortConnection()

    # Requests and answers.

    def _take_boxes(self) -> None:
        """Answer the requests received so far, as long as the answers are read."""
        turns = self._site.turns
        try:
            while self._open and not (self._congested or self._in_line):
                if turns.left <= 0:
                    self._in_line = True
                    self.transport.pauseProducing()
                    turns.wait(self._take_turn)
                    return
                box = self._reader.next()
                if box is None:
                    return
                turns.left -= REQUEST_COST
                self._box_received(box)
        except boxes.Garbage as garbage:
            self._site.quiet.warn(
                "garbage", None, "an operator sent {garbage}; closing", garbage=str(garbage)
            )
            self.abort()

    def _take_turn(self) -> None:
        """Go on, with this turn's share of requests."""
        self._in_line = False
        if self._open and not self._congested:
            self.transport.resumeProducing()
            self._take_boxes()

    def _box_received(self, box: boxes.Box) -> None:
        """Start to perform a request; the answer may come much later.

        :raises Garbage: the box is not a request.
        """
        tag = box.keys.get(boxes.ASK)
        if tag is None and boxes.COMMAND not in box.keys:
            raise boxes.Garbage("a box that is not a request")
        self._site.is_active(self)
        counts = box.keys.get(boxes.COMMAND) != commands.Watch.commandName
        self.waiting += counts
        Deferred.fromCoroutine(self._perform(box)).addCallbacks(
            self._answer, self._refuse, callbackArgs=(tag, counts), errbackArgs=(tag, counts)
        )

    async def _perform(self, box: boxes.Box) -> bytes:
        """The body of the answer to a request.

        :raises DangadError: the request is refused, or fails.
        """
        name = box.keys.get(boxes.COMMAND)
        if name is None:
            raise BadArguments("the request has no _command")
        if box.raw is None:
            raise TooLarge(f"the request is {box.size} bytes; at most {MAX_REQUEST} here")
        command = _COMMANDS.get(name)
        if command is None:
            raise UnhandledCommand(f"operators have no command {quote(name)}")
        response = await self._site.perform(command, _read_arguments(command, bytes(box.raw)))
        if "document" in response:
            response["document"] = await self._site.write_document(response["document"])
        return boxes.pack(command.makeResponse(response, None).items())

    def _answer(self, body: bytes, tag: bytes | None, counts: bool) -> None:
        self.waiting -= counts
        if tag is not None and self._open:
            self.transport.write(boxes.pair(boxes.ANSWER, tag) + body)

    def _refuse(self, failure: Failure, tag: bytes | None, counts: bool) -> None:
        self.waiting -= counts
        if isinstance(failure.value, DangadError):
            pairs = boxes.error_pairs(failure.value.code, str(failure.value))
        else:
            log.failure("an operator's request failed", failure)
            pairs = boxes.error_pairs(amp.UNKNOWN_ERROR_CODE, "the server failed; see its log")
        if tag is not None and self._open:
            self.transport.write(boxes.pair(boxes.ERROR, tag) + boxes.pack(pairs))


def _read_arguments(command: type[amp.Command], raw: bytes) -> dict[str, Any]:
    """The arguments of a request, by their Python names.

    :raises BadArguments: an argument is missing, or is not of its type.
    """
    strings = boxes.unpack(raw)
    arguments: dict[str, Any] = {}
    for key, kind in command.arguments:
        if key not in strings:
            if kind.optional:
                continue
            raise BadArguments(f"argument {key.decode()!r} is missing")
        shown = quote(strings[key])
        try:
            kind.fromBox(key, strings, arguments, None)
        except (ValueError, TypeError):  # the latter by Boolean
            declared = kind_in_words(type(kind).__name__)
            raise BadArguments(
                f"argument {key.decode()!r} is {shown}, which is not {declared}"
            ) from None
    return arguments


def _in_words(command: type[amp.Command], arguments: dict[str, Any]) -> str:
    """An order as the log has it."""
    words = [NAMES.get(command, command.__name__)]
    for key, value in arguments.items():
        shown = printable(str(value))
        more = f"... ({len(shown)} characters)" if len(shown) > MOST_LOGGED else ""
        words.append(f"{key}={shown[:MOST_LOGGED]}{more}")
    return " ".join(words)


class ControlFactory(Factory):
    """Makes a :class:`ControlConnection` for each operator, up to `MAX_CONNECTIONS`."""

    noisy = False
    most_connections = MAX_CONNECTIONS

    def __init__(self, clock: IReactorTime, operations: IOperations) -> None:
        """Begin with no connections.

        :param clock: the source of time.
        :param operations: performs the operators' commands.
        """
        #: The log, with repeated warnings left out.
        self.quiet = QuietLog(clock, log)
        self._clock = clock
        self._operations = operations
        #: The share of work that is left in this turn of the reactor.
        self.turns = Turns(clock)
        #: The open connections, the most recently active last.
        self._connections: dict[ControlConnection, None] = {}
        #: How many requests are in progress: for events, and others.
        self._waiting = {True: 0, False: 0}
        #: Fires when the last connection is closed; None before `close`.
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ControlConnection | None:
        """The protocol of a new connection; None to close the connection at once."""
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            self.quiet.warn(
                "connections",
                None,
                "{count} operators wait for something; closing one more",
                count=MAX_CONNECTIONS,
            )
            return None
        connection = ControlConnection(self)
        self._connections[connection] = None
        return connection

    def _make_room(self) -> bool:
        """Close the least recently active connection that waits for no answer; False if none."""
        for connection in self._connections:
            if not connection.waiting:
                self.quiet.info(
                    "room", None, "an operator who asks for nothing makes room for another"
                )
                del self._connections[connection]
                connection.abort()
                return True
        return False

    def is_active(self, connection: ControlConnection) -> None:
        """Note that `connection` has sent a request."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    async def perform(self, command: type[amp.Command], arguments: dict[str, Any]) -> Any:
        """Perform a command, log it unless it only reads, and return its response.

        :raises DangadError: the command is refused, or fails.
        """
        perform = PERFORM[command]
        if command in AT_ONCE:
            return await perform(self._operations, arguments)
        watches = command is commands.Watch  # this may wait for long, and others must not
        if self._waiting[watches] >= MAX_WAITING:
            raise QueueFull(f"{MAX_WAITING} requests of operators wait to be done")
        what = None if command in ONLY_LOOK else _in_words(command, arguments)
        if what is not None:
            log.info("operator: {what}", what=what)
        self._waiting[watches] += 1
        try:
            return await perform(self._operations, arguments)
        except DangadError as error:
            if what is not None:
                code, text = error.code.decode(), "operator: {what}: {code}: {reason}"
                log.info(text, what=what, code=code, reason=str(error))
            raise
        finally:
            self._waiting[watches] -= 1

    async def write_document(self, document: Any) -> str:
        """A document as JSON; long lists take some turns of the reactor."""
        if isinstance(document, list) and len(document) > WRITTEN_AT_ONCE:
            return await write_list(document, self._operations.turn)
        return json.dumps(document)

    def connection_lost(self, connection: ControlConnection) -> None:
        """Note that `connection` is closed."""
        self._connections.pop(connection, None)
        self._check_closed()

    def close(self) -> Deferred[None]:
        """Close each connection when its answers are sent, even one that waits for more.

        Operators who have not read them after `FLUSH_TIME` are cut off. Fires when all connections
        are closed.
        """
        closed = self._closed = Deferred()
        alarm = self._clock.callLater(FLUSH_TIME, self._abort_all)
        closed.addCallback(lambda _: cancel(alarm))
        for connection in list(self._connections):
            connection.close()
        self._check_closed()
        return closed

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _check_closed(self) -> None:
        if self._closed is not None and not self._connections:
            closed, self._closed = self._closed, None
            closed.callback(None)
