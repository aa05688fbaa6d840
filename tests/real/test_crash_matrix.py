"""The crash-point matrix: whatever happens to a worker, whenever it does, only its job suffers.

:mod:`tests.crashtable` has a row for each way to go wrong, and in it a cell for each moment of
a worker's life; :mod:`tests.crashdeeds` does it. Each test takes some moments, goes through the
rows, a few at a time, on one server, and checks for each cell what the client of the job was
told, what the log says and whom it blames, that other jobs got their right answers, and that
the pool was whole again; in the end, that nothing is left behind.
"""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols import amp

import dangad
from dangad.host.descent import children
from dangad.limits import FRESH, LEAN, Limits
from dangad.pool import link
from dangad.pool.launch import WorkerSettings
from dangad.scheduler import endings, failingstarts, state, supervisor, watch
from dangad.scheduler.workerrecord import WorkerRecord
from tests.crashdeeds import PLANS, SITECUSTOMIZE
from tests.crashpoints import Crash, Echo, State
from tests.crashtable import FROZEN, TABLE, Cell
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, alive, is_frozen, reactor, until

AT_ONCE = 3
"""Cells that are gone through together."""
BOOTING = ("start", "modules", "hello")
"""The moments before a worker is ready."""


def a_group(*moments: str) -> Callable[[Any], Deferred[None]]:
    """The test of all cells of these moments."""

    def method(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self.go_through(moments))

    return method


class MatrixTests(RealServerCase):
    """Each test is some columns of the table."""

    jobs = ("tests.crashpoints",)
    limits = Limits(min_workers=AT_ONCE + 1, max_workers=AT_ONCE + 1, drain=5.0, quarantine_after=0)
    timeout = 240

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        """Note what there is, and make waiting short."""
        self.patch(endings, "GRACE", 0.1)
        self.patch(state, "LOGGED_ENDS", 1000)
        self.patch(link, "CLOSED_GRACE", 60.0)
        self.patch(failingstarts, "PROBATION", 0.0)
        self.patch(failingstarts, "FIRST_DELAY", 0.01)
        self.patch(failingstarts, "LONGEST_DELAY", 0.01)
        self.patch(supervisor, "WATCH_INTERVAL", 0.05)
        self.numbers = iter(range(1, 1_000_000))
        self.problems: list[str] = []

        def begin() -> None:
            self.children = children()
            self.descriptors = _descriptors()
            super(MatrixTests, self).setUp()

        running: Deferred[None] = task.deferLater(reactor, 0, begin)
        return running

    def start(self, settings: WorkerSettings) -> None:
        """Start with workers that look for plans."""
        self.plans, self.scratch, site = (
            f"{self.folder}/{name}" for name in ("plans", "scratch", "site")
        )
        for folder in (self.plans, self.scratch, site):
            os.mkdir(folder)
        with open(f"{site}/sitecustomize.py", "w") as file:
            file.write(SITECUSTOMIZE)
        path = os.pathsep.join(filter(None, (site, os.environ.get("PYTHONPATH"))))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "TMPDIR": self.scratch,
            PLANS: self.plans,
        }
        # Forked workers have no start of an interpreter.
        start = FRESH if self.id().endswith("test_boot") else LEAN
        super().start(WorkerSettings(self.jobs, environment=environment, start=start))

    test_boot = a_group("start", "modules")
    test_boot.__doc__ = "A worker that fails as it starts is replaced, and the log says why."
    test_hello = a_group("hello")
    test_hello.__doc__ = "So is one that fails when it has nearly started."
    test_job = a_group("reading", "job")
    test_job.__doc__ = "What a job does costs the job alone."
    test_answer = a_group("answer", "answered")
    test_answer.__doc__ = "Half an answer is none; a whole one counts, whatever comes after it."
    test_between = a_group("idle", "stop")
    test_between.__doc__ = "What happens to a worker that has no job costs none."

    async def go_through(self, moments: tuple[str, ...]) -> None:
        """All cells of the columns, and then see that nothing is left."""
        self.client = await self.connect()
        await self.pool_is_whole()
        for when in moments:
            await self.column(when)
        await self.service.stopService()
        self.client.transport.abortConnection()
        await until(lambda: self.client.transport is None)
        with self.cell("the end"):
            await until(lambda: children() == self.children)
            self.assertEqual(self.survivors(), [])
            self.assertEqual(os.listdir(self.scratch), [])
            self.assertEqual(_descriptors(), self.descriptors)
        if self.problems:
            self.fail("\n".join(self.problems))

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
        logged, printed = len(self.events), len(self.lines())
        how_to: Any = getattr(self, f"at_{when}", self.at_boot)
        outcomes = await how_to(when, cells)
        for how, cell in cells.items():
            if cell.ends is not None:
                await until(lambda pid=outcomes[how][0]: pid not in self.pids())
        echoes = [self.ask(Echo, value=number) for number in range(20)]
        await self.pool_is_whole(busy=1)
        for how, cell in cells.items():
            with self.cell(f"{how}, at {when}"):
                pid, outcome = outcomes[how]
                await self.check(cell, pid, outcome, logged, printed)
        with self.cell(f"others, at {when}"):
            _touch(gate)
            answers = await gatherResults([bystander, *echoes])
            self.assertEqual(answers, [{"value": number} for number in (4711, *range(20))])
            orphans = sorted(set(self.survivors()) - self.service.pool.pids)
            self.assertEqual(len(orphans), sum(cell.leaves for cell in cells.values()))
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: not any(map(alive, orphans)))
        await self.pool_is_whole()

    # The moments.

    async def at_boot(self, when: str, cells: dict[str, Cell]) -> dict[str, tuple[int, Any]]:
        """Make plans for new workers, and make room for these by killing others."""
        for how in cells:
            _touch(f"{self.plans}/{when}: {how}")
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
            _touch(f"{self.plans}/idle {pid}: {how}")
            os.kill(pid, signal.SIGUSR1)
            await self.plan_taken(f"idle {pid}: {how}")
        await self.heartbeats(cells, pids)
        return {how: (pid, None) for how, pid in pids.items()}

    async def at_stop(self, when: str, cells: dict[str, Cell]) -> dict[str, tuple[int, Any]]:
        """Let idle workers go."""
        workers = self.take_idle(len(cells))
        for worker, (how, cell) in zip(workers, cells.items(), strict=True):
            _touch(f"{self.plans}/stop {worker.pid}: {how}")
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
        _touch(gate)
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
            self.assertEqual(answers, [{"value": number} for number in range(len(waiting))])
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
            for event in self.events[logged:]
            if event.get("log_format") and "line" not in event
        ]
        ends = [text for text in log if re.match(rf"worker {pid} .*, after \d+ jobs?", text)]
        if cell.ends is None:
            self.assertEqual(ends, [])
            self.assertIn(pid, self.pids())
        else:
            self.assertEqual(len(ends), 1, ends)
            self.assertRegex(ends[0], rf"worker {pid} {cell.ends.removeprefix(FROZEN)}.*, after")
            self.assertFalse(alive(pid))
        if cell.prints is not None:
            await until(
                lambda: [
                    line
                    for worker, _, line in self.lines()[printed:]
                    if worker == pid and cell.prints in line
                ]
            )
        if outcome is None:
            return
        if cell.error is None:
            self.assertEqual(outcome, {"value": 42})
            return
        self.assertIsInstance(outcome, cell.error)
        if cell.error is dangad.WorkerLost:
            self.assertRegex(str(outcome), rf"^worker {pid} {cell.ends}.* \d+\.\d s into Crash")
            job_end = rf"job \d+ Crash ended as lost: worker {pid} "
            self.assertEqual(len([text for text in log if re.match(job_end, text)]), 1)
        else:
            self.assertIn(cell.text, str(outcome))

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
        await until(lambda: self.service.dispatcher.idle + busy >= self.limits.min_workers)
        self.assertEqual(len(self.pids()), self.limits.min_workers)

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


