"""The progress bar: one line of a terminal, redrawn in place and cleared at the end.

:mod:`dangad.cli` makes one on the standard error for each call, and has it told of the job's
progress by :mod:`dangad.client`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from dangad.cli.tables import cut, width
from dangad.text import printable

if TYPE_CHECKING:
    from typing import Protocol

    class Terminal(Protocol):
        """What a bar is drawn on: the standard error is one."""

        def write(self, text: str, /) -> object:
            """Write text."""

        def flush(self) -> object:
            """Have it shown."""

        def fileno(self) -> int:
            """The file descriptor, of which the system knows the width."""


BAR = 24
"""Columns of the bar itself."""
COLUMNS = 80
"""Columns of a terminal that does not tell."""


def draw(done: int, total: int, message: str, columns: int) -> str:
    """The line that shows the progress, of `columns` columns at most.

    Without a total there is no bar, and what is done is only told.
    """
    if total > 0:
        share = min(max(done / total, 0.0), 1.0)
        filled = int(share * BAR)
        text = f"[{'#' * filled}{'.' * (BAR - filled)}] {int(share * 100):3d}%  {done:,}/{total:,}"
    else:
        text = f"{done:,}"
    return cut(f"{text}  {printable(message)}".rstrip(), columns)


class ProgressBar:
    """A line on a terminal, drawn with nothing but carriage returns and spaces.

    What goes wrong with the terminal is ignored: a call does not fail for want of a bar.

    All mutable state: `_width`, how many columns the line has that stands there.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._width = 0

    def show(self, done: int, total: int, message: str) -> None:
        """Draw, over what stood there."""
        line = draw(done, total, message, self._columns() - 1)  # the last one may wrap the line
        blank = " " * (self._width - width(line))
        self._width = width(line)
        self._write(f"\r{line}{blank}")

    def clear(self) -> None:
        """Leave the line empty, as it was, if anything was drawn."""
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width = 0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._terminal.write(text)
            self._terminal.flush()

    def _columns(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self._terminal.fileno()).columns or COLUMNS
        return COLUMNS
