"""The life of a job as a drawing: how long it waited and ran, from acceptance to its end."""

from __future__ import annotations

import time
from typing import Any

from twisted.web.template import Tag, tags

from dangad.web.parts import seconds

WIDTH, HEIGHT = 1000, 46
"""The size of the drawing, in its own units."""
LEAST = 4
"""The width of the shortest part, so that it can be seen."""


def timeline(found: dict[str, Any]) -> Any:
    """The drawing of a job, with a list of the same for screen readers.

    :param found: what ``IOperations.job`` tells.
    """
    begin = found["accepted"]
    if begin is None:
        return ""
    end = found["ended"] or max(time.time(), begin)
    parts = _parts(found, end)
    whole = max(end - begin, 1e-9)
    drawn: list[Tag] = []
    place = 0.0
    for kind, length in parts:
        width = max(length / whole * (WIDTH - LEAST * len(parts)), 0) + LEAST
        box = Tag(
            "rect",
            {
                "class": _look(kind),
                "x": f"{place:.1f}",
                "y": "6",
                "width": f"{width:.1f}",
                "height": str(HEIGHT - 12),
                "rx": "3",
            },
        )
        drawn.append(box(Tag("title")(_said(kind, length))))
        place += width
    drawing = Tag(
        "svg",
        {
            "class": "timeline",
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "preserveAspectRatio": "none",
            "aria-hidden": "true",
        },
    )(drawn)
    legend = tags.ol(class_="legend")(
        tags.li(class_=_look(kind))(_said(kind, length)) for kind, length in parts
    )
    return tags.section(id="timeline", **{"aria-label": "Its life"})(drawing, legend)


def _parts(found: dict[str, Any], end: float) -> list[tuple[str, float]]:
    """What the job did, and for how long, in order. The death of its worker takes no time."""
    starts = [each["started"] for each in found["attempts"] if each["started"] is not None]
    if found["started"] is not None and found["started"] not in starts:
        starts.append(found["started"])
    if not starts:
        return [("waited", end - found["accepted"])]
    parts = [("waited", max(starts[0] - found["accepted"], 0.0))]
    dead = [each["worker"] for each in found["attempts"]]
    if found["state"] == "lost":
        dead.append(found["worker"])
    for place, (start, after) in enumerate(zip(starts, [*starts[1:], end], strict=True)):
        name = "ran" if len(starts) == 1 else f"ran attempt {place + 1}:"
        parts.append((name, max(after - start, 0.0)))
        if place < len(dead):
            parts.append((f"died: worker {dead[place]}", 0.0))
    return parts


def _said(kind: str, length: float) -> str:
    """A part in words."""
    return kind if kind.startswith("died") else f"{kind} {seconds(length)}"


def _look(kind: str) -> str:
    """The class of a part."""
    return kind.split()[0].rstrip(":")
