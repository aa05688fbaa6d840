"""The documents about jobs, their clients and their events as lines for people.

:mod:`dangad.cli.jobs` gets the documents, and writes the lines that these functions return.
``docs/reference/control.md`` specifies the documents.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dangad.cli.cells import entries_table, show_time
from dangad.cli.streams import columns as terminal_columns
from dangad.cli.tables import GAP, NOTHING, list_pairs
from dangad.text import printable, show_bytes, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_JOBS_WORTH = (
    "job",
    "command",
    "state",
    "wait",
    "runtime",
    "client",
    "priority",
    "worker",
    "deadline_left",
    "attempt",
)
_RECENT_WORTH = (
    "job",
    "command",
    "state",
    "error",
    "ended",
    "runtime",
    "client",
    "wait",
    "peak_memory",
    "worker",
    "cpu",
    "attempt",
)
_CLIENTS_WORTH = (
    "client",
    "waiting",
    "running",
    "reads",
    "bytes",
    "idle",
    "connected",
    "peer",
)
"""The columns of the tables, the most important first: a narrow terminal leaves out the last."""
_KIND_WIDTH = len("worker started")
"""Columns of the longest kind of event."""


def show_jobs(document: dict[str, Any]) -> list[str]:
    """A table of jobs that wait and run."""
    columns: dict[str, Callable[[Any], str]] = {
        "job": str,
        "command": printable,
        "state": printable,
        "priority": printable,
        "wait": show_seconds,
        "runtime": show_seconds,
        "attempt": str,
        "deadline_left": show_seconds,
        "worker": str,
        "client": printable,
    }
    rows = [
        {**job, "job": job["id"], "state": "paused" if job["paused"] else job["state"]}
        for job in document["jobs"]
    ]
    return entries_table(columns, rows, _JOBS_WORTH)


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
        "ended": show_time,
        "client": printable,
        "error": printable,
    }
    return entries_table(columns, [{**job, "job": job["id"]} for job in jobs], _RECENT_WORTH)


def show_job(job: dict[str, Any]) -> list[str]:
    """Everything about one job, fitted to the terminal: see :func:`job_lines`."""
    return job_lines(job, terminal_columns())


def job_lines(job: dict[str, Any], room: int | None) -> list[str]:
    """Everything about one job: a line for each fact, then what it has printed.

    :param room: the width of the terminal, to which facts are wrapped; None for any width.
    """
    shown = [
        (name, printable(text)) for name, text in _facts(job) if text is not None and text != ""
    ]
    lines = list_pairs(shown, room)
    if job["output"]:
        lines += ["", "last output:", *(_indented(line) for line in job["output"])]
    if job["traceback"]:
        lines += ["", "traceback:", *(_indented(line) for line in job["traceback"].splitlines())]
    return lines


def _facts(job: dict[str, Any]) -> list[tuple[str, str | None]]:
    """What is known of a job in one line each: a name, and a text or nothing."""
    state = "paused" if job.get("paused") else job["state"]
    ended, left = job.get("ended"), job.get("deadline_left")
    worker = None if job["worker"] is None else str(job["worker"])
    policy = [f"{key.replace('_', ' ')} {value}" for key, value in job["policy"].items() if value]
    return [
        ("job", str(job["id"])),
        ("command", job["command"]),
        ("state", state),
        ("error", job.get("error")),
        ("client", job["client"]),
        ("priority", job["priority"]),
        ("accepted", _show_moment(job["accepted"])),
        ("started", _show_moment(job["started"])),
        ("ended", _show_moment(ended)),
        ("wait", show_seconds(job["wait"])),
        ("runtime", None if job["runtime"] is None else show_seconds(job["runtime"])),
        ("deadline", None if left is None else f"in {show_seconds(left)}"),
        ("worker", worker),
        ("attempt", str(job["attempt"])),
        *(("earlier", _show_attempt(attempt)) for attempt in job["attempts"]),
        ("cpu", None if job.get("cpu") is None else show_seconds(job["cpu"])),
        ("peak memory", None if job.get("peak_memory") is None else show_bytes(job["peak_memory"])),
        ("request", show_bytes(job["bytes"])),
        ("policy", ", ".join(policy)),
    ]


def _show_attempt(attempt: dict[str, Any]) -> str:
    """An earlier attempt at a job in one line."""
    worker = NOTHING if attempt["worker"] is None else str(attempt["worker"])
    return f"worker {worker} at {_show_moment(attempt['started'])}: {attempt['ended_for']}"


def _indented(line: str) -> str:
    return f"{GAP}{printable(line.expandtabs())}".rstrip()


def show_clients(document: dict[str, Any]) -> list[str]:
    """A table of connected clients."""
    columns: dict[str, Callable[[Any], str]] = {
        "client": printable,
        "peer": printable,
        "connected": show_seconds,
        "idle": show_seconds,
        "waiting": str,
        "running": str,
        "bytes": show_bytes,
        "reads": printable,
    }
    rows = [
        {**each, "connected": each["since"], "reads": "no" if each["held"] else "yes"}
        for each in document["clients"]
    ]
    return entries_table(columns, rows, _CLIENTS_WORTH)


def show_cancelled(document: dict[str, Any]) -> list[str]:
    """What became of each job that was to be cancelled."""
    if not document["results"]:
        return ["no job matches"]
    columns: dict[str, Callable[[Any], str]] = {
        "job": str,
        "command": printable,
        "result": printable,
    }
    rows = [{**each, "job": each["id"]} for each in document["results"]]
    return entries_table(columns, rows, ("job", "result", "command"))


def show_event(event: dict[str, Any]) -> str:
    """What has happened, in one line."""
    moment, seen = event["time"], event.get
    clock = time.strftime("%H:%M:%S", time.localtime(moment)) + f".{int(moment * 1000) % 1000:03}"
    error = ": ".join(text for text in (seen("code"), seen("text")) if text)
    facts = [
        f"job {event['job']}" if "job" in event else None,
        seen("command"),
        seen("state"),
        None if seen("priority") == "normal" else seen("priority"),
        f"worker {event['worker']}" if "worker" in event else None,
        f"waited {show_seconds(event['wait'])}" if "wait" in event else None,
        f"ran {show_seconds(event['runtime'])}" if "runtime" in event else None,
        seen("client"),
        error,
    ]
    known = [printable(fact) for fact in facts if fact]
    return GAP.join([clock, printable(event["kind"]).ljust(_KIND_WIDTH), *known]).rstrip()


def _show_moment(seconds: float | None) -> str | None:
    """The local date and time at a Unix time; None if there is none."""
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
