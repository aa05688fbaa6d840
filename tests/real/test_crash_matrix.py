"""The crash-point matrix: whatever happens to a worker, whenever it does, only its job suffers.

:mod:`tests.crashtable` has a row for each way to go wrong, and in it a cell for each moment of
a worker's life; :mod:`tests.crashdeeds` does it. Each test takes some moments, goes through the
rows, a few at a time, on one server, and checks for each cell what the client of the job was
told, what the log says and whom it blames, that other jobs got their right answers, and that
the pool was whole again; in the end, that nothing is left behind.
"""

import contextlib
import itertools
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols import amp

import dangad
from dangad.host.descent import children
from dangad.limits import FRESH, PRELOADED
from dangad.pool import link
from dangad.scheduler import endings, failingstarts, state, supervisor, watch
from dangad.scheduler.workerrecord import WorkerRecord
from tests.crashdeeds import PLANS, SITECUSTOMIZE
from tests.crashpoints import Crash, Echo
from tests.crashtable import FROZEN, TABLE, Cell
from tests.realserver import RealServer, alive, is_frozen, reactor, touch, until
from tests.starting import START

AT_ONCE = 3
"""Cells that are gone through together."""
WORKERS = AT_ONCE + 1
BOOTING = ("start", "modules", "hello")
"""The moments before a worker is ready."""

MOMENTS = (("hello",), ("reading", "job"), ("answer", "answered"), ("idle", "stop"))


