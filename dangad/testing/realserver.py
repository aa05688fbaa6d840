"""A real server for a test: its own socket, real worker processes, the test's own reactor.

:func:`serve` makes one. Importing this module installs no reactor; the parts that install one are
imported when a server is made.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from dangad import client
from dangad.pool.launch import BrokenJobs
from dangad.testing.serveroptions import read_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType
    from typing import Literal, Self

    from twisted.logger import LogEvent

    from dangad.client import Client
    from dangad.limits import Limits
    from dangad.pool.processes import WorkerPool
    from dangad.service import DangadService
    from dangad.testing.serveroptions import ServerOptions

MAX_OUTPUT = 1000
"""How many of the last lines of the workers' output are kept."""


def serve(
    *jobs: str,
    tcp: bool = False,
    directory: str | None = None,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> RunningServer:
    """A server of these job modules, to be started: by ``async with``, or by its `start`.

    The workers can import everything that the test process can import. But they are processes of
    their own: patches and settings of a test's own process do not reach them.

    :param jobs: names of modules with job types.
    :param tcp: whether to listen on a free port of 127.0.0.1 as well.
    :param directory: short for ``worker_directory``: the workers' working directory.
    :param environment: short for ``worker_env``: variables for the workers, besides those of the
        test.
    :param options: options of ``twistd dangad``, each named as there, with ``_`` for ``-``: any of
        :class:`dangad.limits.Limits` and of
        :class:`dangad.testing.serveroptions.ServerOptions`. By default there is one worker at
        first, and there are two at most.
    :raises TypeError: there is no such option.
    :raises ValueError: an option's value is not valid.
    """
    if directory is not None:
        options.setdefault("worker_directory", directory)
    if environment is not None:
        options.setdefault("worker_env", environment)
    return RunningServer(jobs, tcp, *read_options(options))


def server_fixture(
    *jobs: str, scope: Literal["function", "module"] = "function", **options: Any
) -> Any:
    """A pytest fixture that is a started :class:`RunningServer`; needs pytest-twisted.

    In a test module or a conftest::

        server = dangad.testing.server_fixture("wordcount.jobs", max_workers=2)


        @pytest_twisted.ensureDeferred
        async def test_count(server):
            client = await server.connect()
            ...

    In one run of pytest, use pytest-twisted for all asynchronous tests or for none: after its first
    test, trial's ``TestCase`` cannot run asynchronous tests any more, whatever they test.

    :param jobs: names of modules with job types.
    :param scope: whether each test function gets a server of its own, or each module.
    :param options: any that :func:`serve` takes.
    """
    import pytest_twisted  # type: ignore[import-untyped]

    async def server() -> AsyncIterator[RunningServer]:
        async with serve(*jobs, **options) as running:
            yield running

    server.__doc__ = f"A server of {', '.join(jobs)}."
    return pytest_twisted.async_yield_fixture(scope=scope)(server)


class RunningServer:
    """A server in the test's process, with workers in processes of their own.

    Either ``async with serve("wordcount.jobs") as server: ...``, or for trial::

        def setUp(self):
            self.server = dangad.testing.serve("wordcount.jobs")
            self.addCleanup(self.server.stop)
            return self.server.start()

    What the workers print, with the tracebacks of jobs that fail, goes to the test's stderr.

    :ivar output: the latest lines that the workers and their template printed. If the job modules
        cannot be preloaded, though they are to be, a line says why.
    """

    def __init__(
        self,
        jobs: tuple[str, ...],
        tcp: bool,
        limits: Limits,
        options: ServerOptions,
    ) -> None:
        """Remember what to start; see :func:`serve`."""
        self.output: deque[str] = deque(maxlen=MAX_OUTPUT)
        self._jobs = jobs
        self._tcp = tcp
        self._limits = limits
        self._options = options
        #: Everything that `stop` has to undo.
        self._leftovers = ExitStack()
        #: The directory of its socket.
        self._folder = ""
        #: The server, from start to stop.
        self._service: DangadService | None = None
        #: The addresses on which it listens.
        self._addresses: list[Any] = []
        #: The clients that `connect` has made.
        self._clients: list[Client] = []
        #: Fires when the first worker is ready; None before the start and afterwards.
        self._starting: Deferred[None] | None = None

    def start(self) -> Deferred[Self]:
        """Start the server, and its first worker.

        Fires with the server itself when the worker is ready for jobs. Fails with
        :class:`dangad.pool.launch.BrokenJobs` if the worker does not start (it says why, with the
        traceback), or with :class:`dangad.server.listening.CannotListen`. Then nothing is left to
        stop. Cancelling it stops the server.
        """
        return Deferred.fromCoroutine(self._start())

    def stop(self) -> Deferred[None]:
        """Close the clients, and stop the server and its workers.

        Fires with None when no process, socket or file is left; at once if the server is not
        running, or is being stopped already. Running jobs are cancelled with their clients, except
        jobs of a type that finishes on disconnect, which have `drain` seconds. Cancelling it does
        not keep the server from stopping.
        """
        stopped: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._stop()).chainDeferred(stopped)
        return stopped

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def endpoint(self) -> str:
        """The endpoint for clients, as a Twisted description."""
        return f"unix:{quoteStringArgument(self._socket)}"

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 on which a server with ``tcp=True`` also listens."""
        if len(self._addresses) < 2:
            raise RuntimeError("the server has no port: start serve(..., tcp=True)")
        port: int = self._addresses[1].port
        return port

    @property
    def service(self) -> DangadService:
        """The server itself, for tests that look inside.

        :raises RuntimeError: the server is not running.
        """
        if self._service is None:
            raise RuntimeError("the server is not running")
        return self._service

    def connect(self, *, max_payload: int = client.MAX_PAYLOAD) -> Deferred[Client]:
        """A new client of this server, which :meth:`stop` closes; see :func:`dangad.connect`."""
        from twisted.internet import reactor

        connecting = client.connect(reactor, self.endpoint, max_payload=max_payload)
        return connecting.addCallback(self._remember)

    @property
    def _socket(self) -> str:
        if not self._folder:
            raise RuntimeError("the server is not running")
        return os.path.join(self._folder, "dangad.sock")

    def _remember(self, connected: Client) -> Client:
        self._clients.append(connected)
        return connected

    async def _start(self) -> Self:
        from twisted.internet import reactor

        from dangad.service import DangadService

        if self._service is not None:
            raise RuntimeError("the server has been started already")
        self._folder = self._leftovers.enter_context(TemporaryDirectory(prefix="dangad-"))
        endpoints = [self.endpoint]
        if self._tcp:
            endpoints.append("tcp:0:interface=127.0.0.1")
        settings = self._options.worker_settings(self._jobs, self._limits)
        self.output.clear()
        service = self._service = DangadService(
            reactor,
            endpoints,
            settings,
            self._limits,
            control=self._options.control,
            log_jobs=self._options.log_jobs,
        )
        log = _WorkerLog(service.pool, self.output, self._worker_died)
        globalLogPublisher.addObserver(log)
        self._leftovers.callback(globalLogPublisher.removeObserver, log)
        try:
            service.startService()
            self._addresses = service.addresses
            started = self._starting = Deferred()
            catalogue = service.dispatcher.describe(by_server=True)
            catalogue.addCallbacks(self._has_worker, self._has_no_worker)
            await started
        except Exception:
            await self.stop()
            raise
        return self

    async def _stop(self) -> None:
        service, self._service = self._service, None
        if service is None:
            return
        from twisted.internet import reactor

        clients, self._clients = self._clients, []
        await DeferredList([client.close() for client in clients])
        await service.stopService()
        # The caller is in the middle of handling the last worker's end: without this turn,
        # pytest-twisted would begin the next test inside it.
        await deferLater(reactor, 0)
        self._leftovers.close()
        self._folder = ""
        self._addresses = []

    def _has_worker(self, _: object) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.callback(None)

    def _has_no_worker(self, failure: Failure) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.errback(failure)

    def _worker_died(self, how: str) -> None:
        """A worker is dead. If no worker has ever been ready, give up the start."""
        from twisted.internet import reactor

        failure = Failure(BrokenJobs(f"no worker starts: {how}", "\n".join(self.output)))
        if self._starting is not None:  # wait: the pool is in the middle of handling the death
            reactor.callLater(0, self._has_no_worker, failure)


@implementer(ILogObserver)
class _WorkerLog:
    """Picks from the log the lines about one server's workers and templates, by their pids."""

    def __init__(self, pool: WorkerPool, output: deque[str], died: Callable[[str], None]) -> None:
        self._pool = pool
        self._output = output
        self._died = died

    def __call__(self, event: LogEvent) -> None:
        pid = event.get("worker", event.get("pid"))
        if pid is None or pid not in {
            *self._pool.pids,
            *(each.pid for each in self._pool.processes),
        }:
            return
        line = event["line"] if "line" in event else formatEvent(event) if "why" in event else None
        if line is not None:
            self._output.append(line)
            sys.stderr.write(f"{line}\n")
        elif "how" in event:
            self._died(event["how"])
