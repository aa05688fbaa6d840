"""Where clients connect: one protocol for every kind of stream, and its factory.

The first and the last step of a job's way: bytes become requests and go to
:mod:`dangad.dispatcher`; outcomes come back through :class:`IClient` and go out under the
request's own tag. Here are the limits that keep a client's troubles its own: the size of a
box, the requests in flight, the answers that it does not read, the number of connections.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dangad import commands, wire
from dangad.errors import (
    BadArguments,
    DangadError,
    QueueFull,
    TooLarge,
    UnhandledCommand,
)
from dangad.interfaces import IClient
from dangad.jobrecord import Job, Priority
from dangad.passeddescriptors import dispose
from dangad.promptwriter import PromptWriter
from dangad.quietlog import QuietLog, peer_of
from dangad.refusal import RefusedConnection
from dangad.requestoptions import read_options

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IConsumer,
        IDelayedCall,
        IReactorTime,
    )

    from dangad.accepting import Gate
    from dangad.dispatcher import Dispatcher

    class _StreamTransport(ITCPTransport, IConsumer, IPushProducer):
        """What is asked of a client's transport, TCP or not."""


log = Logger()

MAX_TAG = 255
"""Bytes of the longest ``_ask`` that is answered under its name."""
MAX_REFUSED = 100
"""Requests that are refused at once, one after the other, before the client is not read for ..."""
REFUSED_REST = 0.05
"""... so many seconds: refusals are no requests in flight, and would not slow it otherwise."""
MAX_REFUSALS = 100
"""Connections over the limit that are told so at once; more are closed without a word."""
_NO_OPTIONS: dict[bytes, Any] = {}
"""Those of most requests, whose reserved keys are the command and the tag alone."""

STALL_TIME = 300
"""Seconds for which a client may leave its answers unread, while its jobs fill the queue."""
SMALL = 2**16
"""Bytes up to which an answer is joined with its tag, to be written in one piece."""
MAX_OWN_COMMAND = 2**16
"""Bytes of the largest request for one of dangad's own commands, which are read here."""


