"""The subcommands of ``dangad`` for users: ``call`` and ``commands``.

Both ask the server for its catalogue first. It tells the types of a command's arguments, by which
:mod:`dangad.cli.arguments` reads the words, and of its response, by which :mod:`dangad.cli.output`
shows the answer.
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
    """How the answer to a call is wanted.

    :ivar as_json: as JSON.
    :ivar raw: the value of this key alone.
    :ivar stream: the partial results, and the bytes of the answer.
    """

    as_json: bool
    raw: str | None
    stream: bool

    def check(self) -> None:
        """Raise WrongUsage if two forms are asked for."""
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
        click.Option(["--raw"], metavar="KEY", help="write the value of this key as it is"),
        click.Option(
            ["--stream"],
            is_flag=True,
            help="write the partial results as they come, and then the bytes of the answer, "
            "whatever the standard output and the response are",
        ),
        click.Option(["--priority"], type=click.Choice(PRIORITIES), help="which jobs go first"),
        click.Option(
            ["--deadline"],
            metavar="SECONDS",
            callback=read_seconds,
            help="when the answer is of no use any more, waiting counted",
        ),
        endpoint_option("connect"),
        click.Option(
            ["-h", "--help", "asks_for_help"],
            is_flag=True,
            help="show this, or, after a Command, what that takes and gives, and exit",
        ),
    ],
    epilog="A list is written as one key=value for each element, or as JSON, as are records. "
    "A value that begins with @ is read from that file, @- from the standard input, @@ stands for "
    "a value that begins with @. A date without a zone is local time.",
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
    """Have a job done, and print its answer as a table.

    Where no terminal is, the bytes of a response that has exactly one Blob, or is one key of
    bytes, are written as they are, and nothing else: first the partial results that the job sends,
    as they come, then what the answer holds. On a terminal, the job's progress is shown meanwhile.
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
    """List what the server performs.

    Each command with its arguments and their types (in brackets: may be left out), its response,
    and what it does.
    """
    from dangad.cli.output import catalogue_as_table

    async def describe(client: Client) -> bytes:
        catalogue = await client.describe()
        if as_json:
            return encode(json.dumps(catalogue) + "\n")
        return encode(catalogue_as_table(catalogue, columns()))

    write(with_client("connect", connect, describe))


COMMANDS = (call, commands)
"""In the order in which help lists them."""


def _find(catalogue: dict[str, Any], name: str) -> dict[str, Any]:
    """The catalogue's entry of this name."""
    entries: dict[str, dict[str, Any]] = {each["name"]: each for each in catalogue["commands"]}
    if name not in entries:
        raise WrongUsage(unknown_command(name, entries))
    return entries[name]


def _explain(connect: str | None, name: str) -> bytes:
    """What the command takes and gives, by the server's catalogue."""
    from dangad.cli.output import entry_as_help

    async def describe(client: Client) -> bytes:
        return encode(entry_as_help(_find(await client.describe(), name), columns()))

    return with_client("connect", connect, describe)


def _call(
    connect: str | None, name: str, pairs: tuple[str, ...], form: _Form, policy: dict[str, Any]
) -> bytes:
    """The answer to the call; partial results are written as they come."""
    from dangad.cli.arguments import build_arguments, build_typed_command, read_words

    words = read_words(pairs, read_input)

    async def have_done(client: Client) -> bytes:
        entry = _find(await client.describe(), name)
        values = build_arguments(entry, words)
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
    """The key whose value alone is written, if any; and whether partial results are, before it."""
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
    """A response in the form that is wanted."""
    from dangad.cli.output import answer_as_json, answer_as_table, value_as_bytes

    if raw is not None:
        return value_as_bytes(raw, response)
    if form.as_json:
        return encode(answer_as_json(keys, response))
    return b"" if form.stream else encode(answer_as_table(keys, response, columns()))


@contextlib.contextmanager
def _progress_bar() -> Iterator[ProgressBar | None]:
    """A bar on the standard error, gone in the end; None if that is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from dangad.cli.bar import ProgressBar

    bar = ProgressBar(sys.stderr)
    try:
        yield bar
    finally:
        bar.clear()
