"""Answers to those who ask for metrics: one text for all who ask at about the same time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dangad.web.metrics import render_metrics
from dangad.web.replies import Reply, plain

if TYPE_CHECKING:
    from dangad.operators.interfaces import IOperations

KEPT_TIME = 1.0
"""Seconds for which a text of all metrics is sent to others who ask."""
MAX_TEXTS = 3
"""Texts of all metrics, each in a format of its own, that are made or kept at a time."""


@dataclass(slots=True)
class _Text:
    """All metrics in one format."""

    reply: Reply | None = None
    """The answer; None while it is made."""
    waiting: list[Deferred[Reply]] = field(default_factory=list)
    """Who waits for it."""


class Scrapes:
    """Makes the text of all metrics at most once a second in each format."""

    def __init__(self, clock: Any, operations: IOperations) -> None:
        """Begin with no text.

        :param clock: the source of time.
        :param operations: tells everything.
        """
        self._clock = clock
        self._operations = operations
        #: The texts that are made or kept, by the type of the text.
        self._texts: dict[str, _Text] = {}

    async def answer(self, accept: str) -> Reply:
        """All metrics in the format that the asker understands best.

        :param accept: the formats, as in HTTP's ``Accept``.
        """
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no version
            encode, kind = choose_encoder("")
        text = self._texts.get(kind)
        if text is not None and text.reply is not None:
            return text.reply
        waiting: Deferred[Reply] = Deferred()
        if text is not None:
            text.waiting.append(waiting)
            return await waiting
        if len(self._texts) >= MAX_TEXTS:
            return plain("too many formats of the metrics are asked for at a time", 503)
        self._texts[kind] = _Text(waiting=[waiting])
        made = Deferred.fromCoroutine(render_metrics(self._operations, encode))
        made.addCallback(lambda body: Reply(body, kind))
        made.addBoth(lambda outcome: self._made(kind, outcome))
        return await waiting

    def _made(self, kind: str, outcome: Reply | Failure) -> None:
        text = self._texts[kind]
        if isinstance(outcome, Failure):
            del self._texts[kind]
        else:
            text.reply = outcome
            self._clock.callLater(KEPT_TIME, self._texts.pop, kind)
        waiting, text.waiting = text.waiting, []
        for each in waiting:
            each.callback(outcome)
