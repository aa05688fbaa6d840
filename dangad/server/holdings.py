"""The bytes that the server holds for one client, as the watches see them.

Made by :class:`~dangad.server.connection.ClientConnection`, whose parts hold the bytes: its reader
holds an incomplete request, its flow control counts unanswered requests, and its writer holds
unread answers. :mod:`dangad.server.memorybudget` asks how many bytes there are, and
:mod:`dangad.server.boxwatch` and :mod:`dangad.server.stallwatch` ask whether they move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from dangad.errors import BadArguments, DangadError, QueueFull, TooLarge
from dangad.server import flowcontrol
from dangad.server.boxwatch import BOX_TIME, IBoxSender
from dangad.server.memorybudget import LEAST as LEAST_HELD
from dangad.server.memorybudget import IHolder
from dangad.wire import boxes

if TYPE_CHECKING:
    from collections.abc import Hashable

    from dangad.server.connection import ClientConnection, Site
    from dangad.server.eagerwriter import EagerWriter
    from dangad.server.flowcontrol import FlowControl
    from dangad.wire.boxes import Box, BoxReader


@implementer(IHolder, IBoxSender)
class Holdings:
    """The bytes held for one client, and how they are given up."""

    def __init__(
        self,
        connection: ClientConnection,
        site: Site,
        reader: BoxReader,
        flow: FlowControl,
        writer: EagerWriter,
    ) -> None:
        """Begin with nothing held.

        :param connection: the client's connection, through which it is refused or cut off.
        :param site: what all connections share.
        :param reader: holds the incomplete request.
        :param flow: counts the unanswered requests.
        :param writer: holds the unread answers.
        """
        self._connection = connection
        self._site = site
        self._reader = reader
        self._flow = flow
        self._writer = writer
        #: The bytes of the incomplete request that are counted so far.
        self.half = 0
        #: Why the incomplete request was discarded; None if it was not.
        self._discarded: DangadError | None = None

    # The connection's calls.

    def count_half(self) -> None:
        """Count the bytes of an incomplete request, and watch its time."""
        if not self._connection.is_open:
            return
        before, now = self.half, self._reader.held
        if now != before:
            self.half = now
            self._site.budget.add(now - before)
            if not before:
                self._site.box_watch.watch(self)
            elif not now:
                self._site.box_watch.forget(self)

    def why_thrown_away(self, box: Box) -> DangadError:
        """Why only the keys of `box` were kept."""
        limit = self._site.max_payload
        error, self._discarded = self._discarded, None
        if error is None or box.size > limit:
            error = TooLarge(f"the request is {box.size} bytes, --max-payload is {limit}")
        return error

    def drop(self) -> None:
        """Count nothing any more: the client is gone."""
        self._site.budget.total -= self.half
        self._site.budget.forget(self)
        self._site.box_watch.forget(self)

    # For the box watch.

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
        connection = self._connection
        connection.warn(
            "slow box",
            "{peer} does not get on with a request, of which it has sent {begun} bytes; closing",
            begun=self.begun,
        )
        if self._writer.held:
            connection.abort()  # it does not read, either
            return
        text = f"the request did not get on for {BOX_TIME:g} s, so the connection is closed"
        connection.refuse(self._reader.noted.get(boxes.ASK), BadArguments(text))
        connection.close()

    # For the stall watch.

    def has_stalled(self, read: int, seconds: float) -> None:
        """Cut off the client: it has read too little of its answers for too long."""
        self._connection.warn(
            "stalled",
            "{peer} has read {read} bytes in {seconds:.0f} s, of answers of which {unread} bytes "
            "wait to be read; closing",
            read=read,
            seconds=seconds,
            unread=self._writer.held,
        )
        self._connection.abort()

    # For the budget.

    @property
    def held(self) -> int:
        """See :attr:`IHolder.held`."""
        return self._flow.bytes + self.half + self._writer.held

    @property
    def unread(self) -> int:
        """See :attr:`IHolder.unread`."""
        return self._writer.held

    def progress(self) -> Hashable:
        """See :meth:`IHolder.progress`."""
        reader, writer = self._reader, self._writer
        return reader.taken, reader.begun, writer.delivered(), self._flow.requests

    def wait_for_memory(self) -> None:
        """See :meth:`IHolder.wait_for_memory`."""
        self._flow.hold(flowcontrol.MEMORY)

    def go_on(self) -> None:
        """See :meth:`IHolder.go_on`."""
        self._flow.release(flowcontrol.MEMORY)

    def shed(self) -> int:
        """See :meth:`IHolder.shed`."""
        budget, unread, half = self._site.budget, self._writer.held, self.half
        if max(unread, half) < LEAST_HELD or not self._connection.is_open:
            return 0
        full = f"{budget.total} bytes of requests and answers, and --max-buffered is {budget.limit}"
        if unread > half:
            self._connection.warn(
                "memory",
                "{peer} leaves {unread} bytes of answers unread; the server holds {full}; closing",
                unread=unread,
                full=full,
            )
            self._connection.abort()
            return unread
        self._reader.discard()
        self._discarded = QueueFull(
            f"the request was thrown away when the server held {full}; try again later"
        )
        self.count_half()
        return half - self.half
