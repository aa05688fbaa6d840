"""The documents of the control endpoint as lines for people.

:mod:`dangad.cli.operators` gets them and writes what these functions return.
``docs/reference/control.md`` gives their shapes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dangad.cli.streams import columns as terminal_columns
from dangad.cli.tables import NOTHING, Column, list_pairs, table
from dangad.text import printable, show_bytes, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
_STYLES = {
    "busy": "green",
    "starting": "cyan",
    "stopping": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "timed out": "red",
    "lost": "bold red",
}
"""How the states of workers and jobs are drawn that are not the usual."""
_ENDS = ("done", "failed", "cancelled", "timed_out", "lost")
"""How jobs end, in the order in which people are told how many did."""


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


def show_scaled(wanted: dict[str, int]) -> list[str]:
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
    heads = [
        Column(
            name.replace("_", " ").upper(),
            is_number=show is not printable,
            styles=_STYLES if name == "state" else {},
        )
        for name, show in columns.items()
    ]
    cells = [
        [NOTHING if row[name] is None else show(row[name]) for name, show in columns.items()]
        for row in rows
    ]
    order = list(columns)
    return table(heads, cells, terminal_columns(), [order.index(name) for name in worth])


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
