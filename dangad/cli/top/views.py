"""The views that the table can have: their columns and sort orders, and the cells of an entry."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.text import Text

from dangad.cli.tables import NOTHING
from dangad.text import printable, show_bytes, show_seconds
from dangad.wire.controlwords import ENDED_STATES, JOB_ORDERS, LIVE_STATES, RECENT_ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENTRIES = 100
"""The most entries of a view. A filter and the sort order say which of very many these are."""
FAILURES = ("failed", "timed out", "lost")
"""The states of jobs that ended badly, through no wish of their clients."""
PADDING = 2
"""Columns of the terminal around each cell."""
CLIENT = 20
"""The least columns of a client's name: enough to tell clients from each other."""
STYLES = {
    "busy": "green",
    "running": "green",
    "starting": "cyan",
    "stopping": "yellow",
    "paused": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "timed out": "red",
    "lost": "bold red",
    "quarantine": "bold red",
    "high": "bold",
    "low": "dim",
}
"""Rich's styles for words that deserve attention, by the colours of the terminal."""


class Column(NamedTuple):
    """A column of a view."""

    head: str
    """The text of its header."""
    key: str
    """The key of the entry that it shows, and the sort order by it if there is one."""
    worth: int
    """How important it is: a narrow terminal leaves out the columns with the largest numbers."""
    width: int
    """Its least width."""
    show: Callable[[Any], str] = printable
    """Makes printable text of the entry's value."""
    grows: int = 0
    """Its share of the room that is left."""

    @property
    def justify(self) -> Literal["left", "right"]:
        """Where its cells are aligned: only texts are so at the left."""
        return "left" if self.show is printable else "right"


@dataclass(frozen=True, slots=True)
class View:
    """A view of the server."""

    title: str
    key: str
    """The key that leads to it."""
    columns: tuple[Column, ...]
    identity: str
    """The key of its entries by which one is told from all others."""
    orders: tuple[str, ...]
    """The sort orders, as they come one after the other."""
    filters: tuple[str, ...] = ()
    """The words that its filter line may have."""
    states: tuple[str, ...] = ()
    """What may come after ``state=`` in its filter line."""


def _seconds(value: float) -> str:
    return show_seconds(value)


def _clock(value: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(value))


def _memory(value: int) -> str:
    return show_bytes(value) if value else NOTHING


def _pid(value: int) -> str:
    return str(value or NOTHING)  # a worker that starts may have no process yet


def _median(value: dict[str, Any]) -> str:
    return NOTHING if value["p50"] is None else show_seconds(value["p50"])


def _tail(value: dict[str, Any]) -> str:
    return NOTHING if value["p99"] is None else show_seconds(value["p99"])


def _limit(policy: dict[str, Any]) -> str:
    limit = policy.get("max_running")
    return NOTHING if limit is None else str(limit)


def _both(*orders: str) -> tuple[str, ...]:
    """Each order, the largest first."""
    return tuple(f"-{each}" for each in orders)


