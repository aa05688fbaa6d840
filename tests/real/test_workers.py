"""What a job does to its worker, and what its client is told: with real processes."""

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.protocols import amp

import dangad
from dangad.host import capacity
from dangad.limits import Limits
from dangad.pool.launch import WorkerSettings
from dangad.scheduler import watch
from tests.oddjobs import Facts, Long, Odd, Oops, Short, Wait, WaitAnyway
from tests.realserver import RealServerCase, alive, is_frozen, until


def async_test(
    function: Callable[[Any], Coroutine[Any, Any, None]],
) -> Callable[[Any], Deferred[None]]:
    """Make a test method of one that waits."""

    @wraps(function)
    def method(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(function(self))

    return method


class AnswerTests(RealServerCase):
    """Whatever the function does, the client is answered and the worker lives on."""

    async def outcome(self, what: str) -> Any:
        """The pid that the job answered, or the error that it ended with."""
        try:
            return (await self.client.callRemote(Odd, what=what))["pid"]
        except Exception as error:  # noqa: BLE001 - which one it is, is the question
            return error

    @async_test
    async def test_errors(self) -> None:
        """Each deed ends with its error, and the next job runs in the same worker."""
        self.client = await self.connect()
        worker = await self.outcome("nothing")
        for what, kind, text in (
            ("raise", dangad.JobFailed, "ZeroDivisionError: by zero"),
            ("oops", Oops, "declared"),
            ("fails later", Oops, "later"),
            ("system exit", dangad.JobFailed, "SystemExit"),
            ("keyboard interrupt", dangad.JobFailed, "KeyboardInterrupt"),
            ("none", dangad.BadResponse, "the job returned None"),
            (
                *("wrong type", dangad.BadResponse),
                "'pid' is a str, where Integer takes a whole number",
            ),
            ("extra", dangad.BadResponse, "'more'"),
            ("write to 4", dangad.JobFailed, "Bad file descriptor"),  # ampoule's pipe was there
        ):
            error = await self.outcome(what)
            self.assertIsInstance(error, kind, what)
            self.assertIn(text, str(error), what)
            self.assertEqual(await self.outcome("nothing"), worker, what)
        lines = [line for _, job, line in self.lines() if job == 2]
        self.assertIn("Traceback (most recent call last):", lines)
        self.assertIn("ZeroDivisionError: by zero", lines)

    @async_test
    async def test_not_valid(self) -> None:
        """An answer over 65,535 bytes in a plain value gets BAD_RESPONSE with advice.

        A missing argument is BAD_ARGUMENTS. Other calls of the connection go on.
        """
        client = await self.connect()
        self.assertEqual(len((await client.callRemote(Short, size=65_535))["data"]), 65_535)
        error = await self.assertFailure(client.callRemote(Short, size=65_536), dangad.BadResponse)
        self.assertIn("dangad.Blob()", str(error))
        self.assertEqual(len((await client.callRemote(Short, size=1))["data"]), 1)
        error = await self.assertFailure(
            client.callRemoteString(b"Odd", requiresAnswer=True),
            amp.UnknownRemoteError,
            amp.RemoteAmpError,
        )
        self.assertIn("argument 'what' is missing", str(error))
        self.assertTrue((await client.callRemote(Odd, what="nothing"))["pid"])

    @async_test
    async def test_asynchronous_jobs(self) -> None:
        """A job may return a Deferred, be a coroutine, and use the reactor's processes.

        A fork of the worker that comes back from the job cannot answer a second time.
        """
        self.client = await self.connect()
        before = await self.outcome("nothing")
        self.assertEqual(await self.outcome("deferred"), before)
        self.assertEqual(await self.outcome("coroutine"), before)
        self.assertEqual(await self.outcome("process in reactor"), len("hi\n"))
        self.assertEqual(await self.outcome("deferred"), before)
        self.assertEqual(await self.outcome("fork and return"), before)
        self.assertEqual(await self.outcome("nothing"), before)


class OutputTests(RealServerCase):
    """What jobs print is in the server's log."""

    @async_test
    async def test_lines(self) -> None:
        """Raw writes, prints, warnings and log records have the worker's pid and the job's id."""
        client = await self.connect()
        pid = (await client.callRemote(Odd, what="nothing"))["pid"]
        await client.callRemote(Odd, what="descriptors")
        await client.callRemote(Odd, what="log")
        self.assertIn((pid, 2, "raw to one"), self.lines())
        self.assertIn((pid, 2, "raw to two, and no newline"), self.lines())
        of_third = [line for _, job, line in self.lines() if job == 3]
        self.assertTrue(any("a warning of the job" in line for line in of_third))
        self.assertTrue(any("an info of the job" in line for line in of_third))

    @async_test
    async def test_left_over(self) -> None:
        """What a job's thread prints after its end is no other job's, in the log or in an error."""
        client = await self.connect()
        pid = (await client.callRemote(Odd, what="leave speaker"))["pid"]
        error = await self.assertFailure(
            client.callRemote(Odd, what="let speak and die"), dangad.WorkerLost
        )
        self.assertIn("spoken in time", str(error))
        self.assertNotIn("late", str(error))
        self.assertIn((pid, 2, "spoken in time"), self.lines())
        self.assertEqual(
            [line for line in self.lines() if "late" in line[2]],
            [(pid, 0, "spoken late"), (pid, 0, "INFO odd: logged late")],
        )

    @async_test
    async def test_much(self) -> None:
        """Megabytes of output hurt nobody, and the log keeps a bounded part of it."""
        client = await self.connect()
        await client.callRemote(Odd, what="print much")
        self.assertEqual(len([line for _, job, line in self.lines() if job == 1]), 1000)
        self.assertTrue(
            any("29000 more lines" in text for text in self.logged("dangad.pool.output"))
        )


class DeathTests(RealServerCase):
    """A worker's death is told to the client of its job, and to nobody else."""

    async def check(self, what: str, text: str) -> None:
        """The deed costs the worker, its job is told how, and the next runs in another."""
        client = await self.connect()
        before = (await client.callRemote(Odd, what="nothing"))["pid"]
        waiting = [client.callRemote(Odd, what=deed) for deed in (what, *["nothing"] * 400)]
        error = await self.assertFailure(waiting[0], dangad.WorkerLost)
        self.assertIn(text, str(error))
        self.assertIn(f"worker {before} ", str(error))
        for answer in await gatherResults(waiting[1:]):
            self.assertNotEqual(answer["pid"], before)
        self.assertFalse(alive(before))
        await until(lambda: self.service.dispatcher.idle >= self.limits.min_workers)

    @async_test
    async def test_closes_descriptors_and_hangs(self) -> None:
        """A job that closes the pipe and goes on is killed."""
        await self.check("close all and hang", "closed its pipe and was killed")

    @async_test
    async def test_frozen_before_its_job(self) -> None:
        """A worker that was frozen when it was given a job is killed, and another runs the job."""
        self.patch(watch, "HEARTBEAT_PATIENCE", 0.3)
        client = await self.connect()
        pid = (await client.callRemote(Odd, what="nothing"))["pid"]
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: is_frozen(pid))
        self.assertNotEqual((await client.callRemote(Odd, what="nothing"))["pid"], pid)
        log = " ".join(self.logged("dangad.pool.link"))
        self.assertIn(f"worker {pid} did not read what it was sent", log)

    @async_test
    async def test_signals_of_a_terminal(self) -> None:
        """SIGINT, SIGTERM and SIGHUP to a busy worker do nothing to its job."""
        client = await self.connect()
        mark, go = f"{self.folder}/mark", f"{self.folder}/go"
        waiting = client.callRemote(Wait, path=go, mark=mark)
        await until(lambda: os.path.exists(mark))
        [pid] = self.pids()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        with open(go, "w"):
            pass
        self.assertEqual((await waiting)["pid"], pid)


