"""A load of many kinds of jobs for a real server, under kills, cancels and disconnects.

The server is a process of its own, so that its descriptors and its children can be counted.
What clients see goes into a :class:`tests.history.History`; the workers write down their part
by :mod:`tests.historyjobs`.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from dangad import commands, wire
from dangad.worker.jobtypes import find_job_types
from tests import historyjobs as jobs
from tests.history import (
    Answer,
    Closed,
    History,
    Killed,
    Noticed,
    Reconciliation,
    Report,
    Request,
    Worker,
    read_workers,
)

ROOT = Path(__file__).parent.parent
MIN_WORKERS = 2
PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""
NOTICE_PINGS = 3
"""Pings one after the other, by whose answers the server has read the end of a connection."""

_KINDS: tuple[tuple[float, type[jobs.Quick], tuple[str, ...], float], ...] = (
    (60, jobs.Quick, ("live",), 0.0),
    (16, jobs.Quick, ("live", "live", "busy", "clean up", "declared", "undeclared"), 0.02),
    (2, jobs.Quick, ("live", "clean up"), 0.4),
    (15, jobs.Retried, ("live",), 0.01),
    (1.5, jobs.Retried, ("die once", "die once", "die once", "die twice", "kill"), 0.005),
    (5, jobs.Fragile, ("live",), 0.01),
    (0.7, jobs.Fragile, ("kill", "exit 0", "exit 3", "segfault"), 0.005),
    (0.1, jobs.Doomed, ("kill",), 0.0),
    (4, jobs.Limited, ("live", "busy", "clean up"), 0.05),
    (0.5, jobs.Limited, ("live", "busy", "clean up"), 0.6),
    (0.1, jobs.Limited, ("swallow",), 3.0),
    (6, jobs.Alone, ("live", "busy"), 0.01),
    (6, jobs.Pair, ("live", "declared"), 0.01),
    (3, jobs.Finishing, ("live",), 0.1),
    (4, jobs.Parts, ("live",), 0.01),
)
"""What clients ask for: how often, of which type, to do what, for how long at most."""


class LoggingClient(Protocol):
    """A connection that writes down all that it sends and receives, with the time."""

    def __init__(self, load: "Load", number: int) -> None:
        self.number = number
        self.waiting: dict[str, Deferred[None]] = {}
        self.tags: list[str] = []
        self.closed: Deferred[None] = Deferred()
        self._load = load
        self._reader = wire.BoxReader(2**20, (wire.ANSWER, wire.ERROR, wire.COMMAND))
        self._closing = False

    def send(
        self,
        command: type[amp.Command],
        arguments: dict[str, Any],
        *,
        keys: dict[bytes, bytes] | None = None,
    ) -> Deferred[None]:
        """Ask for something; fires when it is answered, whatever the answer, or never."""
        keys = keys or {}
        tag = f"{len(self.tags) + 1}"
        self.tags.append(tag)
        box = command.makeArguments(arguments, None)
        box |= {wire.ASK: tag.encode(), wire.COMMAND: command.commandName} | keys
        deadline = keys.get(wire.DEADLINE)
        asked = {wire.PROGRESS: "Progress", wire.CHUNKS: "Chunk"}
        request = Request(
            time.monotonic(),
            self.number,
            tag,
            command.commandName.decode(),
            arguments.get("name", ""),
            float(deadline) if deadline is not None else None,
            frozenset(kind for key, kind in asked.items() if key in keys),
            arguments.get("tag", b"").decode(),
        )
        self._load.events.append(request)
        self.waiting[tag] = Deferred()
        assert self.transport is not None
        self.transport.write(wire.pack(box.items()))
        return self.waiting[tag]

    def is_answered(self) -> bool:
        """Whether all that it has asked for is answered."""
        return not self.waiting

    def close(self, at_once: bool) -> None:
        """Close the connection, whatever is still to come."""
        self._load.events.append(Closed(time.monotonic(), self.number))
        self._closing = True
        assert self.transport is not None
        if at_once:
            self.transport.abortConnection()  # type: ignore[attr-defined]
        else:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Write down what has come; not after the end, of which the server knows nothing yet."""
        now = time.monotonic()
        self._reader.feed(data)
        while (box := self._reader.next()) is not None and not self._closing:
            assert box.raw is not None
            self._box_received(now, wire.unpack(box.raw))

    def _box_received(self, now: float, strings: dict[bytes, bytes]) -> None:
        if wire.COMMAND in strings:
            kind = strings[wire.COMMAND].decode().removeprefix("dangad.")
            number = int(strings.get(b"data", b"0"))
            report = Report(now, self.number, strings[b"tag"].decode(), kind, number)
            self._load.events.append(report)
            return
        tag = strings.get(wire.ANSWER, strings.get(wire.ERROR, b"")).decode()
        code = strings.get(wire.ERROR_CODE, b"").decode()
        text = strings.get(wire.ERROR_DESCRIPTION, strings.get(b"token", b"")).decode()
        attempt = int(strings.get(b"attempt", b"0"))
        self._load.events.append(Answer(now, self.number, tag, code, text, attempt))
        if tag in self.waiting:
            self.waiting.pop(tag).callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Write down the end, if it was the server's."""
        if not self._closing:
            stopping = self._load.stopping
            self._load.events.append(Closed(time.monotonic(), self.number, stopping))
        self._closing = True
        self.closed.callback(None)


class Load:
    """One run: a server, the clients that use it, and what they saw.

    All mutable state: `events`, in the order in which they were seen; `kills`; `stopping`,
    whether the server was told to stop; `_server`; how many connections and jobs there were.
    """

    def __init__(
        self, reactor: Any, folder: str, seed: int, seconds: float, max_workers: int
    ) -> None:
        """Prepare a run of `seconds` in an empty folder; `seed` is what chance begins with."""
        self.events: list[Any] = []
        self.kills = 0
        self.jobs = 0
        self.stopping = False
        self._reactor = reactor
        self._folder = folder
        self._seed = seed
        self._max_workers = max_workers
        self._end = reactor.seconds() + seconds
        self._connections = 0
        self._server: subprocess.Popen[bytes] | None = None

    async def run(self, clients: int = 5) -> None:
        """Load the server until the time is over, and have it stop.

        :raises AssertionError: the server did not end as it began, or something hung.
        """
        self._start()
        try:
            control = await self._connect()
            await control.send(commands.Describe, {})
            await self._until("the pool", self._has_booted)
            for _ in range(NOTICE_PINGS):
                await control.send(commands.Ping, {})
            descriptors = self._descriptors()
            stories = [self._client(control, number) for number in range(clients)]
            stories += [self._killer(), self._burst()]
            running = [Deferred.fromCoroutine(story) for story in stories]
            try:
                await gatherResults(running, consumeErrors=True)
            except FirstError as error:
                error.subFailure.raiseException()
            await self._until(
                f"the pool and the descriptors of the beginning, {descriptors}",
                lambda: (len(self.workers()), self._descriptors()) == (MIN_WORKERS, descriptors),
                lambda: f"{self.workers()}, {self._descriptors()}",
            )
            await self._stop(control)
        finally:
            self._kill_server()
        assert "Unhandled Error" not in Path(self._folder, "log").read_text(), "see the log"

    def history(self) -> History:
        """What was written down, so far."""
        policies = {
            name.decode(): job_type.policy
            for name, job_type in find_job_types(["tests.historyjobs"]).items()
        }
        return History(policies, list(self.events), read_workers(self._folder))

    def workers(self) -> list[int]:
        """The pids of the server's workers, of which none is a zombie."""
        pid = self._pid
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [child for child in map(int, file.read().split()) if _is_worker(child)]

    def _has_booted(self) -> bool:
        """Whether as many workers as live always have begun to import their jobs."""
        booted = {worker.pid for worker in read_workers(self._folder) if worker.lines}
        return len(booted.intersection(self.workers())) == MIN_WORKERS

    # The server.

    @property
    def _pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def _start(self) -> None:
        with open(f"{self._folder}/log", "wb") as log:
            self._server = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                    *("--nodaemon", "--pidfile=", "dangad", "--jobs", "tests.historyjobs"),
                    *("--listen", f"unix:{self._folder}/socket", "--max-queued", "150"),
                    *("--min-workers", str(MIN_WORKERS), "--max-workers", str(self._max_workers)),
                    *("--worker-env", f"DANGAD_HISTORY={self._folder}"),
                ],
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _kill_server(self) -> None:
        if self._server is not None:
            if self._server.poll() is None:
                self._server.kill()
            self._server.wait()

    async def _stop(self, control: LoggingClient) -> None:
        """Have the server stop in the middle of work, and see that it leaves nothing behind."""
        last = await self._connect()
        chance = random.Random(f"{self._seed}/stop")
        for _ in range(30):
            self._ask(last, chance, *_KINDS[chance.randrange(2)][1:])
        await control.send(commands.Ping, {})
        self.stopping = True
        os.kill(self._pid, signal.SIGTERM)
        for _ in range(30):
            self._ask(last, chance, *_KINDS[0][1:])
        await last.closed
        await control.closed
        server = self._server
        assert server is not None
        await self._until("the server's end", lambda: server.poll() is not None)
        left = [worker.pid for worker in read_workers(self._folder) if _exists(worker.pid)]
        assert not left, f"workers {left} were left behind"

    def _descriptors(self) -> dict[str, int]:
        """How many descriptors the server has, by kind."""
        kinds: Counter[str] = Counter()
        folder = f"/proc/{self._pid}/fd"
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                kinds[os.readlink(f"{folder}/{name}").partition(":")[0]] += 1
        return dict(sorted(kinds.items()))

    # The clients.

    async def _connect(self) -> LoggingClient:
        self._connections += 1
        endpoint = UNIXClientEndpoint(self._reactor, f"{self._folder}/socket")
        client = LoggingClient(self, self._connections)
        for _ in range(int(PATIENCE / 0.05)):
            with contextlib.suppress(Exception):
                await connectProtocol(endpoint, client)
                return client
            await self._pause(0.05)
        raise AssertionError("the server does not listen")

    async def _client(self, control: LoggingClient, number: int) -> None:
        """Ask for one job after the other, with many at once, over many connections."""
        chance = random.Random(f"{self._seed}/client {number}")
        weights = [kind[0] for kind in _KINDS]
        while self._goes_on():
            client = await self._connect()
            window = chance.choice((1, 4, 15, 40))
            for _ in range(chance.randrange(5, 150)):
                if not self._goes_on():
                    break
                [kind] = chance.choices(_KINDS, weights)
                self._ask(client, chance, *kind[1:])
                if chance.random() < 0.08:
                    self._cancel(client, chance)
                if chance.random() < 0.3:
                    await self._pause(chance.random() * 0.02)
                while len(client.waiting) > window:
                    await self._pause(0.002)
            if chance.random() < 0.3:
                await self._until("all answers", client.is_answered)
            if self._goes_on():
                client.close(at_once=chance.random() < 0.5)
                await client.closed
                for _ in range(NOTICE_PINGS):
                    await control.send(commands.Ping, {})
                self.events.append(Noticed(time.monotonic(), client.number))
            else:
                await self._until("the last answers", client.is_answered)
                client.close(at_once=False)
                await client.closed

    def _ask(
        self,
        client: LoggingClient,
        chance: random.Random,
        command: type[jobs.Quick],
        deeds: tuple[str, ...],
        seconds: float,
    ) -> None:
        """Ask for one job."""
        self.jobs += 1
        keys: dict[bytes, bytes] = {}
        if chance.random() < 0.3:
            keys[wire.PRIORITY] = chance.choice((b"high", b"low"))
        if chance.random() < 0.05:
            keys[wire.DEADLINE] = b"%.3f" % (chance.random() * 0.5)
        if chance.random() < 0.1:
            keys[wire.PROGRESS] = b"1"
        if command is jobs.Parts:
            keys[wire.CHUNKS] = b"1"
        if "swallow" not in deeds:
            seconds *= chance.random()
        arguments = {"name": f"job-{self.jobs}", "deed": chance.choice(deeds), "seconds": seconds}
        client.send(command, arguments, keys=keys)

    def _cancel(self, client: LoggingClient, chance: random.Random) -> None:
        """Cancel a request of late, which may have been answered, or what never was one."""
        tag = chance.choice([*client.tags[-5:], *client.waiting, "nothing"])
        for _ in range(chance.choice((1, 1, 2))):
            client.send(commands.Cancel, {"tag": tag.encode()})

    async def _burst(self) -> None:
        """Ask for more than the server holds, now and then."""
        chance = random.Random(f"{self._seed}/burst")
        client = await self._connect()
        while self._goes_on():
            for _ in range(250):
                self._ask(client, chance, *_KINDS[chance.choice((0, 1, 3, 11))][1:])
            await self._until("the burst's answers", client.is_answered)
            await self._pause(chance.random() * 10)
        client.close(at_once=True)
        await client.closed

    async def _killer(self) -> None:
        """Kill workers, in whatever they are doing."""
        chance = random.Random(f"{self._seed}/kill")
        while self._goes_on():
            await self._pause(chance.random() * 1.5)
            if workers := self.workers():
                pid = chance.choice(workers)
                self.events.append(Killed(time.monotonic(), pid))
                self.kills += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _goes_on(self) -> bool:
        return bool(self._reactor.seconds() < self._end)

    def _pause(self, seconds: float) -> Coroutine[Any, Any, None]:
        async def pause() -> None:
            await deferLater(self._reactor, seconds)

        return pause()

    async def _until(
        self, what: str, condition: Callable[[], bool], found: Callable[[], str] = str
    ) -> None:
        """Look often whether it is so, and give up in the end, and say what was found instead."""
        end = self._reactor.seconds() + PATIENCE
        while not condition():
            if self._reactor.seconds() > end:
                raise AssertionError(f"{what} did not come, in {PATIENCE:.0f} s: {found()}")
            await self._pause(0.01)


def summary(load: Load, history: History) -> str:
    """What the run was made of, in a few lines."""
    record = Reconciliation(history)
    codes: dict[str, int] = {}
    for story in record.stories.values():
        code = story.code
        name = "no answer" if code is None else code or "done"
        codes[name] = codes.get(name, 0) + 1
    attempts = sum(len(story.attempts) for story in record.stories.values())
    again = sum(len(story.attempts) > 1 for story in record.stories.values())
    cancels = sum(story.cancelled_from is not None for story in record.stories.values())
    closed = sum(isinstance(event, Noticed) for event in history.events)
    ends = ", ".join(f"{count} {name}" for name, count in sorted(codes.items()))
    return (
        f"{len(record.stories)} jobs, {attempts} starts in {len(_that_ran(history))} workers, "
        f"{again} jobs tried again, {load.kills} kills, {cancels} jobs cancelled, "
        f"{closed} disconnects\n{ends}"
    )


def _that_ran(history: History) -> list[Worker]:
    return [worker for worker in history.workers if len(worker.lines) > 1]


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0dangad-worker\0")
    return False


def _exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
