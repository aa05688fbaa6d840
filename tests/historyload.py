"""A load of many kinds of jobs for a real server, under cancels, disconnects and other trouble.

The load comes in rounds. Between two of them nothing is asked of the server, which then must
hold no more than after the first, the warm-up: see :mod:`tests.loadedserver`. What clients see
goes into a :class:`tests.history.History`; the workers write down their part by
:mod:`tests.historyjobs`. What else happens, such as kills, is in :mod:`tests.historytrouble`; and
hostile clients, who are in no history, are those of :mod:`tests.historyhostility`.
"""

import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from dangad.limits import FRESH
from dangad.wire import boxes, commands
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
from tests.historyhostility import run_hostility
from tests.historytrouble import Trouble
from tests.loadedserver import MIN_WORKERS, Footprint, LoadedServer
from tests.starting import START

PATIENCE = 60.0
"""Seconds after which something that should have happened is taken for hung."""
NOTICE_PINGS = 3
"""Pings one after the other, by whose answers the server has read another connection's end.

That holds where the server has read all else that came by it: requests that are still to be read
have their turn, and are begun, before the end behind them is seen.
"""
ROOM = 8 * 2**20
"""Bytes of memory that the server may have more after a round than after the warm-up.

What it holds at its busiest is less than that, some hundreds of small jobs, and what it has let
go of need not go back to the system. From round to round it differs by a tenth of a MiB.
"""

