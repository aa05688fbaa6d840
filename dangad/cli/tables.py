"""Layout of tables and lists for people.

Used by :mod:`dangad.cli.output` and :mod:`dangad.cli.documents`. All texts must be printable. In a
file or a pipe they are complete and aligned with spaces, for scripts. :mod:`dangad.cli.drawing`,
which is imported only for terminals, fits them to a terminal.
"""

from __future__ import annotations

import unicodedata
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTHING = "-"
"""The text of a cell for an optional value that is absent."""
GAP = "  "
"""The space between two columns."""


class Column(NamedTuple):
    """A column of a table.

    :ivar header: the text of its header.
    :ivar is_number: whether its cells are aligned to the right, and never broken.
    :ivar styles: rich's styles for cells with these texts, on a terminal.
    """

    header: str
    is_number: bool = False
    styles: Mapping[str, str] = MappingProxyType({})


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    room: int | None = None,
    worth: Sequence[int] = (),
) -> list[str]:
    """The lines of a table, the headers first.

    If the table is too wide for its room, texts are wrapped within their columns. If this is not
    enough, columns are left out, the empty and then the least important ones, and a last line names
    them.

    :param room: the width of the terminal in columns; None for a file or a pipe.
    :param worth: the numbers of the table's columns, the most important first; empty for the order
        of the table.
    """
    if room is not None:
        from dangad.cli.drawing import draw_table

        return draw_table(columns, rows, room, worth or range(len(columns)))
    sizes = widths(columns, rows)
    right = [column.is_number for column in columns]
    return [
        GAP.join(map(_pad, row, sizes, right)).rstrip()  # the last column needs no padding
        for row in [[column.header for column in columns], *rows]
    ]


def list_pairs(pairs: Sequence[tuple[str, str]], room: int | None = None) -> list[str]:
    """A line for each name and text, with the texts aligned.

    :param room: the width of the terminal in columns, to which texts are wrapped; None for a file
        or a pipe.
    """
    if room is not None and pairs:
        from dangad.cli.drawing import draw_pairs

        return draw_pairs(pairs, room)
    widest = max((width(name) for name, _ in pairs), default=0)
    return [f"{_pad(name, widest)}{GAP}{text}" for name, text in pairs]


def flow(lines: Sequence[str], room: int | None) -> list[str]:
    """The lines, wrapped between words to `room` columns; unchanged if it is None."""
    if room is None:
        return list(lines)
    from dangad.cli.drawing import draw_lines

    return draw_lines(lines, room)


def widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column of a table, if there is enough room."""
    headers = [column.header for column in columns]
    return [max(map(width, texts)) for texts in zip(headers, *rows, strict=True)]


def width(text: str) -> int:
    """The width of a printable text on a terminal, in columns."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def _pad(text: str, columns: int, right: bool = False) -> str:
    padding = " " * (columns - width(text))
    return padding + text if right else text + padding
