"""The command line of ``dangad``: its own options, its subcommands, and the errors in it.

:func:`dangad.cli.main` parses the command line with :data:`dangad`. The subcommands are in
:mod:`dangad.cli.dev`, :mod:`dangad.cli.calling`, :mod:`dangad.cli.operators`,
:mod:`dangad.cli.top` and :mod:`dangad.cli.checking`, the answers to mistyped words in
:mod:`dangad.cli.hints`. Nothing here imports Twisted: help and completion do not need it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

import dangad as package
from dangad.cli import calling, operators
from dangad.cli.checking import check
from dangad.cli.dev import dev
from dangad.cli.hints import unknown_option, unknown_subcommand
from dangad.cli.options import endpoint_option, help_option
from dangad.cli.outcome import WrongUsage
from dangad.cli.streams import encode, write
from dangad.cli.top.command import top

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Root(click.Group):
    """The program: it lists subcommands in the order of addition, and corrects mistyped ones."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the subcommands: first for users, then for operators."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand at the beginning of the words.

        :raises WrongUsage: there is no subcommand of this name.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            known = [name for name, each in self.commands.items() if not each.hidden]
            raise WrongUsage(unknown_subcommand(args[0], known))
        return super().resolve_command(ctx, args)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        write(encode(f"dangad {package.__version__}\n"))
        context.exit()


@click.group(
    cls=_Root,
    add_help_option=False,
    invoke_without_command=True,
    no_args_is_help=False,
    subcommand_metavar="SUBCOMMAND ...",
    params=[
        endpoint_option("connect", "DANGAD_CONNECT"),
        endpoint_option("control", "DANGAD_CONTROL"),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="show the version, and exit",
        ),
        help_option(),
    ],
    epilog="Exit status: 0 success, 1 the job ended with an error, or an operator's command was "
    "refused, 2 wrong usage, 3 no connection or connection lost, 130 interrupted.",
)
@click.pass_context
def dangad(context: click.Context, /, **_: str | None) -> None:
    """Call jobs of a dangad server, and look after it."""
    if context.invoked_subcommand is None:
        raise WrongUsage("which SUBCOMMAND? see dangad --help")


def _subcommands_like(_: click.Context, __: click.Parameter, beginning: str) -> list[str]:
    """The subcommands that begin so, for completion."""
    listed = [name for name, each in dangad.commands.items() if not each.hidden]
    return [name for name in listed if name.startswith(beginning)]


@click.command(
    "help",
    add_help_option=False,
    params=[
        click.Argument(["subcommand"], required=False, shell_complete=_subcommands_like),
        help_option(),
    ],
)
def explain(subcommand: str | None) -> None:
    """Show the help of the program or of a subcommand."""
    words = ["--help"] if subcommand is None else [subcommand, "--help"]
    with dangad.make_context("dangad", words) as context:
        dangad.invoke(context)


for _command in (dev, *calling.COMMANDS, *operators.COMMANDS, top, check, explain):
    dangad.add_command(_command)


def what_is_wrong(error: click.UsageError, words: Sequence[str]) -> str:
    """One line that says what click found wrong in a command line, and where to look.

    :param error: click's exception.
    :param words: the words of the command line.
    """
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        return _what_was_meant(error.option_name, error.ctx, words)
    said = error.format_message().rstrip(".")
    subcommand = [word for word in words if word in dangad.commands][:1]
    return f"{said[:1].lower()}{said[1:]}; see {' '.join(['dangad', *subcommand, '--help'])}"


def _what_was_meant(option: str, context: click.Context, words: Sequence[str]) -> str:
    """The answer to an option that the program, or this context's subcommand, does not have."""
    known = [name for each in context.command.params for name in each.opts if name[:2] == "--"]
    if context.parent is None:
        return unknown_option(option, known, [])
    if re.fullmatch("-[0-9.]+", option) and context.info_name != "call":
        return f"{option} is negative; see {context.command_path} --help"
    typed = list(words)[list(words).index(context.info_name or "") :]
    as_typed = [word for word in typed if word.partition("=")[0] == option]
    return unknown_option(as_typed[0] if as_typed else option, known, typed)
