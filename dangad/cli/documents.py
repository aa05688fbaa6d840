"""The documents of the control endpoint as lines for people.

:mod:`dangad.cli.operators` gets the documents, and writes the lines that these functions return.
``docs/reference/control.md`` specifies the documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dangad.cli.cells import SPANS, count, entries_table, show_memory, show_rate, show_time
from dangad.cli.streams import columns as terminal_columns
from dangad.cli.tables import list_pairs
from dangad.text import counted, printable, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    "cpu",
    "generation",
    "attempt",
)
"""The columns of the tables, the most important first: a narrow terminal leaves out the last."""
_ENDS = ("done", "failed", "cancelled", "timed_out", "lost")
"""The final states of jobs, in the order in which their numbers are shown."""


def show_status(status: dict[str, Any]) -> list[str]:
    """A server's status, a line for each subject."""
    workers, jobs, reload = status["workers"], status["jobs"], status["reload"]
    generation = str(status["generation"])
    if reload["state"] != "none":
        reason = f": {reload['reason']}" if reload["reason"] else ""
        generation += f" (reload {reload['state']}{reason})"
    counts = count(workers, "idle", "busy", "starting", "stopping")
    wanted = f"wanted: {workers['min']} to {workers['max']}, {workers['spare']} spare"
    pairs = [
        ("version", status["version"]),
        ("pid", str(status["pid"])),
        ("uptime", show_seconds(status["uptime"])),
        ("state", status["state"]),
        ("no workers", status["no_workers"]),
        ("quarantine", _show_quarantine(status["quarantine"])),
        ("paused", _paused(status["paused"])),
        ("workers", f"{counts} ({wanted})"),
        ("generation", generation),
        ("jobs", _jobs_now(jobs)),
        *_backlog(status),
        ("accepted", f"{jobs['accepted']}: {count(jobs, *_ENDS)}"),
        ("failed by code", _codes(status["failed_by_code"])),
        ("refused", str(jobs["refused"])),
        ("refused by code", _codes(status["refused_by_code"])),
        *((f"last {span}", _show_span(status["last"][span])) for span in SPANS),
        ("deaths", _codes(status["deaths"])),
        ("memory", show_memory(status["memory"])),
        ("longest stall", _show_stall(status["stall"])),
        ("connections", str(status["connections"])),
    ]
    shown = [(name, printable(text)) for name, text in pairs if text is not None]
    return list_pairs(shown, terminal_columns())


def _jobs_now(jobs: dict[str, Any]) -> str:
    """How many jobs wait, of those that may, and how many run."""
    return f"{jobs['waiting']} of {jobs['max_queued']} waiting, {jobs['running']} running"


def _backlog(status: dict[str, Any]) -> list[tuple[str, str | None]]:
    """How urgent the waiting jobs are, and how long the oldest has waited; nothing if none wait."""
    if status["oldest_wait"] is None:
        return []
    return [
        ("backlog", count(status["backlog"], "high", "normal", "low")),
        ("oldest wait", show_seconds(status["oldest_wait"])),
    ]


def _codes(numbers: Mapping[str, int]) -> str | None:
    """Numbers by error code, or by cause, the largest first; None if there are none."""
    ranked = sorted(numbers.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{number} {code}" for code, number in ranked if number) or None


def _show_span(last: dict[str, Any]) -> str:
    """The jobs of the last minutes: how many a second, and how long they took."""
    said = f"{show_rate(last['rate'])}, {last['failed']} failed"
    if last["cancelled"]:
        said += f", {last['cancelled']} cancelled"
    if last["p50"] is None:
        return said
    times = ", ".join(f"{name} {show_seconds(last[name])}" for name in ("p50", "p90", "p99"))
    return f"{said}; {times}"


def _show_stall(stall: dict[str, Any]) -> str | None:
    """For how long the server's loop has stood still; None if this is not known."""
    if stall["ever"] is None:
        return None
    lately, ever = show_seconds(stall["last_minute"] or 0), show_seconds(stall["ever"])
    return f"{lately} in the last minute, {ever} ever"


def _paused(paused: dict[str, Any]) -> str | None:
    """What is paused; None if nothing is."""
    return "all commands" if paused["all"] else ", ".join(paused["commands"]) or None


def show_paused(paused: dict[str, Any]) -> list[str]:
    """What is paused now."""
    return [f"paused: {printable(_paused(paused) or 'nothing')}"]


def show_shutdown(order: dict[str, bool]) -> list[str]:
    """How the server stops."""
    how = "at once" if order["now"] else "when the accepted jobs have ended"
    return [f"the server stops {how}"]


def show_deaths(deaths: list[dict[str, Any]]) -> list[str]:
    """A table of workers that have died."""
    columns: dict[str, Callable[[Any], str]] = {
        "pid": str,
        "ended": show_time,
        "age": show_seconds,
        "jobs": str,
        "cause": printable,
        "why": printable,
    }
    return entries_table(columns, deaths, ("pid", "cause", "why", "ended", "age", "jobs"))


def show_checked(checked: dict[str, Any]) -> list[str]:
    """What a server would serve whose configuration file was checked."""
    workers = checked["workers"]
    numbers = f"{workers['min']} to {workers['max']}, {workers['spare']} spare"
    commands = checked["commands"]
    pairs = [
        ("file", f"{checked['file']} is valid"),
        *(("listens on", endpoint) for endpoint in checked["listen"]),
        ("operators", checked["control"]),
        *([] if checked["web"] is None else [("page", _show_page(checked["web"]))]),
        ("workers", f"{numbers}, {workers['start']}"),
        ("jobs", ", ".join(checked["jobs"])),
        ("serves", f"{counted(len(commands), 'command')}: {', '.join(commands)}"),
    ]
    return list_pairs([(name, printable(text)) for name, text in pairs], terminal_columns())


def _show_page(page: dict[str, Any]) -> str:
    """Where the page for operators would be, and what it could do."""
    prefix = f", behind {page['prefix']}" if page["prefix"] else ""
    return f"{page['endpoint']}{prefix}, {'with' if page['actions'] else 'without'} actions"


def show_workers(workers: list[dict[str, Any]]) -> list[str]:
    """A table of worker processes, with the job that each runs."""
    columns: dict[str, Callable[[Any], str]] = {
        "pid": str,
        "state": printable,
        "generation": str,
        "age": show_seconds,
        "jobs": str,
        "cpu": show_seconds,
        "memory": show_memory,
        "job": str,
        "command": printable,
        "attempt": str,
        "runtime": show_seconds,
        "recycling": printable,
    }
    nothing = dict.fromkeys(("id", "command", "attempt", "runtime"))
    jobs = [worker["job"] or nothing for worker in workers]
    rows = [{**worker, **job, "job": job["id"]} for worker, job in zip(workers, jobs, strict=True)]
    return entries_table(columns, rows, _WORKERS_WORTH)


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


def show_reloaded(status: dict[str, Any]) -> list[str]:
    """The numbers of a server's workers after a reload."""
    counts = count(status["workers"], "idle", "busy", "starting")
    return [f"reloaded: generation {status['generation']}, workers: {counts}"]


def show_counters(counters: dict[str, int]) -> list[str]:
    """How many jobs have ended in each state."""
    return [f"drained: {count(counters, *_ENDS)}"]


def _show_quarantine(commands: list[dict[str, Any]]) -> str | None:
    """The commands in quarantine, each with the remaining time; None if there are none."""
    shown = [f"{each['command']} for {show_seconds(each['seconds'])}" for each in commands]
    return ", ".join(shown) or None
