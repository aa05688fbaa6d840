"""A test case with a real server: workers in processes, clients over a UNIX socket."""

import os
import tempfile
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.protocols import amp
from twisted.trial.unittest import TestCase

from dangad.limits import Limits
from dangad.pool.launch import WorkerSettings
from dangad.service import DangadService

reactor: Any = _reactor

PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""


async def until(condition: Any) -> Any:
    """The condition's value, as soon as it is true; looks often, and gives up in the end."""
    for _ in range(int(PATIENCE / 0.01)):
        value = condition()
        if value:
            return value
        await task.deferLater(reactor, 0.01)
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


class RealServerCase(TestCase):
    """Starts a server before each test, and sees that nothing of it is left afterwards."""

    timeout = 90
    jobs: tuple[str, ...] = ("tests.oddjobs",)
    protocol: type[amp.AMP] = amp.AMP
    limits = Limits(min_workers=1, max_workers=2, drain=5.0)

    def setUp(self) -> None:
        """Begin to note log events, and start the server."""
        super().setUp()
        self.events: list[LogEvent] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.connections: list[Any] = []
        self.start(self.settings())

    def settings(self) -> WorkerSettings:
        """What the workers are given."""
        return WorkerSettings(self.jobs, self.limits.max_payload)

    def start(self, settings: WorkerSettings) -> None:
        """Start a server, to be stopped at the end of the test."""
        self.socket = os.path.join(self.folder, "socket")
        self.service = DangadService(reactor, [f"unix:{self.socket}"], settings, self.limits)
        self.service.startService()
        self.addCleanup(self.stop)

    def stop(self) -> Deferred[None]:
        """Stop the server and close the connections."""

        async def stop() -> None:
            pids = self.pids()
            await self.service.stopService()
            for connection in self.connections:
                if connection.transport is not None:
                    connection.transport.abortConnection()
                await until(lambda connection=connection: connection.transport is None)
            assert not [pid for pid in pids if alive(pid)]

        if not self.service.running:
            return Deferred.fromCoroutine(_nothing())
        return Deferred.fromCoroutine(stop())

    async def connect(self) -> Any:
        """A new connection of stock AMP."""
        connection = await connectProtocol(
            UNIXClientEndpoint(reactor, self.socket), self.protocol()
        )
        self.connections.append(connection)
        return connection

    def pids(self) -> list[int]:
        """The processes of the pool."""
        return [link.pid for link in self.service.pool.processes]

    def lines(self) -> list[tuple[int, int, str]]:
        """What workers printed, as it was logged: pid, job, line."""
        return [
            (event["pid"], event["job"], event["line"]) for event in self.events if "line" in event
        ]

    def logged(self, namespace: str) -> list[str]:
        """The log events of one module, as text."""
        return [
            event["log_format"].format(**event)
            for event in self.events
            if event.get("log_namespace") == namespace and event.get("log_format")
        ]


async def _nothing() -> None:
    """Do nothing, asynchronously."""
