"""One client's connection: its bytes become requests, and outcomes become answers.

Made by :mod:`dangad.server.factory`. Requests go to :mod:`dangad.scheduler.dispatcher`; outcomes
come back through :class:`~dangad.scheduler.interfaces.IClient` and go out under the request's own
tag. Other modules protect clients from each other: they bound the size of a box
(:mod:`dangad.wire.boxes`), the requests in flight (:mod:`dangad.server.flowcontrol`), the work of
one turn of the reactor (:mod:`dangad.host.turns`), the unread answers
(:mod:`dangad.server.eagerwriter`), and all bytes that are held (:mod:`dangad.server.holdings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IFileDescriptorReceiver, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from dangad.errors import BadArguments, DangadError
from dangad.host.quietlog import peer_of
from dangad.host.turns import UNIT
from dangad.scheduler.interfaces import IClient
from dangad.scheduler.record import Job
from dangad.server import flowcontrol
from dangad.server.eagerwriter import EagerWriter, IUnreadWatcher
from dangad.server.flowcontrol import FlowControl
from dangad.server.holdings import Holdings
from dangad.server.options import read_options
from dangad.server.owncommands import OwnCommands
from dangad.server.passeddescriptors import dispose
from dangad.server.peers import identity_of, name_of
from dangad.server.stallwatch import StallWatch
from dangad.text import quote
from dangad.wire import boxes, commands
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Protocol as Shape

    from twisted.internet.interfaces import IConsumer, IReactorTime
    from twisted.python.failure import Failure

    from dangad.host.quietlog import QuietLog
    from dangad.host.turns import Turns
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.server.boxwatch import BoxWatch
    from dangad.server.memorybudget import MemoryBudget
    from dangad.server.owncommands import Catalogue
    from dangad.wire.boxes import Box, Raw

    class _StreamTransport(ITCPTransport, IConsumer, IPushProducer):
        """What a connection needs of its transport, TCP or not."""

    class Site(Shape):
        """What all connections share; :class:`.ClientFactory` provides it."""

        clock: IReactorTime
        dispatcher: Dispatcher
        turns: Turns
        budget: MemoryBudget
        box_watch: BoxWatch
        catalogue: Catalogue
        quiet: QuietLog
        max_payload: int
        max_in_flight: int

        def connection_lost(self, connection: ClientConnection) -> None:
            """Note that `connection` is closed."""


log = Logger()

MAX_TAG = 255
"""Bytes of the longest tag (``_ask``) that is accepted."""
SMALL = 2**16
"""Bytes up to which an answer is joined with its tag and written in one piece."""
_NO_OPTIONS: dict[bytes, Any] = {}
"""The options of a request whose only reserved keys are the command and the tag."""


@implementer(IClient, IFileDescriptorReceiver, IUnreadWatcher)
class ClientConnection(Protocol):
    """One client's connection.

    Its parts are made by :meth:`connectionMade`. Nothing calls them before the connection is made
    or after it is lost.
    """

    transport: _StreamTransport
    outranks = False
    #: The user at the other end, if :mod:`dangad.server.access` has asked; None if not known.
    user: int | None = None

    def __init__(self, site: Site) -> None:
        self._site = site
        self._dispatcher = site.dispatcher
        self._turns = site.turns
        self._reader = boxes.BoxReader(site.max_payload, boxes.REQUEST_KEYS, views=True)
        #: Who the client is, in words.
        self.name = ""
        #: Who it is, for the dispatcher: see :class:`IClient`.
        self.peer: Hashable = None
        #: Whether a worker has ever answered a job of it; the dispatcher sets this.
        self.was_served = False
        #: Whether it can be written to.
        self.is_open = False
        #: Whether it has ever had a job; then the dispatcher may have to forget it.
        self._is_known = False
        #: The jobs whose outcome has not come yet, by id.
        self.jobs: dict[int, Job] = {}
        #: The same jobs by tag, except those without one.
        self._tags: dict[bytes, Job] = {}
        #: Whether the client is slow to read its answers.
        self.is_held = False
        #: The latest progress of each job by id, kept back while the client is slow to read.
        self._news: dict[int, tuple[bytes, Raw]] = {}
        #: Whether the loop over received boxes is running.
        self._taking = False
        #: When the last request came, or the last outcome was told.
        self._active_at = 0.0
        #: When it was made.
        self.connected_at = 0.0

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin to read; be told from now on when the client is slow to read."""
        site = self._site
        self.is_open = True
        self.name = name_of(self.transport)
        self.peer = identity_of(self.transport, self.user)
        self._active_at = self.connected_at = site.clock.seconds()
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # no answer waits for an ACK
            self.transport.setTcpKeepAlive(True)  # notice peers that vanished
        self._writer = EagerWriter(site.clock, self.transport, self, site.budget)
        self._flow = FlowControl(
            site.clock,
            self.transport,
            site.budget,
            site.max_in_flight,
            site.max_payload,
            self._take_boxes,
        )
        self.holdings = Holdings(self, site, self._reader, self._flow, self._writer)
        self._stall_watch = StallWatch(
            site.clock, self._writer.delivered, self.holdings.has_stalled
        )
        self._own_commands = OwnCommands(
            self._dispatcher, site.catalogue, self._flow, self._tags, self._answer_at_once
        )

    def dataReceived(self, data: bytes) -> None:
        """Take the client's bytes."""
        self._reader.feed(data)
        self._take_boxes()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the client and its jobs."""
        self.is_open = False
        self._stall_watch.stop()
        self.jobs.clear()
        self._tags.clear()
        self._own_commands.forget()
        self._writer.forget()
        self._flow.clear()
        self.holdings.drop()
        if self._is_known or self.is_held:  # of clients that go all at once, most are not
            self._dispatcher.client_gone(self)
        self._site.connection_lost(self)
        # These parts refer to the connection: its memory would stay until the next collection.
        del self.holdings, self._flow, self._own_commands, self._stall_watch, self._writer

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close the connection of a client that passes a descriptor: no job takes one."""
        dispose(descriptor)
        if self.is_open:
            self.warn("descriptor", "{peer} passed a file descriptor; closing")
            self.abort()

    # The factory's calls.

    def close(self) -> None:
        """Read no more, and close the connection when everything written is sent."""
        self.is_open = False
        self._flow.hold(flowcontrol.CLOSING)
        self._writer.end()

    def abort(self) -> None:
        """Close the connection now; `connectionLost` follows. See :meth:`IClient.abort`."""
        self.is_open = False
        self.transport.abortConnection()

    @property
    def idle_since(self) -> float | None:
        """Since when the client has had no work here; None while it has some."""
        idle = self.is_open and self._flow.is_idle and not self.holdings.held
        return self._active_at if idle else None

    # The writer's calls.

    def unread_grows(self) -> None:
        """Stop reading the client and starting its jobs: it does not read its answers."""
        self.is_held = True
        self._stall_watch.start()
        self._flow.hold(flowcontrol.UNREAD)
        self._dispatcher.hold(self)

    def all_is_read(self) -> None:
        """Go on: the client has read its answers."""
        self.is_held = False
        self._stall_watch.stop()
        news, self._news = self._news, {}
        for start, body in news.values():
            self._write(start, body)
        self._dispatcher.release(self)
        if not self.is_held:
            self._flow.release(flowcontrol.UNREAD)

    # The dispatcher's calls.

    def deliver(self, job: Job, failed: bool, body: Raw) -> None:
        """See :meth:`IClient.deliver`."""
        if self._news and job.id in self._news:
            self._write(*self._news.pop(job.id))
        self._answer(job.tag, failed, body)
        self._forget(job)

    def report(self, job: Job, body: Raw, parts: bool) -> None:
        """See :meth:`IClient.report`."""
        if job.tag is None:
            return
        command = commands.Chunk if parts else commands.Progress
        start = boxes.pair(boxes.COMMAND, command.commandName) + boxes.pair(b"tag", job.tag)
        if self.is_held and not parts:
            self._news[job.id] = start, body  # in place of the last one, so that nothing piles up
        else:
            self._write(start, body)

    def fail(self, job: Job, error: DangadError) -> None:
        """See :meth:`IClient.fail`."""
        self._news.pop(job.id, None)
        self.refuse(job.tag, error)
        self._forget(job)

    # Requests.

    def _take_boxes(self) -> None:
        """Read the boxes received so far, as long as the client's limits allow it.

        An outcome may come in the middle of this and make room for more boxes. It does not start a
        second loop: the running one reads these boxes, too.
        """
        if self._taking:
            return
        reader, flow, turns, holdings = self._reader, self._flow, self._turns, self.holdings
        self._taking = True
        try:
            while not (reader.is_empty or flow.paused) and self.is_open:
                if turns.left <= 0:
                    flow.hold(flowcontrol.IN_LINE)
                    turns.wait(self._take_turn)
                    break
                box = reader.next()
                if box is None:
                    turns.left -= 1 + reader.scanned // UNIT
                    break
                turns.left -= 1 + box.size // UNIT
                self._box_received(box)
        except boxes.Garbage as garbage:
            self.warn("garbage", "{peer} sent {garbage}; closing", garbage=str(garbage))
            self.abort()
        finally:
            self._taking = False
        if holdings.half or not reader.is_empty:
            holdings.count_half()

    def _take_turn(self) -> None:
        """Read on, with this turn's share of requests."""
        if not self.is_open:
            return
        try:
            self._flow.take_turn()
        except Exception:  # noqa: BLE001 - as of `dataReceived`: it costs this connection
            log.failure("cannot serve {peer}; closing", peer=self._peer)
            self.abort()

    def _box_received(self, box: Box) -> None:
        keys = box.keys
        tag = keys.get(boxes.ASK)
        command = keys.get(boxes.COMMAND)
        if command is None:
            if tag is not None:
                self.refuse(tag, BadArguments("the request has no _command"))
            elif boxes.ANSWER not in keys and boxes.ERROR not in keys:
                raise boxes.Garbage("a box that is neither a request nor an answer")
        elif tag is not None and len(tag) > MAX_TAG:
            self.refuse(tag, BadArguments(f"the tag (_ask) is {len(tag)} bytes; at most {MAX_TAG}"))
        elif tag is not None and tag in self._tags:
            self.refuse(
                tag, BadArguments(f"the tag (_ask) {quote(tag)} is in use by another request")
            )
        elif box.raw is None:
            self.refuse(tag, self.holdings.why_thrown_away(box))
        elif command.startswith(commands.PREFIX):
            self._perform(command, tag, box.raw)
        else:
            self._submit(command, tag, keys, box.raw)

    def _submit(
        self, command: bytes, tag: bytes | None, keys: dict[bytes, bytes], raw: Raw
    ) -> None:
        """Make a job of a request, and submit it."""
        try:
            plain = tag is not None and len(keys) == 2
            options = _NO_OPTIONS if plain else read_options(keys)
        except BadArguments as error:
            self.refuse(tag, error)
            return
        job = Job(self._dispatcher.next_id(), self, tag, command, raw)
        if options:
            job.priority = options.get(boxes.PRIORITY, Priority.NORMAL)
            job.deadline = options.get(boxes.DEADLINE)
            job.wants_chunks = options.get(boxes.CHUNKS, False)
            job.wants_progress = options.get(boxes.PROGRESS, False)
            job.traceparent = options.get(boxes.TRACEPARENT)
        self._is_known = True
        self.jobs[job.id] = job
        if tag is not None:
            self._tags[tag] = job
        self._flow.entered(job.size)
        self._dispatcher.submit(job)
        self._active_at = job.accepted_at

    def _perform(self, command: bytes, tag: bytes | None, raw: Raw) -> None:
        """Perform one of dangad's own commands."""
        self._active_at = self._site.clock.seconds()
        try:
            self._own_commands.perform(command, tag, raw)
        except DangadError as error:
            self.refuse(tag, error)

    # Answers.

    def _answer(self, tag: bytes | None, failed: bool, body: Raw) -> None:
        if tag is not None:
            more = self._taking or len(self.jobs) > 1  # of many jobs, some end together
            self._write(boxes.pair(boxes.ERROR if failed else boxes.ANSWER, tag), body, more)

    def _write(self, start: bytes, body: Raw, more: bool = False) -> None:
        """Write a box; never raises, because the caller has other clients' jobs to deal with.

        :param more: whether other boxes are likely to follow at once.
        """
        if not self.is_open:
            return
        try:
            if len(body) <= SMALL:
                self._writer.write(start + body, more)
            else:
                self._writer.write_large(start, body)
        except Exception:  # noqa: BLE001 - see above; transports are of many kinds
            log.failure("cannot write to {peer}; closing", peer=self._peer)
            self.abort()

    def _answer_at_once(self, tag: bytes | None, failed: bool, body: Raw) -> None:
        """Answer a request that is not a job."""
        self._answer(tag, failed, body)
        if self._taking:
            self._flow.answered_at_once()

    def refuse(self, tag: bytes | None, error: DangadError) -> None:
        """Answer a request with an error."""
        self._answer_at_once(tag, True, boxes.pack(boxes.error_pairs(error.code, str(error))))

    def _forget(self, job: Job) -> None:
        """Forget `job`, whose outcome the client was told."""
        if self.jobs.pop(job.id, None) is None:
            return
        if job.tag is not None:
            self._tags.pop(job.tag, None)
        if job.ended_at:
            self._active_at = job.ended_at
        self._flow.left(job.size)

    # The log.

    def warn(self, kind: str, format: str, **fields: object) -> None:
        """Log a line that the client has caused; at most a few lines of a kind."""
        address = self.transport.getPeer()
        fields |= {"peer": self._peer, "client": self.name}
        self._site.quiet.warn(kind, peer_of(address), format, **fields)

    @property
    def _peer(self) -> str:
        return f"client {self.name}"
