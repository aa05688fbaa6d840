"""What the server does so that no job can hurt it, another job or the machine: real processes."""

import os
import re
import signal
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

import dangad
from dangad.errors import NotRunning, ReloadFailed
from dangad.limits import Limits
from dangad.pool.launch import WorkerSettings, default_path
from dangad.scheduler import endings, failingstarts, supervisor, watch
from tests import fakeoperations
from tests.heavyjobs import MIB, Heavy
from tests.oddjobs import Limited, Wait
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, alive, until

INTERPRETER = 60 * MIB
"""Bytes that a worker with the job modules of the tests has at most by itself."""

SEEN = r"had \d+ MiB of memory, where --max-memory is 200 MiB, and was killed"
"""What is said of a worker that was seen to be too large, before the system refused it more."""


class SupervisionCase(RealServerCase):
    """A server of jobs that take much."""

    jobs: tuple[str, ...] = ("tests.heavyjobs", "tests.oddjobs")

    async def take(self, what: str, amount: int = 0, **arguments: Any) -> int:
        """Have a job take something, on a connection of its own; the pid of its worker."""
        client = await self.connect()
        answer = await client.callRemote(Heavy, what=what, amount=amount, **arguments)
        pid: int = answer["pid"]
        return pid

    async def loses(self, what: str, amount: int = 0) -> str:
        """What the client is told of a job whose worker dies."""
        error = await self.assertFailure(
            Deferred.fromCoroutine(self.take(what, amount)), dangad.WorkerLost
        )
        return str(error)

    def workers(self, state: str) -> list[int]:
        """The pids of the workers in that state."""
        found = self.service.operations.workers()
        return [worker["pid"] for worker in found if worker["state"] == state]

    def path(self, name: str) -> str:
        """A path in the folder of the test."""
        return os.path.join(self.folder, name)

    def touch(self, name: str) -> None:
        """Make the file for which a job waits."""
        with open(self.path(name), "w"):
            pass


class LossTests(SupervisionCase):
    """The client of a job whose worker died is told all that is known."""

    @async_test
    async def test_last_words(self) -> None:
        """The exit status, how long the job ran, and what it printed last are told.

        Of a crash, the signal is, and where in the job's code it happened.
        """
        self.assertRegex(
            await self.loses("print and exit", 3),
            r"^worker \d+ exited \(status 3\) \d+\.\d s into Heavy\b.*"
            r"; it printed last: looking for the config \| there is none$",
        )
        text = await self.loses("segfault")
        self.assertRegex(text, r"^worker \d+ was killed by SIGSEGV \d+\.\d s into Heavy")
        self.assertIn("printed last: Fatal Python error: Segmentation fault | ", text)
        self.assertTrue(any("heavyjobs.py" in line for _, job, line in self.lines() if job == 2))

    @async_test
    async def test_memory(self) -> None:
        """Of a worker that grew, it is told how large it was."""
        client = await self.connect()
        job = client.callRemote(Heavy, what="keep", amount=200, until=self.path("never"))
        pid = await until(self.large_worker)
        os.kill(pid, signal.SIGKILL)
        error = await self.assertFailure(job, dangad.WorkerLost)
        found = re.search(r"SIGKILL .* used up to (\d+) MiB of memory", str(error))
        assert found is not None
        self.assertGreaterEqual(int(found[1]), 200)

    def large_worker(self) -> int:
        """The pid of a worker that has grown; 0 if there is none."""
        for worker in self.service.operations.workers():
            if worker["memory"] > 200 * MIB:
                pid: int = worker["pid"]
                return pid
        return 0


