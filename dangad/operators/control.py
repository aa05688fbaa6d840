"""Where operators connect: what they may see and do, as AMP commands on an endpoint of its own.

Beside the jobs' way. ``dangad status`` and the other subcommands of :mod:`dangad.cli.operators`
send the commands; whoever provides :class:`~dangad.scheduler.interfaces.IOperations` performs them.
Everything that makes a difference to jobs is logged.

Who can connect can stop the server: the endpoint's address is its only guard. The limits here
keep a mistaken program from doing harm, not an ill-meaning one.
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
from dangad.server.passeddescriptors import dispose
from dangad.text import quote
from dangad.wire import boxes, commands

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IAddress, IConsumer, IReactorTime, ITCPTransport
    from twisted.python.failure import Failure

    from dangad.scheduler.interfaces import IOperations

    class _StreamTransport(ITCPTransport, IConsumer, IPushProducer):
        """What is asked of an operator's transport, TCP or not."""


log = Logger()

MAX_CONNECTIONS = 20
"""Connections: people and their dashboards are few. For one more, one is closed that waits for
nothing."""
MAX_REQUEST = 2**12
"""Bytes of the largest request, whose arguments are two numbers at most."""
REQUEST_COST = 20
"""What a request counts in a turn of the reactor, in requests of clients: a document is dear."""
MAX_WAITING = 100
"""Requests that may wait for something to happen, of all connections, those gone included."""


# What each command does.


async def _status(operations: IOperations, _: dict[str, Any]) -> dict[str, Any]:
    return {"document": json.dumps(operations.status())}


async def _workers(operations: IOperations, _: dict[str, Any]) -> dict[str, Any]:
    return {"document": json.dumps(operations.workers())}


async def _recent(operations: IOperations, _: dict[str, Any]) -> dict[str, Any]:
    return {"document": json.dumps(operations.recent())}


