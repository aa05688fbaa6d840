"""Cells of tables, and lines, of the documents of the control endpoint.

Used by :mod:`dangad.cli.documents` and :mod:`dangad.cli.jobdocuments`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dangad.cli.streams import columns as terminal_columns
from dangad.cli.tables import NOTHING, Column, table
from dangad.text import printable, show_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SPANS = ("1m", "5m", "15m")
"""The last minutes for which the server tells rates and percentiles."""
SELDOM = 0.05
"""The rate in a second below which it is told for a minute: it would be shown as 0.0."""
_STYLES = {
    "busy": "green",
    "starting": "cyan",
    "stopping": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "timed out": "red",
    "lost": "bold red",
}
"""Rich's styles for states of workers and jobs that deserve attention."""


def count(counts: Mapping[str, int], *names: str) -> str:
    """The numbers of these names, as in ``2 idle, 1 busy``."""
    return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in names)


def entries_table(
    columns: Mapping[str, Callable[[Any], str]],
    rows: Iterable[Mapping[str, Any]],
    worth: Iterable[str],
) -> list[str]:
    """A table of rows; `columns` has the keys to show, each with the function that formats it."""
    heads = [
        Column(
            name.replace("_", " ").upper(),
            is_number=show is not printable,
            styles=_STYLES if name == "state" else {},
        )
        for name, show in columns.items()
    ]
    cells = [
        [NOTHING if row[name] is None else show(row[name]) for name, show in columns.items()]
        for row in rows
    ]
    order = list(columns)
    return table(heads, cells, terminal_columns(), [order.index(name) for name in worth])


def show_rate(rate: float) -> str:
    """So many a second; in a minute if they are few: ``3/min``."""
    return f"{rate * 60:.2g}/min" if 0 < rate < SELDOM else f"{rate:.1f}/s"


def show_time(seconds: float) -> str:
    """The local time of day at a Unix time."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def show_memory(number: int) -> str:
    """A process's memory in bytes, made readable; 0 stands for "not known"."""
    return show_bytes(number) if number else NOTHING
