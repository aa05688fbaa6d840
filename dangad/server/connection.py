"""One client's connection: its bytes become requests, and outcomes become answers.

Made by :mod:`dangad.server.factory`. Requests go to :mod:`dangad.scheduler.dispatcher`; outcomes
come back through :class:`~dangad.scheduler.interfaces.IClient` and go out under the request's own
tag. What keeps a client's troubles its own is elsewhere: the size of a box in
:mod:`dangad.wire.boxes`, the requests in flight in :mod:`dangad.server.flowcontrol`, how much is
done in one turn of the reactor in :mod:`dangad.host.turns`, how long a box may take in
:mod:`dangad.server.boxwatch`, the answers that are not read in :mod:`dangad.server.eagerwriter`,
and the bytes of all clients in :mod:`dangad.server.memorybudget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IFileDescriptorReceiver, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from dangad.errors import BadArguments, DangadError, QueueFull, TooLarge
from dangad.host.quietlog import peer_of
from dangad.host.turns import UNIT
from dangad.scheduler.interfaces import IClient
from dangad.scheduler.record import Job
from dangad.server import flowcontrol
from dangad.server.boxwatch import BOX_TIME, IBoxSender
from dangad.server.eagerwriter import EagerWriter, IUnreadWatcher
from dangad.server.flowcontrol import FlowControl
from dangad.server.memorybudget import LEAST as LEAST_HELD
from dangad.server.memorybudget import IHolder
from dangad.server.options import read_options
from dangad.server.owncommands import OwnCommands
from dangad.server.passeddescriptors import dispose
from dangad.server.peers import name_of
from dangad.server.stallwatch import StallWatch
from dangad.text import quote
from dangad.wire import boxes, commands
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
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
        """What is asked of a client's transport, TCP or not."""

    class Site(Shape):
        """What all connections have in common, as :class:`.ClientFactory` has it."""

        clock: IReactorTime
        dispatcher: Dispatcher
        turns: Turns
        budget: MemoryBudget
        box_watch: BoxWatch
        catalogue: Catalogue
        quiet: QuietLog
        max_payload: int
        max_in_flight: int
        next_id: Callable[[], int]

        def connection_lost(self, connection: ClientConnection) -> None:
            """Hear that `connection` is closed."""


log = Logger()

MAX_TAG = 255
"""Bytes of the longest ``_ask`` that is answered under its name."""
SMALL = 2**16
"""Bytes up to which an answer is joined with its tag, to be written in one piece."""
_NO_OPTIONS: dict[bytes, Any] = {}
"""Those of most requests, whose reserved keys are the command and the tag alone."""