class MemoryTests(SupervisionCase):
    """With --max-memory a worker's memory has a bound, whatever the job does."""

    limits = Limits(min_workers=2, max_workers=2, max_memory=200 * MIB)

    def settings(self) -> WorkerSettings:
        """As the option sets them."""
        return replace(super().settings(), max_memory=self.limits.max_memory)

    async def check(self, what: str, says: str) -> None:
        """The job is lost for that reason, another is not, and the next finds a worker."""
        other = Deferred.fromCoroutine(self.take("nothing", until=self.path(what)))
        await until(lambda: self.workers("busy"))
        self.assertRegex(await self.loses(what, 10), says)
        self.touch(what)
        await other
        self.assertTrue(await self.take("nothing"))

    @async_test
    async def test_allocation(self) -> None:
        """A job that allocates without end is lost, with the limit as the reason.

        A library that takes every allocation for granted crashes, and only its job is lost.
        """
        await self.check(
            "allocate without end", r"ran out of memory \(--max-memory 200 MiB\)|" + SEEN
        )
        await self.check("allocate in C", "was killed by SIGSEGV .* Segmentation fault|" + SEEN)

    @async_test
    async def test_shared_memory(self) -> None:
        """A worker that has more in RAM by other means is killed."""
        client = await self.connect()
        error = await self.assertFailure(
            client.callRemote(Heavy, what="share", amount=300), dangad.WorkerLost
        )
        self.assertRegex(str(error), SEEN)