class DisconnectTests(RealServerCase):
    """A client that disconnects takes its jobs along."""

    @async_test
    async def test_cancels(self) -> None:
        """Its waiting jobs never run, and the worker of its running job is killed."""
        client, other = await self.connect(), await self.connect()
        marks = [f"{self.folder}/mark{number}" for number in range(5)]
        never = f"{self.folder}/never"
        for mark in marks:
            client.callRemote(Wait, path=never, mark=mark).addErrback(lambda _: None)
        await until(lambda: os.path.exists(marks[0]) and os.path.exists(marks[1]))
        victims = self.pids()
        client.transport.abortConnection()
        await until(lambda: not any(map(alive, victims)))
        self.assertTrue((await other.callRemote(Odd, what="nothing"))["pid"])
        self.assertFalse([mark for mark in marks[2:] if os.path.exists(mark)])

    @async_test
    async def test_finishes_by_policy(self) -> None:
        """A job whose type says so is finished all the same."""
        client = await self.connect()
        mark, go = f"{self.folder}/mark", f"{self.folder}/go"
        client.callRemote(WaitAnyway, path=go, mark=mark).addErrback(lambda _: None)
        await until(lambda: os.path.exists(mark))
        client.transport.abortConnection()
        await until(lambda: not self.service.clients.connections)
        with open(go, "w"):
            pass
        await until(lambda: not self.service.dispatcher.running)
        self.assertEqual(
            self.service.dispatcher.counters.ended[dangad.scheduler.record.JobState.DONE], 1
        )