@implementer(IClient, IPushProducer, IFileDescriptorReceiver)
class ClientConnection(Protocol):
    """One client's connection.

    All mutable state: `_jobs`, the jobs whose outcome it is still to be told, by id; `_tags`,
    those of them that have a tag, by it; `_bytes`, the size of their requests; `_lookups`, its
    requests for the catalogue that wait; `_congested`, whether its answers wait to be read,
    `_stalled`, the end of the patience with that, and `_news`, how far its jobs are meanwhile;
    `_refused`, how many of its requests were refused since it was last made to rest, and
    `_resting`, the end of that; `_paused`, whether reading from it is; `_taking`, whether its
    boxes are being gone through; `_open`, whether it can be written to.
    """

    transport: _StreamTransport

    def __init__(self, site: ClientFactory) -> None:
        self._site = site
        self._dispatcher = site.dispatcher
        self._quiet = site.quiet
        self._reader = wire.BoxReader(site.max_payload, wire.REQUEST_KEYS)
        self._jobs: dict[int, Job] = {}
        self._tags: dict[bytes, Job] = {}
        self._bytes = 0
        self._lookups: set[Deferred[str]] = set()
        self._news: dict[int, tuple[bytes, bytes]] = {}
        self._congested = False
        self._stalled: IDelayedCall | None = None
        self._paused = False
        self._taking = False
        self._refused = 0
        self._resting: IDelayedCall | None = None
        self._open = False

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin to read, and to be told when the client does not."""
        self._open = True
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # else an answer waits for the last one's ACK
            self.transport.setTcpKeepAlive(True)  # else a peer that vanished stays for ever
        self.transport.registerProducer(self, True)
        self._writer = PromptWriter(self._site.clock, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Take the client's bytes."""
        self._reader.feed(data)
        self._take_boxes()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the client and its jobs."""
        self._open = False
        self._writer.close()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._stop_stall_alarm()
        self._jobs.clear()
        self._tags.clear()
        for lookup in list(self._lookups):
            lookup.cancel()
        self._dispatcher.client_gone(self)
        self._site.connection_lost(self)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close the connection of a client that passes a descriptor: no job takes one."""
        dispose(descriptor)
        if self._open:
            self._quiet.warn(
                "descriptor",
                peer_of(self.transport.getPeer()),
                "{peer} passed a file descriptor; closing",
                peer=self._peer,
            )
            self._abort()

    # The factory's call.

    def close(self) -> None:
        """Read no more, and close the connection once what was written to it is sent."""
        self._open = False
        self._writer.flush()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # The transport's calls to it as the producer of answers.

    def pauseProducing(self) -> None:
        """The client does not read its answers: read no more of it, start nothing more for it."""
        self._congested = True
        if self._stalled is None:
            self._stalled = self._site.clock.callLater(STALL_TIME, self._cut_off)
        self._dispatcher.hold(self)
        self._set_pace()

    def resumeProducing(self) -> None:
        """The client has read its answers."""
        self._congested = False
        self._stop_stall_alarm()
        news, self._news = self._news, {}
        for start, body in news.values():
            self._write(start, body)
        self._dispatcher.release(self)
        self._set_pace()
        self._take_boxes()

    def stopProducing(self) -> None:
        """Nothing: `connectionLost` comes."""

    # The dispatcher's calls.

    def deliver(self, job: Job, failed: bool, body: bytes) -> None:
        """See :meth:`IClient.deliver`."""
        if self._news and job.id in self._news:
            self._write(*self._news.pop(job.id))
        self._answer(job.tag, failed, body)
        self._forget(job)

    def report(self, job: Job, command: bytes, body: bytes) -> None:
        """See :meth:`IClient.report`."""
        if job.tag is None:
            return
        start = wire.pair(wire.COMMAND, command) + wire.pair(b"tag", job.tag)
        if self._congested and command == commands.Progress.commandName:
            self._news[job.id] = start, body  # in place of the last, so that nothing piles up
        else:
            self._write(start, body)

    def fail(self, job: Job, error: DangadError) -> None:
        """See :meth:`IClient.fail`."""
        self._news.pop(job.id, None)
        self._refuse(job.tag, error)
        self._forget(job)

    def abort(self) -> None:
        """See :meth:`IClient.abort`."""
        self._abort()

    # Requests.

    def _take_boxes(self) -> None:
        """Read the boxes that have come, as long as the client's pace allows it.

        An outcome that comes at once, in the middle of it, does not begin it anew: the boxes
        that it makes room for are read by the loop that is running already.
        """
        if self._taking:
            return
        self._taking = True
        try:
            while self._open and not self._paused and (box := self._reader.next()) is not None:
                self._box_received(box)
        except wire.Garbage as garbage:
            self._quiet.warn(
                "garbage",
                peer_of(self.transport.getPeer()),
                "{peer} sent {garbage}; closing",
                peer=self._peer,
                garbage=str(garbage),
            )
            self._abort()
        finally:
            self._taking = False

    def _box_received(self, box: wire.Box) -> None:
        keys = box.keys
        tag = keys.get(wire.ASK)
        command = keys.get(wire.COMMAND)
        if command is None:
            if tag is not None:
                self._refuse(tag, BadArguments("the request has no _command"))
            elif wire.ANSWER not in keys and wire.ERROR not in keys:
                raise wire.Garbage("a box that is neither a request nor an answer")
        elif tag is not None and len(tag) > MAX_TAG:
            self._refuse(
                tag, BadArguments(f"the tag (_ask) is {len(tag)} bytes; at most {MAX_TAG}")
            )
        elif tag is not None and tag in self._tags:
            self._refuse(
                tag, BadArguments(f"the tag (_ask) {wire.show(tag)} is in use by another request")
            )
        elif box.raw is None:
            limit = self._site.max_payload
            self._refuse(
                tag, TooLarge(f"the request is {box.size} bytes, --max-payload is {limit}")
            )
        elif command.startswith(commands.PREFIX):
            self._perform(command, tag, box.raw)
        else:
            self._submit(command, tag, keys, box.raw)

    def _submit(
        self, command: bytes, tag: bytes | None, keys: dict[bytes, bytes], raw: bytes
    ) -> None:
        """Make a job of a request, and submit it."""
        try:
            plain = tag is not None and len(keys) == 2
            options = _NO_OPTIONS if plain else read_options(keys)
        except BadArguments as error:
            self._refuse(tag, error)
            return
        priority = options.get(wire.PRIORITY, Priority.NORMAL)
        deadline = options.get(wire.DEADLINE)
        chunks = options.get(wire.CHUNKS, False)
        job = Job(self._site.next_id(), self, tag, command, raw, priority, deadline, chunks)
        self._jobs[job.id] = job
        if tag is not None:
            self._tags[tag] = job
        self._bytes += len(raw)
        self._set_pace()
        self._dispatcher.submit(job)

    def _perform(self, command: bytes, tag: bytes | None, raw: bytes) -> None:
        """Answer one of dangad's own commands."""
        if len(raw) > MAX_OWN_COMMAND:
            self._refuse(
                tag,
                TooLarge(
                    f"the request is {len(raw)} bytes; at most {MAX_OWN_COMMAND} for a command "
                    f"of the server's own"
                ),
            )
        elif command == commands.Ping.commandName:
            self._answer(tag, False, wire.END)
        elif command == commands.Describe.commandName:
            lookup = self._dispatcher.describe()
            self._lookups.add(lookup)
            lookup.addBoth(self._described, lookup, tag)
            self._set_pace()
        elif command == commands.Cancel.commandName:
            target = wire.unpack(raw).get(b"tag")
            if target is None:
                self._refuse(tag, BadArguments("argument 'tag' is missing"))
                return
            if target in self._tags:
                self._dispatcher.cancel(self._tags[target])
            self._answer(tag, False, wire.END)
        else:
            name = command[:100].decode("ascii", "backslashreplace")
            self._refuse(tag, UnhandledCommand(f"this server has no command {name}"))

    def _described(self, outcome: str | Failure, lookup: Deferred[str], tag: bytes | None) -> None:
        """Answer a request for the catalogue."""
        self._lookups.discard(lookup)
        if not isinstance(outcome, Failure):
            strings = commands.Describe.makeResponse({"catalogue": outcome}, None)
            self._answer(tag, False, wire.pack(strings.items()))
        elif isinstance(outcome.value, DangadError):
            self._refuse(tag, outcome.value)
        self._keep_pace()

    # Answers.

    def _answer(self, tag: bytes | None, failed: bool, body: bytes) -> None:
        if tag is not None:
            more = self._taking or len(self._jobs) > 1  # of many, some will end together
            self._write(wire.pair(wire.ERROR if failed else wire.ANSWER, tag), body, more)

    def _write(self, start: bytes, body: bytes, more: bool = False) -> None:
        """Write a box; never raises, since others' jobs are waiting for the caller.

        :param more: whether other boxes are likely to follow at once.
        """
        if not self._open:
            return
        try:
            if len(body) <= SMALL:
                self._writer.write(start + body, more)
            else:
                self._writer.flush()
                self.transport.writeSequence((start, body))
        except Exception:  # noqa: BLE001 - see above; transports are of many kinds
            log.failure("cannot write to {peer}; closing", peer=self._peer)
            self._abort()

    def _refuse(self, tag: bytes | None, error: DangadError) -> None:
        self._answer(tag, True, wire.pack(wire.error_pairs(error.code, str(error))))
        if self._taking:
            self._refused += 1
            if self._refused == MAX_REFUSED:
                self._resting = self._site.clock.callLater(REFUSED_REST, self._end_rest)
                self._set_pace()

    def _end_rest(self) -> None:
        self._resting = None
        self._refused = 0
        self._keep_pace()

    def _forget(self, job: Job) -> None:
        """The client was told the outcome of `job`."""
        if self._jobs.pop(job.id, None) is not None:
            self._bytes -= job.size
        if job.tag is not None:
            self._tags.pop(job.tag, None)
        self._keep_pace()

    def _keep_pace(self) -> None:
        """Read on if it was this request that kept the client from being read."""
        if self._paused:
            self._set_pace()
            self._take_boxes()

    def _set_pace(self) -> None:
        """Read from the client, or do not, as its limits say."""
        pause = (
            self._congested
            or self._resting is not None
            or len(self._jobs) + len(self._lookups) >= self._site.max_in_flight
            or self._bytes >= self._site.max_payload
        )
        if pause == self._paused or not self._open:
            return
        self._paused = pause
        if pause:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def _cut_off(self) -> None:
        self._stalled = None
        log.warn(
            "{peer} has not read its answers for {seconds} s; closing",
            peer=self._peer,
            seconds=STALL_TIME,
        )
        self._abort()

    def _stop_stall_alarm(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _abort(self) -> None:
        """Close the connection now; what follows is `connectionLost`."""
        self._open = False
        self.transport.abortConnection()

    @property
    def _peer(self) -> str:
        return f"client {self.transport.getPeer()}"


class ClientFactory(Factory):
    """Makes a :class:`ClientConnection` for each client, up to a limit.

    All mutable state: `_connections` that are open, and `_refusals`, those over the limit
    that are being told so; `_closed`, who waits for the last to close, once the server stops,
    and `_close_alarm`, the limit of that.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        dispatcher: Dispatcher,
        gate: Gate,
        *,
        max_payload: int,
        max_in_flight: int,
        max_connections: int,
    ) -> None:
        """Begin with no connections.

        :param clock: where the time comes from.
        :param dispatcher: who gets the jobs.
        :param gate: who is told of every connection, and stops the ports if need be.
        :param max_payload: bytes of the largest request.
        :param max_in_flight: unanswered requests of one connection beyond which it is not read.
        :param max_connections: connections beyond which a new one is refused.
        """
        self.dispatcher = dispatcher
        self.max_payload = max_payload
        self.max_in_flight = max_in_flight
        self.max_connections = max_connections
        self.next_id = itertools.count(1).__next__
        self.clock = clock
        self.quiet = QuietLog(clock, log)
        self._gate = gate
        self._connections: set[ClientConnection] = set()
        self._refusals: set[RefusedConnection] = set()
        self._closed: Deferred[None] | None = None
        self._close_alarm: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """A protocol for a new connection; None to close it at once."""
        if len(self._connections) < self.max_connections:
            connection = ClientConnection(self)
            self._connections.add(connection)
            self._gate.entered()
            return connection
        if len(self._refusals) < MAX_REFUSALS:
            error = QueueFull(
                f"the server has {self.max_connections} connections, which is "
                "--max-connections; try again later"
            )
            refusal = RefusedConnection(self.clock, error, self._refusal_ended)
            self._refusals.add(refusal)
            self._gate.entered()
            return refusal
        return None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def connection_lost(self, connection: ClientConnection) -> None:
        """Hear that `connection` is closed."""
        self._connections.discard(connection)
        self._gate.left()
        self._check_closed()

    def _refusal_ended(self, refusal: RefusedConnection) -> None:
        self._refusals.discard(refusal)
        self._gate.left()
        self._check_closed()

    def close(self, seconds: float) -> Deferred[None]:
        """Close all connections, once what was written to them is sent.

        A client that has not read it after `seconds` is cut off. Fires when all are closed.
        """
        closed = self._closed = Deferred()
        self._close_alarm = self.clock.callLater(seconds, self.abort)
        for refusal in list(self._refusals):
            refusal.transport.abortConnection()
        for connection in list(self._connections):
            connection.close()
        self._check_closed()
        return closed

    def abort(self) -> None:
        """Close all connections now, whatever was written to them."""
        for connection in list(self._connections):
            connection.transport.abortConnection()

    def _check_closed(self) -> None:
        if self._closed is None or self._connections or self._refusals:
            return
        closed, self._closed = self._closed, None
        if self._close_alarm is not None and self._close_alarm.active():
            self._close_alarm.cancel()
        closed.callback(None)
