"""The first page: what the server is doing, in ten seconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.web.template import Tag, tags

from dangad.text import counted
from dangad.web.address import Address
from dangad.web.health import fullness, illness
from dangad.web.layout import Scene, View
from dangad.web.parts import (
    NONE,
    badge,
    count,
    gauge,
    in_turns,
    moment,
    number,
    reason,
    row,
    seconds,
    size,
    table,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_TILES = 64
"""Workers that are shown as tiles; the others are on the page of workers."""
MAX_COMMANDS = 12
"""Commands in the table; the others are on the page of commands."""
MAX_FAILURES = 10
"""Jobs in the table of those that failed last."""

_FAILURES = ("failed", "lost", "timed_out")
_CURVES = (
    ("throughput", "Jobs a second", "done failed", "done, failed", "number"),
    ("backlog", "Jobs now", "waiting running", "waiting, running", "number"),
    ("oldest", "Oldest waiting job", "oldest", "waits", "seconds"),
    ("latency", "Latency, from acceptance to end", "p50 p99", "median, 99th percentile", "seconds"),
)
"""The large curves: key, title, series, their names, and their unit."""


async def overview(scene: Scene) -> View:
    """Gauges, curves, workers, commands, and what failed last."""
    commands = await scene.operations.commands()
    sections = in_turns(_sections(scene, commands), scene.turn, 1)
    return View("Overview", sections, sample=json.dumps(scene.history.last()))


def _sections(scene: Scene, commands: list[dict[str, Any]]) -> Iterator[Tag]:
    """The parts of the page, each made in a turn of the reactor of its own."""
    operations = scene.operations
    status = operations.status()
    yield health(scene, status)
    yield _gauges(scene, status)
    yield _curves(scene)
    yield tags.section(id="workers")(tags.h2("Workers"), worker_tiles(scene, operations.workers()))
    yield tags.section(id="commands")(
        tags.h2("Commands"), command_table(scene, _busiest(commands), len(commands))
    )
    failures = [job for job in operations.recent() if job["state"] not in ("done", "cancelled")]
    yield tags.section(id="failures")(
        tags.h2("Failures"),
        _codes(scene, status),
        failure_table(scene, failures[: -MAX_FAILURES - 1 : -1]),
    )


def health(scene: Scene, status: dict[str, Any]) -> Tag:
    """The state of the server in one line, which screen readers announce when it changes.

    It says what ``/health`` says, and what else keeps requests from being accepted.
    """
    ill = "; ".join(filter(None, (illness(status, scene.oldest), fullness(status))))
    paused = status["paused"]
    reloading = status["reload"]
    what: list[Any] = [badge(status["state"]), " "]
    if paused["all"]:
        what += [badge("paused"), " Everything is paused. "]
    elif paused["commands"]:
        what += [badge("paused"), " ", text(", ".join(paused["commands"]), 500), " "]
    what += [text(f"{each['command']} is quarantined. ") for each in status["quarantine"]]
    if reloading["state"] == "failed":
        what.append(text(f"The last reload failed: {reloading['reason']}. ", 1000))
    if refusals := _refusals(status):
        what.append(f"{refusals} ")
    if ill:
        what.append(text(ill, 1000))
    look = "bad" if ill else "warn" if len(what) > 2 else "good"
    calm = f"Everything works; up for {seconds(status['uptime'])}."
    return tags.p(class_=f"health {look}", id="health", role="status")(
        what, "" if len(what) > 2 else calm
    )


def _refusals(status: dict[str, Any]) -> str:
    """How many requests were refused in the last minute, by code; empty if none were."""
    codes = status["last"]["1m"]["refused_by_code"]
    if not codes:
        return ""
    each = ", ".join(f"{number(times)} {code}" for code, times in _ranked(codes))
    return f"Refused in the last minute: {each}."


def worker_tiles(scene: Scene, workers: Sequence[dict[str, Any]]) -> Any:
    """The workers as tiles, each with its job."""
    if not workers:
        return tags.p(class_="empty")("There is no worker now.")
    hidden = len(workers) - MAX_TILES
    return [
        tags.ul(class_="tiles")(
            in_turns((_tile(scene, worker) for worker in workers[:MAX_TILES]), scene.turn)
        ),
        tags.p(f"{counted(hidden, 'more worker')}.") if hidden > 0 else "",
    ]


def job_link(scene: Scene, job: int) -> Tag:
    """A link to the page of a job."""
    return tags.a(href=f"{scene.root}/jobs/{job}")(str(job))


def command_link(scene: Scene, name: str) -> Tag:
    """A link to the page of a command."""
    return tags.a(href=f"{scene.root}/commands/{quote(name, safe='')}")(text(name))


def command_table(
    scene: Scene, commands: Iterable[dict[str, Any]], total: int, empty: str = ""
) -> Any:
    """What commands do now, and how fast they were in the last five minutes."""
    heads = (
        "Command",
        "#Running",
        "#Waiting",
        "#Done",
        "#Failed",
        "#Per second",
        "#Wait",
        "#Runtime",
        "",
    )
    shown = [_command_row(scene, command) for command in commands]
    more = total - len(shown)
    return [
        table(
            "Commands in the last five minutes; waits and runtimes are medians",
            heads,
            shown,
            scene.turn,
            empty or "No job has been accepted yet.",
        ),
        tags.p(tags.a(href=f"{scene.root}/commands")(f"All {total} commands")) if more else "",
    ]


def failure_table(scene: Scene, jobs: Iterable[dict[str, Any]]) -> Any:
    """Jobs that failed, with their reasons."""
    return table(
        "Jobs that failed, the latest first",
        ("Job", "Command", "State", "Ended, UTC", "#Runtime", "Reason"),
        (
            row(
                f"failure-{job['id']}",
                job_link(scene, job["id"]),
                command_link(scene, job["command"]),
                badge(job["state"]),
                moment(job["ended"]),
                count(seconds(job["runtime"])),
                tags.td(class_="reason")(reason(job["error"])),
            )
            for job in jobs
        ),
        scene.turn,
        "None of the last thousand jobs failed.",
    )


def _gauges(scene: Scene, status: dict[str, Any]) -> Tag:
    jobs, latest, history = status["jobs"], status["last"]["1m"], scene.history
    backlog, workers = status["backlog"], status["workers"]
    alive = workers["idle"] + workers["busy"]
    bad = sum(jobs[end] for end in _FAILURES)
    urgent = [f"{number(backlog[name])} {name}" for name in ("high", "low") if backlog[name]]
    return tags.section(class_="gauges", **{"aria-label": "Gauges"})(
        gauge(
            "waiting",
            "Waiting",
            number(jobs["waiting"]),
            " · ".join([f"of {number(jobs['max_queued'])} at most", *urgent]),
            history.of("waiting"),
        ),
        gauge("oldest", "Oldest wait", seconds(status["oldest_wait"]), "", history.of("oldest")),
        gauge(
            "running",
            "Running",
            number(jobs["running"]),
            f"{alive} of {counted(workers['max'], 'worker')}",
            history.of("running"),
        ),
        gauge(
            "throughput",
            "Jobs a second",
            number(latest["rate"]),
            f"{number(jobs['done'])} done",
            history.of("done"),
        ),
        gauge(
            "latency",
            "Latency",
            seconds(latest["p50"]),
            f"99 %: {seconds(latest['p99'])}",
            history.of("p50"),
        ),
        gauge(
            "failed",
            "Failed",
            number(latest["failed"]),
            f"a minute · {number(bad)} in all",
            history.of("failed"),
        ),
        gauge(
            "refused",
            "Refused",
            number(sum(latest["refused_by_code"].values())),
            f"a minute · {number(jobs['refused'])} in all",
            history.of("refused"),
        ),
        tags.p(class_="also", id="also")(
            f"{counted(status['connections'], 'connection')} · generation {status['generation']} · "
            f"memory of the server {size(status['memory'])} · longest stall in a minute "
            f"{seconds(status['stall']['last_minute'])}"
        ),
    )


def _curves(scene: Scene) -> Tag:
    """The large curves, drawn by JavaScript; without it the gauges have small ones."""
    return tags.section(
        id="curves",
        hidden="hidden",
        **{
            "hx-morph-skip": "",
            "data-history": f"{scene.root}/history.json",
            "aria-label": "The last fifteen minutes",
        },
    )(
        tags.figure(
            id=f"curve-{key}",
            **{"data-series": series, "data-names": names, "data-unit": unit},
        )(tags.figcaption(title))
        for key, title, series, names, unit in _CURVES
    )


def _tile(scene: Scene, worker: dict[str, Any]) -> Tag:
    job = worker["job"]
    if job is not None:
        doing: Any = [command_link(scene, job["command"]), " ", job_link(scene, job["id"])]
        since = f"for {seconds(job['runtime'])}"
        if job["attempt"] > 1:
            since += f", attempt {job['attempt']}"
    else:
        doing = worker["recycling"] or NONE
        since = counted(worker["jobs"], "job")
    return tags.li(class_=f"tile {worker['state']}", id=f"worker-{worker['pid']}")(
        tags.div(class_="top")(tags.b(str(worker["pid"])), badge(worker["state"])),
        tags.div(class_="doing")(doing),
        tags.div(class_="detail")(since, f" · {size(worker['memory'])}"),
    )


def _busiest(commands: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The commands that are worth a look at once."""
    busy = sorted(
        commands,
        key=lambda each: (
            -each["running"] - each["waiting"],
            -each["last"]["5m"]["jobs"],
            -each["done"],
            each["command"],
        ),
    )
    return busy[:MAX_COMMANDS]


