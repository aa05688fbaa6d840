"""Warns of words in filters that mean nothing to the server: nothing can ever match them.

Used by :mod:`dangad.cli.jobs`, when nothing matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.cli.hints import unknown_command
from dangad.cli.options import with_underscores
from dangad.cli.streams import say
from dangad.cli.subcommands import document_of
from dangad.text import find_alike
from dangad.wire.controlwords import ENDED_STATES

if TYPE_CHECKING:
    from dangad.client import Client


async def warn_of_unknown(server: Client, command: str | None, outcome: str | None = None) -> None:
    """Say on the standard error which of these words of a filter the server does not know.

    :param command: the name of a command; None for any.
    :param outcome: a state, or the code of an error; None for any.
    """
    if command is None and outcome is None:
        return
    commands = await document_of(server, "Commands")
    names = [each["command"] for each in commands]
    if command is not None and names and command not in names:
        say(unknown_command(command, names))
    outcomes = {*ENDED_STATES, *_codes(), *(code for each in commands for code in each["errors"])}
    if outcome is not None and outcome not in outcomes:
        alike = find_alike(outcome, outcomes)
        meant = f"; did you mean {with_underscores(alike)}?" if alike else ""
        say(f"no job has ended with {outcome!r}: it is no state, and no code of an error{meant}")


def _codes() -> set[str]:
    """The codes of dangad's own errors."""
    from dangad import errors

    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    return {kind.code.decode() for kind in kinds if issubclass(kind, errors.DangadError)}
