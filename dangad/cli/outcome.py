"""How a run of ``dangad`` ends: the exit statuses, and the exceptions that stand for them.

All modules of :mod:`dangad.cli` raise them; :func:`dangad.cli.main` prints the text and exits.
"""

from __future__ import annotations

OK = 0
FAILED = 1
"""The job ended with an error, an operator's command was refused, or the output failed."""
WRONG_USAGE = 2
"""The command line is not valid, or the server does not have the command."""
NOT_CONNECTED = 3
"""There was no connection to the server, or it was lost."""
SIGNALLED = 128
"""Added to the number of the signal that ended the command."""


class Failed(Exception):
    """The command has failed; the text says why, in one line.

    :ivar status: the exit status.
    """

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


class WrongUsage(Failed):
    """The command line is not valid; the text says in one line what to change."""

    def __init__(self, text: str) -> None:
        super().__init__(WRONG_USAGE, text)
