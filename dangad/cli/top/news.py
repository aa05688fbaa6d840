"""What is asked of the server each second: its status, its workers, and the entries of one view.

Nothing is asked that is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dangad.cli.top.views import ENTRIES, FAILURES, VIEWS, sort_entries

if TYPE_CHECKING:
    from dangad.cli.top.server import Ask


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants to see in the table."""

    view: str
    """The name of the view."""
    sort: str
    """The sort order, with "-" before it for the largest first."""
    meant: dict[str, Any] = field(default_factory=dict)
    """The filter; empty for everything."""
    line: str = ""
    """The filter as the operator has written it."""
    everything: bool = False
    """Whether jobs that ended well are wanted, too, among those that ended last."""


@dataclass(frozen=True, slots=True)
class News:
    """What the server has told."""

    wish: Wish
    """For which this is the answer."""
    status: dict[str, Any]
    workers: list[dict[str, Any]]
    entries: list[dict[str, Any]]
    """The entries for the table, in their order."""
    total: int
    """How many entries there are, of which these are the first."""


async def look(ask: Ask, wish: Wish) -> News:
    """The news for a wish.

    :raises Unreachable: there is no answer.
    :raises Refused: the server does not know what is asked, or the filter is not valid.
    """
    status = await ask("Status")
    workers = await ask("Workers")
    if wish.view == "jobs":
        document = await ask("Jobs", sort=wish.sort, limit=ENTRIES, **wish.meant)
        return News(wish, status, workers, document["jobs"], document["total"])
    if wish.view == "workers":
        entries = [_with_job(worker) for worker in workers]
    elif wish.view == "commands":
        entries = [{**each, **each["last"]["1m"]} for each in await ask("Commands")]
    else:
        entries = await _ended(ask, wish)
    first = sort_entries(entries, wish.sort)[:ENTRIES]
    return News(wish, status, workers, first, len(entries))


async def _ended(ask: Ask, wish: Wish) -> list[dict[str, Any]]:
    """The jobs that ended last, of which each state is asked for by itself."""
    if wish.everything or {"state", "outcome"} & wish.meant.keys():
        states: list[dict[str, Any]] = [{}]
    else:
        states = [{"state": state} for state in FAILURES]
    found = [
        await ask("Recent", sort=wish.sort, limit=ENTRIES, **state, **wish.meant)
        for state in states
    ]
    return [entry for entries in found for entry in entries]


def _with_job(worker: dict[str, Any]) -> dict[str, Any]:
    """A worker with the facts of its job beside its own."""
    job = worker["job"] or dict.fromkeys(("id", "command", "runtime"))
    facts = {"job": job["id"], "command": job["command"], "runtime": job["runtime"]}
    return {**worker, **facts}


def first_wish(view: str) -> Wish:
    """What is wanted of a view before anybody has said so."""
    return Wish(view, VIEWS[view].orders[0])