def _command_row(scene: Scene, command: dict[str, Any]) -> Tag:
    latest, name = command["last"]["5m"], command["command"]
    marks = []
    if command["paused"]:
        marks.append(badge("paused"))
    if command["quarantine"] is not None:
        marks.append(badge(f"quarantined for {seconds(command['quarantine'])}", "bad"))
    failed = latest["failed"]
    waiting = Address(("jobs",), {"command": name, "state": "queued"}).link(scene.root)
    return row(
        f"command-{quote(name, safe='')}",
        command_link(scene, name),
        count(number(command["running"])),
        count(tags.a(href=waiting)(number(command["waiting"]))),
        count(number(command["done"])),
        count(number(failed), "bad" if failed else ""),
        count(number(latest["rate"])),
        count(seconds(latest["wait"]["p50"])),
        count(seconds(latest["runtime"]["p50"])),
        marks,
    )


def _codes(scene: Scene, status: dict[str, Any]) -> Any:
    """How many jobs failed, and how many requests were refused, by the error, since the start.

    The jobs can be listed. Refused requests never became jobs.
    """
    failed, refused = status["failed_by_code"], status["refused_by_code"]
    return [
        tags.ul(class_="codes", **{"aria-label": "Errors of failed jobs since the start"})(
            tags.li(id=f"code-{code}")(
                tags.a(
                    href=Address(("jobs",), {"state": "ended", "outcome": code}).link(scene.root)
                )(code),
                f" {number(times)}",
            )
            for code, times in _ranked(failed)
        )
        if failed
        else "",
        tags.ul(class_="codes", **{"aria-label": "Refused requests since the start"})(
            tags.li(id=f"refused-{code}")(f"{code} {number(times)}")
            for code, times in _ranked(refused)
        )
        if refused
        else "",
    ]


def _ranked(codes: dict[str, int]) -> list[tuple[str, int]]:
    """Numbers by the error's code, the largest first."""
    return sorted(codes.items(), key=lambda each: (-each[1], each[0]))
