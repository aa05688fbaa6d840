"""The progress bar: a line of a terminal, redrawn in place by :mod:`rich` and gone in the end.

:mod:`dangad.cli.calling` has one for each call whose standard error is a terminal, and has it told
of the job's progress by :mod:`dangad.client`. At most ten times a second: the server sees to that.
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

    What goes wrong with the terminal is ignored: a call does not fail for want of a bar.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        #: What rich draws; None while nothing is shown.
        self._progress: Progress | None = None

    def show(self, done: int, total: int, message: str) -> None:
        """Draw, over what stood there.

        Without a total the bar tells nothing, and what is done is only counted.
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
        """Leave the line empty, as it was, if anything was drawn."""
        progress, self._progress = self._progress, None
        if progress is not None:
            with contextlib.suppress(OSError, ValueError):
                progress.stop()


def _make_progress(terminal: TextIO) -> Progress:
    """Rich's part: a bar, the share, and a text that is not read as markup."""
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
