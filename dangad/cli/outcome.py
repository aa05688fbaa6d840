"""How a run of ``dangad`` ends: the exit statuses, and the exceptions that stand for them.

Raised all over :mod:`dangad.cli`; its :func:`~dangad.cli.main` says the text and exits.
"""

from __future__ import annotations

OK = 0
FAILED = 1
"""The job ended with an error, what an operator wanted was refused, or the output failed."""
WRONG_USAGE = 2
NOT_CONNECTED = 3
SIGNALLED = 128
"""Added to the number of the signal that ended the command."""


class Failed(Exception):
    """The command cannot do what it was asked; the text says why, in one line.

    :ivar status: the exit status that tells it.
    """

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


class WrongUsage(Failed):
    """The command line is not valid; the text says in one line what to change."""

    def __init__(self, text: str) -> None:
        super().__init__(WRONG_USAGE, text)
