"""The subcommands of ``dangad`` for operators: see how a server is, and change how it runs.

They speak to :mod:`dangad.operators.control` by the commands of :mod:`dangad.wire.commands`, over
the endpoint that ``--control`` names. What comes back is a document, which is written as it is with
``--json``, and made into lines for people here.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from dangad.cli.running import FAILED, Failed, encode, with_client
from dangad.cli.running import columns as terminal_columns
from dangad.cli.tables import NOTHING, fitted_table, list_pairs
from dangad.text import printable, show_bytes, show_seconds
from dangad.wire import commands

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from twisted.protocols import amp

    from dangad.client import Client

    Ask = Callable[[Client, argparse.Namespace], Awaitable[Any]]
    Show = Callable[[Any], Iterable[str]]

_WORKERS_WORTH = (
    "pid",
    "state",
    "job",
    "command",
    "runtime",
    "recycling",
    "memory",
    "age",
    "jobs",
    "generation",
    "attempt",
)
_RECENT_WORTH = (
    "job",
    "command",
    "state",
    "error",
    "runtime",
    "client",
    "ended",
    "wait",
    "peak_memory",
    "worker",
    "cpu",
    "attempt",
)
"""The columns of the tables, those first that stay longest where a terminal is narrow."""
_ENDS = ("done", "failed", "cancelled", "timed_out", "lost")
"""How jobs end, in the order in which people are told how many did."""


def add_subcommands(
    add: Callable[..., argparse.ArgumentParser], endpoint: argparse.ArgumentParser
) -> None:
    """Add the operators' subcommands to the command line.

    :param add: adds a subcommand, and gives its parser.
    :param endpoint: the parser of the option that says where to connect.
    """

    def add_one(
        name: str, ask: Ask, show: Show, what: str, more: str = ""
    ) -> argparse.ArgumentParser:
        description = f"{what[0].upper()}{what[1:]}. {more}"
        parser = add(
            name, help=what, description=description, parents=[endpoint], allow_abbrev=False
        )
        parser.add_argument("--json", action="store_true", help="print one line of JSON")
        parser.set_defaults(perform=lambda options: _perform(options, ask, show))
        return parser

    add_one("status", _get(commands.Status), show_status, "tell how the server is")
    add_one(
        "workers",
        _get(commands.Workers),
        show_workers,
        "list the worker processes and what they run",
    )
    add_one(
        "recent",
        _get(commands.Recent),
        show_recent,
        "list the jobs that ended last, the latest last",
    )
    want = add_one(
        "want",
        _ask_want,
        show_wanted,
        "change how many workers there may be",
        "It holds until the server stops. The workers come and go after the answer.",
    )
    want.add_argument("least", metavar="MIN", type=int, help="workers that live always")
    want.add_argument(
        "most", metavar="MAX", type=int, nargs="?", help="workers that live at most [default: MIN]"
    )
    want.add_argument(
        "--force", action="store_true", help="even if the machine seems too small for so many"
    )
    pardon = add_one(
        "unquarantine",
        _ask_pardon,
        show_pardoned,
        "end the quarantine of a command at once",
        "Its jobs are accepted again; `status` shows which commands are in quarantine.",
    )
    pardon.add_argument("command", metavar="COMMAND", help="as `status` names it")
    stack = add_one(
        "stack",
        _ask_stack,
        show_stack,
        "show where a running job is",
        "The Python stack of its worker's main thread is printed, and written to the server's log.",
    )
    stack.add_argument("job", metavar="ID", type=int, help="one of those that `workers` shows")
    add_one(
        "reload",
        _ask_reload,
        show_reloaded,
        "replace the workers by ones with the job modules as they are now",
        "One after the other, without a pause. Waits until it is done; if the new code does not "
        "start, the old workers stay, and the exit status is 1.",
    )
    add_one(
        "drain",
        _get(commands.Drain),
        show_counters,
        "finish the accepted jobs, take no new ones, and stop the server",
        "Waits until the last job has ended, and prints how they ended.",
    )


def _perform(options: argparse.Namespace, ask: Ask, show: Show) -> bytes:
    """The document that `ask` gets, as text for machines or for people."""

    async def use(client: Client) -> bytes:
        document = await ask(client, options)
        if options.json:
            return encode(json.dumps(document) + "\n")
        try:
            return encode("".join(f"{line}\n" for line in show(document)))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # A document of another version. The name of what it lacks may help.
            text = f"the server's answer cannot be shown by this dangad, --json may do: {error}"
            raise Failed(FAILED, text) from None

    return with_client(options, "control", use)


# Asking.


def _get(command: type[amp.Command]) -> Ask:
    """What asks for the document that answers a command without arguments."""

    async def ask(client: Client, _: argparse.Namespace) -> Any:
        answer = await client.run(command)
        return json.loads(answer["document"])

    return ask


async def _ask_want(client: Client, options: argparse.Namespace) -> Any:
    most = options.least if options.most is None else options.most
    wanted = {"min": options.least, "max": most}
    await client.run(commands.Scale, {**wanted, "force": True} if options.force else wanted)
    return wanted


async def _ask_pardon(client: Client, options: argparse.Namespace) -> Any:
    await client.run(commands.Pardon, {"command": options.command})
    return {"command": options.command}


async def _ask_stack(client: Client, options: argparse.Namespace) -> Any:
    answer = await client.run(commands.Stack, {"job": options.job})
    return {"job": options.job, **answer}


async def _ask_reload(client: Client, options: argparse.Namespace) -> Any:
    await client.run(commands.Reload)
    return await _get(commands.Status)(client, options)


# Showing.


def show_status(status: dict[str, Any]) -> list[str]:
    """A server's status, a line for each matter."""
    workers, jobs, reload = status["workers"], status["jobs"], status["reload"]
    generation = str(status["generation"])
    if reload["state"] != "none":
        reason = f": {reload['reason']}" if reload["reason"] else ""
        generation += f" (reload {reload['state']}{reason})"
    counts = _count(workers, "idle", "busy", "starting", "stopping")
    wanted = f"wanted: {workers['min']} to {workers['max']}, {workers['spare']} spare"
    pairs = [
        ("version", status["version"]),
        ("pid", str(status["pid"])),
        ("uptime", show_seconds(status["uptime"])),
        ("state", status["state"]),
        ("no workers", status["no_workers"]),
        ("quarantine", _show_quarantine(status["quarantine"])),
        ("workers", f"{counts} ({wanted})"),
        ("generation", generation),
        ("jobs", _count(jobs, "waiting", "running")),
        ("accepted", f"{jobs['accepted']}: {_count(jobs, *_ENDS)}"),
        ("refused", str(jobs["refused"])),
        ("connections", str(status["connections"])),
    ]
    shown = [(name, printable(text)) for name, text in pairs if text is not None]
    return list_pairs(shown, terminal_columns())


