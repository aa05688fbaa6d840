"""The documents of the control endpoint as lines for people.

:mod:`dangad.cli.operators` gets the documents, and writes the lines that these functions return.
``docs/reference/control.md`` specifies the documents.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dangad.cli.streams import columns as terminal_columns
from dangad.cli.tables import NOTHING, Column, list_pairs, table
from dangad.text import counted, printable, show_bytes, show_seconds

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
"""The columns of the tables, the most important first: a narrow terminal leaves out the last."""
_STYLES = {
    "busy": "green",
    "starting": "cyan",
    "stopping": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "timed out": "red",
    "lost": "bold red",
}
"""Rich's styles for states of workers and jobs that deserve attention."""
_ENDS = ("done", "failed", "cancelled", "timed_out", "lost")
"""The final states of jobs, in the order in which their numbers are shown."""


def show_status(status: dict[str, Any]) -> list[str]:
    """A server's status, a line for each subject."""
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


def show_checked(checked: dict[str, Any]) -> list[str]:
    """What a server would serve whose configuration file was checked."""
    workers = checked["workers"]
    numbers = f"{workers['min']} to {workers['max']}, {workers['spare']} spare"
    commands = checked["commands"]
    pairs = [
        ("file", f"{checked['file']} is valid"),
        *(("listens on", endpoint) for endpoint in checked["listen"]),
        ("operators", checked["control"]),
        ("workers", f"{numbers}, {workers['start']}"),
        ("jobs", ", ".join(checked["jobs"])),
        ("serves", f"{counted(len(commands), 'command')}: {', '.join(commands)}"),
    ]
    return list_pairs([(name, printable(text)) for name, text in pairs], terminal_columns())


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
        f"from now on {counted(least, 'worker')}"
        if least == most
        else f"from now on {least} to {counted(most, 'worker')}"
    ]


def show_pardoned(answer: dict[str, str]) -> list[str]:
    """The command whose jobs are accepted again."""
    return [f"{printable(answer['command'])} is not in quarantine any more"]


def show_stack(answer: dict[str, Any]) -> list[str]:
    """The lines of a stack."""
    return [printable(line.expandtabs()) for line in answer["stack"].splitlines()]


def last_old_job(status: dict[str, Any], workers: list[dict[str, Any]]) -> tuple[int | None, str]:
    """The job for which a reload waits, the oldest of old workers: its id, and a line about it."""
    old = [each for each in workers if each["generation"] < status["generation"] and each["job"]]
    if not old:
        return None, ""
    worker = max(old, key=lambda each: each["job"]["runtime"])
    job = worker["job"]
    runs = f"{printable(job['command'])} (job {job['id']}) for {show_seconds(job['runtime'])}"
    return job["id"], f"waiting for worker {worker['pid']}, which has been running {runs}"


def show_reloaded(status: dict[str, Any]) -> list[str]:
    """The numbers of a server's workers after a reload."""
    counts = _count(status["workers"], "idle", "busy", "starting")
    return [f"reloaded: generation {status['generation']}, workers: {counts}"]


def show_counters(counters: dict[str, int]) -> list[str]:
    """How many jobs have ended in each state."""
    return [f"drained: {_count(counters, *_ENDS)}"]


def _count(counts: Mapping[str, int], *names: str) -> str:
    """The numbers of these names, as in ``2 idle, 1 busy``."""
    return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in names)


def _table(
    columns: Mapping[str, Callable[[Any], str]],
    rows: Iterable[Mapping[str, Any]],
    worth: Iterable[str],
) -> list[str]:
    """A table of rows; `columns` has the keys to show, each with the function that formats it."""
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
    """The commands in quarantine, each with the remaining time; None if there are none."""
    shown = [f"{each['command']} for {show_seconds(each['seconds'])}" for each in commands]
    return ", ".join(shown) or None


def _show_time(seconds: float) -> str:
    """The local time of day at a Unix time."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _show_memory(number: int) -> str:
    """A process's memory in bytes, made readable; 0 stands for "not known"."""
    return show_bytes(number) if number else NOTHING
