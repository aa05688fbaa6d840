"""The ``dangad`` command: call jobs from a shell, list the commands, and look after a server.

:func:`main` is the console script. The way of a command line through the room:

- :mod:`~dangad.cli.root` parses it with :mod:`click`, by the options of :mod:`~dangad.cli.options`;
  :mod:`~dangad.cli.hints` answers mistyped words.
- :mod:`~dangad.cli.calling` has the subcommands for users. :mod:`~dangad.cli.operators`,
  :mod:`~dangad.cli.jobs` and :mod:`~dangad.cli.rates` have the subcommands for operators, which
  :mod:`~dangad.cli.subcommands` makes; :mod:`~dangad.cli.unknownwords` warns of words in their
  filters, and :mod:`~dangad.cli.waits` tells what an order waits for.
  Each runs in :mod:`~dangad.cli.running`, which connects to the server like any other client.
  :mod:`~dangad.cli.top` shows a server on a full screen. :mod:`~dangad.cli.checking` checks a
  configuration file without a server.
- :mod:`~dangad.cli.arguments` turns words into values, by the types that the server tells.
- :mod:`~dangad.cli.output`, :mod:`~dangad.cli.documents` and :mod:`~dangad.cli.jobdocuments` turn
  answers into text, with the tables of :mod:`~dangad.cli.tables` and the cells of
  :mod:`~dangad.cli.cells`; on a terminal :mod:`~dangad.cli.drawing` draws these tables with
  :mod:`rich`, and :mod:`~dangad.cli.bar` the job's progress. :mod:`~dangad.cli.configtext` makes a
  configuration file of the server's options.
- :mod:`~dangad.cli.dev` serves a developer's job files: :mod:`~dangad.cli.jobfiles` finds them,
  :mod:`~dangad.cli.filewatch` tells when they change, :mod:`~dangad.cli.devserver` is the server's
  process, and :mod:`~dangad.cli.devsession` brings them together. It shows the lines of
  :mod:`~dangad.cli.devlines`, and by :mod:`~dangad.cli.devcalls` the calls of
  :mod:`dangad.wire.callwords`.
- :mod:`~dangad.cli.streams` writes the text; :mod:`~dangad.cli.outcome` has the exit statuses.

Modules are imported only when they are used: Twisted to connect, rich to draw on a terminal,
textual for the full screen.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from dangad.cli.outcome import OK, WRONG_USAGE, Failed, Signalled, WrongUsage
from dangad.cli.root import dangad, what_is_wrong
from dangad.cli.streams import say
from dangad.host.processcontrol import die_by

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPLETION = "_DANGAD_COMPLETE"
"""The environment variable by which a shell asks for completion instead of a run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status; if a signal ends it, die by this signal.

    :param arguments: the words of the command line after the program's name; None for those with
        which the program was started.
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
    except Signalled as ended:
        return die_by(ended.number)
    except KeyboardInterrupt:
        return die_by(signal.SIGINT)


def _run(words: list[str]) -> int:
    """Run the subcommand in `words`, and return the exit status."""
    try:
        with dangad.make_context("dangad", list(words)) as context:
            dangad.invoke(context)
    except click.exceptions.Exit as done:  # after help
        return done.exit_code
    return OK


def _complete(instruction: str) -> int:
    """Answer a shell: print its completion script, or the completions of a command line."""
    from click.shell_completion import shell_complete

    try:
        return shell_complete(dangad, {}, "dangad", COMPLETION, instruction)
    except (KeyError, ValueError):  # click reads the line from COMP_WORDS and COMP_CWORD
        raise WrongUsage(
            f"${COMPLETION} is set, but not by a shell that completes a command line: unset it"
        ) from None