@implementer(IClient, IFileDescriptorReceiver, IUnreadWatcher, IHolder, IBoxSender)
class ClientConnection(Protocol):
    """One client's connection.

    All mutable state: `name`, who it is, in words; `_is_known`, whether it has ever had a job, of
    which the dispatcher may still know its turn; `_jobs`, the jobs whose outcome it is still to be
    told, by id; `_tags`, those of them that have a tag, by it; `_flow`, whether it is read;
    `_reader` and `_writer`, what came and goes; `_half`, the bytes in the reader, as far as they
    are counted; `_discarded`, why the box was thrown away of which the rest is still to come;
    `_congested`, whether its answers wait to be read, and `_news`, how far its jobs are meanwhile;
    `_taking`, whether its boxes are being gone through; `_active_at`, when it last asked for
    something, or was told; `_open`, whether it can be written to. The parts that `connectionMade`
    makes have their own.
    """

    transport: _StreamTransport
    outranks = False

    def __init__(self, site: Site) -> None:
        self._site = site
        self._dispatcher = site.dispatcher
        self._turns = site.turns
        self._reader = boxes.BoxReader(site.max_payload, boxes.REQUEST_KEYS, views=True)
        self._is_known = False
        self._jobs: dict[int, Job] = {}
        self._tags: dict[bytes, Job] = {}
        self._news: dict[int, tuple[bytes, Raw]] = {}
        self._half = 0
        self._discarded: DangadError | None = None
        self._congested = False
        self._taking = False
        self._active_at = 0.0
        self._open = False
        self.name = ""

    # The transport's calls.

    def connectionMade(self) -> None:
        """Begin to read, and to be told when the client does not."""
        site = self._site
        self._open = True
        self.name = name_of(self.transport)
        self._active_at = site.clock.seconds()
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # else an answer waits for the last one's ACK
            self.transport.setTcpKeepAlive(True)  # else a peer that vanished stays for ever
        self._writer = EagerWriter(site.clock, self.transport, self, site.budget)
        self._stall_watch = StallWatch(site.clock, self._writer.delivered, self._has_stalled)
        self._flow = FlowControl(
            site.clock,
            self.transport,
            site.budget,
            site.max_in_flight,
            site.max_payload,
            self._take_boxes,
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
        self._open = False
        self._stall_watch.stop()
        self._jobs.clear()
        self._tags.clear()
        self._own_commands.forget()
        self._writer.forget()
        self._flow.clear()
        self._site.budget.total -= self._half
        if self._is_known or self._congested:  # most that go at once are not
            self._dispatcher.client_gone(self)
        self._site.connection_lost(self)
        # They know the connection, and what it holds would stay until the next collection.
        del self._flow, self._own_commands, self._stall_watch, self._writer

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close the connection of a client that passes a descriptor: no job takes one."""
        dispose(descriptor)
        if self._open:
            self._warn("descriptor", "{peer} passed a file descriptor; closing")
            self.abort()

    # The factory's calls.

    def close(self) -> None:
        """Read no more, and close the connection once what was written to it is sent."""
        self._open = False
        self._flow.hold(flowcontrol.CLOSING)
        self._writer.end()

    def abort(self) -> None:
        """Close the connection now; what follows is `connectionLost`. See :meth:`IClient.abort`."""
        self._open = False
        self.transport.abortConnection()

    @property
    def idle_since(self) -> float | None:
        """Since when it has had nothing to do; None if it has something."""
        idle = self._open and self._flow.is_idle and not (self._half or self._writer.held)
        return self._active_at if idle else None

    # The writer's calls.

    def unread_grows(self) -> None:
        """The client does not read its answers: read no more of it, start nothing more for it."""
        self._congested = True
        self._stall_watch.start()
        self._flow.hold(flowcontrol.UNREAD)
        self._dispatcher.hold(self)

    def all_is_read(self) -> None:
        """The client has read its answers."""
        self._congested = False
        self._stall_watch.stop()
        news, self._news = self._news, {}
        for start, body in news.values():
            self._write(start, body)
        self._dispatcher.release(self)
        if not self._congested:
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
        if self._congested and not parts:
            self._news[job.id] = start, body  # in place of the last, so that nothing piles up
        else:
            self._write(start, body)

    def fail(self, job: Job, error: DangadError) -> None:
        """See :meth:`IClient.fail`."""
        self._news.pop(job.id, None)
        self._refuse(job.tag, error)
        self._forget(job)

    # The watch's calls, and what it looks at.

    @property
    def boxes(self) -> int:
        """See :attr:`IBoxSender.boxes`."""
        return self._reader.taken

    @property
    def begun(self) -> int:
        """See :attr:`IBoxSender.begun`."""
        return self._reader.begun

    @property
    def is_read(self) -> bool:
        """See :attr:`IBoxSender.is_read`."""
        return not self._flow.paused

    def box_is_late(self) -> None:
        """See :meth:`IBoxSender.box_is_late`."""
        self._warn(
            "slow box",
            "{peer} does not get on with a request, of which it has sent {begun} bytes; closing",
            begun=self.begun,
        )
        if self._writer.held:
            self.abort()  # it does not read, either
            return
        text = f"the request did not get on for {BOX_TIME:g} s, so the connection is closed"
        self._refuse(self._reader.noted.get(boxes.ASK), BadArguments(text))
        self.close()

    # The budget's calls, and what it looks at.

    @property
    def held(self) -> int:
        """See :attr:`IHolder.held`."""
        return self._flow.bytes + self._half + self._writer.held

    @property
    def unread(self) -> int:
        """See :attr:`IHolder.unread`."""
        return self._writer.held

    def progress(self) -> Hashable:
        """See :meth:`IHolder.progress`."""
        return self._reader.taken, self._reader.begun, self._writer.delivered(), len(self._jobs)

    def wait_for_memory(self) -> None:
        """See :meth:`IHolder.wait_for_memory`."""
        self._flow.hold(flowcontrol.MEMORY)

    def go_on(self) -> None:
        """See :meth:`IHolder.go_on`."""
        self._flow.release(flowcontrol.MEMORY)

    def shed(self) -> int:
        """See :meth:`IHolder.shed`."""
        budget, unread, half = self._site.budget, self._writer.held, self._half
        if max(unread, half) < LEAST_HELD or not self._open:
            return 0
        full = f"{budget.total} bytes of requests and answers, and --max-buffered is {budget.limit}"
        if unread > half:
            self._warn(
                "memory",
                "{peer} leaves {unread} bytes of answers unread; the server holds {full}; closing",
                unread=unread,
                full=full,
            )
            self.abort()
            return unread
        self._reader.discard()
        self._discarded = QueueFull(
            f"the request was thrown away when the server held {full}; try again later"
        )
        self._note_half()
        return half - self._half

    # Requests.

    def _take_boxes(self) -> None:
        """Read the boxes that have come, as long as the client's pace allows it.

        An outcome that comes at once, in the middle of it, does not begin it anew: the boxes
        that it makes room for are read by the loop that is running already.
        """
        if self._taking:
            return
        reader, flow, turns = self._reader, self._flow, self._turns
        self._taking = True
        try:
            while not (reader.is_empty or flow.paused) and self._open:
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
            self._warn("garbage", "{peer} sent {garbage}; closing", garbage=str(garbage))
            self.abort()
        finally:
            self._taking = False
        if self._half or not reader.is_empty:
            self._note_half()

    def _take_turn(self) -> None:
        """Read on, with this turn's share."""
        if not self._open:
            return
        try:
            self._flow.take_turn()
        except Exception:  # noqa: BLE001 - as of `dataReceived`: it costs this connection
            log.failure("cannot serve {peer}; closing", peer=self._peer)
            self.abort()

    def _note_half(self) -> None:
        """Count what has come and is not read, and have the time of a begun box watched."""
        if not self._open:
            return
        before, now = self._half, self._reader.held
        if now != before:
            self._half = now
            self._site.budget.add(now - before)
            if not before:
                self._site.box_watch.watch(self)
            elif not now:
                self._site.box_watch.forget(self)

    def _box_received(self, box: Box) -> None:
        keys = box.keys
        tag = keys.get(boxes.ASK)
        command = keys.get(boxes.COMMAND)
        if command is None:
            if tag is not None:
                self._refuse(tag, BadArguments("the request has no _command"))
            elif boxes.ANSWER not in keys and boxes.ERROR not in keys:
                raise boxes.Garbage("a box that is neither a request nor an answer")
        elif tag is not None and len(tag) > MAX_TAG:
            self._refuse(
                tag, BadArguments(f"the tag (_ask) is {len(tag)} bytes; at most {MAX_TAG}")
            )
        elif tag is not None and tag in self._tags:
            self._refuse(
                tag, BadArguments(f"the tag (_ask) {quote(tag)} is in use by another request")
            )
        elif box.raw is None:
            self._refuse(tag, self._why_thrown_away(box))
        elif command.startswith(commands.PREFIX):
            self._perform(command, tag, box.raw)
        else:
            self._submit(command, tag, keys, box.raw)

    def _why_thrown_away(self, box: Box) -> DangadError:
        limit = self._site.max_payload
        error, self._discarded = self._discarded, None
        if error is None or box.size > limit:
            error = TooLarge(f"the request is {box.size} bytes, --max-payload is {limit}")
        return error

    def _submit(
        self, command: bytes, tag: bytes | None, keys: dict[bytes, bytes], raw: Raw
    ) -> None:
        """Make a job of a request, and submit it."""
        try:
            plain = tag is not None and len(keys) == 2
            options = _NO_OPTIONS if plain else read_options(keys)
        except BadArguments as error:
            self._refuse(tag, error)
            return
        job = Job(self._site.next_id(), self, tag, command, raw)
        if options:
            job.priority = options.get(boxes.PRIORITY, Priority.NORMAL)
            job.deadline = options.get(boxes.DEADLINE)
            job.wants_chunks = options.get(boxes.CHUNKS, False)
            job.wants_progress = options.get(boxes.PROGRESS, False)
        self._is_known = True
        self._jobs[job.id] = job
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
            self._refuse(tag, error)

    # Answers.

    def _answer(self, tag: bytes | None, failed: bool, body: Raw) -> None:
        if tag is not None:
            more = self._taking or len(self._jobs) > 1  # of many, some will end together
            self._write(boxes.pair(boxes.ERROR if failed else boxes.ANSWER, tag), body, more)

    def _write(self, start: bytes, body: Raw, more: bool = False) -> None:
        """Write a box; never raises, since others' jobs are waiting for the caller.

        :param more: whether other boxes are likely to follow at once.
        """
        if not self._open:
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
        """Answer a request that is no job."""
        self._answer(tag, failed, body)
        if self._taking:
            self._flow.answered_at_once()

    def _refuse(self, tag: bytes | None, error: DangadError) -> None:
        self._answer_at_once(tag, True, boxes.pack(boxes.error_pairs(error.code, str(error))))

    def _forget(self, job: Job) -> None:
        """The client was told the outcome of `job`."""
        if self._jobs.pop(job.id, None) is None:
            return
        if job.tag is not None:
            self._tags.pop(job.tag, None)
        if job.ended_at:
            self._active_at = job.ended_at
        self._flow.left(job.size)

    # What is told about it.

    def _has_stalled(self, read: int, seconds: float) -> None:
        """Cut it off: it has read too little of its answers for long."""
        self._warn(
            "stalled",
            "{peer} has read {read} bytes in {seconds:.0f} s, of answers of which {unread} bytes "
            "wait to be read; closing",
            read=read,
            seconds=seconds,
            unread=self._writer.held,
        )
        self.abort()

    def _warn(self, kind: str, format: str, **fields: object) -> None:
        """Log a line about the client, which has caused it; few of them if there are many."""
        address = self.transport.getPeer()
        self._site.quiet.warn(kind, peer_of(address), format, peer=f"client {address}", **fields)

    @property
    def _peer(self) -> str:
        return f"client {self.transport.getPeer()}"
