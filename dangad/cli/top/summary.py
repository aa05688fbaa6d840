"""The lines above the table: how the server is, the curves, and a tile for each worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from dangad.cli.tables import width as width_of
from dangad.cli.top.views import STYLES
from dangad.text import counted, printable, show_bytes, show_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dangad.cli.top.history import History

TILE = 26
"""Columns of a worker's tile."""
_MARKS = {"busy": "●", "idle": "○", "starting": "◌", "stopping": "◍"}
"""A mark for each state of a worker, for those who do not see colours."""
_LABEL, _NUMBERS = 8, 24
"""Columns before and after a curve."""

Fact = tuple[str, str]
"""A text of the summary, and its style."""


def head(status: dict[str, Any]) -> Text:
    """How the server is: a line each for the process, the backlog, and the last minute."""
    jobs, backlog, last = status["jobs"], status["backlog"], status["last"]["1m"]
    urgent = ", ".join(f"{backlog[name]:,} {name}" for name in ("high", "normal", "low"))
    oldest = status["oldest_wait"]
    times = [
        (f"{name} {show_seconds(last[name])}", "")
        for name in ("p50", "p90", "p99")
        if last[name] is not None
    ]
    state = status["state"]
    lines = [
        [
            (f"dangad {status['version']}", "bold"),
            (state, "green" if state == "running" else "bold yellow"),
            (f"up {show_seconds(status['uptime'])}", ""),
            (f"pid {status['pid']}", ""),
            (f"generation {status['generation']}", ""),
            (counted(status["connections"], "client"), ""),
            *([(show_bytes(status["memory"]), "")] if status["memory"] else []),
        ],
        [
            (f"waiting {jobs['waiting']:,} of {jobs['max_queued']:,}", "bold"),
            *([(urgent, "")] if jobs["waiting"] else []),
            *([] if oldest is None else [(f"oldest {show_seconds(oldest)}", _alarm(oldest))]),
            (f"running {jobs['running']:,}", "bold"),
        ],
        [
            (f"last minute {last['rate']:,.1f}/s", "bold"),
            (f"{last['failed']:,} failed", "red" if last["failed"] else ""),
            *times,
            *([(f"{jobs['refused']:,} refused in all", "")] if jobs["refused"] else []),
        ],
    ]
    return Text("\n", no_wrap=True).join(_line(facts) for facts in lines)


def alerts(status: dict[str, Any]) -> Text:
    """What needs an operator's attention now: a line for each; nothing if all is well."""
    reload, paused = status["reload"], status["paused"]
    names = "all commands" if paused["all"] else ", ".join(paused["commands"])
    away = ", ".join(
        f"{each['command']} for {show_seconds(each['seconds'])}" for each in status["quarantine"]
    )
    found = [
        (f"no workers: {status['no_workers']}" if status["no_workers"] else "", "bold red"),
        (f"in quarantine: {away}" if away else "", "bold red"),
        (f"reload failed: {reload['reason']}" if reload["state"] == "failed" else "", "bold red"),
        (f"paused: {names}" if names else "", "bold yellow"),
    ]
    return Text("\n").join(_line([(text, style)]) for text, style in found if text)


def curves(history: History, waiting: int, width: int) -> Text:
    """The curves of the throughput and of the backlog, each with its numbers."""
    columns = max(width - _LABEL - _NUMBERS - 2, 0)
    rate = history.rate
    lines = [
        ("jobs/s", history.throughput, "-" if rate is None else f"{rate:,.1f}", "green"),
        ("waiting", history.backlog, f"{waiting:,}", "cyan"),
    ]
    return Text("\n").join(
        Text.assemble(
            (f" {name:{_LABEL}}", "bold"),
            (curve.draw(columns), style),
            f" {now:>9}, most {curve.largest:,.0f}",
            no_wrap=True,
        )
        for name, curve, now, style in lines
    )


def tiles(workers: list[dict[str, Any]], width: int, lines: int) -> Text:
    """A tile for each worker, the busy ones first; the last tile counts those without one."""
    beside = max((width - 1) // TILE, 1)
    ranked = sorted(workers, key=_rank)
    shown = ranked if len(ranked) <= beside * lines else ranked[: beside * lines - 1]
    texts = [_tile(worker) for worker in shown]
    if len(shown) < len(ranked):
        rest = [worker["state"] for worker in ranked[len(shown) :]]
        counts = ", ".join(f"{rest.count(state)} {state}" for state in dict.fromkeys(rest))
        texts.append(_filled(Text(printable(f"+ {counts}"), "dim")))
    rows = [texts[start : start + beside] for start in range(0, len(texts), beside)]
    return Text("\n").join(Text(" ").join([Text(""), *row]) for row in rows)


def _rank(worker: dict[str, Any]) -> tuple[int, float]:
    """The place of a worker among the tiles: what has run longest comes first."""
    order = list(_MARKS)
    state = worker["state"]
    place = 1 if state == "idle" else 0
    runs = worker["job"]["runtime"] if worker["job"] else 0.0
    return (place if worker["job"] else 1 + order.index(state) if state in order else 9, -runs)


def _tile(worker: dict[str, Any]) -> Text:
    state, job = worker["state"], worker["job"]
    said = f"{_MARKS.get(state, '?')} {worker['pid'] or '-'} "
    if job is None:
        said += state
    else:
        runs = f" {show_seconds(job['runtime'])}"
        room = TILE - 1 - len(said) - len(runs)
        said += f"{_cut(printable(job['command']), room)}{runs}"
    return _filled(Text(printable(said), STYLES.get(state, "dim")))


def _filled(text: Text) -> Text:
    """A tile's text in exactly the columns of a tile."""
    text.truncate(TILE - 1, overflow="ellipsis", pad=True)
    return text


def _cut(text: str, room: int) -> str:
    """The beginning of a printable text, in so many columns."""
    while width_of(text) > max(room, 1):
        text = f"{text.removesuffix('…')[:-1]}…"
        if text == "…":
            break
    return text


def _alarm(seconds: float) -> str:
    """The style of the oldest job's wait."""
    return "bold red" if seconds >= 60 else "yellow" if seconds >= 10 else ""


def _line(facts: Iterable[Fact]) -> Text:
    """Facts in one line, escaped."""
    shown = Text("  ").join(Text(printable(text), style) for text, style in facts)
    return Text.assemble(" ", shown, no_wrap=True)
