"""How a run of ``dangad`` ends: the exit statuses, and the exceptions that stand for them.

All modules of :mod:`dangad.cli` raise them; :func:`dangad.cli.main` prints the text and exits, or
ends by the signal.
"""

from __future__ import annotations

OK = 0
FAILED = 1
"""The job ended with an error, an operator's command was refused, or the output failed."""
WRONG_USAGE = 2
"""The command line is not valid, or the server does not have the command."""
NOT_CONNECTED = 3
"""There was no connection to the server, or it was lost."""


class Failed(Exception):
    """The command has failed; the text says why, in one line.

    :ivar status: the exit status.
    """

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


class Signalled(Exception):
    """A signal ends the command.

    :ivar number: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class WrongUsage(Failed):
    """The command line is not valid; the text says in one line what to change."""

    def __init__(self, text: str) -> None:
        super().__init__(WRONG_USAGE, text)
