"""The subcommands of ``dangad`` for operators that are about the server: inspect and control it.

They send the commands of :mod:`dangad.wire.commands` to :mod:`dangad.operators.control`, at the
endpoint of ``--control``. :mod:`dangad.cli.subcommands` makes each of them of a function that gets
a document and one of :mod:`dangad.cli.documents` that makes lines of it for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dangad.cli import documents, jobs, rates
from dangad.cli.configtext import show_config
from dangad.cli.streams import say
from dangad.cli.subcommands import document_of, subcommand
from dangad.cli.waits import telling_of_drain, telling_of_reload
from dangad.text import show_seconds

if TYPE_CHECKING:
    from dangad.client import Client


@subcommand(documents.show_status)
async def status(client: Client) -> Any:
    """Tell how the server is."""
    return await document_of(client, "Status")


@subcommand(documents.show_workers)
async def workers(client: Client) -> Any:
    """List the worker processes and what they run."""
    return await document_of(client, "Workers")


@subcommand(documents.show_deaths)
async def deaths(client: Client) -> Any:
    """List the workers that died last, and why, the latest last."""
    return await document_of(client, "Deaths")


@subcommand(show_config)
async def config(client: Client) -> Any:
    """Print the server's options as a TOML file.

    `twistd dangad --config FILE` starts a server with the same options. If the server was started
    with a file, this is the file with the values that differ now.
    """
    return await document_of(client, "Config")


@subcommand(
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


@subcommand(documents.show_pardoned, click.Argument(["command"], metavar="COMMAND"))
async def unquarantine(client: Client, command: str) -> Any:
    """End the quarantine of a command at once.

    Its jobs are accepted again; `status` shows which commands are in quarantine.
    """
    from dangad.wire import commands

    await client.run(commands.Pardon, {"command": command})
    return {"command": command}


@subcommand(documents.show_paused, click.Argument(["commands"], metavar="[COMMAND]...", nargs=-1))
async def pause(client: Client, commands: tuple[str, ...]) -> Any:
    """Start no more jobs, of these COMMANDs or of all.

    New jobs are accepted and wait, and running ones go on. `resume` ends the pause.
    """
    return await document_of(client, "Pause", commands=list(commands) or None)


@subcommand(documents.show_paused, click.Argument(["commands"], metavar="[COMMAND]...", nargs=-1))
async def resume(client: Client, commands: tuple[str, ...]) -> Any:
    """Start jobs again, of these COMMANDs or of all."""
    return await document_of(client, "Resume", commands=list(commands) or None)


@subcommand(documents.show_stack, click.Argument(["job"], metavar="ID", type=int))
async def stack(client: Client, job: int) -> Any:
    """Show where a running job is.

    Prints the Python stack of each thread of its worker; the server logs them, too. The ID is that
    of the job: `workers` shows it in the column JOB.
    """
    from dangad.errors import NotRunning
    from dangad.wire import commands

    try:
        answer = await client.run(commands.Stack, {"job": job})
    except NotRunning:
        why = await _why_no_stack(client, job)
        if not why:
            raise
        raise NotRunning(why) from None
    return {"job": job, **answer}


async def _why_no_stack(client: Client, job: int) -> str:
    """Why a job has no stack; empty if this is not known."""
    from dangad.errors import DangadError

    try:
        document = await document_of(client, "Job", job=job)
    except DangadError:
        return ""
    if document.get("ended") is not None:
        return f"job {job} has ended: {document['state']}"
    if document["runtime"] is not None:
        return ""
    state = (
        "is paused" if document["paused"] else f"has waited for {show_seconds(document['wait'])}"
    )
    return f"job {job} {state}, and has no stack before it starts"


@subcommand(documents.show_reloaded)
async def reload(client: Client) -> Any:
    """Replace the workers, so that they run the present job modules.

    Workers are replaced one after the other, without a pause. The command waits for the last one,
    and says on a terminal what keeps it: the import of the new code, or a job.
    If the new code does not start, the old workers stay, and the exit status is 1.
    """
    from dangad.wire import commands

    async with telling_of_reload(client):
        await client.run(commands.Reload)
    return await document_of(client, "Status")


@subcommand(documents.show_counters)
async def drain(client: Client) -> Any:
    """Finish the accepted jobs, take no new ones, and stop.

    Waits until the last job has ended, and prints how many jobs ended in which way. On a terminal
    it says which jobs hold it up.
    """
    async with telling_of_drain(client):
        return await document_of(client, "Drain")


@subcommand(
    documents.show_shutdown,
    click.Option(["--now"], is_flag=True, help="do not wait for jobs: end them at once"),
)
async def shutdown(client: Client, now: bool) -> Any:
    """Stop the server, as SIGTERM does.

    It finishes the accepted jobs within its time for this. The command does not wait for the end.
    """
    from dangad.wire import commands

    await client.run(commands.Shutdown, {"now": True} if now else {})
    return {"now": now}


COMMANDS = (
    status,
    workers,
    deaths,
    *jobs.COMMANDS,
    rates.rates,
    config,
    scale,
    want,
    pause,
    resume,
    unquarantine,
    stack,
    reload,
    drain,
    shutdown,
)
"""The subcommands, in the order of the help."""
