"""The ``dangad`` command: call a job from a shell, see which there are, and look after a server.

:func:`main` is the console script. It reads the command line, connects as any other client
(:mod:`dangad.cli.running`), learns the types of the command's arguments from the server, and
writes the answer. Words become values in :mod:`dangad.cli.arguments`, answers become text in
:mod:`dangad.cli.output` and :mod:`dangad.cli.tables`, progress becomes a bar in
:mod:`dangad.cli.bar`. What is mistyped is answered in :mod:`dangad.cli.hints`. The subcommands for
operators are in :mod:`dangad.cli.operators`; here are the options, and the others.
"""

from __future__ import annotations

import argparse
import errno
import json
import re
import signal
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import dangad
from dangad.cli import operators
from dangad.cli.arguments import (
    WrongUsage,
    build_arguments,
    build_typed_command,
    parse_seconds,
    read_words,
)
from dangad.cli.hints import unknown_command, unknown_option, unknown_subcommand
from dangad.cli.output import (
    answer_as_json,
    answer_as_table,
    catalogue_as_table,
    entry_as_help,
    raw_key,
    value_as_bytes,
)
from dangad.cli.running import (
    DOORS,
    FAILED,
    OK,
    SIGNALLED,
    WRONG_USAGE,
    Failed,
    Interrupted,
    columns,
    encode,
    on_terminal,
    say,
    with_client,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dangad.cli.bar import ProgressBar
    from dangad.client import Client

PRIORITIES = ("high", "normal", "low")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status, after everything was done and said.

    :param arguments: the words of the command line after the program's name, if not those that
        the program was started with.
    """
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments)
        write(options.perform(options))
        return OK
    except WrongUsage as error:
        return say(WRONG_USAGE, str(error))
    except Failed as error:
        return say(error.status, str(error))
    except Interrupted as interrupted:
        return SIGNALLED + interrupted.number
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT


# The command line.


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong.

    :ivar subcommands: the parsers of its subcommands, by their names.
    """

    subcommands: Mapping[str, argparse.ArgumentParser] = MappingProxyType({})

    def error(self, message: str) -> NoReturn:
        unknown = re.match("argument SUBCOMMAND: invalid choice: '(.*?)'", message)
        if unknown:
            raise WrongUsage(unknown_subcommand(unknown[1], self.subcommands))
        raise WrongUsage(f"{message}; see {self.prog} --help")


class _ShowVersion(argparse.Action):
    """An option that prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        write(encode(f"dangad {dangad.__version__}\n"))
        parser.exit()


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `perform` in it is the function to call with all of it.

    :raises WrongUsage: it says nothing sensible.
    :raises SystemExit: it asked for help, which was printed.
    """
    parser = _make_parser()
    if list(arguments[:1]) == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    options, rest = parser.parse_known_args(arguments)
    # argparse ends a row of words at the first option; here options may stand between them.
    words = getattr(options, "words", None)
    orphan = [word for word in rest if words is None or word.startswith("-")]
    orphan += [word for word in words or () if word.startswith("--")]
    for word in orphan:
        if not word.startswith("-"):
            parser.error(f"{word!r} is one word too many")
        first = next(n for n, each in enumerate(arguments) if each in parser.subcommands)
        known = re.findall("--[a-z]+", parser.subcommands[arguments[first]].format_usage())
        raise WrongUsage(unknown_option(word, known, arguments[first:]))
    if words is not None:
        options.words = [*words, *rest]
    return options


def _make_parser() -> _Parser:
    users = _endpoint_option("connect", "where the server listens")
    keepers = _endpoint_option("control", "where the server listens to its operators")
    parser = _Parser(
        prog="dangad",
        description="Call jobs of a dangad server, and look after it.",
        epilog="Exit status: 0 success, 1 the job ended with an error, or the server refused what "
        "an operator wanted, 2 wrong usage, 3 no connection or connection lost, 130 interrupted.",
        parents=[users, keepers],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show it, and exit")
    subcommands = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    parser.subcommands = subcommands.choices
    add = subcommands.add_parser
    _add_call(add, users)
    _add_commands(add, users)
    operators.add_subcommands(add, keepers)
    return parser


def _endpoint_option(name: str, meaning: str) -> argparse.ArgumentParser:
    """A parser, to be the parent of others, of the option that says where to connect."""
    parser = _Parser(add_help=False)
    parser.add_argument(
        f"--{name}",
        metavar="ENDPOINT",
        default=argparse.SUPPRESS,  # or the subcommand's default would win over what was given
        help=f"{meaning}: a Twisted client endpoint such as tcp:HOST:7003, or the path of a UNIX "
        f"socket [default: $DANGAD_{name.upper()} or {DOORS[name]}]",
    )
    return parser


def _add_call(
    add: Callable[..., argparse.ArgumentParser], endpoint: argparse.ArgumentParser
) -> None:
    call = add(
        "call",
        help="have a job done, and print its answer",
        description="Have a job done, and print its answer as a table. Where no terminal is, the "
        "bytes of a response that has exactly one Blob, or is one key of bytes, are written as "
        "they are, and nothing else: first the partial results that the job sends, as they come, "
        "then what the answer holds. On a terminal, the job's progress is shown meanwhile.",
        epilog="A list is written as one key=value for each element, or as JSON, as are records. "
        "A value that begins with @ is read from that file, @- from the standard input, @@ "
        "stands for a value that begins with @. A date without a zone is local time.",
        parents=[endpoint],
        add_help=False,
        allow_abbrev=False,
    )
    call.add_argument(
        "-h",
        "--help",
        action="store_true",
        help="show this, or, after a Command, what that takes and gives, and exit",
    )
    call.add_argument(
        "command", metavar="Command", nargs="?", help="one of those that `dangad commands` lists"
    )
    call.add_argument(
        "words", metavar="key=value", nargs="*", default=(), help="the command's arguments"
    )
    form = call.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answer as a line of JSON")
    form.add_argument("--raw", metavar="KEY", help="write the value of this key as it is")
    form.add_argument(
        "--stream",
        action="store_true",
        help="write the partial results as they come, and then the bytes of the answer, whatever "
        "the standard output and the response are",
    )
    call.add_argument("--priority", choices=PRIORITIES, help="which jobs go first")
    call.add_argument(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="when the answer is of no use any more, waiting counted",
    )
    call.set_defaults(perform=lambda options: _call_or_explain(call, options))


def _add_commands(
    add: Callable[..., argparse.ArgumentParser], endpoint: argparse.ArgumentParser
) -> None:
    listing = add(
        "commands",
        help="list what the server performs",
        description="List what the server performs: each command with its arguments and their "
        "types (in brackets: may be left out), its response, and what it does.",
        parents=[endpoint],
        allow_abbrev=False,
    )
    listing.add_argument("--json", action="store_true", help="print the whole catalogue as JSON")
    listing.set_defaults(perform=_list_commands)


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None


# The subcommands: each gives what is to be written to the standard output.


def _call_or_explain(parser: argparse.ArgumentParser, options: argparse.Namespace) -> bytes:
    """The answer to the call, or the help on it."""
    if options.command is None:
        if options.help:
            return encode(parser.format_help())
        parser.error("which Command? `dangad commands` lists them")
    return _explain(options) if options.help else _call(options)


def _explain(options: argparse.Namespace) -> bytes:
    """What the command takes and gives, by the server's catalogue."""

    async def describe(client: Client) -> bytes:
        return encode(entry_as_help(_find(await client.describe(), options.command), columns()))

    return with_client(options, "connect", describe)


def _call(options: argparse.Namespace) -> bytes:
    words = read_words(options.words, _read_stdin)

    async def call(client: Client) -> bytes:
        entry = _find(await client.describe(), options.command)
        values = build_arguments(entry, words)
        keys = entry["response"]
        usual = raw_key(keys)
        plain = not (options.json or on_terminal())
        raw = options.raw or (usual if plain or options.stream else None)
        raw_keys = [key for key in keys if key["key"] == raw]
        if raw is not None and not raw_keys:
            names = ", ".join(key["key"] for key in keys) or "none"
            raise WrongUsage(f"--raw {raw}: {entry['name']} answers with other keys: {names}")
        try:
            command = build_typed_command(entry)
        except KeyError as error:
            raise Failed(FAILED, f"{entry['name']} has a type unknown here: {error}") from None
        how: dict[str, Any] = {"priority": options.priority, "deadline": options.deadline}
        streams = options.stream or (raw is not None and raw == usual)
        if bar is not None and not (streams and on_terminal()):
            how["progress"] = bar.show
        if streams:
            stream = client.stream(command, values, **how)
            async for chunk in stream:
                write(chunk)
            response = await stream.result()
        else:
            response = await client.run(command, values, **how)
        if raw_keys:
            return value_as_bytes(raw_keys[0], response)
        if options.stream:
            return b""
        return encode((answer_as_json if options.json else answer_as_table)(keys, response))

    bar = _make_bar()
    try:
        return with_client(options, "connect", call)
    finally:
        if bar is not None:
            bar.clear()


def _make_bar() -> ProgressBar | None:
    """A bar on the standard error, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from dangad.cli.bar import ProgressBar

    return ProgressBar(sys.stderr)


def _find(catalogue: dict[str, Any], name: str) -> dict[str, Any]:
    """The catalogue's entry of this name."""
    entries: dict[str, dict[str, Any]] = {each["name"]: each for each in catalogue["commands"]}
    if name not in entries:
        raise WrongUsage(unknown_command(name, entries))
    return entries[name]


def _list_commands(options: argparse.Namespace) -> bytes:
    async def describe(client: Client) -> bytes:
        catalogue = await client.describe()
        if options.json:
            return encode(json.dumps(catalogue) + "\n")
        return encode(catalogue_as_table(catalogue, columns()))

    return with_client(options, "connect", describe)


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()
