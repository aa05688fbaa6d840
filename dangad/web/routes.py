"""What is served under which path.

========================  ==========================================================
``/``, ``/jobs``, ...     pages: see :data:`VIEWS`
``/live/...``             the same, kept up to date by server-sent events
``/status.json``          the status as ``dangad status --json`` shows it
``/history.json``         the last fifteen minutes, for the curves
``/metrics``              for Prometheus
``/health``, ``/ready``   200, or 503 with the reason
``/static/...``           style sheets and scripts
``/do/...``               orders, by POST alone
========================  ==========================================================
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from dangad.errors import DangadError
from dangad.text import printable
from dangad.web import callviews, jobviews, otherviews
from dangad.web.actions import Orders
from dangad.web.address import Address, BadAddress, read_address
from dangad.web.callforms import Typed, read_typed
from dangad.web.health import illness, unreadiness
from dangad.web.layout import NotThere, Scene, View, fragment, whole
from dangad.web.live import Update
from dangad.web.overview import overview
from dangad.web.parts import note
from dangad.web.replies import (
    HEADERS,
    Reply,
    document,
    has_body,
    header,
    is_from_elsewhere,
    is_known_host,
    is_same_origin,
    plain,
    read_form,
    redirect,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.web.server import Request

    from dangad.host.quietlog import QuietLog
    from dangad.operators.interfaces import IOperations
    from dangad.web.history import History
    from dangad.web.live import Live
    from dangad.web.scrapes import Scrapes
    from dangad.web.settings import WebSettings

VIEWS: dict[tuple[str, int], Callable[[Scene], Awaitable[View]]] = {
    ("", 1): overview,
    ("jobs", 1): jobviews.jobs,
    ("jobs", 2): jobviews.job,
    ("commands", 1): otherviews.commands,
    ("commands", 2): otherviews.command,
    ("workers", 1): otherviews.workers,
    ("clients", 1): otherviews.clients,
    ("calls", 1): callviews.calls,
    ("calls", 2): callviews.call,
}
"""The pages, by the first part of the path and the number of its parts."""
STATIC = {
    "curves.js": "text/javascript; charset=utf-8",
    "dangad.css": "text/css; charset=utf-8",
    "dangad.svg": "image/svg+xml",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "hx-sse.min.js": "text/javascript; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
}
"""The files for browsers, each with its type."""
_KEPT = (("Cache-Control", "public, max-age=86400"),)
_READS = (b"GET", b"HEAD")
_PROBES = (["health"], ["ready"])


class Root(Resource):
    """Answers every request."""

    isLeaf = True

    def __init__(
        self,
        operations: IOperations,
        history: History,
        live: Live,
        scrapes: Scrapes,
        settings: WebSettings,
        quiet: QuietLog,
    ) -> None:
        """Read the files for browsers.

        :param operations: tells everything that is shown.
        :param history: the last fifteen minutes.
        :param live: keeps pages up to date.
        :param scrapes: answers those who ask for metrics.
        :param settings: the operator's choices.
        :param quiet: where failures of pages are logged.
        """
        super().__init__()
        self._operations = operations
        self._history = history
        self._live = live
        self._settings = settings
        self._quiet = quiet
        self._scrapes = scrapes
        self._orders = Orders(operations) if settings.actions else None
        self._version = version("dangad")
        folder = files("dangad.web") / "static"
        self._static = {name: (folder / name).read_bytes() for name in STATIC}

    def render(self, request: Request) -> int:
        """Answer, now or soon."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        gone: list[object] = []
        request.notifyFinish().addBoth(gone.append)
        answering = Deferred.fromCoroutine(self._answer(request))

        def send(reply: Reply | None) -> None:
            if reply is not None and not gone:
                reply.send(request)

        def fail(failure: Any) -> None:
            self._quiet.warn("failed page", None, "a page failed", log_failure=failure)
            if not gone and not request.startedWriting:
                plain("The page failed; the server's log says why.", 500).send(request)

        answering.addCallback(send).addErrback(fail)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> Reply | None:
        """The reply; None if the request is answered by a stream."""
        if not is_known_host(request, self._settings.hosts):
            return plain("The page is not known by this name: see --web-host.", 421)
        path = [part.decode("utf-8", "replace") for part in request.postpath or ()]
        prefix = self._settings.prefix.strip("/").split("/") if self._settings.prefix else []
        if prefix and path[: len(prefix)] == prefix:
            path = path[len(prefix) :] or [""]
        if path not in _PROBES and is_from_elsewhere(request):
            return plain("Another site's page asks: follow a link instead.", 403)
        if path[0] == "do":
            return await self._order(request, path)
        if request.method not in _READS:
            return Reply(b"", status=405, headers=(("Allow", "GET, HEAD"),))
        if has_body(request):
            return plain("Only orders have a body.", 400)
        served = self._served(request, path)
        if served is not None:
            return served
        if path == ["metrics"]:
            return await self._scrapes.answer(header(request, b"accept"))
        if path[0] == "live":
            return self._stream(request, path[1:])
        return await self._page(request, path)

    def _served(self, request: Request, path: list[str]) -> Reply | None:
        """The reply to what needs no waiting; None if this is something else."""
        name = path[-1]
        if path == ["static", name] and name in STATIC:
            return Reply(self._static[name], STATIC[name], headers=_KEPT)
        if path == ["status.json"]:
            return document(self._operations.status())
        if path == ["history.json"]:
            return document(self._history.series())
        if path in _PROBES:
            status = self._operations.status()
            why = unreadiness(status)
            if path == ["health"]:
                why = illness(status, self._settings.health_oldest)
            return plain(why or "ok", 503 if why else 200)
        return None

    async def _page(self, request: Request, path: list[str]) -> Reply:
        try:
            scene = self._scene(read_address(path if path != [""] else (), request.args))
            live = (path[0], len(path)) in VIEWS
            return Reply(await whole(scene, await self._view(scene, path), live))
        except BadAddress as error:
            status, said = 400, str(error)
        except NotThere as error:
            status, said = 404, str(error)
        title = "Not found" if status == 404 else "Not valid"
        view = View(title, note(printable(said), "bad"))
        return Reply(await whole(self._scene(Address()), view, live=False), status=status)

    def _stream(self, request: Request, path: list[str]) -> Reply | None:
        """Keep the page up to date; a reply only if this cannot be done."""
        path = path or [""]
        try:
            scene = self._scene(read_address(path if path != [""] else (), request.args))
        except BadAddress as error:
            return plain(str(error), 400)
        if (path[0], len(path)) not in VIEWS:
            return plain("there is no such page", 404)
        if request.method == b"HEAD":
            return plain("")

        async def render() -> Update:
            try:
                view = await self._view(scene, path)
            except (BadAddress, NotThere) as error:
                view = View("", note(printable(str(error)), "bad"))
            return Update.of(await fragment(view), view.sample)

        if not self._live.watch(request, scene.address.link(""), render):
            return plain("too many pages are open", 503)
        return None

    async def _order(self, request: Request, path: list[str]) -> Reply:
        """Carry out an order, and send the browser to the page of its outcome."""
        orders = self._orders
        if orders is None:
            return plain("This page changes nothing: see --web-actions.", 403)
        if request.method != b"POST":
            return Reply(b"", status=405, headers=(("Allow", "POST"),))
        if not is_same_origin(request):
            return plain("Orders are accepted from this server's own page alone.", 403)
        if len(path) != 2:
            return plain("there is no such order", 404)
        fields = read_form(request)
        if fields is None:
            return plain("An order is a form of this page, and no other body.", 415)
        token = fields.get(b"token", [b""])[-1].decode("ascii", "replace")
        if not orders.knows(token):
            return plain("The server was started anew: load the page again.", 403)
        back = fields.get(b"back", [b""])[-1].decode("utf-8", "replace")
        root = self._settings.prefix
        if not back.startswith(f"{root}/") or back.startswith("//") or "\\" in back:
            back = f"{root}/"
        try:
            if path[1] == "call":
                return await self._call(orders, read_typed(fields))
            return redirect(f"{root}/{await orders.give(path[1], fields, back)}")
        except NotThere as error:
            return plain(str(error), 404)

    async def _call(self, orders: Orders, typed: Typed) -> Reply:
        """Call a command; if this is refused, show the form again."""
        try:
            return redirect(f"{self._settings.prefix}/{await orders.call(typed)}")
        except (DangadError, ValueError) as error:
            scene = self._scene(Address(("commands", typed.command)))
            view = callviews.refused(scene, typed, str(error))
            return Reply(await whole(scene, view, live=False), status=422)

    async def _view(self, scene: Scene, path: list[str]) -> View:
        show = VIEWS.get((path[0], len(path)))
        if show is None and self._orders and path[0] == "outcomes" and len(path) == 2:
            show = self._orders.show
        if show is None:
            raise NotThere("there is no such page")
        return await show(scene)

    def _scene(self, address: Address) -> Scene:
        return Scene(
            self._operations,
            self._history,
            address,
            self._settings.prefix,
            self._version,
            "" if self._orders is None else self._orders.token,
            self._settings.health_oldest,
        )
