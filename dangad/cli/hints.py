"""Answers to mistyped words: what the user may have meant, and where to look.

Used by :mod:`dangad.cli.root` and :mod:`dangad.cli.calling`. Nothing here depends on how the
command line is parsed.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dangad.text import SHORTEST, find_alike

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_INSTEAD = {
    "kill": "`dangad cancel ID` ends a job; `dangad shutdown` stops the server",
    "list": "`dangad commands` lists what can be called, `dangad jobs` what waits and runs",
    "log": "`dangad watch` shows what happens, `dangad recent` the jobs that have ended; "
    "the server's log is where twistd writes it",
    "ps": "`dangad workers` lists the worker processes, `dangad jobs` the jobs",
    "restart": "`dangad reload` replaces the workers with new code; to restart the server, stop it "
    "by `dangad shutdown`, and start it again",
    "run": "`dangad call COMMAND` calls a job",
    "start": "`twistd dangad` starts a server, `dangad dev FILE` one for your job files",
    "stop": "`dangad shutdown` stops the server, `dangad drain` also waits for its end",
}
_INSTEAD["logs"] = _INSTEAD["log"]
_INSTEAD["ls"] = _INSTEAD["list"]
"""What people type who know other programs, and what to type here."""


def unknown_command(name: str, known: Iterable[str]) -> str:
    """The answer to a command that the server does not have."""
    alike = find_alike(name, known)
    meant = f"did you mean {alike}? " if alike else ""
    return f"the server has no command {name!r}; {meant}`dangad commands` lists them"


def unknown_subcommand(name: str, known: Iterable[str]) -> str:
    """The answer to a subcommand that does not exist."""
    said = f"there is no subcommand {name!r}"
    if name.lower() in _INSTEAD:
        return f"{said}; {_INSTEAD[name.lower()]}"
    names = list(known)
    begin = [f"`dangad {each}`" for each in names if each.startswith(name.lower())]
    if len(begin) > 1 and len(name) >= SHORTEST:
        either = f"{', '.join(begin[:-1])} or {begin[-1]}"
        return f"{said}; did you mean {either}? see dangad --help"
    alike = find_alike(name, names)
    if alike:
        return f"{said}; did you mean `dangad {alike}`? see dangad --help"
    return f"{said}; to call a command of the server: `dangad call {name}`; see dangad --help"


def unknown_option(option: str, known: Iterable[str], typed: Sequence[str]) -> str:
    """The answer to an option that a subcommand does not have.

    :param option: the option as typed, perhaps with its value.
    :param known: the existing options.
    :param typed: the words of the command line, from the subcommand on.
    """
    name, equals, value = option.partition("=")
    said = f"there is no option {name}"
    alike = find_alike(name.lstrip("-"), [each.lstrip("-") for each in known])
    is_call = typed[:1] == ["call"]
    see = " ".join(["dangad", *typed[: 2 if is_call and _is_word(typed[1:2]) else 1], "--help"])
    if alike:
        return f"{said}; did you mean --{alike}? see {see}"
    if not is_call or not name.lstrip("-"):
        return f"{said}; see {see}"
    if not equals:
        after = typed[list(typed).index(option) + 1 :] if option in typed else []
        value = after[0] if _is_word(after[:1]) else "..."
    argument = shlex.quote(f"{name.lstrip('-')}={value}")
    return f"{said}; an argument of a command is written key=value, as in {argument}; see {see}"


def _is_word(words: Sequence[str]) -> bool:
    """Whether there is a first word, and it is neither an option nor an argument."""
    return bool(words) and not words[0].startswith("-") and "=" not in words[0]