_HARMED = re.compile(r"worker (\d+) (?:did not have a job that something|wrote garbage)")
"""What the log says of a worker that was killed for what hostile jobs have done to its pipes."""

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
        self._reader = boxes.BoxReader(2**20, (boxes.ANSWER, boxes.ERROR, boxes.COMMAND))
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
        box |= {boxes.ASK: tag.encode(), boxes.COMMAND: command.commandName} | keys
        deadline = keys.get(boxes.DEADLINE)
        asked = {boxes.PROGRESS: "Progress", boxes.CHUNKS: "Chunk"}
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
        self.transport.write(boxes.pack(box.items()))
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
            self._box_received(now, boxes.unpack(bytes(box.raw)))

    def _box_received(self, now: float, strings: dict[bytes, bytes]) -> None:
        if boxes.COMMAND in strings:
            kind = strings[boxes.COMMAND].decode().removeprefix("dangad.")
            number = int(strings.get(b"data", b"0"))
            report = Report(now, self.number, strings[b"tag"].decode(), kind, number)
            self._load.events.append(report)
            return
        tag = strings.get(boxes.ANSWER, strings.get(boxes.ERROR, b"")).decode()
        code = strings.get(boxes.ERROR_CODE, b"").decode()
        text = strings.get(boxes.ERROR_DESCRIPTION, strings.get(b"token", b"")).decode()
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

    All mutable state: `events`, in the order in which they were seen; `counts`, what trouble
    there was; `footprints`, what the server held after each round; `stopping`, whether it was
    told to stop; `_server`; how many jobs and connections there were; `_end`, when the round is
    over, and `_seed`, what chance begins with in it.
    """

    def __init__(
        self,
        reactor: Any,
        folder: str,
        seed: int,
        max_workers: int,
        *,
        hostile: bool = False,
        start: str = START,
    ) -> None:
        """Prepare a run in an empty folder.

        :param seed: what chance begins with.
        :param hostile: whether there are hostile clients beside the honest ones.
        :param start: how the workers are started.
        """
        self.events: list[Any] = []
        self.counts: Counter[str] = Counter()
        self.footprints: list[Footprint] = []
        self.jobs = 0
        self.stopping = False
        self._reactor = reactor
        self._folder = folder
        self._first_seed = seed
        self._seed = f"{seed}"
        self._max_workers = max_workers
        self._hostile = hostile
        self._start = start
        self._end = 0.0
        self._connections = 0
        self._server: LoadedServer | None = None

    async def run(self, *rounds: float, clients: int = 5, room: int = ROOM) -> None:
        """Load the server for so many seconds in each round, and have it stop.

        :param rounds: the first is the warm-up.
        :param room: what its memory may be more after any of the others.
        :raises AssertionError: the server holds more than after the warm-up, or did not end as
            it began, or something hung.
        """
        self._server = LoadedServer(self._folder, self._max_workers, start=self._start)
        try:
            control = await self._connect()
            await control.send(commands.Describe, {})
            await self._until("the pool", self._server.has_booted)
            await self._acquaint(control)
            for number, seconds in enumerate(rounds):
                self._seed = f"{self._first_seed}/{number}"
                self._end = self._reactor.seconds() + seconds
                await self._round(control, clients)
                await self._settle(room)
            await self._stop(control)
        finally:
            self._server.kill()
        assert "Unhandled Error" not in self._server.log.read_text(), "see the log"

    async def _acquaint(self, client: LoggingClient) -> None:
        """Ask for each type of job once in each priority: the server remembers what it takes."""
        for _, command, _, _ in _KINDS:
            for priority in (b"high", b"normal", b"low"):
                self.jobs += 1
                arguments = {"name": f"job-{self.jobs}", "deed": "live", "seconds": 0.0}
                client.send(
                    command, arguments, keys={boxes.PRIORITY: priority, boxes.DEADLINE: b"60"}
                )
        await self._until("the first answers", client.is_answered)
        if self._hostile:
            await run_hostility(self._reactor, self.server, self._seed, 0.0, "--acquaint")

    async def _round(self, control: LoggingClient, clients: int) -> None:
        """All clients and all trouble, until the round is over."""
        trouble = Trouble(
            self._reactor,
            self.server,
            self.events,
            self._seed,
            self._max_workers,
            self._end,
            spares_starts=self._hostile,
        )
        stories = [self._client(control, number) for number in range(clients)]
        stories += [self._burst(), *trouble.stories()]
        if self._hostile:
            stories.append(self._hostility())
        running = [Deferred.fromCoroutine(story) for story in stories]
        try:
            await gatherResults(running, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        finally:
            self.counts.update(trouble.counts)

    async def _hostility(self) -> None:
        """Have hostile clients beside the honest ones, until the round is over."""
        seconds = self._end - self._reactor.seconds()
        done = await run_hostility(self._reactor, self.server, self._seed, seconds)
        self.counts.update({f"hostile {name}": count for name, count in done.items()})

    async def _settle(self, room: int) -> None:
        """Wait until the server holds no more than after the warm-up, and note what it holds."""
        server = self.server
        whole = {"guardians": 1, "templates": 1, "workers": MIN_WORKERS}
        if self._start == FRESH:
            del whole["templates"]
        end = self._reactor.seconds() + PATIENCE
        before: Footprint | None = None
        wrongs: Counter[str] = Counter()
        while True:
            server.begin_census()
            await self._until("the census", server.has_counted)
            now = server.footprint()
            if now.children != whole:
                wrong = f"it has {now}"
            elif self.footprints:
                wrong = now.grown_since(self.footprints[0], room)
            else:
                wrong = now.grown_since(before, room) if before else "it may still change"
            if not wrong:
                self.footprints.append(now)
                return
            wrongs[wrong] += 1
            assert self._reactor.seconds() < end, f"the server holds more than before: {wrongs}"
            before = now
            await self._pause(0.2)

    def history(self) -> History:
        """What was written down, so far."""
        policies = {
            name.decode(): job_type.policy
            for name, job_type in find_job_types(["tests.historyjobs"]).items()
        }
        harmed = [Killed(0.0, pid) for pid in self._harmed()]
        return History(policies, [*harmed, *self.events], read_workers(self._folder))

    def _harmed(self) -> set[int]:
        """The workers whose pipes hostile jobs have read, or written to, as the log has it."""
        if not self._hostile:
            return set()
        return {int(pid) for pid in _HARMED.findall(self.server.log.read_text(errors="replace"))}

    @property
    def server(self) -> LoadedServer:
        """The server, from the beginning of the run."""
        assert self._server is not None
        return self._server

    async def _stop(self, control: LoggingClient) -> None:
        """Have the server stop in the middle of work, and see that it leaves nothing behind."""
        last = await self._connect()
        chance = random.Random(f"{self._seed}/stop")
        for _ in range(30):
            self._ask(last, chance, *_KINDS[chance.randrange(2)][1:])
        await control.send(commands.Ping, {})
        self.stopping = True
        os.kill(self.server.pid, signal.SIGTERM)
        for _ in range(30):
            self._ask(last, chance, *_KINDS[0][1:])
        await last.closed
        await control.closed
        process = self.server.process
        await self._until("the server's end", lambda: process.poll() is not None)
        left = [worker.pid for worker in read_workers(self._folder) if _exists(worker.pid)]
        assert not left, f"workers {left} were left behind"

    # The clients.

    async def _connect(self) -> LoggingClient:
        self._connections += 1
        endpoint = UNIXClientEndpoint(self._reactor, self.server.socket)
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
                is_read = chance.random() < 0.7
                if is_read:
                    await client.send(commands.Ping, {})
                client.close(at_once=chance.random() < 0.5)
                await client.closed
                for _ in range(NOTICE_PINGS):
                    await control.send(commands.Ping, {})
                if is_read:
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
            keys[boxes.PRIORITY] = chance.choice((b"high", b"low"))
        if chance.random() < 0.05:
            keys[boxes.DEADLINE] = b"%.3f" % (chance.random() * 0.5)
        if chance.random() < 0.1:
            keys[boxes.PROGRESS] = b"1"
        if command is jobs.Parts:
            keys[boxes.CHUNKS] = b"1"
        if "swallow" not in deeds:
            seconds *= chance.random()
        arguments = {"name": f"job-{self.jobs}", "deed": chance.choice(deeds), "seconds": seconds}
        client.send(command, arguments, keys=keys)

    def _cancel(self, client: LoggingClient, chance: random.Random) -> None:
        """Cancel a request recently, which may have been answered, or what never was one."""
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
            left = self._end - self._reactor.seconds()
            await self._pause(max(0.0, min(chance.random() * 10, left)))
        client.close(at_once=True)
        await client.closed

    def _goes_on(self) -> bool:
        return bool(self._reactor.seconds() < self._end)

    def _pause(self, seconds: float) -> Coroutine[Any, Any, None]:
        async def pause() -> None:
            await deferLater(self._reactor, seconds)

        return pause()

    async def _until(self, what: str, condition: Callable[[], bool]) -> None:
        """Look often whether it is so, and give up in the end."""
        end = self._reactor.seconds() + PATIENCE
        while not condition():
            assert self._reactor.seconds() < end, f"{what} did not come, in {PATIENCE:.0f} s"
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
    troubles = ", ".join(f"{count} {name}" for name, count in sorted(load.counts.items()))
    footprints = "\n".join(
        f"after round {number}: {footprint}" for number, footprint in enumerate(load.footprints)
    )
    return (
        f"{len(record.stories)} jobs, {attempts} starts in {len(_that_ran(history))} workers, "
        f"{again} jobs tried again, {cancels} jobs cancelled, {closed} disconnects\n"
        f"{ends}\n{troubles}\n{footprints}"
    )


def _that_ran(history: History) -> list[Worker]:
    return [worker for worker in history.workers if len(worker.lines) > 1]


def _exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
