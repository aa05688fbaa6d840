"""The progress bar: a line on a terminal that :mod:`rich` redraws in place and removes at the end.

:mod:`dangad.cli.calling` makes one for each call whose standard error is a terminal.
:mod:`dangad.client` passes it the job's progress; the server sends at most ten reports a second.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TextIO

from dangad.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

BAR = 24
"""Columns of the bar itself."""


class ProgressBar:
    """A line on a terminal.

    Errors of the terminal are ignored: a call does not fail because its bar cannot be drawn.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        #: The bar as rich has it; None while nothing is shown.
        self._progress: Progress | None = None

    def show(self, done: int, total: int, message: str) -> None:
        """Draw the bar in place of the last one.

        If `total` is not known (0 or less), only the number `done` is shown.
        """
        with contextlib.suppress(OSError, ValueError):
            counts = f"{done:,}/{total:,}" if total > 0 else f"{done:,}"
            if self._progress is None:
                self._progress = _make_progress(self._terminal)
                self._progress.add_task("", total=None)
                self._progress.start()
            (task,) = self._progress.task_ids
            self._progress.update(
                task,
                total=1.0 if total > 0 else None,  # as it was
                completed=min(max(done, 0), total) / total if total > 0 else None,
                description=f"{counts} {printable(message)}",
                refresh=True,
            )

    def clear(self) -> None:
        """Remove the bar, if one was drawn."""
        progress, self._progress = self._progress, None
        if progress is not None:
            with contextlib.suppress(OSError, ValueError):
                progress.stop()


def _make_progress(terminal: TextIO) -> Progress:
    """The parts that rich draws: a bar, a percentage, and a text that is not read as markup."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    return Progress(
        BarColumn(BAR),
        TaskProgressColumn("{task.percentage:>3.0f}%", markup=False),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=Console(file=terminal, force_terminal=True),
        expand=True,  # the text has what the others leave
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )
