"""A real server in the process of the tests: workers in processes, clients over a UNIX socket."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.protocols import amp

import dangad
from dangad.client import Client
from dangad.limits import Limits
from dangad.pool.launch import WorkerSettings
from dangad.service import DangadService
from tests.starting import START

reactor: Any = _reactor
Fixture = Callable[..., AsyncIterator[Any]]
async_fixture: Callable[[Fixture], Fixture] = pytest_twisted.async_yield_fixture

PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""


async def until(condition: Any) -> Any:
    """The condition's value, as soon as it is true; looks often, and gives up in the end."""
    for _ in range(int(PATIENCE / 0.01)):
        value = condition()
        if value:
            return value
        await deferLater(reactor, 0.01)
    raise AssertionError(f"{condition} did not come true")


def alive(pid: int) -> bool:
    """Whether a process of that id exists and is no zombie."""
    return _state(pid) not in ("", "Z")


def is_frozen(pid: int) -> bool:
    """Whether the process has stopped, as on SIGSTOP."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    """The letter for a process's state, see proc_pid_stat(5); nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before read
        return ""


class RealServer:
    """A server in a folder of its own, its clients, and what is logged while it runs."""

    def __init__(self) -> None:
        """Make the folder; see :meth:`start`."""
        self._folder = tempfile.TemporaryDirectory()
        self.folder = self._folder.name
        self.socket = self.path("socket")
        self.events: list[LogEvent] = []
        self.connections: list[Any] = []
        self.clients: list[Client] = []
        self._observer = cast("ILogObserver", self.events.append)

    def start(
        self, *jobs: str, tcp: bool = False, worker: dict[str, Any] | None = None, **limits: Any
    ) -> None:
        """Begin to note log events, and start the server.

        :param jobs: the job modules; odd ones by default.
        :param tcp: whether it listens on a port, too.
        :param worker: fields of :class:`WorkerSettings`.
        :param limits: fields of :class:`Limits`.
        """
        self.limits = Limits(**{"min_workers": 1, "max_workers": 2, "drain": 5.0} | limits)
        settings = WorkerSettings(
            jobs or ("tests.oddjobs",),
            self.limits.max_payload,
            **{"start": START, **(worker or {})},
        )
        endpoints = [f"unix:{self.socket}", *["tcp:0:interface=127.0.0.1"][: int(tcp)]]
        self.service = DangadService(reactor, endpoints, settings, self.limits)
        globalLogPublisher.addObserver(self._observer)
        self.service.startService()

    async def stop(self) -> None:
        """Stop the server, close the connections, and see that no worker is left."""
        await deferLater(reactor, 0)  # what has ended the test may be in the middle of a call
        pids = self.pids()
        if self.service.running:
            await self.service.stopService()
        await self._disconnect()
        globalLogPublisher.removeObserver(self._observer)
        self._folder.cleanup()
        assert not [pid for pid in pids if alive(pid)]

    async def rest(self) -> None:
        """Between two tests: close the connections, wait for the end of all jobs, and forget."""
        await deferLater(reactor, 0)  # as above
        await self._disconnect()
        dispatcher = self.service.dispatcher
        await until(lambda: not dispatcher.running and not dispatcher.waiting)
        self.events.clear()

    async def _disconnect(self) -> None:
        for client in self.clients:
            await client.close()
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.abortConnection()
            await until(lambda connection=connection: connection.transport is None)
        self.clients.clear()
        self.connections.clear()

    async def connect(self, protocol: type[amp.AMP] = amp.AMP) -> Any:
        """A new connection of stock AMP."""
        endpoint = UNIXClientEndpoint(reactor, self.socket)
        self.connections.append(await connectProtocol(endpoint, protocol()))
        return self.connections[-1]

    async def client(self) -> Client:
        """A new client of dangad's own."""
        self.clients.append(await dangad.connect(reactor, f"unix:{self.socket}"))
        return self.clients[-1]

    def path(self, name: str) -> str:
        """A path in the folder."""
        return os.path.join(self.folder, name)

    def pids(self) -> list[int]:
        """The processes of the pool."""
        return [link.pid for link in self.service.pool.processes]

    def workers(self, state: str) -> list[int]:
        """The pids of the workers in that state."""
        found = self.service.operations.workers()
        return [worker["pid"] for worker in found if worker["state"] == state]

    def paused(self) -> list[int]:
        """The pids of the workers that wait because their client does not read."""
        return [link.pid for link in self.service.pool.processes if link._paused]

    def lines(self) -> list[tuple[int, int, str]]:
        """What workers printed, as it was logged: pid, job, line."""
        return [
            (event["worker"], event["job"], event["line"])
            for event in self.events
            if "line" in event
        ]

    def logged(self, namespace: str) -> str:
        """The log events of one module, as lines of text."""
        return "\n".join(
            event["log_format"].format(**event)
            for event in self.events
            if event.get("log_namespace") == namespace and event.get("log_format")
        )


def shared_server(*jobs: str, **options: Any) -> Any:
    """A fixture: one server for all tests of a module, each of which gets it as `server`."""

    async def one() -> AsyncIterator[RealServer]:
        server = RealServer()
        server.start(*jobs, **options)
        yield server
        await server.stop()

    return pytest_twisted.async_yield_fixture(scope="module")(one)


def touch(path: str) -> None:
    """Make the file for which somebody waits."""
    with open(path, "w"):
        pass
