"""Small parts of pages: numbers, badges, tables, and the curves without JavaScript.

Text is escaped by :mod:`twisted.web.template`, and nowhere else: no part writes markup by itself.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any

from twisted.web.template import Tag, tags

from dangad.text import printable, show_bytes, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.defer import Deferred

NONE = "\N{EN DASH}"
"""Stands for a value that is not known, or not yet."""
RECENT = 12 * 3600.0
"""Seconds for which a time is shown without its day."""
MAX_TEXT = 120
"""Characters of a peer's text in a table; the rest is in its title."""
ROWS_A_TURN = 10
"""Rows of a table, or tiles, that are written in one turn of the reactor."""
GRAPH_WIDTH, GRAPH_HEIGHT = 300, 40
"""The size of a small curve, in its own units."""
GRAPH_POINTS = 100
"""Points of a small curve."""

_KINDS = {
    "done": "good",
    "idle": "good",
    "running": "work",
    "under way": "work",
    "busy": "work",
    "starting": "calm",
    "queued": "calm",
    "stopping": "warn",
    "draining": "warn",
    "paused": "warn",
    "cancelled": "warn",
    "timed out": "bad",
    "failed": "bad",
    "lost": "bad",
}
"""The look of each state, of jobs, workers and the server."""


def seconds(value: float | None) -> str:
    """A time for people; a dash if it is None."""
    return NONE if value is None else show_seconds(value)


def size(value: float | None) -> str:
    """A number of bytes for people; a dash if it is None or 0."""
    return show_bytes(value) if value else NONE


def number(value: float | None) -> str:
    """A number for people; a dash if it is None."""
    if value is None:
        return NONE
    return f"{value:,.1f}" if value % 1 else f"{value:,.0f}"


def moment(unix: float | None) -> Tag | str:
    """A wall-clock time in UTC, with the day if it is not of the last hours; a dash if None."""
    if unix is None:
        return NONE
    form = "%H:%M:%S" if time.time() - unix < RECENT else "%m-%d %H:%M"
    exact = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))
    return tags.time(datetime=exact, title=exact)(time.strftime(form, time.gmtime(unix)))


def text(value: Any, most: int = MAX_TEXT) -> Tag | str:
    """A text that a peer may have chosen, on one line; a dash if there is none."""
    if value is None or value == "":
        return NONE
    whole = printable(str(value))
    if len(whole) <= most:
        return whole
    return tags.span(title=whole[: 20 * most])(f"{whole[: most - 1]}…")


def text_lines(lines: str) -> str:
    """Lines of a job, without control characters."""
    return printable(lines, keep="\n\t")


def reason(value: str | None) -> Tag | str:
    """The first sentence of an error's text, on one line; the whole text is in its title.

    In the text of a lost job the last output of its worker follows.
    """
    whole = printable(value or "")
    first = whole.partition("; ")[0]
    if first == whole or len(first) > MAX_TEXT:
        return text(whole)
    return tags.span(title=whole[: 20 * MAX_TEXT])(f"{first}…")


def badge(state: str, look: str = "") -> Tag:
    """A state as a coloured word."""
    return tags.span(class_=f"badge {look or _KINDS.get(state, 'calm')}")(state)


def note(words: Any, look: str = "warn", **attributes: Any) -> Tag:
    """A paragraph that stands out."""
    return tags.p(class_=f"note {look}", **attributes)(words)


def table(
    caption: str,
    heads: Sequence[Any],
    rows: Iterable[Tag],
    turn: Callable[[], Deferred[str]],
    empty: str,
    visible: bool = False,
) -> Tag:
    """A table; on a phone it scrolls within its frame.

    :param caption: what it shows.
    :param heads: the head of each column: a text, which begins with ``#`` over numbers, or a tag.
    :param rows: its rows, see `row`.
    :param turn: fires in the reactor's next turn.
    :param empty: what stands in its place if there are no rows.
    :param visible: whether the caption is for everybody, and not only for screen readers.
    """
    heading = [head if isinstance(head, Tag) else column(head) for head in heads]
    first = next(iterator := iter(rows), None)
    if first is None:
        return tags.p(class_="empty")(empty)
    body = in_turns(chain([first], iterator), turn)
    return tags.div(class_="scroll", tabindex="0", role="region", **{"aria-label": caption})(
        tags.table(
            tags.caption(class_="" if visible else "hidden")(caption),
            tags.thead(tags.tr(heading)),
            tags.tbody(body),
        )
    )


