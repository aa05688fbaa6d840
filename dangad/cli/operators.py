"""The subcommands of ``dangad`` for operators: see how a server is, and change how it runs.

They speak to :mod:`dangad.operators.control` by the commands of :mod:`dangad.wire.commands`, over
the endpoint that ``--control`` names. Each is a function that asks, with a client that is
connected; its docstring is the help. What comes back is a document, which is written as it is with
``--json``, and else made into lines for people by :mod:`dangad.cli.documents`.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import click

from dangad.cli import documents
from dangad.cli.options import endpoint_option, help_option, json_option
from dangad.cli.outcome import FAILED, Failed
from dangad.cli.running import with_client
from dangad.cli.streams import encode, say, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dangad.client import Client

    Ask = Callable[..., Awaitable[Any]]
    Show = Callable[[Any], Iterable[str]]


def _subcommand(show: Show, *parameters: click.Parameter) -> Callable[[Ask], click.Command]:
    """Make a subcommand of a function that asks a client for a document, which `show` shows.

    :param parameters: the subcommand's own, which the function is called with.
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

    :raises Failed: it is of another version. The name of what it lacks may help.
    """
    try:
        return "".join(f"{line}\n" for line in show(document))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"the server's answer cannot be shown by this dangad, --json may do: {error}"
        raise Failed(FAILED, text) from None


async def _document(client: Client, name: str) -> Any:
    """The document that answers the command of this name, which takes no arguments."""
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


@_subcommand(
    documents.show_scaled,
    click.Argument(["least"], metavar="MIN", type=int),
    click.Argument(["most"], metavar="[MAX]", type=int, required=False),
    click.Option(["--force"], is_flag=True, help="even if the machine seems too small for so many"),
)
async def scale(client: Client, least: int, most: int | None, force: bool) -> Any:
    """Change how many workers there may be.

    From MIN to MAX, or exactly MIN. It holds until the server stops. The workers come and go after
    the answer.
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

    The Python stack of its worker's main thread is printed, and written to the server's log. The
    ID is one of those that `workers` shows.
    """
    from dangad.wire import commands

    answer = await client.run(commands.Stack, {"job": job})
    return {"job": job, **answer}


@_subcommand(documents.show_reloaded)
async def reload(client: Client) -> Any:
    """Replace the workers, to run the job modules as they are now.

    One after the other, without a pause. Waits until it is done; if the new code does not start,
    the old workers stay, and the exit status is 1.
    """
    from dangad.wire import commands

    await client.run(commands.Reload)
    return await _document(client, "Status")


@_subcommand(documents.show_counters)
async def drain(client: Client) -> Any:
    """Finish the accepted jobs, take no new ones, and stop.

    Waits until the last job has ended, and prints how they ended.
    """
    return await _document(client, "Drain")


COMMANDS = (status, workers, recent, scale, want, unquarantine, stack, reload, drain)
"""In the order in which help lists them."""
