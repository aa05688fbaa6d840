"""The ``dangad`` command: call a job from a shell, see which there are, and look after a server.

:func:`main` is the console script. A command line goes through the room like this:

- :mod:`~dangad.cli.root` reads it by :mod:`click`, with the options of :mod:`~dangad.cli.options`;
  what is mistyped is answered in :mod:`~dangad.cli.hints`.
- :mod:`~dangad.cli.calling` has the subcommands for users, :mod:`~dangad.cli.operators` those for
  operators. Each learns what it has to do, and does it in :mod:`~dangad.cli.running`: connected to
  the server, as any other client is.
- :mod:`~dangad.cli.arguments` turns words into values, by the types that the server tells.
- :mod:`~dangad.cli.output` and :mod:`~dangad.cli.documents` turn answers into text, with the tables
  of :mod:`~dangad.cli.tables`; on a terminal :mod:`~dangad.cli.drawing` draws these with
  :mod:`rich`, and :mod:`~dangad.cli.bar` the job's progress.
- :mod:`~dangad.cli.streams` writes it; :mod:`~dangad.cli.outcome` has the exit statuses.

Nobody waits for what is not used: Twisted is imported to connect, rich to draw on a terminal.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from dangad.cli.outcome import OK, SIGNALLED, WRONG_USAGE, Failed
from dangad.cli.root import dangad, what_is_wrong
from dangad.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPLETION = "_DANGAD_COMPLETE"
"""The environment variable by which a shell asks for completion instead of a run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status, after everything was done and said.

    :param arguments: the words of the command line after the program's name, if not those that
        the program was started with.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _complete(os.environ[COMPLETION]) if os.environ.get(COMPLETION) else _run(words)
    except click.UsageError as error:
        say(what_is_wrong(error, words))
        return WRONG_USAGE
    except Failed as failed:
        if str(failed):
            say(str(failed))
        return failed.status
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT


def _run(words: list[str]) -> int:
    """Do what the words say."""
    try:
        with dangad.make_context("dangad", list(words)) as context:
            dangad.invoke(context)
    except click.exceptions.Exit as done:  # after help
        return done.exit_code
    return OK


def _complete(instruction: str) -> int:
    """Tell a shell how to complete command lines, or what one may be completed to."""
    from click.shell_completion import shell_complete

    return shell_complete(dangad, {}, "dangad", COMPLETION, instruction)
