"""The list of jobs with its filters, and the page of one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.template import Tag, tags

from dangad.errors import DangadError
from dangad.text import counted
from dangad.web.address import ENDED, ENDED_STATES, LIVE_STATES, MAX_PAGE, PAGE_SIZE, Address
from dangad.web.callviews import again
from dangad.web.forms import button, cancel_matching
from dangad.web.layout import NotThere, Scene, View
from dangad.web.overview import command_link, health, job_link
from dangad.web.parts import (
    NONE,
    badge,
    count,
    facts,
    moment,
    note,
    policy_facts,
    reason,
    row,
    seconds,
    size,
    table,
    text,
    text_lines,
)
from dangad.web.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_RECENT = 1000
"""Ended jobs that the server remembers."""
_CHOICES = (
    ("", "waiting and running"),
    *((state, state) for state in LIVE_STATES),
    (ENDED, "ended"),
    *((state, state) for state in ENDED_STATES),
)


async def jobs(scene: Scene) -> View:
    """The jobs that match the filter, one part of the list at a time."""
    address = scene.address
    wanted = address.filter()
    start = (address.page - 1) * PAGE_SIZE
    if address.ended:
        found = scene.operations.recent(wanted, address.order, MOST_RECENT)
        if address.order is None:
            found = found[::-1]  # the latest first
        total, shown = len(found), found[start : start + PAGE_SIZE]
        listed = _ended_table(scene, shown)
    else:
        answer = await scene.operations.jobs(wanted, address.order or "state", PAGE_SIZE, start)
        total = answer["total"]
        listed = _live_table(scene, answer["jobs"])
    pages = min(-(-total // PAGE_SIZE) or 1, MAX_PAGE)
    return View(
        "Jobs",
        [
            health(scene, scene.operations.status()),
            tags.p(class_="total", id="total")(
                f"{counted(total, 'job')}", f", part {address.page} of {pages}" if pages > 1 else ""
            ),
            listed,
            _parts(scene, pages),
            "" if address.ended or not (total and wanted) else cancel_matching(scene),
        ],
        still=_form(scene),
    )


async def job(scene: Scene) -> View:
    """Everything about one job."""
    number = scene.address.path[1]
    if not (number.isascii() and number.isdigit() and len(number) < 20):
        raise NotThere(f"{number} is not the number of a job")
    try:
        found: dict[str, Any] = await scene.operations.job(int(number))
    except DangadError as error:
        raise NotThere(str(error)) from None
    state = found["state"]
    live = state in LIVE_STATES
    return View(
        f"Job {number}",
        [
            tags.p(class_="lead", id="lead")(
                badge(state),
                " ",
                command_link(scene, found["command"]),
                f", {seconds(found['runtime'])} long" if found["runtime"] is not None else "",
            ),
            note(text(found.get("error"), 2000), "bad", id="error") if found.get("error") else "",
            timeline(found),
            facts(_facts(found)),
            _attempts(scene, found["attempts"]),
            _printed("Last lines that it printed", "output", "\n".join(found["output"])),
            _printed("Traceback", "traceback", found["traceback"] or ""),
            button(scene, "stack", "Show its stack", job=number) if state == "running" else "",
            button(scene, "cancel", "Cancel this job", "danger", ids=number) if live else "",
            again(scene, found),
        ],
    )


def _facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs = [
        ("Client", text(found["client"])),
        ("Priority", found.get("priority") or NONE),
        ("Attempt", found["attempt"]),
        ("Worker", found["worker"] or NONE),
        ("Accepted, UTC", moment(found["accepted"])),
        ("Started, UTC", moment(found["started"])),
        ("Ended, UTC", moment(found["ended"])),
        ("Wait", seconds(found["wait"])),
        ("Runtime", seconds(found["runtime"])),
        ("Time left", seconds(found.get("deadline_left"))),
        ("Request", size(found["bytes"])),
    ]
    if found.get("cpu") is not None:
        pairs.append(("CPU time", seconds(found["cpu"])))
    if found.get("peak_memory") is not None:
        pairs.append(("Peak memory", size(found["peak_memory"])))
    return [*pairs, *policy_facts(found["policy"] or {})]


def _attempts(scene: Scene, attempts: Sequence[dict[str, Any]]) -> Any:
    if not attempts:
        return ""
    return table(
        "Earlier attempts",
        ("Attempt", "Started, UTC", "#Worker", "Ended because of"),
        [
            row(
                f"attempt-{place}",
                str(place),
                moment(each["started"]),
                count(str(each["worker"] or NONE)),
                reason(each["ended_for"]),
            )
            for place, each in enumerate(attempts, 1)
        ],
        scene.turn,
        "",
        visible=True,
    )


def _printed(title: str, key: str, lines: str) -> Any:
    if not lines:
        return ""
    return tags.section(id=key)(
        tags.h2(title),
        tags.pre(tabindex="0", **{"aria-label": title})(text_lines(lines)),
    )


def _live_table(scene: Scene, entries: Sequence[dict[str, Any]]) -> Tag:
    heads = [
        "Job",
        _sorted_by(scene, "command", "Command"),
        _sorted_by(scene, "state", "State"),
        _sorted_by(scene, "priority", "Priority"),
        _sorted_by(scene, "wait", "Wait", "number"),
        _sorted_by(scene, "runtime", "Runtime", "number"),
        "#Time left",
        "#Attempt",
        "#Worker",
        _sorted_by(scene, "client", "Client"),
    ]
    if scene.token:
        heads.append(tags.th(scope="col")(tags.span(class_="hidden")("Cancel")))
    return table(
        "Jobs that wait or run",
        heads,
        (_live_row(scene, entry) for entry in entries),
        scene.turn,
        "No job matches.",
    )


def _live_row(scene: Scene, entry: dict[str, Any]) -> Tag:
    number = entry["id"]
    act = [button(scene, "cancel", "Cancel", "small", ids=number)] if scene.token else []
    return row(
        f"job-{number}",
        job_link(scene, number),
        command_link(scene, entry["command"]),
        badge("paused" if entry["paused"] else entry["state"]),
        entry["priority"],
        count(seconds(entry["wait"])),
        count(seconds(entry["runtime"])),
        count(seconds(entry["deadline_left"])),
        count(entry["attempt"]),
        count(str(entry["worker"] or NONE)),
        text(entry["client"]),
        *act,
    )


def _ended_table(scene: Scene, entries: Sequence[dict[str, Any]]) -> Tag:
    heads = (
        "Job",
        _sorted_by(scene, "command", "Command"),
        _sorted_by(scene, "state", "State"),
        _sorted_by(scene, "ended", "Ended, UTC"),
        _sorted_by(scene, "wait", "Wait", "number"),
        _sorted_by(scene, "runtime", "Runtime", "number"),
        _sorted_by(scene, "client", "Client"),
        _sorted_by(scene, "error", "Reason"),
    )
    return table(
        "Jobs that have ended",
        heads,
        (
            row(
                f"job-{entry['id']}",
                job_link(scene, entry["id"]),
                command_link(scene, entry["command"]),
                badge(entry["state"]),
                moment(entry["ended"]),
                count(seconds(entry["wait"])),
                count(seconds(entry["runtime"])),
                text(entry["client"]),
                tags.td(class_="reason")(reason(entry["error"])),
            )
            for entry in entries
        ),
        scene.turn,
        f"None of the last {MOST_RECENT:,} jobs that ended matches.",
    )


def _sorted_by(scene: Scene, name: str, title: str, look: str = "") -> Tag:
    """The head of a column, which sorts the list; again for the other way round."""
    sort = scene.address.sort
    turned = f"-{name}" if sort == name else name
    order = {name: "ascending", f"-{name}": "descending"}.get(sort)
    return tags.th(scope="col", class_=look, **({"aria-sort": order} if order else {}))(
        tags.a(href=scene.address.link(scene.root, sort=turned, page=1))(title)
    )


def _parts(scene: Scene, pages: int) -> Any:
    """Links to the neighbours of this part of the list."""
    address = scene.address
    if pages <= 1 and address.page == 1:
        return ""
    links = []
    if address.page > 1:
        links.append(("prev", "Previous", address.page - 1))
    if address.page < pages:
        links.append(("next", "Next", address.page + 1))
    return tags.nav(class_="parts", id="parts", **{"aria-label": "Parts of the list"})(
        tags.a(rel=rel, href=address.link(scene.root, page=page))(title)
        for rel, title, page in links
    )


def _form(scene: Scene) -> Tag:
    """The filters, which become part of the address."""
    words = scene.address.words

    def field(name: str, title: str, hint: str) -> Tag:
        value = words.get(name, "")
        return tags.label(
            title,
            tags.input(type="text", name=name, value=value, placeholder=hint, maxlength="200"),
        )

    chosen = words.get("state", "")
    options = [
        tags.option(value=value, **({"selected": "selected"} if value == chosen else {}))(title)
        for value, title in _CHOICES
    ]
    empty = Address(("jobs",)).link(scene.root)
    return tags.form(
        class_="filters", method="get", action=empty, role="search", **{"aria-label": "Filter"}
    )(
        tags.label("State", tags.select(name="state")(options)),
        field("command", "Command", "its whole name"),
        field("client", "Client", "a part of its name"),
        field("older_than", "Older than", "90, 5m, 1.5h"),
        field("outcome", "Error code", "of ended jobs") if scene.address.ended else "",
        tags.input(type="hidden", name="sort", value=scene.address.sort)
        if scene.address.sort
        else "",
        tags.button(type="submit")("Show"),
        tags.a(href=empty)("All"),
    )
