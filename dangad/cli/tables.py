"""Texts side by side and below each other, as a terminal of some width shows them.

:mod:`dangad.cli.output` and :mod:`dangad.cli.operators` lay out with it what they show. All texts
are printable ones.
"""

from __future__ import annotations

import unicodedata
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = "-"
"""What a table has in place of an optional value that is not there."""
GAP = "  "
NARROW = 18
"""Columns of a terminal that a text in a table takes at least before others are left out for it."""


def list_pairs(pairs: Sequence[tuple[str, str]], columns: int | None = None) -> list[str]:
    """A line for each printable name and text, the texts below each other.

    :param columns: those of the terminal, at which a text goes on below; None for any.
    """
    widest = max((width(name) for name, _ in pairs), default=0)
    room = None if columns is None else max(columns - widest - len(GAP), NARROW // 2)
    return [
        f"{_pad('' if number else name, widest)}{GAP}{line}"
        for name, text in pairs
        for number, line in enumerate([text] if room is None else wrap(text, room))
    ]


def fitted_table(
    headers: list[str],
    rows: list[list[str]],
    right: list[bool],
    columns: int | None,
    worth: Sequence[int] = (),
) -> list[str]:
    """A table for a terminal of so many columns; None for any.

    Where it does not fit, texts go on below in their columns; the columns with nothing in them, and
    then those that are worth least, are left out, and a last line names them.

    :param worth: the numbers of the table's columns, those first that matter most; if there are
        none, as they stand.
    """
    lines = table(headers, rows, right)
    if columns is None or max(map(width, lines)) <= columns:
        return lines
    full = [max(map(width, column)) for column in zip(headers, *rows, strict=True)]
    least = [
        size if to_right else max(width(header), min(size, NARROW))
        for size, to_right, header in zip(full, right, headers, strict=True)
    ]
    kept: dict[int, int] = {}
    room = columns + len(GAP)
    empty = [all(row[n] == NOTHING for row in rows) for n in range(len(headers))]
    for n in sorted(worth or range(len(headers)), key=empty.__getitem__):
        if kept and room < least[n] + len(GAP):
            break
        room -= least[n] + len(GAP)
        kept[n] = least[n]
    for n in kept:  # what is left of the room is for those that matter most
        more = min(max(room, 0), full[n] - kept[n])
        kept[n] += more
        room -= more
    shown = sorted(kept)
    pieces = [_side_by_side([row[n] for n in shown], [kept[n] for n in shown]) for row in rows]
    lines = table(
        [headers[n] for n in shown],
        [line for lines in pieces for line in lines],
        [right[n] for n in shown],
    )
    cut_lines = [line if width(line) <= columns else cut(line, columns - 1) + "…" for line in lines]
    left_out = ", ".join(header for n, header in enumerate(headers) if n not in kept)
    hint = f"left out: {left_out}; a wider terminal or --json shows them"
    return cut_lines + (wrap(hint, columns) if left_out else [])


def _side_by_side(row: list[str], widths: list[int]) -> list[list[str]]:
    """The lines that a row of a table takes if none of its cells is wider than that."""
    cells = [wrap(cell, size) for cell, size in zip(row, widths, strict=True)]
    return [list(line) for line in zip_longest(*cells, fillvalue="")]


def wrap(text: str, columns: int) -> list[str]:
    """The printable text in lines of at most `columns` columns, broken between words if possible.

    What stands before its first word is before each line.
    """
    if width(text) <= columns:
        return [text]
    indent = text[: len(text) - len(text.lstrip(" "))]
    indent = indent if len(indent) < columns // 2 else ""
    lines: list[str] = []
    line = indent
    for word in text.split():
        spaced = f"{line} {word}" if line != indent else f"{indent}{word}"
        if width(spaced) <= columns:
            line = spaced
            continue
        if line != indent:
            lines.append(line)
        line = f"{indent}{word}"
        while width(line) > columns:
            piece = cut(line, columns) or line[:1]
            lines.append(piece)
            line = indent + line[len(piece) :]
    return [*lines, line]


def table(headers: list[str], rows: list[list[str]], right: list[bool]) -> list[str]:
    """Aligned lines, the headers first; `right` says which columns are numbers."""
    widths = [max(map(width, column)) for column in zip(headers, *rows, strict=True)]
    return [
        GAP.join(map(_pad, row, widths, right)).rstrip()  # the last column needs no padding
        for row in [headers, *rows]
    ]


def _pad(text: str, columns: int, right: bool = False) -> str:
    padding = " " * (columns - width(text))
    return padding + text if right else text + padding


def width(text: str) -> int:
    """How many columns of a terminal the printable text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def cut(text: str, columns: int) -> str:
    """As much of the beginning of the printable text as `columns` columns of a terminal hold."""
    text = text[: max(columns, 0) * 2]  # a character may take no column, but not many do
    while width(text) > columns and text:
        text = text[:-1]
    return text
