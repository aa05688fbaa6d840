"""Texts side by side and below each other, for people.

:mod:`dangad.cli.output` and :mod:`dangad.cli.documents` lay out with it what they show. All texts
are printable ones. Into a file or a pipe they go whole, aligned with spaces, as scripts know them;
how they fit a terminal is decided in :mod:`dangad.cli.drawing`, which is imported for that alone.
"""

from __future__ import annotations

import unicodedata
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTHING = "-"
"""What a table has in place of an optional value that is not there."""
GAP = "  "


class Column(NamedTuple):
    """A column of a table.

    :ivar header: what stands above it.
    :ivar is_number: whether its cells stand to the right, and are never broken.
    :ivar styles: how rich draws cells of these texts on a terminal.
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

    Where it does not fit its room, texts go on below in their columns; the columns with nothing in
    them, and then those that are worth least, are left out, and a last line names them.

    :param room: the columns of the terminal that there are for it; None if it is for none.
    :param worth: the numbers of the table's columns, those first that matter most; if there are
        none, as they stand.
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
    """A line for each name and text, the texts below each other.

    :param room: the columns of the terminal that there are for it, at which a text goes on below;
        None if it is for none.
    """
    if room is not None and pairs:
        from dangad.cli.drawing import draw_pairs

        return draw_pairs(pairs, room)
    widest = max((width(name) for name, _ in pairs), default=0)
    return [f"{_pad(name, widest)}{GAP}{text}" for name, text in pairs]


def flow(lines: Sequence[str], room: int | None) -> list[str]:
    """The lines, broken between words where they are wider than the room on a terminal."""
    if room is None:
        return list(lines)
    from dangad.cli.drawing import draw_lines

    return draw_lines(lines, room)


def widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column of a table is, if there is room."""
    headers = [column.header for column in columns]
    return [max(map(width, texts)) for texts in zip(headers, *rows, strict=True)]


def width(text: str) -> int:
    """How many columns of a terminal the printable text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def _pad(text: str, columns: int, right: bool = False) -> str:
    padding = " " * (columns - width(text))
    return padding + text if right else text + padding