class ProcessTests(RealServerCase):
    """The parent's process_state reach the worker."""

    def start(self, settings: WorkerSettings) -> None:
        """Start with an extra variable and path."""
        environment = {**os.environ, "ODD_VARIABLE": "odd value"}
        super().start(
            WorkerSettings(self.jobs, path=("/odd/path", *settings.path), environment=environment)
        )

    @async_test
    async def test_facts(self) -> None:
        """Environment, working directory and path arrive; stdin is empty, the group its own."""
        client = await self.connect()
        facts = await client.callRemote(Facts)
        self.assertEqual(facts["cwd"], os.getcwd())
        self.assertEqual(facts["path"][0], "/odd/path")
        self.assertTrue({entry for entry in sys.path if entry} <= set(facts["path"]))
        self.assertEqual(facts["variable"], "odd value")
        self.assertEqual(facts["stdin"], "")
        self.assertTrue(facts["own_group"])
        self.assertEqual(facts["pythonpath"], os.environ.get("PYTHONPATH", "unset"))
        self.assertEqual([fd for fd in facts["descriptors"] if fd < 3], [0, 1, 2])


class DescriptorTests(RealServerCase):
    """A worker takes no more of the server's descriptors than are kept for it."""

    @async_test
    async def test_kept(self) -> None:
        """It never does, not even while it starts; and they are free again when it is gone."""
        await until(lambda: self.service.dispatcher.idle == 1)
        before = len(os.listdir("/proc/self/fd"))
        self.service.supervisor.scale(2, 2)
        starting = len(os.listdir("/proc/self/fd"))
        await until(lambda: self.service.dispatcher.idle == 2)
        ready = len(os.listdir("/proc/self/fd"))
        self.service.supervisor.scale(1, 1)
        await until(lambda: len(self.pids()) == 1)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertLessEqual(ready - before, capacity.WORKER_FILES)
        self.assertLessEqual(starting - before, capacity.WORKER_FILES + capacity.STARTING_FILES)


class StopTests(RealServerCase):
    """Stopping finishes what was accepted."""

    @async_test
    async def test_drains(self) -> None:
        """Running and waiting jobs are finished and answered before the server is gone."""
        client = await self.connect()
        mark, go = f"{self.folder}/mark", f"{self.folder}/go"
        jobs = [client.callRemote(Wait, path=go, mark=mark) for _ in range(6)]
        await until(lambda: os.path.exists(mark))
        stopping = self.service.stopService()
        error = await self.assertFailure(
            client.callRemote(Odd, what="nothing"), dangad.ShuttingDown
        )
        self.assertIn("stopping", str(error))
        with open(go, "w"):
            pass
        self.assertEqual(len(await gatherResults(jobs)), 6)
        await stopping
        self.assertFalse(self.pids())
        await until(lambda: client.transport is None)

    @async_test
    async def test_leftover_of_a_job(self) -> None:
        """A process that a job left running does not keep the server from stopping."""
        client = await self.connect()
        await client.callRemote(Odd, what="leave child")
        await self.service.stopService()
        self.assertFalse(self.pids())


class HungStopTests(RealServerCase):
    """A job that does not end cannot hold the server."""

    limits = Limits(min_workers=1, max_workers=1, drain=0.2)

    @async_test
    async def test_gives_up(self) -> None:
        """After the drain time running and waiting jobs are told SHUTTING_DOWN."""
        client = await self.connect()
        mark, never = f"{self.folder}/mark", f"{self.folder}/never"
        jobs = [client.callRemote(Wait, path=never, mark=mark) for _ in range(2)]
        await until(lambda: os.path.exists(mark))
        stopping = self.service.stopService()
        for _, failure in await DeferredList(jobs, consumeErrors=True):
            failure.trap(dangad.ShuttingDown)
            self.assertIn("0.2 s", str(failure.value))
        await stopping


class SizeTests(RealServerCase):
    """Payloads have a limit, and the client is told."""

    limits = Limits(min_workers=1, max_workers=1, max_payload=200_000)

    @async_test
    async def test_answer_over_the_limit(self) -> None:
        """An answer over --max-payload gets TOO_LARGE, and the worker lives on."""
        client = await self.connect()
        self.assertEqual(len((await client.callRemote(Long, size=190_000))["data"]), 190_000)
        pids = self.pids()
        error = await self.assertFailure(client.callRemote(Long, size=200_000), dangad.TooLarge)
        self.assertIn("200000", str(error))
        self.assertEqual(self.pids(), pids)