def in_turns(
    rows: Iterable[Any], turn: Callable[[], Deferred[str]], at_once: int = ROWS_A_TURN
) -> Any:
    """The rows, or whatever they are, with a pause for the reactor after every few.

    Nothing is made before its turn.
    """
    for count, each in enumerate(rows):
        if count and count % at_once == 0:
            yield turn()
        yield each


def column(title: str, **attributes: str) -> Tag:
    """The head of a column; over numbers if the title begins with ``#``."""
    look = {"class": "number"} if title.startswith("#") else {}
    return tags.th(scope="col", **look, **attributes)(title.removeprefix("#"))


def row(key: str, *cells: Any, look: str = "") -> Tag:
    """A row of a table. The first cell names the row.

    :param key: an id that stays the same when the table is shown anew.
    """
    name, *others = cells
    return tags.tr(id=key, class_=look)(
        tags.th(scope="row")(name),
        [
            each if isinstance(each, Tag) and each.tagName == "td" else tags.td(each)
            for each in others
        ],
    )


def count(value: Any, look: str = "") -> Tag:
    """A cell with a number, set at the right."""
    shown = str(value) if isinstance(value, int) else value
    return tags.td(class_=f"number {look}".strip())(shown)


def facts(pairs: Iterable[tuple[str, Any]]) -> Tag:
    """A list of names and values."""
    return tags.dl(class_="facts")(
        tags.div(tags.dt(name), tags.dd(str(value) if isinstance(value, int) else value))
        for name, value in pairs
    )


def policy_facts(policy: dict[str, Any]) -> list[tuple[str, Any]]:
    """The policy of a command, as names and values for `facts`."""
    shown: list[tuple[str, Any]] = []
    for name, value in policy.items():
        words = {True: "yes", False: "no", None: NONE}
        said = words[value] if isinstance(value, bool) or value is None else text(value)
        if name == "time_limit":
            said = seconds(value)
        shown.append((name.replace("_", " ").capitalize(), said))
    return shown


def gauge(key: str, name: str, value: str, detail: str, values: Iterable[float | None]) -> Tag:
    """One number that matters, with its curve over the last minutes."""
    return tags.div(class_="gauge", id=f"gauge-{key}")(
        tags.h3(name),
        tags.p(class_="value")(value),
        tags.p(class_="detail")(detail),
        graph(values),
    )


def graph(values: Iterable[float | None]) -> Tag:
    """A small curve that is only a picture: the numbers beside it say what it shows."""
    points = _thinned([value or 0.0 for value in values])
    top = max(points, default=0.0) or 1.0
    step = GRAPH_WIDTH / max(len(points) - 1, 1)
    line = " ".join(
        f"{place * step:.0f},{GRAPH_HEIGHT - 1 - value / top * (GRAPH_HEIGHT - 3):.0f}"
        for place, value in enumerate(points)
    )
    return (
        Tag(
            "svg",
            {
                "class": "graph",
                "viewBox": f"0 0 {GRAPH_WIDTH} {GRAPH_HEIGHT}",
                "preserveAspectRatio": "none",
                "aria-hidden": "true",
            },
        )(
            Tag("polygon", {"points": f"0,{GRAPH_HEIGHT} {line} {GRAPH_WIDTH},{GRAPH_HEIGHT}"}),
            Tag("polyline", {"points": line}),
        )
        if points
        else tags.span()
    )


def _thinned(values: list[float]) -> list[float]:
    """At most `GRAPH_POINTS` values: the largest of each group of neighbours."""
    group = -(-len(values) // GRAPH_POINTS) or 1
    return [max(values[start : start + group]) for start in range(0, len(values), group)]