class StateTests(RealServerCase):
    """What a job changes of its process is put back before the next job."""

    jobs = ("tests.crashpoints",)
    limits = Limits(min_workers=1, max_workers=1, drain=5.0)

    @async_test
    async def test_put_back(self) -> None:
        """The next job, in the same worker, sees what the job modules left, and the log tells."""
        client = await self.connect()
        before = await client.callRemote(State)
        for moment in ("reading", "job"):
            for how, what in (
                ("change everything", "the umask, the recursion limit, the environment"),
                ("block signals", "the signal mask"),
            ):
                await client.callRemote(
                    Crash,
                    when=moment,
                    how=how,
                    mark=f"{self.folder}/mark",
                    gate=self.folder,
                    value=42,
                )
                told = [line for _, _, line in self.lines() if f"has changed {what}" in line]
                self.assertEqual(len(told), 1, self.lines())
                self.assertEqual(await client.callRemote(State), before)
                self.events.clear()


class InnocentTests(RealServerCase):
    """A job that was given to a worker which was past help, and never began, is done by another."""

    jobs = ("tests.crashpoints",)
    limits = Limits(min_workers=1, max_workers=1, drain=5.0)

    @async_test
    async def test_after_two_answers(self) -> None:
        """What follows an answer is a worker's end, even if a job waits for that worker."""
        client = await self.connect()
        gate = f"{self.folder}/gate"
        double = client.callRemote(
            Crash,
            when="doubled",
            how="doubled",
            mark=f"{self.folder}/mark",
            gate=gate,
            value=42,
        )
        waiting = client.callRemote(Echo, value=5)
        _touch(gate)
        self.assertEqual(await double, {"value": 42})
        self.assertEqual(await waiting, {"value": 5})


class MemoryTests(RealServerCase):
    """A worker that may not have more memory does not go on without."""

    jobs = ("tests.crashpoints",)
    limits = Limits(min_workers=1, max_workers=1, drain=5.0)

    def start(self, settings: WorkerSettings) -> None:
        """Start with a limit."""
        super().start(replace(settings, max_memory=2**30))

    @async_test
    async def test_memory_error(self) -> None:
        """With --max-memory, a job that fails for want of it is lost, and so is its worker."""
        client = await self.connect()
        answer = client.callRemote(
            Crash,
            when="job",
            how="MemoryError",
            mark=f"{self.folder}/mark",
            gate=self.folder,
            value=42,
        )
        error = await self.assertFailure(answer, dangad.WorkerLost)
        self.assertRegex(
            str(error), r"^worker \d+ ran out of memory \(--max-memory 1.0 GiB\) .* into Crash"
        )
        self.assertEqual(await client.callRemote(Echo, value=5), {"value": 5})


def _descriptors() -> list[str]:
    """What this process has open, but for the one that Twisted keeps in reserve."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was the folder's own
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(target for target in targets if target != os.devnull)


def _touch(path: str) -> None:
    with open(path, "w"):
        pass
