"""The pages of commands, workers and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.template import Tag, tags

from dangad.text import counted
from dangad.web.address import PAGE_SIZE, Address
from dangad.web.callviews import call_box
from dangad.web.forms import button, form
from dangad.web.layout import NotThere, Scene, View
from dangad.web.overview import (
    command_link,
    command_table,
    failure_table,
    health,
    job_link,
)
from dangad.web.parts import (
    NONE,
    badge,
    count,
    facts,
    moment,
    number,
    policy_facts,
    reason,
    row,
    seconds,
    size,
    table,
    text,
)
from dangad.wire.words import describe_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CLIENTS = 200
"""Clients that are shown."""
MOST_FAILURES = 50
"""Failures that are shown of one command."""
MAX_TYPES = 1000
"""Characters of a command's types that are shown; the rest is in a title."""
WINDOWS = (("1m", "1 minute"), ("5m", "5 minutes"), ("15m", "15 minutes"))
"""The windows of the statistics, and their names."""


async def commands(scene: Scene) -> View:
    """All commands, one part of the list at a time."""
    found = sorted(await scene.operations.commands(), key=lambda each: each["command"])
    start = (scene.address.page - 1) * PAGE_SIZE
    shown = found[start : start + PAGE_SIZE]
    pages = -(-len(found) // PAGE_SIZE) or 1
    links = [
        tags.a(href=scene.address.link(scene.root, page=page))(str(page))
        for page in range(1, pages + 1)
        if page != scene.address.page
    ]
    return View(
        "Commands",
        [
            health(scene, scene.operations.status()),
            tags.p(class_="total", id="total")(counted(len(found), "command")),
            command_table(scene, shown, len(shown)),
            tags.nav(class_="parts", **{"aria-label": "Parts of the list"})(links) if links else "",
            _pausing(scene, None, scene.operations.status()["paused"]["all"]),
        ],
    )


async def command(scene: Scene) -> View:
    """Everything about one command."""
    name = scene.address.path[1]
    known = await scene.operations.commands()
    found = next((each for each in known if each["command"] == name), None)
    if found is None:
        raise NotThere(f"no job of {name!r} is known")
    failures = [
        job
        for job in scene.operations.recent({"command": name})
        if job["state"] not in ("done", "cancelled")
    ]
    state = badge("paused") if found["paused"] else ""
    if found["quarantine"] is not None:
        state = badge(f"quarantined for {seconds(found['quarantine'])}", "bad")
    listed = Address(("jobs",), {"command": name}).link(scene.root)
    ended = Address(("jobs",), {"command": name, "state": "ended"}).link(scene.root)
    return View(
        name,
        [
            tags.p(class_="lead", id="lead")(state, " ", text(found["doc"], 500)),
            tags.p(tags.a(href=listed)("Its jobs"), " · ", tags.a(href=ended)("Its ended jobs")),
            facts(_numbers(found)),
            _windows(scene, found["last"]),
            _types(scene.operations.signature(name)),
            tags.section(id="policy")(
                tags.h2("Policy"),
                facts(policy_facts(found["policy"] or {})),
            ),
            tags.section(id="failures")(
                tags.h2("Failures"),
                tags.ul(class_="codes")(
                    tags.li(f"{code} {number(times)}") for code, times in found["errors"].items()
                ),
                failure_table(scene, failures[: -MOST_FAILURES - 1 : -1]),
            ),
            _pausing(scene, name, found["paused"]),
        ],
        still=call_box(scene, name),
    )


async def workers(scene: Scene) -> View:
    """The workers that live, and those that died last."""
    operations = scene.operations
    status = operations.status()
    numbers = status["workers"]
    return View(
        "Workers",
        [
            health(scene, status),
            tags.p(class_="total", id="total")(
                f"{numbers['min']} to {numbers['max']} workers, {numbers['spare']} spare; "
                f"generation {status['generation']}"
            ),
            _worker_table(scene, operations.workers()),
            tags.section(id="deaths")(
                tags.h2("Deaths"), _causes(status["deaths"]), _deaths(scene, operations.deaths())
            ),
        ],
        still=_scaling(scene, numbers),
    )


async def clients(scene: Scene) -> View:
    """Who is connected."""
    answer = await scene.operations.clients("-waiting", MOST_CLIENTS)
    total, shown = answer["total"], answer["clients"]
    hidden = total - len(shown)
    return View(
        "Clients",
        [
            health(scene, scene.operations.status()),
            tags.p(class_="total", id="total")(
                counted(total, "client"), f", {hidden} not shown" if hidden else ""
            ),
            table(
                "Connections of clients, those with the most waiting jobs first",
                ("Client", "#Connected for", "#Idle for", "#Waiting", "#Running", "#Held", "Reads"),
                (_client_row(scene, place, each) for place, each in enumerate(shown)),
                scene.turn,
                "Nobody is connected.",
            ),
        ],
    )


def _client_row(scene: Scene, place: int, client: dict[str, Any]) -> Tag:
    name = client["client"]
    its = Address(("jobs",), {"client": name[:200]}).link(scene.root)
    return row(
        f"client-{place}",
        tags.a(href=its)(text(name)),
        count(seconds(client["since"])),
        count(seconds(client["idle"])),
        count(number(client["waiting"])),
        count(number(client["running"])),
        count(size(client["bytes"])),
        badge("does not read", "warn") if client["held"] else "yes",
    )


def _types(entry: dict[str, Any] | None) -> Any:
    """What a command takes, and what it answers."""
    if entry is None:
        return ""
    return tags.section(id="types")(
        tags.h2("Types"),
        facts(
            [
                ("Arguments", text(describe_keys(entry["arguments"]), MAX_TYPES)),
                ("Answer", text(describe_keys(entry["response"]), MAX_TYPES)),
                ("Errors", text(", ".join(entry["errors"]), MAX_TYPES)),
            ]
        ),
    )


def _numbers(found: dict[str, Any]) -> list[tuple[str, Any]]:
    names = ("running", "waiting", "done", "failed", "cancelled", "timed_out", "lost")
    pairs: list[tuple[str, Any]] = [
        (name.replace("_", " ").capitalize(), number(found[name])) for name in (*names, "refused")
    ]
    return pairs


def _windows(scene: Scene, last: dict[str, Any]) -> Tag:
    """Rates and percentiles over the last minutes."""
    heads = ("Last", "#Jobs", "#Per second", "#Failed", "#Cancelled")
    times = [f"#{name} {which}" for name in ("Wait", "Runtime") for which in ("p50", "p90", "p99")]
    return table(
        "Rates, and percentiles of waits and runtimes",
        (*heads, *times),
        [
            row(
                f"window-{key}",
                title,
                count(number(last[key]["jobs"])),
                count(number(last[key]["rate"])),
                count(number(last[key]["failed"])),
                count(number(last[key]["cancelled"])),
                *(
                    count(seconds(last[key][name][which]))
                    for name in ("wait", "runtime")
                    for which in ("p50", "p90", "p99")
                ),
            )
            for key, title in WINDOWS
        ],
        scene.turn,
        "",
    )


def _worker_table(scene: Scene, found: Sequence[dict[str, Any]]) -> Tag:
    heads = ("Worker", "State", "#Age", "#Jobs", "#Memory", "#CPU", "Does", "#For")
    return table(
        "Worker processes",
        heads,
        (_worker_row(scene, worker) for worker in found),
        scene.turn,
        "There is no worker now.",
    )


def _worker_row(scene: Scene, worker: dict[str, Any]) -> Tag:
    job = worker["job"]
    doing: Any = worker["recycling"] or NONE
    if job is not None:
        doing = [command_link(scene, job["command"]), " ", job_link(scene, job["id"])]
    return row(
        f"worker-{worker['pid']}",
        str(worker["pid"]),
        badge(worker["state"]),
        count(seconds(worker["age"])),
        count(number(worker["jobs"])),
        count(size(worker["memory"])),
        count(seconds(worker.get("cpu"))),
        doing,
        count(seconds(job["runtime"] if job else None)),
    )


def _causes(deaths: dict[str, int]) -> Any:
    if not deaths:
        return ""
    return tags.ul(class_="codes", **{"aria-label": "Deaths since the start, by cause"})(
        tags.li(f"{cause} {number(times)}") for cause, times in deaths.items()
    )


def _deaths(scene: Scene, deaths: Sequence[dict[str, Any]]) -> Tag:
    return table(
        "Workers that are gone, the latest first",
        ("Worker", "Ended, UTC", "#Age", "#Jobs", "Job", "Cause", "Why"),
        (
            row(
                f"death-{each['pid']}",
                str(each["pid"] or NONE),
                moment(each["ended"]),
                count(seconds(each["age"])),
                count(number(each["jobs"])),
                NONE if each["job"] is None else job_link(scene, each["job"]),
                badge(each["cause"], "calm" if each["cause"] == "released" else "bad"),
                tags.td(class_="reason")(reason(each["why"])),
            )
            for each in reversed(deaths)
        ),
        scene.turn,
        "No worker has died.",
    )


def _pausing(scene: Scene, name: str | None, paused: bool) -> Any:
    what = "resume" if paused else "pause"
    words = {} if name is None else {"command": name}
    which = "everything" if name is None else "this command"
    return button(scene, what, f"{what.capitalize()} {which}", **words)


def _scaling(scene: Scene, numbers: dict[str, Any]) -> Any:
    if not scene.token:
        return ""
    return tags.div(class_="acts")(
        form(
            scene,
            "scale",
            tags.label(
                "At least",
                tags.input(type="number", name="min", value=str(numbers["min"]), min="0"),
            ),
            tags.label(
                "At most",
                tags.input(type="number", name="max", value=str(numbers["max"]), min="1"),
            ),
            tags.button(type="submit")("Scale"),
        ),
        button(scene, "reload", "Reload the job modules"),
    )