@pytest.mark.parametrize(
    ("start", "moments"),
    [
        # A forked worker has no start of an interpreter.
        pytest.param(FRESH, ("start", "modules"), marks=pytest.mark.soak),
        *itertools.product(dict.fromkeys((START, PRELOADED)), MOMENTS),
    ],
)
async def test_matrix(
    own_server: RealServer, monkeypatch: pytest.MonkeyPatch, start: str, moments: tuple[str, ...]
) -> None:
    """What a job does costs the job alone, and half an answer is none.

    A worker that has no job, or none yet, is replaced, and the log says why.
    """
    monkeypatch.setattr(endings, "GRACE", 0.1)
    monkeypatch.setattr(state, "LOGGED_ENDS", 1000)
    monkeypatch.setattr(link, "CLOSED_GRACE", 60.0)
    monkeypatch.setattr(failingstarts, "PROBATION", 0.0)
    monkeypatch.setattr(failingstarts, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(failingstarts, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(supervisor, "WATCH_INTERVAL", 0.05)
    await Matrix(own_server, start).go_through(moments)


class Matrix:
    """Goes through some columns of the table, on a server of its own."""

    def __init__(self, server: RealServer, start: str) -> None:
        """Note what there is, and start with workers that look for plans."""
        self.server = server
        self.folder = server.folder
        self.numbers = itertools.count(1)
        self.problems: list[str] = []
        self.children = children()
        self.descriptors = _descriptors()
        self.plans, self.scratch, site = (
            f"{self.folder}/{name}" for name in ("plans", "scratch", "site")
        )
        for folder in (self.plans, self.scratch, site):
            os.mkdir(folder)
        with open(f"{site}/sitecustomize.py", "w") as file:
            file.write(SITECUSTOMIZE)
        path = os.pathsep.join(filter(None, (site, os.environ.get("PYTHONPATH"))))
        variables = {"PYTHONPATH": path, "TMPDIR": self.scratch, PLANS: self.plans}
        self.server.start(
            "tests.crashpoints",
            worker={"environment": os.environ | variables, "start": start},
            min_workers=WORKERS,
            max_workers=WORKERS,
            quarantine_after=0,
        )
        self.service = server.service

    async def go_through(self, moments: tuple[str, ...]) -> None:
        """All cells of the columns, and then see that nothing is left."""
        self.client = await self.server.connect()
        await self.pool_is_whole()
        for when in moments:
            await self.column(when)
        await self.service.stopService()
        self.client.transport.abortConnection()
        await until(lambda: self.client.transport is None)
        with self.cell("the end"):
            await until(lambda: children() == self.children)
            assert self.survivors() == []
            assert os.listdir(self.scratch) == []
            assert _descriptors() <= self.descriptors
        assert not self.problems, "\n".join(self.problems)

    async def column(self, when: str) -> None:
        """All cells of a column."""
        cells = [(how, cells[when]) for how, cells in TABLE.items()]
        cells = [(how, cell) for how, cell in cells if cell.senseless is None]
        if when in BOOTING:  # who has died of one plan makes room for who takes the next
            dying = [(how, cell) for how, cell in cells if cell.ends and not cell.frozen]
            await self.batch(when, dict(dying))
            cells = [each for each in cells if each not in dying]
        for first in range(0, len(cells), AT_ONCE):
            await self.batch(when, dict(cells[first : first + AT_ONCE]))

    async def batch(self, when: str, cells: dict[str, Cell]) -> None:
        """Several cells, on as many workers, while other jobs run, wait, and come afterwards."""
        gate = f"{self.folder}/gate {next(self.numbers)}"
        bystander = self.ask(Echo, value=4711, gate=gate)
        await until(lambda: self.service.dispatcher.running == 1)
        logged, printed = len(self.server.events), len(self.server.lines())
        how_to: Any = getattr(self, f"at_{when}", self.at_boot)
        outcomes = await how_to(when, cells)
        for how, cell in cells.items():
            if cell.ends is not None:
                await until(lambda pid=outcomes[how][0]: pid not in self.server.pids())
        echoes = [self.ask(Echo, value=number) for number in range(20)]
        await self.pool_is_whole(busy=1)
        for how, cell in cells.items():
            with self.cell(f"{how}, at {when}"):
                pid, outcome = outcomes[how]
                await self.check(cell, pid, outcome, logged, printed)
        with self.cell(f"others, at {when}"):
            touch(gate)
            answers = await gatherResults([bystander, *echoes])
            assert answers == [{"value": number} for number in (4711, *range(20))]
            orphans = sorted(set(self.survivors()) - self.service.pool.pids)
            assert len(orphans) == sum(cell.leaves for cell in cells.values())
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: not any(map(alive, orphans)))
        await self.pool_is_whole()

    # The moments.

    async def at_boot(self, when: str, cells: dict[str, Cell]) -> dict[str, tuple[int, Any]]:
        """Make plans for new workers, and make room for these by killing others."""
        for how in cells:
            touch(f"{self.plans}/{when}: {how}")
        for worker in self.take_idle(len(cells)):
            worker.kill("made room")
        pids = {how: await self.plan_taken(f"{when}: {how}") for how in cells}
        for how, cell in cells.items():
            if cell.frozen:
                await until(lambda how=how: is_frozen(pids[how]))
                alarm = self.life(pids[how]).boot_alarm
                assert alarm is not None
                alarm.reset(0)
        return {how: (pid, None) for how, pid in pids.items()}

    async def at_idle(self, when: str, cells: dict[str, Cell]) -> dict[str, tuple[int, Any]]:
        """Send idle workers, which have done a job before, a signal."""
        for _ in list(self.service.dispatcher.state.assignments.idle):
            await self.ask(Echo, value=1)
        idle = [worker.pid for worker in self.service.dispatcher.state.assignments.idle]
        pids = dict(zip(cells, idle, strict=False))
        for how, pid in pids.items():
            touch(f"{self.plans}/idle {pid}: {how}")
            os.kill(pid, signal.SIGUSR1)
            await self.plan_taken(f"idle {pid}: {how}")
        await self.heartbeats(cells, pids)
        return {how: (pid, None) for how, pid in pids.items()}

    async def at_stop(self, when: str, cells: dict[str, Cell]) -> dict[str, tuple[int, Any]]:
        """Let idle workers go."""
        workers = self.take_idle(len(cells))
        for worker, (how, cell) in zip(workers, cells.items(), strict=True):
            touch(f"{self.plans}/stop {worker.pid}: {how}")
            with contextlib.ExitStack() as stack:
                if cell.frozen:
                    grace, link.STOP_GRACE = link.STOP_GRACE, 1.0
                    stack.callback(setattr, link, "STOP_GRACE", grace)
                self.service.supervisor.worker_released(worker)
        for worker, how in zip(workers, cells, strict=True):
            await self.plan_taken(f"stop {worker.pid}: {how}")
        return {how: (worker.pid, None) for worker, how in zip(workers, cells, strict=True)}

    async def at_reading(self, when: str, cells: dict[str, Cell]) -> dict[str, tuple[int, Any]]:
        """Give workers jobs, have them all begin, and let them do their deeds at once."""
        base = f"{self.folder}/{next(self.numbers)}"
        gate = f"{base} gate"
        jobs, pids = {}, {}
        for how in cells:
            mark = f"{base} {how}"
            jobs[how] = self.ask(Crash, when=when, how=how, mark=mark, gate=gate, value=42)
            await until(lambda mark=mark: os.path.exists(mark))
            with open(mark) as file:
                pids[how] = int(file.read())
        waiting = []
        if not any(cell.dies_late for cell in cells.values()):
            waiting = [self.ask(Echo, value=number) for number in range(20)]
        touch(gate)
        for how, cell in cells.items():
            if cell.frozen and when != "answered":
                await until(lambda how=how: is_frozen(pids[how]))
                running = self.service.dispatcher.state.assignments.jobs
                [job] = [row[0] for worker, row in running.items() if worker.pid == pids[how]]
                assert job.limit_alarm is not None
                job.limit_alarm.cancel()
                self.service.dispatcher._endings.time_is_up(job)
        outcomes = {how: (pids[how], await job) for how, job in jobs.items()}
        if when == "answered":
            await self.heartbeats(cells, pids)
        answers = await gatherResults(waiting)
        with self.cell(f"those that waited, at {when}"):
            assert answers == [{"value": number} for number in range(len(waiting))]
        return outcomes

    at_job = at_answer = at_answered = at_reading

    async def heartbeats(self, cells: dict[str, Cell], pids: dict[str, int]) -> None:
        """Have those that are frozen asked for a sign of life, and waited for in vain."""
        for how, cell in cells.items():
            if cell.frozen:
                await until(lambda how=how: is_frozen(pids[how]))
                life = self.life(pids[how])
                life.asked_at -= watch.HEARTBEAT
                await until(lambda life=life: life.silent)
                life.asked_at -= watch.HEARTBEAT_PATIENCE

    def life(self, pid: int) -> WorkerRecord:
        """What the supervisor knows of the worker."""
        lives = self.service.supervisor.records.values()
        return next(life for life in lives if life.process.pid == pid)

    # What is to be seen.

    async def check(self, cell: Cell, pid: int, outcome: Any, logged: int, printed: int) -> None:
        """The one who had it coming was hit, in the way that the cell says, and was blamed."""
        log = [
            event["log_format"].format(**event)
            for event in self.server.events[logged:]
            if event.get("log_format") and "line" not in event
        ]
        ends = [text for text in log if re.match(rf"worker {pid} .*; it had done \d+ jobs?", text)]
        if cell.ends is None:
            assert ends == []
            assert pid in self.server.pids()
        else:
            assert len(ends) == 1, ends
            assert re.search(
                rf"worker {pid} {cell.ends.removeprefix(FROZEN)}.*; it had done", ends[0]
            )
            assert not alive(pid)
        if cell.prints is not None:
            await until(
                lambda: [
                    line
                    for worker, _, line in self.server.lines()[printed:]
                    if worker == pid and cell.prints in line
                ]
            )
        if outcome is None:
            return
        if cell.error is None:
            assert outcome == {"value": 42}
            return
        assert isinstance(outcome, cell.error)
        if cell.error is dangad.WorkerLost:
            assert re.search(rf"^worker {pid} {cell.ends}.* \d+\.\d s into Crash", str(outcome))
            job_end = rf"job \d+ Crash was lost: worker {pid} "
            assert len([text for text in log if re.match(job_end, text)]) == 1
        else:
            assert cell.text in str(outcome)

    def ask(self, command: type[amp.Command], **arguments: object) -> Deferred[Any]:
        """The answer to a request, or the error."""
        answer: Deferred[Any] = self.client.callRemote(command, **arguments)
        return answer.addErrback(lambda failure: failure.value)

    @contextlib.contextmanager
    def cell(self, name: str) -> Iterator[None]:
        """Note what is wrong with a cell, and go on."""
        try:
            yield
        except AssertionError as problem:
            self.problems.append(f"{name}: {problem}")

    async def pool_is_whole(self, busy: int = 0) -> None:
        """As many workers as there must be are ready, no more are there, and no job waits."""
        await until(lambda: self.service.dispatcher.idle + busy >= WORKERS)
        assert len(self.server.pids()) == WORKERS

    async def plan_taken(self, plan: str) -> int:
        """Who took the plan, as soon as somebody has."""

        def taken() -> int:
            for name in os.listdir(self.plans):
                if name.startswith("taken by ") and name.endswith(f": {plan}"):
                    return int(name.split()[2].removesuffix(":"))
            return 0

        pid: int = await until(taken)
        os.unlink(f"{self.plans}/taken by {pid}: {plan}")
        return pid

    def take_idle(self, count: int) -> list[Any]:
        """So many workers that will be given no job any more."""
        workers = [self.service.dispatcher.dismiss_idle(reactor.seconds()) for _ in range(count)]
        return [worker for worker in workers if worker is not None]

    def survivors(self) -> list[int]:
        """All processes that come from this server's workers, these included."""
        return [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self.is_ours(pid)
        ]

    def is_ours(self, pid: int) -> bool:
        """Whether the process was given the environment of this server's workers."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"{PLANS}={self.plans}\0".encode() in file.read()
        except OSError:
            return False  # it is gone, or somebody else's


def _descriptors() -> Counter[str]:
    """What this process has open, but for the one that Twisted keeps in reserve."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was the folder's own
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return Counter(target for target in targets if target != os.devnull)
