"""Tables and texts on a terminal: fitted to its width, and drawn by :mod:`rich`.

Used by :mod:`dangad.cli.tables`, and imported only for a terminal: importing rich takes longer than
many jobs. Texts are never read as rich's markup, because their source is not trusted.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dangad.cli.tables import GAP, NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from dangad.cli.tables import Column

NARROW = 18
"""The least width of a column of texts; less important columns are left out to make room for it."""
HEAD = "bold"
"""The style of headers and names."""
HINT = "dim"
"""The style of remarks to the user."""
_BLANK_END = re.compile(r"(?<! ) +(?! )(?=(?:\x1b\[[0-9;]*m *)*$)")
"""The blanks at the end of a line, before and between escape sequences that end a style."""


def draw_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int, worth: Iterable[int]
) -> list[str]:
    """The lines of a table: see :func:`dangad.cli.tables.table`."""
    sizes = _fit(columns, rows, room, worth)
    grid = _grid(show_header=True)
    for n in sizes:
        grid.add_column(
            _text(columns[n].header, HEAD),
            justify="right" if columns[n].is_number else "left",
            width=sizes[n],
            no_wrap=columns[n].is_number,
            overflow="ellipsis" if columns[n].is_number else "fold",
        )

    def fits(row: Sequence[str]) -> bool:
        return all(cell_len(row[n]) <= size for n, size in sizes.items())

    # In rich a cell of many lines is far cheaper than many cells.
    for are_lines, group in groupby(rows, fits):
        together = list(group)
        for block in [together] if are_lines else [[row] for row in together]:
            grid.add_row(*(_cell([row[n] for row in block], columns[n].styles) for n in sizes))
    left_out = ", ".join(c.header for n, c in enumerate(columns) if n not in sizes)
    hint = _text(f"left out: {left_out}; a wider terminal or --json shows them", HINT)
    return _draw_grid(grid, room) + (_draw([hint], room) if left_out else [])


def _cell(lines: list[str], styles: Mapping[str, str]) -> Text:
    if not styles:
        return Text("\n".join(lines))
    return Text("\n").join(_text(line, styles.get(line, "")) for line in lines)


def _text(text: str, style: str) -> Text:
    """A text with a style that does not extend to the blanks around it."""
    return Text.assemble((text, style))


def draw_pairs(pairs: Iterable[tuple[str, str]], room: int) -> list[str]:
    """The lines of names and texts: see :func:`dangad.cli.tables.list_pairs`."""
    grid = _grid(show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", min_width=NARROW // 2)
    for name, text in pairs:
        grid.add_row(_text(name, HEAD), Text(text))
    return _draw_grid(grid, room)


def draw_lines(lines: Iterable[str], room: int) -> list[str]:
    """The lines, broken between words: see :func:`dangad.cli.tables.flow`.

    All parts of a broken line keep its indentation.
    """
    return _draw([_indented(line, room) for line in lines], room)


def _indented(line: str, room: int) -> RenderableType:
    words = line.lstrip(" ")
    indent = len(line) - len(words)
    return Padding(Text(words), (0, 0, 0, indent if indent < room // 2 else 0))


def _fit(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int, worth: Iterable[int]
) -> dict[int, int]:
    """The columns for which there is room: the width of each by its number, in table order."""
    headers = [column.header for column in columns]
    full = [max(map(cell_len, texts)) for texts in zip(headers, *rows, strict=True)]
    least = [
        size if column.is_number else max(min(size, NARROW), cell_len(column.header))
        for size, column in zip(full, columns, strict=True)
    ]
    empty = [all(row[n] == NOTHING for row in rows) for n in range(len(columns))]
    if sum(full) + len(GAP) * (len(full) - 1) <= room:
        return dict(enumerate(full))
    sizes: dict[int, int] = {}
    left = room + len(GAP)
    for n in sorted(worth, key=empty.__getitem__):
        if sizes and left < least[n] + len(GAP):
            break
        sizes[n] = min(least[n], room)
        left -= least[n] + len(GAP)
    for n in sizes:  # the columns that matter most get the remaining room
        more = min(max(left, 0), full[n] - sizes[n])
        sizes[n] += more
        left -= more
    return dict(sorted(sizes.items()))


def _grid(show_header: bool) -> Table:
    """A table without rules, and with a gap to the right of each column."""
    return Table(
        box=None, show_header=show_header, padding=(0, len(GAP), 0, 0), header_style="none"
    )


def _draw_grid(grid: Table, room: int) -> list[str]:
    """The lines of a table; the gap after the last column is not visible."""
    return _draw([grid], room + len(GAP))


def _draw(renderables: Iterable[RenderableType], room: int) -> list[str]:
    """The lines of these objects, in colours unless the terminal or the user forbids them."""
    console = Console(
        width=room,
        height=1,  # any; without one, rich takes a dumb terminal to be 80 columns wide
        force_terminal=True,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        for each in renderables:
            console.print(each)
    return [_BLANK_END.sub("", line) for line in captured.get().removesuffix("\n").split("\n")]
