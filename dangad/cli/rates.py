"""The subcommand ``dangad rates``: the numbers of each command.

``dangad commands`` is for users, who may not connect where operators do, and lists what can be
called. So the numbers have a subcommand of their own, at the other endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dangad.cli.cells import SPANS, entries_table, show_rate
from dangad.cli.subcommands import document_of, subcommand
from dangad.text import printable, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.client import Client

_WORTH = (
    "command",
    "state",
    "waiting",
    "running",
    "rate",
    "failed",
    "lost",
    "refused",
    "errors",
    "run_p50",
    "run_p99",
    "wait_p50",
    "wait_p99",
    "limit",
    "run_p90",
    "wait_p90",
)
"""The columns of the table, the most important first."""


def show_rates(document: dict[str, Any]) -> list[str]:
    """A table of commands, each with its numbers in the last minutes."""
    columns: dict[str, Callable[[Any], str]] = {
        "command": printable,
        "state": printable,
        "running": str,
        "limit": str,
        "waiting": str,
        "rate": show_rate,
        "failed": str,
        "wait_p50": show_seconds,
        "wait_p90": show_seconds,
        "wait_p99": show_seconds,
        "run_p50": show_seconds,
        "run_p90": show_seconds,
        "run_p99": show_seconds,
        "lost": str,
        "refused": str,
        "errors": printable,
    }
    rows = [_row(each, document["over"]) for each in document["commands"]]
    return entries_table(columns, rows, _WORTH)


def _row(command: dict[str, Any], span: str) -> dict[str, Any]:
    """The numbers of one command, for the table."""
    last = command["last"][span]
    away = command["quarantine"]
    ranked = sorted(command["errors"].items(), key=lambda each: -each[1])
    return {
        **command,
        "state": "paused"
        if command["paused"]
        else "-"
        if away is None
        else f"in quarantine for {show_seconds(away)}",
        "limit": command["policy"].get("max_running"),
        "rate": last["rate"],
        "failed": last["failed"],
        "errors": ", ".join(f"{number} {code}" for code, number in ranked) or None,
        **{f"wait_{name}": last["wait"][name] for name in ("p50", "p90", "p99")},
        **{f"run_{name}": last["runtime"][name] for name in ("p50", "p90", "p99")},
    }


@subcommand(
    show_rates,
    click.Option(
        ["--over"],
        type=click.Choice(SPANS),
        default="5m",
        help="the time over which rates and percentiles are taken [default: 5m]",
    ),
)
async def rates(client: Client, over: str) -> Any:
    """Show for each command how many jobs wait, run, and fail, and how long they take.

    `commands` lists how to call them. Errors, and lost and refused jobs, are counted since the
    server started.
    """
    return {"over": over, "commands": await document_of(client, "Commands")}