def show_workers(workers: list[dict[str, Any]]) -> list[str]:
    """A table of worker processes, with the job that each runs."""
    columns: dict[str, Callable[[Any], str]] = {
        "pid": str,
        "state": printable,
        "generation": str,
        "age": show_seconds,
        "jobs": str,
        "memory": _show_memory,
        "job": str,
        "command": printable,
        "attempt": str,
        "runtime": show_seconds,
        "recycling": printable,
    }
    nothing = dict.fromkeys(("id", "command", "attempt", "runtime"))
    jobs = [worker["job"] or nothing for worker in workers]
    rows = [{**worker, **job, "job": job["id"]} for worker, job in zip(workers, jobs, strict=True)]
    return _table(columns, rows, _WORKERS_WORTH)


def show_recent(jobs: list[dict[str, Any]]) -> list[str]:
    """A table of jobs that have ended."""
    columns: dict[str, Callable[[Any], str]] = {
        "job": str,
        "command": printable,
        "state": printable,
        "worker": str,
        "attempt": str,
        "wait": show_seconds,
        "runtime": show_seconds,
        "cpu": show_seconds,
        "peak_memory": show_bytes,
        "ended": _show_time,
        "client": printable,
        "error": printable,
    }
    return _table(columns, [{**job, "job": job["id"]} for job in jobs], _RECENT_WORTH)


def show_wanted(wanted: dict[str, int]) -> list[str]:
    """How many workers there may be from now on."""
    least, most = wanted["min"], wanted["max"]
    return [
        f"from now on {least} workers"
        if least == most
        else f"from now on {least} to {most} workers"
    ]


def show_pardoned(answer: dict[str, str]) -> list[str]:
    """Whose jobs are accepted again."""
    return [f"{printable(answer['command'])} is not in quarantine any more"]


def show_stack(answer: dict[str, Any]) -> list[str]:
    """A stack, which has lines of its own."""
    return [printable(line.expandtabs()) for line in answer["stack"].splitlines()]


def show_reloaded(status: dict[str, Any]) -> list[str]:
    """What a server's workers are after it has reloaded."""
    counts = _count(status["workers"], "idle", "busy", "starting")
    return [f"reloaded: generation {status['generation']}, workers: {counts}"]


def show_counters(counters: dict[str, int]) -> list[str]:
    """How many jobs ended how."""
    return [f"drained: {_count(counters, *_ENDS)}"]


def _count(counts: Mapping[str, int], *names: str) -> str:
    """The numbers of these names, as in ``2 idle, 1 busy``."""
    return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in names)


def _table(
    columns: Mapping[str, Callable[[Any], str]],
    rows: Iterable[Mapping[str, Any]],
    worth: Iterable[str],
) -> list[str]:
    """A table of these keys of the rows, each shown by its function; numbers stand to the right."""
    return fitted_table(
        [name.replace("_", " ").upper() for name in columns],
        [
            [NOTHING if row[name] is None else show(row[name]) for name, show in columns.items()]
            for row in rows
        ],
        [show is not printable for show in columns.values()],
        terminal_columns(),
        [list(columns).index(name) for name in worth],
    )


def _show_quarantine(commands: list[dict[str, Any]]) -> str | None:
    """Which commands are in quarantine, and for how long; None if none is."""
    shown = [f"{each['command']} for {show_seconds(each['seconds'])}" for each in commands]
    return ", ".join(shown) or None


def _show_time(seconds: float) -> str:
    """The time of day here, at so many seconds since 1970."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _show_memory(number: int) -> str:
    """A process's memory; 0 stands for not known."""
    return show_bytes(number) if number else NOTHING
