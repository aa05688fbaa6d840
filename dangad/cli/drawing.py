"""Tables and texts on a terminal: fitted to its width, and drawn by :mod:`rich`.

Used by :mod:`dangad.cli.tables`, and imported only if there is a terminal: rich takes longer to
import than many a job to run. Texts are never read as rich's markup: they come from anywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dangad.cli.tables import GAP, NOTHING, widths

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from dangad.cli.tables import Column

NARROW = 18
"""Columns of a terminal that a text in a table takes at least before others are left out for it."""
HEAD = "bold"
HINT = "dim"
"""The styles of what is not data."""
_BLANK_END = re.compile(r" +(?=(?: |\x1b\[[0-9;]*m)*$)")
"""The blanks at the end of a line, between and before the sequences that end a style."""


def draw_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int, worth: Iterable[int]
) -> list[str]:
    """The lines of a table: see :func:`dangad.cli.tables.table`."""
    kept = _choose(columns, rows, room, worth)
    grid = _grid(show_header=True)
    for column in (columns[n] for n in kept):
        grid.add_column(
            Text(column.header, HEAD),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="ellipsis" if column.is_number else "fold",
        )
    for row in rows:
        grid.add_row(*(Text(row[n], columns[n].styles.get(row[n], "")) for n in kept))
    left_out = ", ".join(c.header for n, c in enumerate(columns) if n not in kept)
    hint = f"left out: {left_out}; a wider terminal or --json shows them"
    return _draw([grid, Text(hint, HINT)] if left_out else [grid], room)


def draw_pairs(pairs: Iterable[tuple[str, str]], room: int) -> list[str]:
    """The lines of names and texts: see :func:`dangad.cli.tables.list_pairs`."""
    grid = _grid(show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", min_width=NARROW // 2)
    for name, text in pairs:
        grid.add_row(Text(name, HEAD), Text(text))
    return _draw([grid], room)


def draw_lines(lines: Iterable[str], room: int) -> list[str]:
    """The lines, broken between words: see :func:`dangad.cli.tables.flow`.

    What stands before the first word of a line is before each that it is broken into.
    """
    return _draw([_indented(line, room) for line in lines], room)


def _indented(line: str, room: int) -> RenderableType:
    words = line.lstrip(" ")
    indent = len(line) - len(words)
    return Padding(Text(words), (0, 0, 0, indent if indent < room // 2 else 0))


def _choose(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int, worth: Iterable[int]
) -> list[int]:
    """The numbers of the columns for which there is room, as they stand."""
    sizes = widths(columns, rows)
    if sum(sizes) + len(GAP) * (len(sizes) - 1) <= room:
        return list(range(len(columns)))
    empty = [all(row[n] == NOTHING for row in rows) for n in range(len(columns))]
    left = room + len(GAP)
    kept: list[int] = []
    for n in sorted(worth, key=empty.__getitem__):
        least = sizes[n] if columns[n].is_number else min(sizes[n], NARROW)
        left -= max(least, len(columns[n].header)) + len(GAP)
        if kept and left < 0:
            break
        kept.append(n)
    return sorted(kept)


def _grid(show_header: bool) -> Table:
    """A table without lines, its columns apart by a gap."""
    return Table(
        box=None,
        show_header=show_header,
        pad_edge=False,
        padding=(0, len(GAP), 0, 0),
        header_style="none",
    )


def _draw(renderables: Iterable[RenderableType], room: int) -> list[str]:
    """The lines that these take; in colours, if the terminal and the user like them."""
    console = Console(width=room, force_terminal=True, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        for each in renderables:
            console.print(each)
    return [_BLANK_END.sub("", line) for line in captured.get().removesuffix("\n").split("\n")]
