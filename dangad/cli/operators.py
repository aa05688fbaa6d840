"""The subcommands of ``dangad`` for operators: inspect a server, and control it.

They send the commands of :mod:`dangad.wire.commands` to :mod:`dangad.operators.control`, at the
endpoint of ``--control``. Each subcommand is a function that uses a connected client; its docstring
is the help. Its result is a document. With ``--json`` it is written unchanged; otherwise
:mod:`dangad.cli.documents` makes lines of it for people.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from dangad.cli import documents
from dangad.cli.configtext import show_config
from dangad.cli.options import endpoint_option, help_option, json_option
from dangad.cli.outcome import FAILED, Failed
from dangad.cli.running import with_client
from dangad.cli.streams import encode, say, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from dangad.client import Client

    Ask = Callable[..., Awaitable[Any]]
    Show = Callable[[Any], Iterable[str]]


PATIENCE = 3.0
"""Seconds between two checks of the workers for which a reload waits."""


def _subcommand(show: Show, *parameters: click.Parameter) -> Callable[[Ask], click.Command]:
    """A decorator that makes a subcommand of a function, which asks a client for a document.

    :param show: turns the document into lines for people.
    :param parameters: the subcommand's own parameters, with which the function is called.
    """
    shared = (json_option("print one line of JSON"), endpoint_option("control"), help_option())

    def decorate(ask: Ask) -> click.Command:
        @click.command(ask.__name__, add_help_option=False, params=[*parameters, *shared])
        @functools.wraps(ask)
        def perform(control: str | None, as_json: bool, **arguments: Any) -> None:
            async def use(client: Client) -> bytes:
                document = await ask(client, **arguments)
                return encode(f"{json.dumps(document)}\n" if as_json else _shown(document, show))

            write(with_client("control", control, use))

        return perform

    return decorate


def _shown(document: Any, show: Show) -> str:
    """The document as text for people.

    :raises Failed: the document is of another version; the text names the missing key.
    """
    try:
        return "".join(f"{line}\n" for line in show(document))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"the server's answer cannot be shown by this dangad, --json may do: {error}"
        raise Failed(FAILED, text) from None


async def _document(client: Client, name: str) -> Any:
    """The document that answers the command of this name, sent without arguments."""
    from dangad.wire import commands

    answer = await client.run(getattr(commands, name))
    return json.loads(answer["document"])


@_subcommand(documents.show_status)
async def status(client: Client) -> Any:
    """Tell how the server is."""
    return await _document(client, "Status")


@_subcommand(documents.show_workers)
async def workers(client: Client) -> Any:
    """List the worker processes and what they run."""
    return await _document(client, "Workers")


@_subcommand(documents.show_recent)
async def recent(client: Client) -> Any:
    """List the jobs that ended last, the latest last."""
    return await _document(client, "Recent")


@_subcommand(show_config)
async def config(client: Client) -> Any:
    """Print the server's options as a TOML file.

    `twistd dangad --config FILE` starts a server with the same options. If the server was started
    with a file, this is the file with the values that differ now.
    """
    return await _document(client, "Config")


@_subcommand(
    documents.show_scaled,
    click.Argument(["least"], metavar="MIN", type=int),
    click.Argument(["most"], metavar="[MAX]", type=int, required=False),
    click.Option(["--force"], is_flag=True, help="even if the machine seems too small for so many"),
)
async def scale(client: Client, least: int, most: int | None, force: bool) -> Any:
    """Change how many workers there may be.

    From MIN to MAX, or exactly MIN. It holds until the server stops. The command does not wait for
    workers to start or stop.
    """
    from dangad.wire import commands

    bounds = {"min": least, "max": least if most is None else most}
    await client.run(commands.Scale, {**bounds, "force": True} if force else bounds)
    return bounds


@click.command(hidden=True, add_help_option=False, params=scale.params)
@click.pass_context
def want(context: click.Context, /, **arguments: Any) -> None:
    """Do as `scale`, which had this name before."""
    say("`dangad want` is called `dangad scale` now")
    context.invoke(scale, **arguments)


@_subcommand(documents.show_pardoned, click.Argument(["command"], metavar="COMMAND"))
async def unquarantine(client: Client, command: str) -> Any:
    """End the quarantine of a command at once.

    Its jobs are accepted again; `status` shows which commands are in quarantine.
    """
    from dangad.wire import commands

    await client.run(commands.Pardon, {"command": command})
    return {"command": command}


@_subcommand(documents.show_stack, click.Argument(["job"], metavar="ID", type=int))
async def stack(client: Client, job: int) -> Any:
    """Show where a running job is.

    Prints the Python stack of each thread of its worker; the server logs them, too. `workers`
    shows the ID.
    """
    from dangad.wire import commands

    answer = await client.run(commands.Stack, {"job": job})
    return {"job": job, **answer}


@_subcommand(documents.show_reloaded)
async def reload(client: Client) -> Any:
    """Replace the workers, so that they run the present job modules.

    Workers are replaced one after the other, without a pause. The command waits for the last one,
    and says on a terminal which job keeps it.
    If the new code does not start, the old workers stay, and the exit status is 1.
    """
    from dangad.wire import commands

    with _telling_of_old_jobs(client):
        await client.run(commands.Reload)
    return await _document(client, "Status")


@contextlib.contextmanager
def _telling_of_old_jobs(client: Client) -> Iterator[None]:
    """A context in which the user of a terminal is told for which jobs a reload waits."""
    from twisted.internet.defer import Deferred
    from twisted.internet.task import LoopingCall

    told: set[int | None] = {None}

    async def look() -> None:
        workers = await _document(client, "Workers")
        job, text = documents.last_old_job(await _document(client, "Status"), workers)
        if job not in told:
            told.add(job)
            say(text)

    looking = LoopingCall(lambda: Deferred.fromCoroutine(look()))
    if sys.stderr is not None and sys.stderr.isatty():
        # If this fails, the reload fails as well, or its end is told.
        looking.start(PATIENCE, now=False).addErrback(lambda _: None)
    try:
        yield
    finally:
        if looking.running:
            looking.stop()


@_subcommand(documents.show_counters)
async def drain(client: Client) -> Any:
    """Finish the accepted jobs, take no new ones, and stop.

    Waits until the last job has ended, and prints how many jobs ended in which way.
    """
    return await _document(client, "Drain")


COMMANDS = (status, workers, recent, config, scale, want, unquarantine, stack, reload, drain)
"""The subcommands, in the order of the help."""
