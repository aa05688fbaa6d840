"""Jobs that operators call by hand, from the server's own page.

Made by :mod:`dangad.service`, asked by :mod:`dangad.operators.view`. Each call is a client of its
own, beside the ones that are connected: the scheduler's rules are the same for it. What comes of
the last calls is kept as text, as far as it can be shown.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from dangad.client.calls import Call
from dangad.errors import BadArguments, DangadError, NotFound, QueueFull
from dangad.scheduler.interfaces import IClient
from dangad.scheduler.record import Job
from dangad.text import meant, printable, show_bytes
from dangad.wire import boxes, commands
from dangad.wire.values import Priority
from dangad.wire.words import as_json, build_arguments, build_typed_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.defer import Deferred

    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.wire.boxes import Raw

MOST_KEPT = 50
"""How many calls are remembered, those under way among them."""
MOST_UNDER_WAY = 10
"""The most calls whose jobs have not ended."""
MOST_READ = 2**20
"""Bytes of the largest answer that is read."""
MOST_SHOWN = 2**16
"""The most characters of an answer that are kept."""
MOST_PART = 2**12
"""The most characters of a part of a result that are kept."""
MOST_PARTS = 20
"""How many parts of a result are kept, the latest ones."""
_FORGOTTEN = "it has ended, or its last attempt has begun"
"""Why a job's request is not held any more."""
_TAG = b"1"
"""The tag of the only request of each client."""