async def _scale(operations: IOperations, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        operations.scale(arguments["min"], arguments["max"], bool(arguments.get("force")))
    except ValueError as error:
        raise BadArguments(str(error)) from None
    return {}


async def _pardon(operations: IOperations, arguments: dict[str, Any]) -> dict[str, Any]:
    if not operations.pardon(arguments["command"]):
        raise BadArguments(f"{arguments['command']!r} is not in quarantine")
    return {}


async def _stack(operations: IOperations, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"stack": await operations.stack(arguments["job"])}


async def _reload(operations: IOperations, _: dict[str, Any]) -> dict[str, Any]:
    await operations.reload()
    return {}


async def _drain(operations: IOperations, _: dict[str, Any]) -> dict[str, Any]:
    return {"document": json.dumps(await operations.drain())}


_PERFORM: dict[
    type[amp.Command], Callable[[IOperations, dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
] = {
    commands.Status: _status,
    commands.Workers: _workers,
    commands.Recent: _recent,
    commands.Scale: _scale,
    commands.Want: _scale,
    commands.Pardon: _pardon,
    commands.Stack: _stack,
    commands.Reload: _reload,
    commands.Drain: _drain,
}
_COMMANDS: dict[bytes, type[amp.Command]] = {command.commandName: command for command in _PERFORM}
_ONLY_LOOK = frozenset({commands.Status, commands.Workers, commands.Recent})
"""Commands that are answered at once, and not logged."""


@implementer(IPushProducer, IFileDescriptorReceiver)
class ControlConnection(Protocol):
    """One operator's connection.

    All mutable state: `_reader`; `_congested`, whether its answers wait to be read, in which
    case it is not read either; `_in_line`, whether it has more to say than is heard in one turn
    of the reactor; `waiting`, how many of its requests are being performed; `_open`, whether it
    can be written to.
    """

    transport: _StreamTransport

    def __init__(self, site: ControlFactory) -> None:
        self._site = site
        self._reader = boxes.BoxReader(MAX_REQUEST, boxes.REQUEST_KEYS)
        self._congested = False
        self._in_line = False
        self._open = False
        self.waiting = 0

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin to read, and to be told when the operator does not."""
        self._open = True
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Take the operator's bytes."""
        self._reader.feed(data)
        self._take_boxes()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the operator; what was asked for goes on."""
        self._open = False
        self._site.connection_lost(self)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close the connection of who passes a descriptor: no command takes one."""
        dispose(descriptor)
        if self._open:
            self._site.quiet.warn(
                "descriptor", None, "an operator passed a file descriptor; closing"
            )
            self.abort()

    # The transport's calls to it as the producer of answers.

    def pauseProducing(self) -> None:
        """The operator does not read the answers: take no more requests."""
        self._congested = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The operator has read the answers."""
        self._congested = False
        if not self._in_line:
            self.transport.resumeProducing()
            self._take_boxes()

    def stopProducing(self) -> None:
        """Nothing: `connectionLost` comes."""

    # The factory's call.

    def abort(self) -> None:
        """Close the connection now; what follows is `connectionLost`."""
        self._open = False
        self.transport.abortConnection()

    # Requests and answers.

    def _take_boxes(self) -> None:
        """Answer the requests that have come, as long as the answers are read."""
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
        """Go on, with this turn's share."""
        self._in_line = False
        if self._open and not self._congested:
            self.transport.resumeProducing()
            self._take_boxes()

    def _box_received(self, box: boxes.Box) -> None:
        """Have a request performed; the answer may come much later."""
        tag = box.keys.get(boxes.ASK)
        if tag is None and boxes.COMMAND not in box.keys:
            raise boxes.Garbage("a box that is no request")
        self._site.is_active(self)
        self.waiting += 1
        Deferred.fromCoroutine(self._perform(box)).addCallbacks(
            self._answer, self._refuse, callbackArgs=(tag,), errbackArgs=(tag,)
        )

    async def _perform(self, box: boxes.Box) -> bytes:
        """The body of the answer to a request.

        :raises DangadError: it is refused, or failed.
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
        return boxes.pack(command.makeResponse(response, None).items())

    def _answer(self, body: bytes, tag: bytes | None) -> None:
        self.waiting -= 1
        if tag is not None and self._open:
            self.transport.write(boxes.pair(boxes.ANSWER, tag) + body)

    def _refuse(self, failure: Failure, tag: bytes | None) -> None:
        self.waiting -= 1
        if isinstance(failure.value, DangadError):
            pairs = boxes.error_pairs(failure.value.code, str(failure.value))
        else:
            log.failure("an operator's request failed", failure)
            pairs = boxes.error_pairs(amp.UNKNOWN_ERROR_CODE, "the server failed; see its log")
        if tag is not None and self._open:
            self.transport.write(boxes.pair(boxes.ERROR, tag) + boxes.pack(pairs))


def _read_arguments(command: type[amp.Command], raw: bytes) -> dict[str, Any]:
    """The arguments of a request, by their Python names.

    :raises BadArguments: one is missing, or not of its type.
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
        except ValueError:
            raise BadArguments(
                f"argument {key.decode()!r} is {shown}, which is no {type(kind).__name__}"
            ) from None
    return arguments


class ControlFactory(Factory):
    """Makes a :class:`ControlConnection` for each operator, up to a limit.

    All mutable state: `_connections` that are open, those that were active last at the end;
    `turns`, what may be done in this turn of the reactor; `_waiting`, how many requests wait for
    something to happen; `_closed`, who waits for the last connection to close.
    """

    noisy = False

    def __init__(self, clock: IReactorTime, operations: IOperations) -> None:
        """Begin with no connections.

        :param clock: where the time comes from.
        :param operations: who performs what operators ask for.
        """
        self.quiet = QuietLog(clock, log)
        self._operations = operations
        self.turns = Turns(clock)
        self._connections: dict[ControlConnection, None] = {}
        self._waiting = 0
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ControlConnection | None:
        """A protocol for a new connection; None to close it at once."""
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
        """Close the connection that was active least lately, of those that wait for nothing."""
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
        """Hear that `connection` asks for something."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    async def perform(self, command: type[amp.Command], arguments: dict[str, Any]) -> Any:
        """The response to a command, which is logged if it does more than look.

        :raises DangadError: it was refused, or failed.
        """
        perform = _PERFORM[command]
        if command in _ONLY_LOOK:
            return await perform(self._operations, arguments)
        if self._waiting >= MAX_WAITING:
            raise QueueFull(f"{MAX_WAITING} requests of operators wait to be done")
        what = " ".join([command.__name__, *(f"{key}={arguments[key]}" for key in arguments)])
        log.info("operator: {what}", what=what)
        self._waiting += 1
        try:
            return await perform(self._operations, arguments)
        except DangadError as error:
            code = error.code.decode()
            log.info("operator: {what}: {code}: {text}", what=what, code=code, text=str(error))
            raise
        finally:
            self._waiting -= 1

    def connection_lost(self, connection: ControlConnection) -> None:
        """Hear that `connection` is closed."""
        self._connections.pop(connection, None)
        self._check_closed()

    def close(self) -> Deferred[None]:
        """Close all connections now, whoever waits for an answer.

        Fires when all are closed. Answers that the transports have not sent yet are lost: that
        takes them a turn of the reactor or two.
        """
        closed = self._closed = Deferred()
        for connection in list(self._connections):
            connection.abort()
        self._check_closed()
        return closed

    def _check_closed(self) -> None:
        if self._closed is not None and not self._connections:
            closed, self._closed = self._closed, None
            closed.callback(None)
