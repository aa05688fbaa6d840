"""The frame of every page: its head, its navigation, and the region that is kept up to date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.web.error import FlattenerError
from twisted.web.template import Tag, flattenString, tags

from dangad.text import printable

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dangad.operators.interfaces import IOperations
    from dangad.web.address import Address
    from dangad.web.history import History

VIEWS = (
    ("", "Overview"),
    ("jobs", "Jobs"),
    ("commands", "Commands"),
    ("workers", "Workers"),
    ("clients", "Clients"),
)
"""The views of the navigation: the first part of the path, and the title."""
CALLS = (("calls", "Calls"),)
"""The views that are there only if the page may change something."""
CONFIGURATION = "includeIndicatorCSS:false history:false noSwap:[204,304,400,404,500,503]"
"""htmx's configuration: nothing beyond Content-Security-Policy, and errors replace nothing."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a view may look at."""

    operations: IOperations
    """Tells everything that is shown."""
    history: History
    """The last fifteen minutes."""
    address: Address
    """What is asked for."""
    root: str
    """The path before all views."""
    version: str
    """The version of the server."""
    token: str = ""
    """What forms that change something must send; empty if nothing may be changed."""
    oldest: float = 0.0
    """Seconds that the oldest job may wait before the server counts as ill; 0 for any time."""

    def turn(self) -> Deferred[str]:
        """Fires, with nothing, when the next part of the page may be written."""
        turn: Deferred[str] = self.operations.turn()
        return turn


@dataclass(frozen=True, slots=True)
class View:
    """A page, in the two parts that its frame needs."""

    title: str
    """What it shows."""
    live: Any
    """What is kept up to date."""
    still: Any = ""
    """What comes before that, and stays as it is: forms that a person may be filling in.

    It is written once. If it is a generator, updates do not run it.
    """
    below: Any = ""
    """What comes after that, and stays as it is."""
    sample: str = ""
    """The latest sample as JSON, for the curves; empty if there are none."""


class NotThere(LookupError):
    """What is asked for is not there; the text says so in one line."""


async def whole(scene: Scene, view: View, live: bool = True) -> bytes:
    """The whole page.

    :param live: whether the view can be kept up to date.
    """
    return b"<!DOCTYPE html>\n" + await _written(_frame(scene, view, live))


async def fragment(view: View) -> bytes:
    """The part of the page that is kept up to date."""
    return await _written(view.live)


async def _written(what: Any) -> bytes:
    """The HTML; an error does not show the whole page, with its token, in the log."""
    try:
        body: bytes = await flattenString(None, what)
    except FlattenerError as error:
        reason: Exception = error.args[0]
        raise reason from None
    return body


def _frame(scene: Scene, view: View, live: bool) -> Tag:
    root, address, title = scene.root, scene.address, printable(view.title)
    here = address.path[0] if address.path else ""
    stream: dict[str, str] = {}
    if live:
        stream = {
            "hx-sse:connect": address.link(f"{root}/live"),
            "hx-swap": "innerMorph",
            "hx-trigger": "load, every 30s",
            "hx-config": "sse.reconnectMaxDelay:3000",
        }
    return tags.html(lang="en")(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.title(f"{title} · dangad"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.meta(name="htmx-config", content=CONFIGURATION),
            tags.link(rel="icon", href=_static(scene, "dangad.svg"), type="image/svg+xml"),
            tags.link(rel="stylesheet", href=_static(scene, "uPlot.min.css")),
            tags.link(rel="stylesheet", href=_static(scene, "dangad.css")),
            [
                tags.script(src=_static(scene, name), defer="defer")
                for name in ("htmx.min.js", "hx-sse.min.js", "uPlot.iife.min.js", "curves.js")
            ],
        ),
        tags.body(
            tags.a(href="#main", class_="skip")("Skip to the content"),
            tags.header(
                tags.a(href=f"{root}/", class_="brand")(
                    tags.img(src=_static(scene, "dangad.svg"), alt="", width="24", height="24"),
                    "dangad",
                ),
                tags.nav(**{"aria-label": "Views"})(
                    tags.a(
                        href=f"{root}/{name}", **({"aria-current": "page"} if name == here else {})
                    )(view_title)
                    for name, view_title in (*VIEWS, *(CALLS if scene.token else ()))
                ),
            ),
            Tag("main")(id="main", tabindex="-1")(
                tags.h1(title),
                view.still,
                tags.div(id="live", **stream)(view.live),
                view.below,
            ),
            tags.footer(
                tags.p(
                    f"dangad {scene.version}. ",
                    "" if scene.token else "This page changes nothing: see --web-actions. ",
                    [
                        [tags.a(href=f"{root}/{name}")(f"/{name}"), " "]
                        for name in ("status.json", "metrics", "health", "ready")
                    ],
                ),
            ),
        ),
    )


def _static(scene: Scene, name: str) -> str:
    """The URL of a file that comes with dangad; it changes with the version."""
    return f"{scene.root}/static/{name}?{scene.version}"
