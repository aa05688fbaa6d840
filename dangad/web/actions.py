"""Orders of the page, with ``--web-actions``: what each needs, and what it says of the outcome."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.web.template import tags

from dangad.errors import DangadError
from dangad.text import counted, printable
from dangad.web.address import FILTERS, read_address
from dangad.web.forms import MOST_CANCELLED
from dangad.web.layout import NotThere, Scene, View
from dangad.web.overview import job_link
from dangad.web.parts import badge, note, row, table, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from dangad.operators.interfaces import IOperations
    from dangad.web.callforms import Typed

log = Logger()

MAX_OUTCOMES = 20
"""Outcomes of orders that are kept, to be shown."""

_LOOKS = {"cancelled": "good", "stopping": "warn", "ended": "calm", "not found": "bad"}


class BadOrder(ValueError):
    """The order is not valid; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order."""

    title: str
    """The order, in a few words."""
    said: str
    """The outcome in one line."""
    failed: bool = False
    """Whether the order was not carried out."""
    lines: str = ""
    """A text of many lines."""
    results: Sequence[dict[str, Any]] = ()
    """What became of each job."""
    back: str = "/"
    """The page from which the order came."""
    shown_at: str = ""
    """The page that shows the outcome, below the prefix, if it has one of its own."""


class Orders:
    """Carries out orders, and keeps the latest outcomes until somebody has seen them."""

    def __init__(self, operations: IOperations) -> None:
        self._operations = operations
        #: What forms must send: another site cannot know it.
        self.token = secrets.token_urlsafe(24)
        #: The latest outcomes, by an id that cannot be guessed.
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()

    def knows(self, token: str) -> bool:
        """Whether a form came from a page of this server since its start."""
        return secrets.compare_digest(token.encode(), self.token.encode())

    async def give(self, order: str, form: Mapping[bytes, Sequence[bytes]], back: str) -> str:
        """Carry out an order; the path of the page that shows its outcome.

        :raises NotThere: there is no such order.
        """
        perform = ORDERS.get(order)
        if perform is None:
            raise NotThere(f"there is no order {order!r}")
        title = f"{order.capitalize()} {_subject(form)}".strip()
        log.info("operator, on the page: {what}", what=printable(title))
        try:
            outcome = await perform(self._operations, form)
        except (DangadError, ValueError) as error:
            outcome = Outcome(title, str(error), failed=True)
        if outcome.shown_at:
            return outcome.shown_at
        key = secrets.token_urlsafe(9)
        self._outcomes[key] = Outcome(
            title, outcome.said, outcome.failed, outcome.lines, outcome.results, back
        )
        while len(self._outcomes) > MAX_OUTCOMES:
            self._outcomes.popitem(last=False)
        return f"outcomes/{key}"

    async def call(self, typed: Typed) -> str:
        """Call a command; the path of the page that shows what comes of it.

        :raises NotThere: there is no such command.
        :raises DangadError: the server refuses the call.
        :raises ValueError: something was typed wrong; the text says what to change.
        """
        entry = self._operations.signature(typed.command)
        if entry is None:
            raise NotThere(f"no job of {typed.command!r} can be called")
        log.info("operator, on the page: call {command}", command=printable(typed.command))
        words, options = typed.words(entry), typed.options()
        return f"calls/{await self._operations.call(typed.command, words, **options)}"

    async def show(self, scene: Scene) -> View:
        """The page of an outcome."""
        outcome = self._outcomes.get(scene.address.path[1])
        if outcome is None:
            raise NotThere("the outcome of this order is not kept any more")
        results = outcome.results
        return View(
            outcome.title,
            [
                note(text(outcome.said, 2000), "bad" if outcome.failed else "good", role="status"),
                tags.pre(tabindex="0")(printable(outcome.lines, keep="\n\t"))
                if outcome.lines
                else "",
                table(
                    "What became of each job",
                    ("Job", "Command", "Result"),
                    (
                        row(
                            f"result-{each['id']}",
                            job_link(scene, each["id"]),
                            text(each["command"]),
                            badge(each["result"], _LOOKS.get(each["result"], "calm")),
                        )
                        for each in results
                    ),
                    scene.turn,
                    "",
                )
                if results
                else "",
                tags.p(tags.a(href=outcome.back)("Back")),
            ],
        )


async def _cancel(operations: IOperations, form: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    ids = [_whole(each, "ids") for each in _word(form, "ids").split()]
    wanted: Any = ids
    if not ids:
        wanted = read_address((), {name.encode(): form.get(name.encode(), []) for name in FILTERS})
        wanted = wanted.filter()
    answer = await operations.cancel(wanted, MOST_CANCELLED)
    left = answer["left"]
    said = f"{counted(len(answer['results']), 'job')} of {answer['matched']}"
    more = f"; {counted(left, 'job')} left: give the order again" if left else ""
    return Outcome("Cancel", f"The order reached {said}{more}.", results=answer["results"])


async def _pause(operations: IOperations, form: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    return _paused(operations.pause(_commands(form)))


async def _resume(operations: IOperations, form: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    return _paused(operations.resume(_commands(form)))


async def _scale(operations: IOperations, form: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    least, most = _whole(_word(form, "min"), "min"), _whole(_word(form, "max"), "max")
    operations.scale(least, most)
    return Outcome("Scale", f"There will be {least} to {most} workers.")


async def _reload(operations: IOperations, _: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    failed: list[str] = []
    reloading = operations.reload()
    reloading.addErrback(lambda failure: failed.append(str(failure.value)))
    if failed:
        return Outcome("Reload", failed[0], failed=True)
    return Outcome("Reload", "The reload has begun: the workers are replaced one by one.")


async def _stack(operations: IOperations, form: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    number = _whole(_word(form, "job"), "job")
    return Outcome("Stack", f"The stack of job {number}:", lines=await operations.stack(number))


async def _again(operations: IOperations, form: Mapping[bytes, Sequence[bytes]]) -> Outcome:
    job_id = await operations.run_again(_whole(_word(form, "job"), "job"))
    return Outcome("Again", f"It is job {job_id} now.", shown_at=f"calls/{job_id}")


ORDERS: dict[str, Callable[[IOperations, Mapping[bytes, Sequence[bytes]]], Awaitable[Outcome]]] = {
    "cancel": _cancel,
    "pause": _pause,
    "resume": _resume,
    "scale": _scale,
    "reload": _reload,
    "stack": _stack,
    "again": _again,
}
"""The orders, by the last part of their path."""


def _paused(answer: dict[str, Any]) -> Outcome:
    if answer["all"]:
        return Outcome("Pause", "Everything is paused: jobs wait, and new ones are accepted.")
    if answer["commands"]:
        return Outcome("Pause", f"Paused now: {', '.join(answer['commands'])}.")
    return Outcome("Resume", "Nothing is paused.")


def _commands(form: Mapping[bytes, Sequence[bytes]]) -> list[str] | None:
    name = _word(form, "command")
    return [name] if name else None


def _subject(form: Mapping[bytes, Sequence[bytes]]) -> str:
    """What an order is about."""
    return _word(form, "command") or _word(form, "ids") or _word(form, "job")


def _word(form: Mapping[bytes, Sequence[bytes]], name: str) -> str:
    return [b"", *form.get(name.encode(), [])][-1].decode("utf-8", "replace")


def _whole(word: str, name: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 20):
        raise BadOrder(f"{name}={word[:40]} is not a whole number")
    return int(word)
