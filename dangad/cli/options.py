"""Options that several subcommands of ``dangad`` share.

They are parameters of the :mod:`click` commands in :mod:`dangad.cli.root`,
:mod:`dangad.cli.calling` and :mod:`dangad.cli.operators`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from dangad.cli.streams import encode, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

DOORS = {"connect": "dangad.sock", "control": "dangad.control"}
"""The options that say where to connect, and the default of each."""
_MEANINGS = {
    "connect": "where the server listens",
    "control": "where the server listens for its operators",
}

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""The units of times, in seconds."""


def endpoint_option(name: str, environment: str | None = None) -> click.Option:
    """An option that says where to connect, for the program or a subcommand.

    The subcommand's option comes first, then the program's own, then the environment variable,
    which only the program's own option reads.
    """

    def choose(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
        outer = context.parent
        return value or (None if outer is None else outer.params.get(name))

    return click.Option(
        [f"--{name}"],
        metavar="ENDPOINT",
        envvar=environment,
        callback=choose,
        shell_complete=_complete_path,
        help=f"{_MEANINGS[name]}: a Twisted client endpoint such as tcp:HOST:7003, or the path of "
        f"a UNIX socket [default: $DANGAD_{name.upper()} or {DOORS[name]}]",
    )


def _complete_path(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Make the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


class Words(click.Choice[str]):
    """The type of an option whose value is one of some words.

    Those with a space are completed with an underscore, for shells. A space, a hyphen and an
    underscore are alike.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """:param words: as the server has them."""
        self._words = {word.replace(" ", "_"): word for word in words}
        super().__init__(list(self._words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word as the server has it."""
        return self._words[super().convert(with_underscores(value), param, ctx)]


def with_underscores(word: str) -> str:
    """A word that may have been written with spaces or hyphens."""
    return word.replace(" ", "_").replace("-", "_")


def json_option(what: str) -> click.Option:
    """The option to print JSON.

    :param what: its help.
    """
    return click.Option(["--json", "as_json"], is_flag=True, help=what)


def help_option() -> click.Option:
    """The option that explains a command. A broken pipe is handled as for answers."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            write(encode(f"{context.get_help()}\n"))
            context.exit()

    return click.Option(
        ["-h", "--help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="show this, and exit",
    )


def read_duration(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """The value of an option's text: a time, as in ``30s``, ``5m``, ``2h``, ``1d``, or seconds."""
    try:
        return None if text is None else seconds_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def seconds_of(text: str) -> float:
    """The seconds of a time, as in ``30s``, ``5m``, ``2h``, ``1d``, or a number of seconds.

    :raises ValueError: it is not a time.
    """
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text!r} is not a time, as in 30s, 5m, 2h, 1d, or a number of seconds")
    return seconds


def read_seconds(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """The value of an option's text: seconds, 0 or more; None if the option is not given."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise click.BadParameter(f"{text!r} is not a number of seconds, 0 or more", param=parameter)
    return seconds
