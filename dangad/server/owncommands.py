"""dangad's own commands for clients. They are performed here, and are not jobs.

Used by :mod:`dangad.server.connection`. The commands themselves are in :mod:`dangad.wire.commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from dangad.errors import BadArguments, DangadError, TooLarge, UnhandledCommand
from dangad.wire import boxes, commands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.record import Job
    from dangad.server.flowcontrol import FlowControl

MAX_OWN_COMMAND = 2**16
"""Bytes of the largest request for one of dangad's own commands: the parent decodes it."""


class Catalogue:
    """The answer to ``dangad.Describe`` as bytes, made once for all clients."""

    def __init__(self) -> None:
        #: The catalogue that was packed last.
        self._text: str | None = None
        #: The packed bytes.
        self._packed = b""

    def pack(self, text: str) -> bytes:
        """The rest of the answer, after the tag, with this catalogue."""
        if text is not self._text:
            strings = commands.Describe.makeResponse({"catalogue": text}, None)
            self._text, self._packed = text, boxes.pack(strings.items())
        return self._packed


class OwnCommands:
    """Performs the commands of one client."""

    __slots__ = ("_answer", "_catalogue", "_dispatcher", "_flow", "_jobs", "lookups")

    def __init__(
        self,
        dispatcher: Dispatcher,
        catalogue: Catalogue,
        flow: FlowControl,
        jobs: Mapping[bytes, Job],
        answer: Callable[[bytes | None, bool, bytes], object],
    ) -> None:
        """Begin with no requests.

        :param dispatcher: knows the catalogue, and cancels jobs.
        :param catalogue: packs the catalogue.
        :param flow: counts waiting requests as in flight.
        :param jobs: the client's jobs, by tag.
        :param answer: called with a tag, whether the command failed, and the rest of the answer.
        """
        self._dispatcher = dispatcher
        self._catalogue = catalogue
        self._flow = flow
        self._jobs = jobs
        self._answer = answer
        #: The client's requests for the catalogue that wait.
        self.lookups: set[Deferred[str]] = set()

    def perform(self, command: bytes, tag: bytes | None, raw: boxes.Raw) -> None:
        """Perform a command whose name begins with ``dangad.``; `answer` may be called later.

        :raises DangadError: the command is refused.
        """
        if len(raw) > MAX_OWN_COMMAND:
            raise TooLarge(
                f"the request is {len(raw)} bytes; at most {MAX_OWN_COMMAND} for a command "
                f"of the server's own"
            )
        if command == commands.Ping.commandName:
            self._answer(tag, False, boxes.END)
        elif command == commands.Describe.commandName:
            lookup = self._dispatcher.describe()
            self.lookups.add(lookup)
            self._flow.entered(0)
            lookup.addBoth(self._described, lookup, tag)
        elif command == commands.Cancel.commandName:
            target = boxes.unpack(bytes(raw)).get(b"tag")
            if target is None:
                raise BadArguments("argument 'tag' is missing")
            if target in self._jobs:
                self._dispatcher.cancel(self._jobs[target])
            self._answer(tag, False, boxes.END)
        else:
            name = command[:100].decode("ascii", "backslashreplace")
            raise UnhandledCommand(f"this server has no command {name}")

    def forget(self) -> None:
        """Cancel the client's requests for the catalogue: the client is gone."""
        for lookup in list(self.lookups):
            lookup.cancel()

    def _described(self, outcome: str | Failure, lookup: Deferred[str], tag: bytes | None) -> None:
        """Answer a request for the catalogue."""
        self.lookups.discard(lookup)
        self._flow.left(0)
        if not isinstance(outcome, Failure):
            self._answer(tag, False, self._catalogue.pack(outcome))
        elif isinstance(outcome.value, DangadError):
            error = outcome.value
            self._answer(tag, True, boxes.pack(boxes.error_pairs(error.code, str(error))))