class RecycleJobsTests(SupervisionCase):
    """With --recycle-jobs 1 each job has a worker of its own."""

    limits = Limits(min_workers=1, max_workers=2, recycle_jobs=1)

    @async_test
    async def test_no_wait(self) -> None:
        """When the pool is idle no job waits for an interpreter: a booted worker is there."""
        performed = []
        for _ in range(5):
            [booted] = await until(lambda: not self.workers("stopping") and self.workers("idle"))
            performed.append((await self.take("nothing"), booted))
            await until(lambda: not alive(performed[-1][0]))
        self.assertEqual([pid for pid, _ in performed], [booted for _, booted in performed])
        self.assertEqual(len({pid for pid, _ in performed}), 5)
        waits = [job["wait"] for job in self.service.operations.recent()]
        self.assertLess(sorted(waits)[len(waits) // 2], 0.01)


class RecycleMemoryTests(SupervisionCase):
    """With --recycle-memory a worker that has grown is replaced."""

    limits = Limits(min_workers=1, max_workers=1, recycle_memory=150 * MIB)

    def setUp(self) -> None:
        """Look at the workers often."""
        self.patch(supervisor, "WATCH_INTERVAL", 0.05)
        super().setUp()

    @async_test
    async def test_between_jobs(self) -> None:
        """A worker in which jobs leak leaves between two jobs, and none of them is lost."""
        pids = [await self.take("keep", 60) for _ in range(3)]
        await until(lambda: self.workers("idle") and pids[0] not in self.pids())
        self.assertNotEqual(await self.take("nothing"), pids[0])
        self.assertRegex(
            "\n".join(self.logged("dangad.scheduler.workerrecord")),
            r"is to be replaced: it has \d+ MiB of",
        )

    @async_test
    async def test_during_a_job(self) -> None:
        """While a job has made it too large, the replacement boots; then the job ends well."""
        job = Deferred.fromCoroutine(self.take("keep", 200, until=self.path("end")))
        [old] = await until(lambda: self.workers("busy"))
        [new] = await until(lambda: self.workers("idle"))
        self.assertNotEqual(old, new)
        self.touch("end")
        self.assertEqual(await job, old)
        await until(lambda: self.pids() == [new])


class RecycleAgeTests(SupervisionCase):
    """With --recycle-age a worker that is old is replaced."""

    limits = Limits(min_workers=1, max_workers=1, recycle_age=0.5)

    @async_test
    async def test_age(self) -> None:
        """An idle worker is replaced by another, which is ready before it leaves."""
        [first] = await until(lambda: self.workers("idle"))
        await until(lambda: self.workers("idle") and first not in self.pids())
        events = "\n".join(
            self.logged("dangad.scheduler.workerrecord") + self.logged("dangad.pool.link")
        )
        self.assertRegex(events, rf"worker {first} is to be replaced: it is \d+ s old")


class NumbersTests(SupervisionCase):
    """How many workers there are follows the jobs, the options, and the operator."""

    limits = Limits(min_workers=0, max_workers=3, spare_workers=1)

    @async_test
    async def test_spare(self) -> None:
        """One idle worker is kept beyond those that are busy, as far as the maximum allows."""
        jobs = []
        for busy, idle in ((0, 1), (1, 1), (2, 1), (3, 0)):
            await until(
                lambda busy=busy, idle=idle: (
                    len(self.workers("busy")) == busy and len(self.workers("idle")) == idle
                )
            )
            jobs.append(Deferred.fromCoroutine(self.take("nothing", until=self.path("end"))))
        self.assertEqual(len(self.pids()), 3)
        self.touch("end")
        for job in jobs:
            await job

    @async_test
    async def test_want(self) -> None:
        """An operator has more workers, and fewer again, while the server runs."""
        self.service.operations.scale(3, 3)
        await until(lambda: len(self.workers("idle")) == 3)
        self.service.operations.scale(1, 1)
        await until(lambda: len(self.pids()) == 1)
        self.assertIn(await self.take("nothing"), self.pids())


class ResourceUsageTests(SupervisionCase):
    """What each job took is told to the operator."""

    @async_test
    async def test_resource_usage(self) -> None:
        """CPU time, also of programs that the job waits for, and memory, of jobs done or lost."""
        self.service.dispatcher.counters.log_jobs = True
        await self.take("sleep", 300)
        await self.take("burn", 300)
        await self.take("burn elsewhere", 300)
        await self.take("hold", 100)
        await self.loses("print and exit", 3)
        asleep, busy, elsewhere, large, lost = self.service.operations.recent()
        self.assertLess(asleep["cpu"], 0.2)
        self.assertGreater(asleep["runtime"], 0.2)
        self.assertGreater(busy["cpu"], 0.2)
        self.assertGreater(elsewhere["cpu"], 0.2)
        self.assertLess(asleep["peak_memory"], INTERPRETER)
        self.assertGreater(large["peak_memory"], 100 * MIB)
        self.assertEqual((lost["state"], lost["worker"] is None), ("lost", False))
        ends = [line for line in self.logged("dangad.scheduler.counters") if " cpu=" in line]
        for job, end in zip((asleep, busy, elsewhere, large, lost), ends, strict=True):
            self.assertIn(f"job {job['id']} Heavy {job['state']} worker={job['worker']} ", end)
            self.assertIn(f" cpu={job['cpu']:.6f} peak_memory={job['peak_memory']}", end)


class StackTests(SupervisionCase):
    """Where a job is stuck can be seen."""

    def setUp(self) -> None:
        """Have a short grace."""
        self.patch(endings, "GRACE", 0.3)
        super().setUp()

    @async_test
    async def test_time_limit(self) -> None:
        """At its time limit a job's stack is logged under its id, for a busy loop, too."""
        client = await self.connect()
        for number, (how, function) in enumerate(
            (("busy", "_clean_up"), ("swallow", "_swallow"), ("in C", "match")), 1
        ):
            await self.assertFailure(
                client.callRemote(Limited, how=how, mark=self.path("mark")), dangad.TimedOut
            )
            lines = [line for _, job, line in self.lines() if job == number]
            self.assertTrue(any(line.endswith(f" in {function}") for line in lines), (how, lines))
            self.assertTrue(any(line.endswith(" in endless") for line in lines))

    @async_test
    async def test_on_demand(self) -> None:
        """An operator gets the stack of a running job, which goes on, and the log has it.

        There is none of a job that has ended, or never was.
        """
        client = await self.connect()
        job = client.callRemote(Wait, path=self.path("end"), mark=self.path("mark"))
        await until(lambda: os.path.exists(self.path("mark")))
        stack = await self.service.operations.stack(1)
        self.assertRegex(stack, r'File ".*oddjobs\.py", line \d+ in wait\n')
        lines = [line for _, job_id, line in self.lines() if job_id == 1]
        self.assertEqual("".join(f"{line}\n" for line in lines), stack)
        self.touch("end")
        await job
        for job_id in (1, 2):
            await self.assertFailure(self.service.operations.stack(job_id), NotRunning)


class HeartbeatTests(SupervisionCase):
    """An idle worker has to give signs of life."""

    limits = Limits(min_workers=1, max_workers=1)

    def setUp(self) -> None:
        """Have little patience."""
        self.patch(supervisor, "WATCH_INTERVAL", 0.05)
        self.patch(watch, "HEARTBEAT", 0.1)
        self.patch(watch, "HEARTBEAT_PATIENCE", 1.0)
        super().setUp()

    @async_test
    async def test_frozen(self) -> None:
        """An idle worker that lives stays, however often it is asked.

        One that is stopped is replaced, and the next job does not meet it.
        """
        frozen = await self.take("nothing")
        life = self.service.supervisor.records[next(iter(self.service.pool.processes))]
        for _ in range(3):
            await until(lambda asked=life.asked_at: life.asked_at > asked)
            await until(lambda: not life.silent)
        self.assertEqual(await self.take("nothing"), frozen)
        os.kill(frozen, signal.SIGSTOP)
        await until(lambda: not alive(frozen) and self.workers("idle"))
        self.assertNotEqual(await self.take("nothing"), frozen)
        self.assertRegex(
            "\n".join(self.logged("dangad.pool.link")),
            rf"worker {frozen} gave no sign of life for 1 s and was killed",
        )


ONE, TWO = "One", "Two"

MODULE = """
import os, time
from twisted.protocols import amp
from dangad import job

class Both(amp.Command):
    arguments = [(b"until", amp.Unicode(optional=True))]
    response = [(b"version", amp.Unicode()), (b"pid", amp.Integer())]

class {version}(amp.Command):
    pass

@job(Both)
def both(until):
    while until is not None and not os.path.exists(until):
        time.sleep(0.002)
    return {{"version": "{version}", "pid": os.getpid()}}

@job({version})
def own():
    return {{}}
"""
"""A job module in one of two versions, which have one command in common."""


class Both(amp.Command):
    """The command of both versions."""

    arguments = [(b"until", amp.Unicode(optional=True))]
    response = [(b"version", amp.Unicode()), (b"pid", amp.Integer())]
    errors = {**dangad.ERRORS}


class ChangingCase(SupervisionCase):
    """The job module is a file that changes."""

    jobs = ("changing",)
    limits = Limits(min_workers=2, max_workers=2)

    def settings(self) -> WorkerSettings:
        """With the folder of the test in the path; without .pyc, to tell fast changes apart."""
        self.write(MODULE.format(version=ONE))
        return WorkerSettings(
            self.jobs,
            path=(self.folder, *default_path()),
            environment={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def write(self, text: str) -> None:
        """Have the job module be so, from one moment to the next."""
        with open(self.path("new"), "w") as file:
            file.write(text)
        os.rename(self.path("new"), self.path("changing.py"))

    async def performs(self, name: str) -> bool:
        """Whether the server performs a command of that name and no arguments."""

        class Named(amp.Command):
            commandName = name.encode()

        try:
            await (await self.connect()).callRemote(Named)
        except amp.UnhandledCommand:
            return False
        return True


class ReloadTests(ChangingCase):
    """The job modules are changed under load."""

    async def load(self, stop: list[bool]) -> list[str]:
        """Ask for one job after the other on one connection; the versions that answered."""
        client = await self.connect()
        versions = []
        while not stop:
            versions.append((await client.callRemote(Both))["version"])
        return versions

    def generations(self) -> list[int]:
        """The generation of each worker."""
        return sorted(worker["generation"] for worker in self.service.operations.workers())

    @async_test
    async def test_under_load(self) -> None:
        """Nothing is refused or lost, and when the reload is done all is new."""
        stop: list[bool] = []
        loads = [Deferred.fromCoroutine(self.load(stop)) for _ in range(4)]
        await until(lambda: len(self.service.operations.recent()) > 20)
        old = self.pids()
        self.write(MODULE.format(version=TWO))
        await self.service.operations.reload()
        self.assertFalse([pid for pid in old if alive(pid)])
        self.assertEqual((await (await self.connect()).callRemote(Both))["version"], TWO)
        stop.append(True)
        for load in loads:
            versions = await load
            self.assertEqual(versions[0], ONE)
        counters = self.service.dispatcher.counters
        status = self.service.operations.status()
        self.assertEqual(status["jobs"]["done"], counters.accepted)
        self.assertEqual((counters.refused, status["generation"]), (0, 2))
        self.assertEqual(status["reload"], {"state": "done", "reason": ""})

    @async_test
    async def test_old_worker_stays(self) -> None:
        """A new command is there while an old worker goes on; a removed one ends with that."""
        client = await self.connect()
        job = client.callRemote(Both, until=self.path("end"))
        await until(lambda: self.workers("busy"))
        self.write(MODULE.format(version=TWO))
        reloading = self.service.operations.reload()
        await until(lambda: self.generations() == [1, 2, 2] and len(self.workers("idle")) == 2)
        self.assertTrue(await self.performs(TWO))
        removed = Deferred.fromCoroutine(self.performs(ONE))
        await until(lambda: self.service.dispatcher.waiting == 1)
        self.touch("end")
        self.assertEqual((await job)["version"], ONE)
        await reloading
        self.assertFalse(await removed)

    @async_test
    async def test_broken(self) -> None:
        """If the new code is broken the old workers go on, and the reason is told; then mend it."""
        await until(lambda: len(self.workers("idle")) == 2)
        old = sorted(self.pids())
        self.write("import nowhere_to_be_found\n")
        reloading: Deferred[Any] = self.service.operations.reload()
        error = await self.assertFailure(reloading, ReloadFailed)
        self.assertIn("No module named 'nowhere_to_be_found'", str(error))
        self.assertTrue(await self.performs(ONE))
        self.assertEqual(sorted(self.workers("idle")), old)
        reload = self.service.operations.status()["reload"]
        self.assertEqual(reload, {"state": "failed", "reason": str(error)})
        self.assertIn(
            f"the reload failed, and the old workers stay: {error}",
            self.logged("dangad.scheduler.reload"),
        )
        self.write(MODULE.format(version=TWO))
        await self.service.operations.reload()
        self.assertTrue(await self.performs(TWO))
        self.assertFalse(await self.performs(ONE))


class BrokenLaterTests(ChangingCase):
    """The job module breaks while the server runs."""

    limits = Limits(min_workers=1, max_workers=1)

    def setUp(self) -> None:
        """Have little patience with workers that do not start."""
        self.patch(failingstarts, "PATIENCE", 0.5)
        super().setUp()

    @async_test
    async def test_breaks_and_is_mended(self) -> None:
        """Jobs get NO_WORKERS with the reason, starts grow rare, and all is well once mended."""
        client = await self.connect()
        pid = (await client.callRemote(Both))["pid"]
        self.write("import nowhere_to_be_found\n")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
        error = await self.assertFailure(client.callRemote(Both), dangad.NoWorkers)
        self.assertIn("No module named 'nowhere_to_be_found'", str(error))
        self.assertIn(
            "No module named 'nowhere_to_be_found'", self.service.operations.status()["no_workers"]
        )
        tries = await until(lambda: (found := self.tries()) and len(found) >= 4 and found)
        self.assertEqual(tries[:4], ["0.0", "0.1", "0.2", "0.4"])
        self.write(MODULE.format(version=TWO))
        await until(lambda: self.workers("idle"))
        self.assertEqual((await client.callRemote(Both))["version"], TWO)
        self.assertIsNone(self.service.operations.status()["no_workers"])

    def tries(self) -> list[str]:
        """After how many seconds each next try was said to come."""
        text = "\n".join(self.logged("dangad.scheduler.failingstarts"))
        return re.findall(r"next try in ([\d.]+) s", text)


class DocumentsTests(SupervisionCase):
    """What operators are told has the shape that the reference gives."""

    def check(self, told: Any, shown: Any, where: str) -> None:
        """Both have the same keys, and values of the same types; None may stand for any."""
        if isinstance(shown, dict) and told is not None:
            self.assertEqual(list(told), list(shown), where)
            for key, value in shown.items():
                self.check(told[key], value, f"{where}.{key}")
        elif shown is not None and told is not None:
            self.assertIs(type(told), type(shown), where)

    @async_test
    async def test_shapes(self) -> None:
        """Status, workers and recent jobs have the keys and types that the stand-in has."""
        await self.take("nothing")
        client = await self.connect()
        job = client.callRemote(Heavy, what="nothing", until=self.path("end"))
        await until(lambda: self.workers("busy"))
        operations = self.service.operations
        self.check(operations.status(), fakeoperations.STATUS, "status")
        for worker in operations.workers():
            self.check(worker, fakeoperations.WORKERS[0], "worker")
        self.assertTrue([worker for worker in operations.workers() if worker["job"]])
        for usage in operations.recent():
            self.check(usage, fakeoperations.RECENT[1], "recent")
        self.touch("end")
        await job
