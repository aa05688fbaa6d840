"""The subcommands of ``dangad`` for users: ``call`` and ``commands``.

Both first ask the server for its catalogue. :mod:`dangad.cli.arguments` reads the words by the
types of a command's arguments, and :mod:`dangad.cli.output` shows the answer by the types of its
response.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dangad.cli.hints import unknown_command
from dangad.cli.options import endpoint_option, help_option, json_option, read_seconds
from dangad.cli.outcome import FAILED, Failed, WrongUsage
from dangad.cli.running import with_client
from dangad.cli.streams import columns, encode, on_terminal, read_input, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dangad.cli.bar import ProgressBar
    from dangad.client import Client

PRIORITIES = ("high", "normal", "low")


@dataclass(frozen=True, slots=True)
class _Form:
    """The requested form of an answer.

    :ivar as_json: whether as JSON.
    :ivar raw: the key whose value alone is written; None if not requested.
    :ivar stream: whether to write the partial results, and the bytes of the answer.
    """

    as_json: bool
    raw: str | None
    stream: bool

    def check(self) -> None:
        """Check that at most one form is requested.

        :raises WrongUsage: there are two.
        """
        wanted = {"--json": self.as_json, "--raw": self.raw is not None, "--stream": self.stream}
        given = [option for option, is_given in wanted.items() if is_given]
        if len(given) > 1:
            raise WrongUsage(f"{given[1]} is not allowed with {given[0]}; see dangad call --help")


@click.command(
    add_help_option=False,
    params=[
        click.Argument(["command"], metavar="[Command]", required=False),
        click.Argument(["words"], metavar="[key=value]...", nargs=-1),
        json_option("print the answer as a line of JSON"),
        click.Option(["--raw"], metavar="KEY", help="write the value of this key unchanged"),
        click.Option(
            ["--stream"],
            is_flag=True,
            help="write the partial results as they come, then the bytes of the answer, for any "
            "standard output and any response",
        ),
        click.Option(["--priority"], type=click.Choice(PRIORITIES), help="how urgent the job is"),
        click.Option(
            ["--deadline"],
            metavar="SECONDS",
            callback=read_seconds,
            help="the time, including the wait, after which the answer is useless",
        ),
        endpoint_option("connect"),
        click.Option(
            ["-h", "--help", "asks_for_help"],
            is_flag=True,
            help="show this, or the arguments and response of a Command, and exit",
        ),
    ],
    epilog="Write a list as one key=value for each element, or as JSON; write records as JSON. "
    "@FILE stands for the contents of a file, @- for the standard input; write @@ for a value that "
    "begins with @. A date without a zone is local time.",
)
@click.pass_context
def call(
    context: click.Context,
    /,
    command: str | None,
    words: tuple[str, ...],
    connect: str | None,
    asks_for_help: bool,
    as_json: bool,
    raw: str | None,
    stream: bool,
    **policy: Any,
) -> None:
    """Run a job, and print its answer as a table.

    If the standard output is not a terminal, and the response has exactly one Blob or is one key of
    bytes, only these bytes are written, unchanged: first the job's partial results as they come,
    then the bytes of the answer. On a terminal, the job's progress is shown meanwhile.
    """
    form = _Form(as_json, raw, stream)
    form.check()
    if command is None and not asks_for_help:
        raise WrongUsage("which Command? `dangad commands` lists them; see dangad call --help")
    if command is None:
        write(encode(f"{context.get_help()}\n"))
    elif asks_for_help:
        write(_explain(connect, command))
    else:
        write(_call(connect, command, words, form, policy))


@click.command(
    add_help_option=False,
    params=[
        json_option("print the whole catalogue as JSON"),
        endpoint_option("connect"),
        help_option(),
    ],
)
def commands(connect: str | None, as_json: bool) -> None:
    """List the commands that the server performs.

    Each command has its arguments and their types (those in brackets are optional), its response,
    and its description.
    """
    from dangad.cli.output import catalogue_as_table

    async def describe(client: Client) -> bytes:
        catalogue = await client.describe()
        if as_json:
            return encode(json.dumps(catalogue) + "\n")
        return encode(catalogue_as_table(catalogue, columns()))

    write(with_client("connect", connect, describe))


COMMANDS = (call, commands)
"""The subcommands, in the order of the help."""


def _find(catalogue: dict[str, Any], name: str) -> dict[str, Any]:
    """The catalogue's entry of this name.

    :raises WrongUsage: there is none.
    """
    entries: dict[str, dict[str, Any]] = {each["name"]: each for each in catalogue["commands"]}
    if name not in entries:
        raise WrongUsage(unknown_command(name, entries))
    return entries[name]


def _explain(connect: str | None, name: str) -> bytes:
    """The help of a command, from the server's catalogue."""
    from dangad.cli.output import entry_as_help

    async def describe(client: Client) -> bytes:
        return encode(entry_as_help(_find(await client.describe(), name), columns()))

    return with_client("connect", connect, describe)


def _call(
    connect: str | None, name: str, pairs: tuple[str, ...], form: _Form, policy: dict[str, Any]
) -> bytes:
    """Call the command, write partial results as they come, and return the answer as output."""
    from dangad.cli.arguments import read_words
    from dangad.wire.words import WrongWord, build_arguments, build_typed_command

    words = read_words(pairs, read_input)

    async def have_done(client: Client) -> bytes:
        entry = _find(await client.describe(), name)
        try:
            values = build_arguments(entry, words, f"; see dangad call {name} --help")
        except WrongWord as error:
            raise WrongUsage(str(error)) from None
        raw, streams = _choose_bytes(entry, form)
        try:
            command = build_typed_command(entry)
        except KeyError as error:
            raise Failed(FAILED, f"{name} has a type unknown here: {error}") from None
        if bar is not None and not (streams and on_terminal()):
            policy["progress"] = bar.show
        if not streams:
            response = await client.run(command, values, **policy)
        else:
            stream = client.stream(command, values, **policy)
            async for chunk in stream:
                write(chunk)
            response = await stream.result()
        return _show_answer(entry["response"], response, raw, form)

    with _progress_bar() as bar:
        return with_client("connect", connect, have_done)


def _choose_bytes(entry: dict[str, Any], form: _Form) -> tuple[dict[str, Any] | None, bool]:
    """The key whose value alone is written, if any; and whether to write partial results."""
    from dangad.cli.output import raw_key

    keys = {key["key"]: key for key in entry["response"]}
    usual = raw_key(entry["response"])
    is_plain = not (form.as_json or on_terminal())
    raw = form.raw or (usual if is_plain or form.stream else None)
    if raw is not None and raw not in keys:
        names = ", ".join(keys) or "none"
        raise WrongUsage(f"--raw {raw}: {entry['name']} answers with other keys: {names}")
    streams = form.stream or (raw is not None and raw == usual)
    return (None if raw is None else keys[raw]), streams


def _show_answer(
    keys: list[dict[str, Any]], response: dict[str, Any], raw: dict[str, Any] | None, form: _Form
) -> bytes:
    """A response in the requested form."""
    from dangad.cli.output import answer_as_json, answer_as_table, value_as_bytes

    if raw is not None:
        return value_as_bytes(raw, response)
    if form.as_json:
        return encode(answer_as_json(keys, response))
    return b"" if form.stream else encode(answer_as_table(keys, response, columns()))


@contextlib.contextmanager
def _progress_bar() -> Iterator[ProgressBar | None]:
    """A bar on the standard error, removed at the end; None if it is not a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from dangad.cli.bar import ProgressBar

    bar = ProgressBar(sys.stderr)
    try:
        yield bar
    finally:
        bar.clear()