@implementer(IClient)
class HandCall:
    """One job, and what has come of it so far."""

    name = "an operator, by hand"
    outranks = False
    peer = "operators"

    def __init__(self, entry: dict[str, Any], typed: dict[str, Any]) -> None:
        """Wait for the outcome.

        :param entry: the command, as the catalogue describes it.
        :param typed: what the operator has chosen, for the document.
        :raises BadArguments: the command has a type that is not known here.
        """
        try:
            #: The command, prepared.
            self.call = Call(build_typed_command(entry))
        except KeyError as error:
            raise BadArguments(f"{entry['name']} has a type unknown here: {error}") from None
        self._entry = entry
        self._typed = typed
        self.was_served = False
        #: When it was called, in seconds since 1970.
        self._called_at = time.time()
        #: The job's last progress: how much is done, of how much, and a text.
        self._progress: tuple[int, int, str] | None = None
        #: The last parts of the result, and how many there were.
        self._parts: deque[str] = deque(maxlen=MOST_PARTS)
        self._part_count = 0
        #: The answer as text; None if there is none.
        self._answer: str | None = None
        #: The code and the text of the error; None if there is none.
        self._error: tuple[str, str] | None = None
        #: Whether the job has not ended.
        self.under_way = True

    def document(self, job_id: int) -> dict[str, Any]:
        """What has come of it so far."""
        progress = self._progress
        return {
            "job": job_id,
            "command": self._entry["name"],
            **self._typed,
            "called": self._called_at,
            "under_way": self.under_way,
            "progress": progress and dict(zip(("done", "total", "message"), progress, strict=True)),
            "parts": list(self._parts),
            "part_count": self._part_count,
            "answer": self._answer,
            "error": self._error and f"{self._error[0]}: {self._error[1]}",
        }

    # The dispatcher's calls.

    def deliver(self, job: Job, failed: bool, body: Raw) -> None:
        """See :meth:`IClient.deliver`."""
        self.under_way = False
        if failed:
            strings = boxes.unpack(bytes(body[:MOST_SHOWN]))
            code = strings.get(boxes.ERROR_CODE, b"UNKNOWN").decode("ascii", "replace")
            text = strings.get(boxes.ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
            self._error = code, text
        elif len(body) > MOST_READ:
            self._answer = f"an answer of {show_bytes(len(body))}, which is too large to be shown"
        else:
            try:
                response = self.call.response(boxes.unpack(bytes(body)))
                shown = as_json(self._entry["response"], response)
            except DangadError as error:
                self._error = error.code.decode("ascii", "replace"), str(error)
            else:
                self._answer = _shortened(json.dumps(shown, ensure_ascii=False, indent=2))

    def report(self, job: Job, body: Raw, parts: bool) -> None:
        """See :meth:`IClient.report`."""
        command = commands.Chunk if parts else commands.Progress
        news = command.parseArguments({**boxes.unpack(bytes(body)), b"tag": _TAG}, None)
        if parts:
            self._part_count += 1
            data: bytes = news["data"]
            text = data[: MOST_PART + 1].decode("utf-8", "backslashreplace")
            self._parts.append(_shortened(text, MOST_PART))
        else:
            self._progress = (
                news["done"],
                news["total"],
                printable(_shortened(news["message"], MOST_PART)),
            )

    def fail(self, job: Job, error: DangadError) -> None:
        """See :meth:`IClient.fail`."""
        self.under_way = False
        self._error = error.code.decode("ascii", "replace"), str(error)

    def abort(self) -> None:
        """See :meth:`IClient.abort`."""
        self.under_way = False
        self._error = "UNKNOWN", "the server failed to read the answer; its log has more"


class HandCalls:
    """The last calls, and what came of them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        #: The calls by the ids of their jobs, the latest last.
        self._calls: OrderedDict[int, HandCall] = OrderedDict()

    def call(
        self, command: str, words: Mapping[str, Sequence[str]], **options: Any
    ) -> Deferred[int]:
        """Call the command of this name: see :meth:`begin`.

        Fires with the job's id once the catalogue is known. Fails as `begin` raises, and with
        ValueError if there is no such command.
        """

        def called(catalogue: str) -> int:
            entries = {entry["name"]: entry for entry in json.loads(catalogue)["commands"]}
            if command not in entries:
                raise ValueError(f"the server has no command {command!r}{meant(command, entries)}")
            return self.begin(entries[command], words, **options)

        return self._dispatcher.describe().addCallback(called)

    def begin(
        self,
        entry: dict[str, Any],
        words: Mapping[str, Sequence[str]],
        *,
        priority: str = "normal",
        deadline: float | None = None,
        chunks: bool = False,
    ) -> int:
        """Call a command, and return the job's id.

        :param entry: the command, as the catalogue describes it.
        :param words: the words of each argument: see :func:`dangad.wire.words.build_arguments`.
        :param priority: ``high``, ``normal`` or ``low``.
        :param deadline: seconds until the answer is useless; None for ever.
        :param chunks: whether the job may send parts of its result.
        :raises ValueError: the words make no arguments; the text says why.
        :raises BadArguments: a value cannot be sent, or an option is not valid.
        :raises QueueFull: too many calls are under way.
        """
        self._check_room()
        if deadline is not None and not 0 <= deadline < float("inf"):
            raise BadArguments(f"deadline is {deadline!r}, not a number of seconds, 0 or more")
        if priority not in (each.name.lower() for each in Priority):
            raise BadArguments(f"priority is {priority!r}, not 'high', 'normal' or 'low'")
        kept = {key: list(each) for key, each in words.items()}
        long = sum(len(word) for each in kept.values() for word in each) > MOST_SHOWN
        typed = {"words": None if long else kept, "again": None}
        client = HandCall(
            entry, {**typed, **_options(Priority[priority.upper()], deadline, chunks)}
        )
        call = client.call
        arguments = call.request(build_arguments(entry, words))
        options = call.options(priority, deadline, progress=None, apart=True)
        options += boxes.pair(boxes.PROGRESS, b"1")
        options += boxes.pair(boxes.CHUNKS, b"1") if chunks else b""
        box = call.start + boxes.pair(boxes.ASK, _TAG) + options + arguments
        return self._submit(
            client, box, entry["name"], Priority[priority.upper()], deadline, chunks
        )

    def repeat(self, job: Job) -> Deferred[int]:
        """Call what `job` was asked to do, with the same options; fires with the new job's id.

        Its deadline begins anew. Fails with NotFound if its request is not held any more.
        """

        def repeated(_: str) -> int:
            entry = self._dispatcher.state.registry.entry(job.command)
            if not (job.box and entry):
                raise NotFound(f"the request of job {job.id} is not kept: {_FORGOTTEN}")
            self._check_room()
            how = job.priority, job.deadline, job.wants_chunks
            client = HandCall(entry, {"words": None, "again": job.id, **_options(*how)})
            return self._submit(client, job.box, job.name, *how)

        return self._dispatcher.describe().addCallback(repeated)

    def _submit(
        self,
        client: HandCall,
        box: Raw,
        command: str,
        priority: Priority,
        deadline: float | None,
        chunks: bool,
    ) -> int:
        number = self._dispatcher.next_id()
        name = command.encode("ascii")
        job = Job(number, client, _TAG, name, box, priority, deadline, chunks)
        job.wants_progress = True
        self._calls[job.id] = client
        while len(self._calls) > MOST_KEPT:
            self._forget_one()
        self._dispatcher.submit(job)
        return job.id

    def document(self, job_id: int) -> dict[str, Any] | None:
        """What has come of a call so far; None if it is not known."""
        call = self._calls.get(job_id)
        return None if call is None else call.document(job_id)

    def documents(self) -> list[dict[str, Any]]:
        """The last calls, the latest first."""
        return [call.document(job_id) for job_id, call in reversed(self._calls.items())]

    def _check_room(self) -> None:
        if sum(call.under_way for call in self._calls.values()) >= MOST_UNDER_WAY:
            raise QueueFull(f"{MOST_UNDER_WAY} jobs that were called by hand have not ended")

    def _forget_one(self) -> None:
        """Forget the oldest call whose job has ended."""
        for job_id, call in self._calls.items():
            if not call.under_way:
                del self._calls[job_id]
                return


def _options(priority: Priority, deadline: float | None, chunks: bool) -> dict[str, Any]:
    """The options of a call, for its document."""
    return {"priority": priority.name.lower(), "deadline": deadline, "chunks": chunks}


def _shortened(text: str, most: int = MOST_SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
