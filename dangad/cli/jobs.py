"""The subcommands of ``dangad`` for operators that are about jobs and their clients.

They are made as those of :mod:`dangad.cli.operators`; :mod:`dangad.cli.jobdocuments` has the lines
for people. ``watch`` alone writes as long as it runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dangad.cli import jobdocuments
from dangad.cli.options import (
    Words,
    endpoint_option,
    help_option,
    json_option,
    read_duration,
    with_underscores,
)
from dangad.cli.outcome import FAILED, Failed, WrongUsage
from dangad.cli.running import with_client
from dangad.cli.streams import ask, can_ask, encode, say, write
from dangad.cli.subcommands import document_of, shown, subcommand
from dangad.cli.unknownwords import warn_of_unknown
from dangad.text import counted
from dangad.wire.controlwords import (
    CLIENT_ORDERS,
    ENDED_STATES,
    EVENTS,
    FARTHEST,
    JOB_ORDERS,
    LIVE_STATES,
    MOST,
    RECENT_ORDERS,
)

if TYPE_CHECKING:
    from dangad.client import Client

DRAINING = "draining"
"""The state of a server that stops, as those who watch are told."""
STOPPED = "stopped"
"""The state of a server that tells the last events."""

# Options.


def _state(states: tuple[str, ...]) -> click.Option:
    return click.Option(["--state"], type=Words(states), help="only jobs in this state")


def _read_outcome(_: click.Context, __: click.Parameter, word: str | None) -> str | None:
    """A state as the server has it, or the code of an error unchanged."""
    if word is None:
        return None
    states = {with_underscores(state): state for state in ENDED_STATES}
    return states.get(with_underscores(word), word)


def _outcomes_like(_: click.Context, __: click.Parameter, beginning: str) -> list[str]:
    """The states that begin so, for completion."""
    return [word for word in map(with_underscores, ENDED_STATES) if word.startswith(beginning)]


def _command() -> click.Option:
    return click.Option(["--command"], metavar="NAME", help="only jobs of this command")


def _client() -> click.Option:
    return click.Option(["--client"], metavar="TEXT", help="only jobs whose client has this text")


def _older_than(since: str) -> click.Option:
    return click.Option(
        ["--older-than"],
        metavar="TIME",
        callback=read_duration,
        help=f"only jobs {since} at least so long ago: 30s, 5m, 2h, 1d, or seconds",
    )


def _sort(orders: tuple[str, ...], default: str) -> click.Option:
    both = [sign + order for order in orders for sign in ("", "-")]
    return click.Option(
        ["--sort"],
        metavar="ORDER",
        type=click.Choice(both),
        help=f"the order: {', '.join(orders)}; the largest first with - before, as in "
        f"--sort=-{orders[1]} [default: {default}]",
    )


def _limit(default: int) -> click.Option:
    return click.Option(
        ["--limit"],
        metavar="N",
        type=click.IntRange(1, MOST),
        help=f"how many to show, at most {MOST} [default: {default}]",
    )


# Subcommands.


def _jobs_left_out(document: dict[str, Any]) -> str:
    return _left_out(document["total"], len(document["jobs"]), "job", " and --offset N")


def _clients_left_out(document: dict[str, Any]) -> str:
    return _left_out(document["total"], len(document["clients"]), "client", "")


def _left_out(total: int, those: int, noun: str, offset: str) -> str:
    if those >= total:
        return ""
    return f"{those} of {counted(total, noun)}; --limit N{offset} show others"


@subcommand(
    jobdocuments.show_jobs,
    _state(LIVE_STATES),
    _command(),
    _client(),
    _older_than("accepted"),
    _sort(JOB_ORDERS, "state"),
    _limit(100),
    click.Option(
        ["--offset"], metavar="N", type=click.IntRange(0, FARTHEST), help="how many to pass over"
    ),
    hint=_jobs_left_out,
)
async def jobs(server: Client, /, **which: Any) -> Any:
    """List the jobs that wait and run, the oldest first."""
    document = await document_of(server, "Jobs", **which)
    if not document["total"]:
        await warn_of_unknown(server, which["command"])
    return document


@subcommand(
    jobdocuments.show_recent,
    _state(ENDED_STATES),
    click.Option(
        ["--outcome"],
        metavar="WORD",
        callback=_read_outcome,
        shell_complete=_outcomes_like,
        help="only jobs that ended in this state, or with an error of this code",
    ),
    _command(),
    _client(),
    _older_than("ended"),
    _sort(RECENT_ORDERS, "by their ends"),
    _limit(MOST),
)
async def recent(server: Client, /, **which: Any) -> Any:
    """List the jobs that ended last, the latest last."""
    document = await document_of(server, "Recent", **which)
    if not document:
        await warn_of_unknown(server, which["command"], which["outcome"])
    return document


@subcommand(jobdocuments.show_job, click.Argument(["job"], metavar="ID", type=int))
async def job(server: Client, /, job: int) -> Any:
    """Show everything about one job.

    Its life, what it has printed last, and its traceback. Works for jobs that wait and run, and for
    the thousand that ended last.
    """
    return await document_of(server, "Job", job=job)


@subcommand(
    jobdocuments.show_clients,
    _sort(CLIENT_ORDERS, "-since"),
    _limit(100),
    hint=_clients_left_out,
)
async def clients(server: Client, /, **which: Any) -> Any:
    """List the connected clients."""
    return await document_of(server, "Clients", **which)


def _jobs_left(document: dict[str, Any]) -> str:
    left = document["left"]
    return f"{counted(left, 'job')} more: cancel again" if left else ""


def _is_in_vain(document: dict[str, Any]) -> bool:
    """Whether there were jobs to cancel, and none was there any more."""
    results = [each["result"] for each in document["results"]]
    return bool(results) and not {"cancelled", "stopping"} & {*results}


def _check_cancel(ids: tuple[int, ...], yes: bool, **which: Any) -> None:
    """See that it is said which jobs to cancel, and that the user can be asked if need be."""
    given = any(value is not None for value in which.values())
    if bool(ids) == given:
        wrong = "IDs or options, not both" if ids else "which jobs? give IDs or options"
        raise WrongUsage(f"{wrong}; see dangad cancel --help")
    if not (ids or yes or can_ask()):
        raise WrongUsage("there is no terminal to ask on: add --yes to cancel without asking")


@subcommand(
    jobdocuments.show_cancelled,
    click.Argument(["ids"], metavar="[ID]...", type=int, nargs=-1),
    _state(LIVE_STATES),
    _command(),
    _client(),
    _older_than("accepted"),
    click.Option(["--yes"], is_flag=True, help="do not ask"),
    check=_check_cancel,
    hint=_jobs_left,
    failed=_is_in_vain,
)
async def cancel(server: Client, /, ids: tuple[int, ...], yes: bool, **which: Any) -> Any:
    """Cancel jobs by their IDs, or all that the options mean.

    Jobs that wait never run; running ones are stopped. At most 1000 are cancelled, the oldest
    first. With options instead of IDs, the command first says on a terminal how many jobs are
    meant, and asks. The exit status is 1 if all jobs of these IDs have ended, or never were.
    """
    if ids:
        return await document_of(server, "CancelJobs", jobs=list(dict.fromkeys(ids)))
    if not yes:
        total = (await document_of(server, "Jobs", limit=1, **which))["total"]
        if not total:
            await warn_of_unknown(server, which["command"])
            return {"matched": 0, "results": [], "left": 0}
        what = "them" if total <= MOST else f"the oldest {MOST}"
        if not ask(f"{counted(total, 'job')} match; cancel {what}?"):
            raise Failed(FAILED, "nothing was cancelled")
    document = await document_of(server, "CancelJobs", **which)
    if not document["matched"]:
        await warn_of_unknown(server, which["command"])
    return document


@click.command(
    add_help_option=False,
    params=[
        click.Option(
            ["--kind", "kinds"],
            multiple=True,
            type=Words(EVENTS),
            metavar="KIND",
            help="only events of this kind, repeatable: "
            + ", ".join(with_underscores(kind) for kind in EVENTS),
        ),
        click.Option(["--command"], metavar="NAME", help="only events of this command's jobs"),
        click.Option(["--client"], metavar="TEXT", help="only events of clients with this text"),
        json_option("print each event as a line of JSON"),
        endpoint_option("control"),
        help_option(),
    ],
)
def watch(control: str | None, as_json: bool, kinds: tuple[str, ...], **which: Any) -> None:
    """Show what happens, a line for each event, until Ctrl-C.

    A reader that is too slow misses events, and is told how many. The command ends, with success,
    when the server has stopped.
    """

    async def follow(server: Client) -> bytes:
        from dangad.client import Disconnected

        after, state = None, ""
        await warn_of_unknown(server, which["command"])
        while state != STOPPED:
            chosen = ",".join(kinds) or None
            try:
                news = await document_of(server, "Watch", after=after, kinds=chosen, **which)
            except Disconnected:
                if state != DRAINING:
                    raise
                break
            if news["missed"]:
                say(f"{counted(news['missed'], 'event')} missed")
            for event in news["events"]:
                line = f"{json.dumps(event)}\n" if as_json else shown(event, _event_line)
                write(encode(line))
            after, state = news["next"], news.get("state", "")
        say("the server has stopped")
        return b""

    write(with_client("control", control, follow))


def _event_line(event: dict[str, Any]) -> list[str]:
    return [jobdocuments.show_event(event)]


COMMANDS = (jobs, recent, job, cancel, clients, watch)
"""The subcommands, in the order of the help."""
