"""Calls by hand: the box with the form on a command's page, the list of calls, and one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.template import Tag, tags

from dangad.addresses import client_form
from dangad.errors import NotFound
from dangad.text import counted
from dangad.web.address import BadAddress
from dangad.web.callforms import MOST_FIELDS, Typed, call_form, typed_before
from dangad.web.calllines import Lines
from dangad.web.forms import button
from dangad.web.layout import NotThere, Scene, View
from dangad.web.overview import command_link, health
from dangad.web.parts import (
    NONE,
    badge,
    in_turns,
    moment,
    note,
    number,
    row,
    table,
    text,
    text_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_LISTED = 200
"""Characters of an answer in the list of calls."""
PIECE = 4096
"""Characters of an answer that are written in one turn of the reactor."""
NOT_KEPT = "It cannot be run again: the request of a job is not kept once its last attempt begins."
"""Why a job has no button that runs it again."""


async def calls(scene: Scene) -> View:
    """The last calls by hand."""
    return View(
        "Calls by hand",
        [
            health(scene, scene.operations.status()),
            table(
                "The last calls by hand, the latest first",
                ("Call", "Command", "Called, UTC", "State", "What came of it"),
                (_call_row(scene, each) for each in _calls(scene)),
                scene.turn,
                "Nothing was called by hand: each command's page has a form for this.",
            ),
        ],
    )


async def call(scene: Scene) -> View:
    """One call, and what has come of it so far."""
    wanted = scene.address.path[1]
    found = next((each for each in _calls(scene) if str(each["job"]) == wanted), None)
    if found is None:
        raise NotThere(f"no call {wanted} is remembered")
    state = _state(found)
    if found["under_way"]:
        try:
            state = (await scene.operations.job(found["job"]))["state"]
        except NotFound:  # it has ended meanwhile
            state = "running"
    return View(
        f"Call {wanted}",
        [
            tags.p(class_="lead", id="lead")(
                badge(state),
                " ",
                command_link(scene, found["command"]),
                ", called at ",
                moment(found["called"]),
                ", as ",
                tags.a(href=f"{scene.root}/jobs/{wanted}")(f"job {wanted}"),
                f", as job {found['again']} was" if found["again"] is not None else "",
            ),
            _progress(found["progress"]),
            note(text(found["error"], 2000), "bad", id="error") if found["error"] else "",
            _answer(scene, found["answer"]),
            _parts(scene, found["parts"], found["part_count"]),
            button(scene, "cancel", "Cancel this job", "danger", ids=wanted)
            if found["under_way"]
            else "",
        ],
        below=_box_of(scene, found),
    )


def call_box(scene: Scene, name: str) -> Iterator[Any]:
    """The form of a command, to be opened; made only if it is shown."""
    if not scene.token:
        return
    entry = scene.operations.signature(name)
    if entry is None:
        yield note("Its types are not known, so it cannot be called from here.", "calm")
        return
    yield tags.details(id="call")(
        tags.summary("Call this …"), _box(scene, entry, Typed(name), None)
    )


def refused(scene: Scene, typed: Typed, wrong: str) -> View:
    """The form once more, with what was typed, and what is wrong with it.

    :raises NotThere: there is no such command.
    """
    entry = scene.operations.signature(typed.command)
    if entry is None:
        raise NotThere(f"no job of {typed.command!r} can be called")
    return View(
        f"Call {typed.command}",
        [
            note(text(wrong, 2000), "bad", id="error", role="alert"),
            _box(scene, entry, typed, typed.words(entry), wrong),
        ],
    )


def again(scene: Scene, job: Mapping[str, Any]) -> Any:
    """The button that runs a job again, or why there is none.

    :param job: its document, see ``IOperations.job``.
    """
    if not scene.token:
        return ""
    if job["can_run_again"]:
        return button(scene, "again", "Run it again", job=job["id"])
    where: Any = [command_link(scene, job["command"]), " can be called by hand."]
    if any(each["job"] == job["id"] for each in scene.operations.calls()):
        where = tags.a(href=f"{scene.root}/calls/{job['id']}")("Call it again as it was typed.")
    return tags.p(class_="again", id="again")(NOT_KEPT, " ", where)


def _calls(scene: Scene) -> Sequence[dict[str, Any]]:
    """The last calls.

    :raises NotThere: the page changes nothing, and shows no answers.
    """
    if not scene.token:
        raise NotThere("this page calls nothing: see --web-actions")
    return scene.operations.calls()


def _box_of(scene: Scene, found: Mapping[str, Any]) -> Iterator[Any]:
    """The form with what was typed for a call; made only if it is shown."""
    entry = scene.operations.signature(found["command"])
    if entry is None:
        return
    typed = typed_before(found)
    words = found["words"]
    yield tags.section(id="call")(
        tags.h2("Call it again"),
        ""
        if words is not None
        else note("What was asked for is not shown: it came from another client.", "calm")
        if found["again"] is not None
        else note("What was typed is too long to be kept.", "calm"),
        _box(scene, entry, typed, words),
    )


def _box(
    scene: Scene,
    entry: dict[str, Any],
    typed: Typed,
    words: Mapping[str, Sequence[str]] | None,
    wrong: str = "",
) -> Tag:
    """The form, and beside it the same call for a shell and in Python."""
    listen = scene.operations.config()["options"].get("listen") or [""]
    try:
        options = typed.options()
    except BadAddress:
        options = {}
    lines = Lines(entry, words, options, client_form(listen[0]))
    example = " (an example)" if lines.example else ""
    return tags.div(class_="call", id="call-box")(
        tags.div(
            call_form(scene, entry, typed, wrong),
            note(f"Only the first {MOST_FIELDS} arguments have fields.")
            if len(entry["arguments"]) > MOST_FIELDS
            else "",
        ),
        tags.div(class_="lines")(
            tags.h3(f"In a shell{example}"),
            tags.pre(tabindex="0", id="shell", **{"aria-label": "In a shell"})(lines.shell()),
            tags.h3(f"In Python{example}"),
            tags.pre(tabindex="0", id="python", **{"aria-label": "In Python"})(lines.python()),
        ),
    )


def _call_row(scene: Scene, found: Mapping[str, Any]) -> Tag:
    came: Any = NONE
    if found["error"]:
        came = text(found["error"][:MOST_LISTED])
    elif found["answer"] is not None:
        came = text(" ".join(found["answer"][:MOST_LISTED].split()))
    elif found["progress"]:
        came = _words(found["progress"])
    return row(
        f"call-{found['job']}",
        tags.a(href=f"{scene.root}/calls/{found['job']}")(str(found["job"])),
        command_link(scene, found["command"]),
        moment(found["called"]),
        badge(_state(found)),
        tags.td(class_="reason")(came),
    )


def _state(found: Mapping[str, Any]) -> str:
    if found["under_way"]:
        return "under way"
    return "failed" if found["error"] else "done"


def _progress(progress: Mapping[str, Any] | None) -> Any:
    if progress is None:
        return ""
    done, total = progress["done"], progress["total"]
    bar: Any = ""
    if 0 <= done <= total and total:
        words = {"value": str(done), "max": str(total), "aria-label": "Progress"}
        bar = Tag("progress")(**words)
    return tags.div(class_="progress", id="progress")(bar, tags.span(_words(progress)))


def _words(progress: Mapping[str, Any]) -> Any:
    done, total, message = (progress[name] for name in ("done", "total", "message"))
    share = f"{done / total:.0%}, " if total > 0 else ""
    of = f" of {number(total)}" if total > 0 else ""
    return [share, number(done), of, ": " if message else "", text(message, 200) if message else ""]


def _parts(scene: Scene, parts: Sequence[str], total: int) -> Any:
    if not total:
        return ""
    first = total - len(parts) + 1
    hidden = f", the last {len(parts)} of them here" if first > 1 else ""
    return tags.section(id="parts")(
        tags.h2(f"{counted(total, 'part')} of the result{hidden}"),
        tags.ol(start=str(first))(
            in_turns(
                (
                    tags.li(id=f"part-{place}", value=str(place))(
                        tags.pre(tabindex="0", **{"aria-label": f"Part {place}"})(text_lines(part))
                    )
                    for place, part in enumerate(parts, first)
                ),
                scene.turn,
                1,
            )
        ),
    )


def _answer(scene: Scene, answer: str | None) -> Any:
    if answer is None:
        return ""
    pieces = (text_lines(answer[start : start + PIECE]) for start in range(0, len(answer), PIECE))
    return tags.section(id="answer")(
        tags.h2("Answer"),
        tags.pre(tabindex="0", **{"aria-label": "Answer"})(in_turns(pieces, scene.turn, 1)),
    )