_FILTERS = ("command", "client", "state", "older-than")
VIEWS = {
    "jobs": View(
        "Jobs",
        "j",
        (
            Column("JOB", "id", 0, 7, str),
            Column("COMMAND", "command", 1, 12, grows=1),
            Column("STATE", "state", 2, 7),
            Column("PRIO", "priority", 6, 6),
            Column("WAIT", "wait", 3, 7, _seconds),
            Column("RUNTIME", "runtime", 4, 8, _seconds),
            Column("LEFT", "deadline_left", 8, 7, _seconds),
            Column("TRY", "attempt", 9, 3, str),
            Column("WORKER", "worker", 7, 7, str),
            Column("CLIENT", "client", 5, CLIENT, grows=3),
        ),
        "id",
        ("state", *_both(*JOB_ORDERS[2:4]), *JOB_ORDERS[4:]),
        _FILTERS,
        LIVE_STATES,
    ),
    "commands": View(
        "Commands",
        "m",
        (
            Column("COMMAND", "command", 0, 16, grows=1),
            Column("STATE", "state", 1, 10),
            Column("RUNNING", "running", 2, 8, str),
            Column("LIMIT", "policy", 7, 5, _limit),
            Column("WAITING", "waiting", 3, 8, str),
            Column("RATE", "rate", 4, 8, "{:.1f}/s".format),
            Column("FAILED", "failed", 5, 7, str),
            Column("RUN P50", "runtime", 6, 7, _median),
            Column("RUN P99", "runtime", 8, 7, _tail),
            Column("WAIT P50", "wait", 9, 8, _median),
            Column("WAIT P99", "wait", 10, 8, _tail),
        ),
        "command",
        (*_both("running", "waiting", "rate", "failed"), "command"),
    ),
    "recent": View(
        "Recent",
        "r",
        (
            Column("JOB", "id", 0, 7, str),
            Column("COMMAND", "command", 1, 12, grows=1),
            Column("STATE", "state", 2, 9),
            Column("ENDED", "ended", 4, 8, _clock),
            Column("WAIT", "wait", 6, 7, _seconds),
            Column("RUNTIME", "runtime", 5, 8, _seconds),
            Column("MEMORY", "peak_memory", 9, 8, show_bytes),
            Column("CLIENT", "client", 8, CLIENT),
            Column("ERROR", "error", 3, 18, grows=4),
        ),
        "id",
        (*_both(*RECENT_ORDERS[:5]), *RECENT_ORDERS[5:]),
        (*_FILTERS, "outcome"),
        ENDED_STATES,
    ),
    "workers": View(
        "Workers",
        "w",
        (
            Column("PID", "pid", 0, 7, _pid),
            Column("STATE", "state", 1, 8),
            Column("GEN", "generation", 8, 3, str),
            Column("AGE", "age", 6, 7, _seconds),
            Column("JOBS", "jobs", 7, 7, str),
            Column("MEMORY", "memory", 5, 8, _memory),
            Column("JOB", "job", 2, 7, str),
            Column("COMMAND", "command", 3, 12, grows=1),
            Column("RUNTIME", "runtime", 4, 8, _seconds),
            Column("RECYCLING", "recycling", 9, 12, grows=2),
        ),
        "pid",
        (*_both("runtime", "age", "jobs", "memory"), "state", "pid"),
    ),
}
"""The views by their names."""


def fit(view: View, width: int) -> list[tuple[Column, int]]:
    """The columns of a view for which there is room, each with its width."""
    room = width
    chosen: set[Column] = set()
    for column in sorted(view.columns, key=lambda each: each.worth):
        needed = column.width + PADDING
        if needed > room and chosen:
            break
        chosen.add(column)
        room -= needed
    shares = sum(column.grows for column in chosen)
    fitted = []
    for column in view.columns:
        if column in chosen:
            more = max(room, 0) * column.grows // shares if column.grows else 0
            room, shares = room - more, shares - column.grows
            fitted.append((column, column.width + more))
    return fitted


def state_of(entry: dict[str, Any]) -> str:
    """The state of an entry of any view, in one word."""
    if entry.get("paused"):
        return "paused"
    if "state" in entry:
        return str(entry["state"])
    return "quarantine" if entry.get("quarantine") is not None else "ready"


def cells(entry: dict[str, Any], columns: Sequence[tuple[Column, int]]) -> list[Text]:
    """The cells of an entry. What a peer has named cannot be taken for markup in them."""
    found = []
    for column, _ in columns:
        value = state_of(entry) if column.key == "state" else entry[column.key]
        said = NOTHING if value is None else column.show(value)
        style = STYLES.get(said, "") if column.key in ("state", "priority") else ""
        justify = column.justify
        found.append(Text(said, style, justify=justify, no_wrap=True, overflow="ellipsis", end=""))
    return found


def head_of(column: Column, sort: str) -> Text:
    """The header of a column, which shows whether the view is sorted by it."""
    mark = mark_of(sort) if sort.removeprefix("-") == column.key else ""
    return Text(mark + column.head, justify=column.justify, no_wrap=True, end="")


def mark_of(sort: str) -> str:
    """The sign of a sort order: whether the largest comes first."""
    return "▼" if sort.startswith("-") else "▲"


def sort_entries(entries: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """The entries in an order; those that have no value of it come last."""
    key = sort.removeprefix("-")

    def value(entry: dict[str, Any]) -> Any:
        return state_of(entry) if key == "state" else entry[key]

    known = [entry for entry in entries if value(entry) is not None]
    rest = [entry for entry in entries if value(entry) is None]
    return [*sorted(known, key=value, reverse=sort.startswith("-")), *rest]
